"""Messages of the window topic to rows that can be judged, or to what is wrong with them."""

from __future__ import annotations

from decimal import Decimal

from metering.cloudevents import COST_WINDOW_TYPE
from metering.costs import WindowRow
from metering.errors import UnreadableUsage
from metering.messages import Message
from metering.names import MAX_LENGTH
from metering.reading import FUTURE_NS, read_event
from metering.window_sums import MOST_USD

BELOW_USD = Decimal(MOST_USD)
"""A window costs less. What follows from it, per hour and over all cohorts, can then be stored."""
_COSTS = ("cost_usd", "input_cost_usd", "output_cost_usd")
_NAMES = ("tenant", "model", "region")


def window_row_of(message: Message) -> WindowRow:
    """The row in a message. Whether it lies in the future is judged by the message's stamp.

    Raises:
        UnreadableUsage: with the reason ``wrong-type``, ``malformed``, ``invalid`` or
            ``from-the-future``.
    """
    row = read_event(message, COST_WINDOW_TYPE, WindowRow)
    length_ms = row.window_seconds * 1000
    if row.window_start_ms < 0 or row.window_start_ms % length_ms:
        raise UnreadableUsage(
            "invalid",
            f"window_start_ms={row.window_start_ms} is no multiple of {row.window_seconds} s",
        )
    end_ms = row.window_start_ms + length_ms
    if end_ms * 10**6 > message.appended_ns + FUTURE_NS:
        raise UnreadableUsage(
            "from-the-future",
            f"the window ends at {end_ms} ms, more than {FUTURE_NS // 10**9} s after "
            f"{message.appended_ns // 10**6} ms, when its row was written",
        )
    for name in _NAMES:  # An anomaly has each several times, and must fit into its topic.
        if len(text := getattr(row, name)) > MAX_LENGTH:
            raise UnreadableUsage(
                "invalid", f"{name} has {len(text)} characters: want {MAX_LENGTH} at most"
            )
    for name in _COSTS:
        cost = getattr(row, name)
        if cost is not None and not 0 <= cost < BELOW_USD:
            raise UnreadableUsage("invalid", f"{name}={cost}: want 0 to below {BELOW_USD:f} USD")
    return row
