"""Certify which weights a checkpoint holds, and say whether another one holds the same."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from command import run_command

EXIT_DIFFERENT = 1


@dataclass(frozen=True, kw_only=True)
class Options:
    """Print the root of a checkpoint's weights: the same number wherever the same weights are, in any format and layout."""

    path: Annotated[Path, tyro.conf.Positional]
    """Checkpoint: a Hugging Face folder, a Megatron checkpoint folder (converted or saved in training) or a GGUF file."""
    against: Path | None = None
    """Checkpoint or certificate.json to compare with, else the one in PATH; exit status 1 and what differs if it is another model."""
    output: Path | None = None
    """JSON file to write the certificate to; none: only the closing line."""
    max_ram: str = "4GiB"
    """Memory this process may take, Python and PyTorch (about 0.3 GB) included, whatever the model's size."""


def certify_checkpoint(options: Options) -> str:
    """Digest, write if asked, compare if asked."""
    from megatron_astro.checkpoint.certify import certificate_beside, certify, read_certificate
    from megatron_astro.checkpoint.conversion_plan import open_checkpoint
    from megatron_astro.checkpoint.differences import find_differences, measure_differences
    from megatron_astro.checkpoint.memory_bound import memory_need, parse_size, require_within
    from megatron_astro.files import require_writable_file
    from megatron_astro.records import write_record

    max_ram = parse_size(options.max_ram, "max-ram")
    if options.output:
        require_writable_file(options.output)
    against = options.against or certificate_beside(options.path)
    known = read_certificate(against) if against and against.suffix == ".json" else None
    other = open_checkpoint(against) if against and not known else None
    reader = open_checkpoint(options.path)
    require_within(memory_need(reader), max_ram)
    certificate = certify(reader)
    if options.output:
        write_record(options.output, certificate)
    closing_line = f"{certificate.root}  {options.path}"
    theirs = known or (certify(other) if other else None)
    if not theirs or not (found := find_differences(certificate, theirs)):
        return f"{closing_line}\nthe same model as {against}" if theirs else closing_line
    print(f"{closing_line}\n{theirs.root}  {against}")
    for difference in measure_differences(found, reader, other) if other else found:
        print(f"differs: {difference}")
    sys.exit(EXIT_DIFFERENT)


if __name__ == "__main__":
    run_command(Options, certify_checkpoint)
