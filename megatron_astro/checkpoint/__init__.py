"""The same weights under other names: Hugging Face folders, Megatron checkpoints of both layouts, GGUF files.

Comes in: a checkpoint in one format. Goes out: the same model in another, with `parity.json`, the proof that both compute the same, and
`certificate.json`, the root of its weights, which is the same in every format and layout.
A checkpoint of any format is opened by a reader that checks every name and shape before a weight is read and gives rows of tensors under
their Hugging Face names; a writer says where they go; blocks of some MiB stream from one to the other, so that a bound on memory holds for
any model. Only the comparison of logits loads whole models.

Open `names.py` first (the table that says which tensor is which), then `convert.py` (the loop over it). `conversion_plan.py` is what
headers tell before anything is written, `memory_bound.py` how much memory it will take, `shards.py` the files a writer lays out,
`transfer.py` the copying into them (`rounding.py` on the way), `read_back.py` the proof of what was copied, `writing.py` all files of a
conversion and its certificate, `journal.py` the folder that a kill cannot spoil.
`reader.py` and `shards.py` say how a format plugs in; `pieces.py` is the byte plan between the two, `buffers.py` the memory that blocks
pass through, `checksums.py` joins CRC-32s. Files of
`torch.save` are looked into by `torch_contents.py` and laid out by `torch_archive.py`.
Each format read is one file: `huggingface.py` (on `safetensors_files.py` and `pytorch_files.py`), `distributed.py`, `legacy.py` (on
`legacy_contents.py`, `legacy_options.py` and the arithmetic of ranks in `rank_slices.py`), `gguf.py` with `gguf_tokenizer.py`; the three
formats that are written have a `*_writer.py` beside them. `layouts.py` has the arithmetic, `parity.py` the
proof by logits, `vocabulary.py` the rows of added tokens. `digest.py` is the format of the roots, `certify.py` computes them,
`differences.py` says where two checkpoints differ. `merging.py` makes one model of several (`merge_recipe.py` says how,
`merge_methods.py` and `merge_sparsity.py` compute, `merge_checks.py` refuses what does not fit). `training_state.py` is training's
own side: model, optimizer and progress, saved and loaded by all ranks together. `slices.py` says which part of which Hugging Face tensor
a rank holds; by it `sharded_model.py` loads a Hugging Face folder into the ranks and `export.py` writes one from them. `probe.py` is the
loss that proves such a start, `shared_certificate.py` a certificate that all ranks hash together.
"""
