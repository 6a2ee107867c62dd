"""A topic that is deleted and created again numbers its messages from 0: a new epoch. No I/O.

What is counted is kept by *position*, which never goes back: a message's offset, and where its
topic began. The first message of a new topic stands behind the last that was counted of the old
one. In a topic that nobody has deleted, positions are offsets.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Epoch:
    """``begin`` is the position of offset 0. ``topic_id`` is Kafka's; "" where it is not known."""

    topic_id: str = ""
    begin: int = 0


FIRST_EPOCH = Epoch()


def epoch_of(known: Epoch, topic_id: str, counted_to: int, end: int) -> Epoch:
    """The epoch of the topic that is there now, by its id and its ``end``: the offset that its next
    message gets. ``counted_to`` is the last position that was counted in the epoch ``known``.

    Where the id was not kept, the topic is taken for the one before unless it ends before what was
    counted of that.
    """
    if not topic_id or topic_id == known.topic_id:
        return known
    if not known.topic_id and known.begin + end > counted_to:
        return Epoch(topic_id, known.begin)
    return Epoch(topic_id, counted_to + 1)
