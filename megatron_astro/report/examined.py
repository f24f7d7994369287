"""Which weights sat the exams, set against those of the run by their roots (`checkpoint/digest.py`): a score is theirs alone."""

from collections.abc import Mapping

from megatron_astro.exam_records import ExamRecord
from megatron_astro.report.contents import Examined

BEFORE_AND_AFTER = ("before", "after")


def examined_weights(
    sittings: Mapping[str, tuple[ExamRecord, ExamRecord]], own_roots: tuple[Mapping[str, str], Mapping[str, str]]
) -> tuple[Examined, ...]:
    """What sat the exams before and after, by method; `own_roots` are the run's roots before and after, each with whose it is."""
    found: dict[tuple[int, str | None], list[str]] = {}
    for method, records in sittings.items():
        for place, record in enumerate(records):
            found.setdefault((place, record.weights_root), []).append(method)
    return tuple(
        Examined(
            when=BEFORE_AND_AFTER[place],
            methods=tuple(methods),
            root=root,
            whose=own_roots[place].get(root or ""),
            has_others=bool(own_roots[place]) and root is not None and root not in own_roots[place],
        )
        for (place, root), methods in sorted(found.items(), key=lambda item: item[0][0])
    )


def examined_row(examined: Examined) -> tuple[str, str]:
    """A row of the table."""
    if examined.root is None:
        words = "their root was not recorded, so whose they are cannot be told"
    elif examined.has_others:
        words = f"{examined.root}, none of this run's"
    else:
        words = f"{examined.root}, {examined.whose or 'with no certified weights of this run to compare'}"
    return f"Weights examined {examined.when} ({_methods(examined)})", words


def other_weights(examined: Examined) -> list[str]:
    """A sentence where an exam is not the run's own, so far as roots tell."""
    if not examined.has_others:
        return []
    own = {"before": "those the run began from", "after": "those of its hf folder or of a checkpoint that is kept and certified"}
    return [
        f"The exam by {_methods(examined)} {examined.when} training was sat by other weights than this run's: their root {examined.root} "
        f"is not that of {own[examined.when]}. Its scores are not shown to be this run's."
    ]


def _methods(examined: Examined) -> str:
    return " and ".join(method.replace("_", " ") for method in examined.methods)
