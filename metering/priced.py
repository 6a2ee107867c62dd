"""The sums of priced requests, for rows and sums that an earlier version made without them.

Requests without a price are counted apart, so the count of priced ones is always known. Their
tokens are known where all requests are priced, or none; else they are ``UNKNOWN``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from metering.columns import Whole

PRICED = ("priced_requests", "priced_input_tokens", "priced_output_tokens")
"""The last fields of a tally."""
UNKNOWN = -(2**20) * 10**18
"""In place of a sum. What is added to it later leaves it below 0, for no known sum is as large."""


def priced_columns(columns: Mapping[str, Whole]) -> dict[str, Whole]:
    """The columns of ``PRICED``, of those of a tally without them."""
    import numpy as np  # noqa: PLC0415  # commands read rows, and need none of it

    requests, unpriced = (columns[n].astype(object) for n in ("requests", "unpriced_requests"))

    def tokens(name: str) -> Whole:
        partly = np.where(unpriced == requests, 0, np.array(UNKNOWN, object))
        return np.where(unpriced == 0, columns[name].astype(object), partly)

    sums = (requests - unpriced, tokens("input_tokens"), tokens("output_tokens"))
    return dict(zip(PRICED, sums, strict=True))


def completed(columns: Sequence[Whole], names: Sequence[str]) -> list[Whole]:
    """All columns of a tally whose fields are ``names``, of the first of them. What is missing
    beside those of ``PRICED`` is 0."""
    import numpy as np  # noqa: PLC0415

    found = dict(zip(names, columns, strict=False))
    rows = len(columns[0])
    for name in names:
        found.setdefault(name, np.zeros(rows, np.int64))
    if len(columns) < len(names):
        found |= priced_columns(found)
    return [found[name] for name in names]


def priced_of_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``PRICED`` of one row; ``None`` is what is not known."""
    requests, unpriced = row["requests"], row["unpriced_requests"]

    def tokens(name: str) -> Any:
        if unpriced == 0:
            return row[name]
        return 0 if unpriced == requests else None

    sums = (requests - unpriced, tokens("input_tokens"), tokens("output_tokens"))
    return dict(zip(PRICED, sums, strict=True))
