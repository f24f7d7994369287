"""Which of several duplicates stays, and why each of the others goes.

Of a cluster stays the newest version of the paper whose text is longest; of two documents of which one stands in the other, the longer.
Held-out documents come before training documents, so that no copy of them is trained on, and those before general text. All that depends
on what the documents are, not on their order nor on who compared them.
"""

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from megatron_astro.corpus.containment import Containment
from megatron_astro.corpus.fingerprints import EXACT_COLUMN, PAPER_COLUMN
from megatron_astro.corpus.near_duplicates import FingerprintFiles, clusters


@dataclass(frozen=True, kw_only=True)
class Drop:
    """A document that goes, and why: the document that stays in its place, or the exam's source paper that it is or repeats."""

    document: int
    because_of: int
    rule: str
    similarity: float


class SurvivorChoice:
    """Collects the documents that go, cluster by cluster and then containment by containment."""

    def __init__(self, files: FingerprintFiles, names: Mapping[int, str], rules: Set[str]) -> None:
        self.files = files
        self.rules = rules
        self.names = names
        self.papers, self.words = files.column(PAPER_COLUMN), files.column(EXACT_COLUMN)
        self.drops: dict[int, Drop] = {}

    def drop_clusters(self, edges: NDArray[np.void]) -> None:
        """Drop all but one of each cluster, and every cluster with a paper that an exam was made from."""
        exam_papers = {int(document) for document in np.flatnonzero(self.files.facts["exam_paper"])}
        for document in exam_papers:
            self._drop(document, document, "source_paper")
        for members in clusters(edges):
            if sources := [member for member in members if member in exam_papers]:
                for document in members:
                    if document not in exam_papers:
                        self._drop(document, sources[0], "source_paper")
                continue
            survivor = self._survivor(members)
            for document in members:
                if document != survivor:
                    self._drop(document, survivor, self._rule(document, survivor))

    def drop_contained(self, containments: Sequence[Containment]) -> None:
        """Drop what stands in another document; where one of the two is an exam's source paper, the other goes as well."""
        pairs: list[tuple[int, int, float]] = []
        for pair in containments:
            winner, loser = sorted((pair.small, pair.large), key=self._rank)
            pairs.append((winner, loser, pair.share))
        pairs.sort(key=lambda pair: (self._rank(pair[1]), -pair[2], self._rank(pair[0])))
        for winner, loser, share in pairs:
            if self._is_exam_paper(winner) != self._is_exam_paper(loser):
                source, other = (winner, loser) if self._is_exam_paper(winner) else (loser, winner)
                self.drops[other] = Drop(document=other, because_of=source, rule="source_paper", similarity=share)
                continue
            cause = self._what_stays_for(winner)
            if loser not in self.drops and cause not in self.drops and cause != loser:
                self.drops[loser] = Drop(document=loser, because_of=cause, rule="contained", similarity=share)

    def _what_stays_for(self, document: int) -> int:
        """The document that stays in another's place, however many went on the way; an exam's source paper is its own end."""
        while (drop := self.drops.get(document)) and drop.because_of != document:
            document = drop.because_of
        return document

    def sorted_drops(self) -> list[Drop]:
        """What goes, in the order of the documents."""
        return [self.drops[document] for document in sorted(self.drops)]

    def _is_exam_paper(self, document: int) -> bool:
        return document in self.drops and self.drops[document].rule == "source_paper"

    def _drop(self, document: int, because_of: int, rule: str) -> None:
        similarity = self.files.similarity(document, because_of)
        self.drops[document] = Drop(document=document, because_of=because_of, rule=rule, similarity=similarity)

    def _rule(self, document: int, survivor: int) -> str:
        if self.words[document] == self.words[survivor] and "exact" in self.rules:
            return "exact"
        same_paper = self.papers[document] == self.papers[survivor]
        return "same_paper" if same_paper or "near" not in self.rules else "near"

    def _rank(self, document: int) -> tuple[int, int, str, int]:
        """Best first: held-out before training before general, then longest; ids and contents settle ties."""
        facts = self.files.facts[document]
        return int(facts["priority"]), -int(facts["num_characters"]), self.names[document], int(facts["content"])

    def _survivor(self, members: Sequence[int]) -> int:
        longest = min(members, key=self._rank)
        priority = self.files.facts["priority"]
        versions = [
            member for member in members if self.papers[member] == self.papers[longest] and priority[member] == priority[longest]
        ]
        return min(versions, key=lambda member: (-int(self.files.facts["version"][member]), *self._rank(member)))
