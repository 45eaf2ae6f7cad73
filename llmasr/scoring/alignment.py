"""Align one hypothesis with its reference, and keep what was found about one utterance.

Substitution, deletion and insertion cost 1 each (Levenshtein), so that the sum is the least number
of errors. Where several alignments have it, S, D and I could be shared out differently; the one
taken is always the same: equal units at both ends are paired; between them, going from the end to
the start, a deletion stands where one can, then a substitution, then an insertion, then a pair of
equal units. That is the order of rapidfuzz, hence of jiwer too. Only beyond some 2,000 units a
side, where rapidfuzz divides the problem to bound its memory, may ties fall in another, still
constant, way.

Units are compared whole; nothing here knows about words, scripts or normalisation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from rapidfuzz.distance import Levenshtein

Status = Literal["scored", "missing", "empty_hypothesis", "duplicate", "extra", "empty_reference"]


class Counts(NamedTuple):
    """Errors by kind."""

    substitutions: int
    deletions: int
    insertions: int


@dataclass(frozen=True, slots=True)
class Step:
    """One place of an alignment.

    Attributes:
        kind: what happened to the unit.
        reference: the unit said; None for an insertion.
        hypothesis: the unit recognised; None for a deletion.
    """

    kind: Literal["equal", "substitute", "delete", "insert"]
    reference: str | None
    hypothesis: str | None


@dataclass(frozen=True, slots=True)
class ScoredUtterance:
    """What one line of the references or of the hypotheses did to the score.

    Attributes:
        id: of the utterance.
        status: "scored", or what is odd. Of a reference: "missing" (there is no hypothesis),
            "empty_reference" (it normalises to nothing; the hypothesis may, too),
            "empty_hypothesis" (only that does). Of a hypothesis that answers no reference:
            "duplicate" (the id had a hypothesis before), "extra" (no reference has the id).
        reference: units after normalisation; none for "duplicate" and "extra".
        hypothesis: units after normalisation.
        substitutions: units taken for another.
        deletions: units that are not in the hypothesis.
        insertions: units that are only in the hypothesis.
        group: speaker or session, if known.
    """

    id: str
    status: Status
    reference: tuple[str, ...]
    hypothesis: tuple[str, ...]
    substitutions: int
    deletions: int
    insertions: int
    group: str | None

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    def steps(self) -> list[Step]:
        """Return the alignment, unit by unit."""
        return align(self.reference, self.hypothesis)


def count_errors(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """Count the errors of the alignment that `align` returns."""
    if reference == hypothesis:
        return Counts(0, 0, 0)
    if not hypothesis:
        return Counts(0, len(reference), 0)
    kinds = [edit.tag for edit in Levenshtein.editops(reference, hypothesis)]
    return Counts(kinds.count("replace"), kinds.count("delete"), kinds.count("insert"))


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Step]:
    """Pair the units of both sides with the least number of errors, the same way every time."""
    steps = []
    for block in Levenshtein.opcodes(reference, hypothesis):
        said = reference[block.src_start : block.src_end]
        heard = hypothesis[block.dest_start : block.dest_end]
        if block.tag == "equal":
            steps += [Step("equal", a, b) for a, b in zip(said, heard, strict=True)]
        elif block.tag == "replace":
            steps += [Step("substitute", a, b) for a, b in zip(said, heard, strict=True)]
        elif block.tag == "delete":
            steps += [Step("delete", unit, None) for unit in said]
        else:
            steps += [Step("insert", None, unit) for unit in heard]
    return steps


def error_places(reference: Sequence[str], hypothesis: Sequence[str]) -> list[int]:
    """Return where the errors of `align` stand, in order, without the steps between them.

    Returns:
        For every error 2 i + 1 if it is at unit i of the reference, 2 i if it is inserted before.
    """
    edits = Levenshtein.editops(reference, hypothesis)
    return [2 * edit.src_pos + (edit.tag != "insert") for edit in edits]
