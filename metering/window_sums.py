"""The sums of one window, a row for each cohort, in two words each: exact, and within the range of
what stores them.

A sum that would leave that range is not added: whoever adds is told, and says so to people. So no
sum ever wraps round, and none is cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from metering.additions import TALLY
from metering.columns import Whole
from metering.money import ATTO_PER_USD
from metering.windows import Cohort

BASE = 10**18
"""A sum is ``words[..., 1] * BASE + words[..., 0]``, the low one from 0 to before ``BASE``: of
attodollars, dollars and the rest."""
MOST_COUNT = 2**64 - 1
"""A UInt64 of ClickHouse holds no more."""
MOST_USD = 9 * 10**12
"""Costs stay below it, so that a million times as much, a quotient, is below 2^63 dollars; a
Decimal(38, 18) of ClickHouse holds ten times that."""
CHUNK = 64
"""Rows are saved so many at a time: those that have changed, with their neighbours."""

_DIGIT = 10**9
"""Its square is ``BASE``."""

Words = NDArray[np.int64]
"""(rows, fields, 2)"""


_MOST = np.array(
    [
        divmod(MOST_USD * ATTO_PER_USD - 1 if name.endswith("_atto") else MOST_COUNT, BASE)[::-1]
        for name in TALLY
    ],
    np.int64,
)
"""(fields, 2)"""


def words_of(columns: Sequence[Whole]) -> Words:
    """Columns of sums as rows of words."""
    words = np.empty((len(columns[0]), len(columns), 2), np.int64)
    for n, column in enumerate(columns):
        words[:, n, 1] = column // BASE
        words[:, n, 0] = column % BASE
    return words


def whole_of(words: NDArray[np.int64]) -> Whole:
    """Sums, of words in the last axis."""
    high, low = words[..., 1], words[..., 0]
    if not high.size or (int(high.max()) < 2**63 // BASE and int(high.min()) >= 0):
        return high * BASE + low
    return high.astype(object) * BASE + low


def _once_each(at: NDArray[np.intp], words: Words) -> tuple[NDArray[np.intp], Words]:
    found, places = np.unique(at, return_inverse=True)
    digits = np.zeros((len(found), words.shape[1], 3), np.int64)
    upper, lower = np.divmod(words[..., 0], _DIGIT)  # many of which fit into 64 bits
    np.add.at(digits, places, np.stack([lower, upper, words[..., 1]], axis=-1))
    digits[..., 1] += digits[..., 0] // _DIGIT
    high, upper = digits[..., 2] + digits[..., 1] // _DIGIT, digits[..., 1] % _DIGIT
    return found, np.stack([upper * _DIGIT + digits[..., 0] % _DIGIT, high], axis=-1)


def _over(words: Words) -> NDArray[np.bool_]:
    """Which sums are larger than what can be stored."""
    high, most_high = words[..., 1], _MOST[:, 1]
    over: NDArray[np.bool_] = (high > most_high) | (
        (high == most_high) & (words[..., 0] > _MOST[:, 0])
    )
    return over


def capped(words: Words) -> Words:
    """The largest that can be stored in place of what is larger."""
    return np.where(_over(words)[..., None], _MOST, words)


class WindowSums:
    """``final`` says that its end has been told. What has changed since it was last told
    (``has_news``) and since it was last saved is known to it."""

    __slots__ = ("_index", "_unsaved", "_untold", "_words", "cohorts", "final")

    def __init__(self, cohorts: Sequence[Cohort] = (), words: Words | None = None) -> None:
        self.cohorts: list[Cohort] = list(cohorts)
        self.final = False
        self._index = {cohort: n for n, cohort in enumerate(self.cohorts)}
        if words is None:
            words = np.zeros((len(self.cohorts), len(TALLY), 2), np.int64)
        self._words = words
        self._untold = np.ones(len(words), np.bool_)
        self._unsaved = np.zeros(-(-len(words) // CHUNK), np.bool_)

    def add(self, cohorts: Sequence[Cohort], words: Words) -> NDArray[np.bool_]:
        """``words[n]`` to the sums of ``cohorts[n]``; one may be there several times.

        Returns which of the rows were not added, because a sum of theirs would be larger than can
        be stored: then none of the cohort's rows is.
        """
        index = self._index
        places = [index.setdefault(cohort, len(index)) for cohort in cohorts]
        if len(index) > len(self.cohorts):
            self.cohorts = list(index)
            self._grow(len(index))
        at = np.array(places, np.intp)
        if len(set(places)) < len(places):
            at, words = _once_each(at, words)
        sums = self._words[at] + words
        carry = sums[..., 0] // BASE
        sums[..., 0] -= carry * BASE
        sums[..., 1] += carry
        self._unsaved[at // CHUNK] = True  # All of them: a chunk that is missing is an error.
        over = _over(sums).any(axis=1)
        if over.any():
            refused = np.isin(np.array(places, np.intp), at[over])
            at, sums = at[~over], sums[~over]
        else:
            refused = np.zeros(len(places), np.bool_)
        self._words[at] = sums
        self._untold[at] = True
        return refused

    def _grow(self, count: int) -> None:
        if count <= len(self._words):
            return
        room = max(CHUNK, count, len(self._words) * 3 // 2)
        for name, shape in (
            ("_words", (room, len(TALLY), 2)),
            ("_untold", (room,)),
            ("_unsaved", (-(-room // CHUNK),)),
        ):
            old = getattr(self, name)
            new = np.zeros(shape, old.dtype)
            new[: len(old)] = old
            setattr(self, name, new)

    @property
    def has_news(self) -> bool:
        return bool(self._untold.any())

    def close(self) -> None:
        """It is final from now on; everything is to be told again as such."""
        self.final = True
        self._untold[: len(self.cohorts)] = True
        self._unsaved[: -(-len(self.cohorts) // CHUNK)] = True

    def was_told(self) -> None:
        """It is final, and that was told."""
        self.final = True
        self._untold[:] = False

    def tell(self) -> tuple[list[Cohort], Words]:
        """Cohorts that have changed since this was last asked, in order, and their sums. One to
        which nothing could be added is none."""
        changed = np.flatnonzero(self._untold)
        self._untold[:] = False
        changed = changed[self._words[changed].any(axis=(1, 2))]
        told = sorted((self.cohorts[n], n) for n in changed.tolist())
        rows = np.array([n for _, n in told], np.intp)
        return [cohort for cohort, _ in told], self._words[rows]

    def sums(self, rows: Sequence[int]) -> list[list[int]]:
        """In the order of ``TALLY``: for tests."""
        sums: list[list[int]] = whole_of(self._words[np.array(rows, np.intp)]).tolist()
        return sums

    def unsaved(self) -> Iterator[tuple[int, list[Cohort], Words]]:
        """Chunks that have changed since this was last asked: number, cohorts, words."""
        changed = np.flatnonzero(self._unsaved).tolist()
        self._unsaved[:] = False
        for chunk in changed:
            first = chunk * CHUNK
            end = min(first + CHUNK, len(self.cohorts))
            yield chunk, self.cohorts[first:end], self._words[first:end]

    @property
    def chunks(self) -> int:
        return -(-len(self.cohorts) // CHUNK)
