"""Documents in, training batches out: tokenizer, Megatron `.bin/.idx` datasets, samples in a fixed order, a resumable loader.

    documents --tokenizer, tokenize--> PREFIX.bin, .idx, .json --samples--> stream of samples --loader--> micro-batches of a rank

Open `samples` first for the order of training, `indexed` for the file format. The index arithmetic is compiled (csrc/data).
"""
