"""Which sequence numbers of one source were seen, in any order, in little space."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass, field


@dataclass(slots=True)
class SequenceSet:
    """Disjoint, ascending, never touching intervals ``[first, last]``; one if none is missing."""

    intervals: list[tuple[int, int]] = field(default_factory=list)
    count: int = field(init=False)
    """How many were seen."""

    def __post_init__(self) -> None:
        self.count = sum(last - first + 1 for first, last in self.intervals)

    def add(self, sequence: int) -> bool:
        """Note a sequence number; ``False`` says that it was there before."""
        runs = self.intervals
        at = bisect_right(runs, (sequence, sequence))
        # The run that begins at or before `sequence` stands at `at - 1`; one that begins at
        # exactly `sequence` but ends later sorts after it, so look at both neighbours.
        if at < len(runs) and runs[at][0] == sequence:
            return False
        if at > 0 and runs[at - 1][1] >= sequence:
            return False
        self.count += 1
        joins_left = at > 0 and runs[at - 1][1] == sequence - 1
        joins_right = at < len(runs) and runs[at][0] == sequence + 1
        if joins_left and joins_right:
            runs[at - 1 : at + 1] = [(runs[at - 1][0], runs[at][1])]
        elif joins_left:
            runs[at - 1] = (runs[at - 1][0], sequence)
        elif joins_right:
            runs[at] = (sequence, runs[at][1])
        else:
            runs.insert(at, (sequence, sequence))
        return True

    @property
    def missing(self) -> int:
        """How many are absent between 0 and the largest that was seen."""
        return self.intervals[-1][1] + 1 - self.count if self.intervals else 0
