import warnings

with warnings.catch_warnings():  # what torch and megatron-core say about themselves when first imported is not ours to mend
    warnings.simplefilter("ignore")
    import megatron.core.datasets.gpt_dataset  # noqa: F401
