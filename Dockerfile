# syntax=docker/dockerfile:1
# NVIDIA's PyTorch image brings CUDA, NCCL, PyTorch, TransformerEngine and apex; this adds megatron_astro and what it lacks.
#   docker build --build-arg PYTORCH_IMAGE=nvcr.io/nvidia/pytorch:26.06-py3 -t megatron_astro .
#   docker run --gpus all --ipc host megatron_astro torchrun --nproc-per-node 8 tools/train.py --help
ARG PYTORCH_IMAGE=nvcr.io/nvidia/pytorch:26.06-py3

FROM ${PYTORCH_IMAGE} AS build
WORKDIR /src
COPY pyproject.toml setup.py README.md LICENSE ./
COPY csrc csrc
COPY megatron_astro megatron_astro
# --no-deps: the image's own torch stays; --no-build-isolation: the extensions are compiled beside it.
RUN python -m pip install --no-cache-dir "setuptools>=77" "pybind11>=3.0" \
    && python -m pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir /wheels .

FROM ${PYTORCH_IMAGE} AS runtime
LABEL org.opencontainers.image.title="megatron_astro" \
      org.opencontainers.image.licenses="Apache-2.0"
WORKDIR /workspace/megatron_astro
COPY requirements.lock ./
COPY --from=build /wheels /wheels
# What the image lacks, at the versions of the lock and without their needs: a plain install would let pip replace the image's torch.
RUN grep -E "^(megatron-core|tyro|docstring_parser|typeguard|msgspec|transformers|tokenizers|huggingface_hub|hf-xet|safetensors|gguf|sentencepiece|rich|matplotlib|psutil|datatrove|dill|humanize|loguru|multiprocess|rensa|py3langid|pyarrow|PyYAML|zlib-ng)==" \
        requirements.lock > container.lock \
    && python -m pip install --no-cache-dir --no-deps --requirement container.lock \
    && python -m pip install --no-cache-dir --no-deps --no-index /wheels/*.whl \
    && rm -rf /wheels
COPY tools tools
COPY examples examples
RUN useradd --create-home --uid 10001 astronomer && chown -R astronomer /workspace/megatron_astro
USER 10001
CMD ["python", "tools/train.py", "--help"]
