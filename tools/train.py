"""Continue the pretraining of a LLaMA: `torchrun --nproc-per-node 2 tools/train.py --preset examples/tiny_cpu/train.toml`."""

from command import run_command

from megatron_astro.config.run import RunConfig


def main(config: RunConfig) -> str:
    """Train on the ranks that torchrun started, or alone."""
    from megatron_astro.training.loop import train  # heavy imports only after --help

    return train(config)


if __name__ == "__main__":
    run_command(RunConfig, main)
