"""Who has an accelerator at each moment, kept up to date as batches begin and end.

Where ``k`` batches run together each has ``1/k`` of the time, as in :mod:`metering.overlap`; here
nobody waits for the intervals to be whole. The device keeps the integral of ``1/k``; a batch's
share is what the integral grew by while it ran. So a share is final at the batch's end.

Exact without fractions: the integral counts units of ``1 / UNITS`` ns, and every ``k`` up to
``SLOTS`` divides ``UNITS``. Of the exact sum of all shares the whole nanoseconds are given out, as
batches end; the rest is carried. So shares are integers from 0 to the batch's wall time, each
within 1 ns of its exact value, and whenever nothing runs ``given_ns + lost_ns == busy_ns``.

Time is passed in, and never runs backwards: an earlier ``now_ns`` counts as the last one.
"""

from __future__ import annotations

from math import lcm
from typing import NamedTuple

from metering.errors import MeteringError

SLOTS = 64
"""How many instances one device can have."""
UNITS = lcm(*range(1, SLOTS + 1))
"""Per nanosecond; 91 bits."""


class Load(NamedTuple):
    """A device since ``created_ns``, as of ``at_ns``.

    ``integral`` is that of ``1/running`` since the device was last idle, and ``carry`` what was
    not given out of shares that have ended, below one nanosecond; both in units. ``executions``
    and ``batch_ns`` (the sum of wall times) are of all batches that have ended, shared or not.
    """

    created_ns: int
    at_ns: int
    running: int = 0
    integral: int = 0
    carry: int = 0
    busy_ns: int = 0
    given_ns: int = 0
    lost_ns: int = 0
    executions: int = 0
    batch_ns: int = 0


class Slot(NamedTuple):
    """One instance on the device, since ``opened_ns``; ``None``: nobody's.

    ``busy_ns`` sums its shares. ``unshared`` of its ``executions`` have no share. ``posted_ns`` is
    when its last batch began by its own stamp, which ``began_ns`` may be later than: the time
    before had been divided already. ``alone`` of its executions, in ``alone_ns``, it has told of
    as sums: nothing ran beside them.
    """

    opened_ns: int | None = None
    began_ns: int | None = None
    began_integral: int = 0
    busy_ns: int = 0
    batch_ns: int = 0
    executions: int = 0
    unshared: int = 0
    posted_ns: int = 0
    alone: int = 0
    alone_ns: int = 0


FREE = Slot()


def advance(load: Load, now_ns: int) -> Load:
    """Divide the time up to ``now_ns`` among those who run."""
    at_ns, integral, busy_ns = _moved(load, now_ns)
    return load._replace(at_ns=at_ns, integral=integral, busy_ns=busy_ns)


def begin(load: Load, slot: Slot, now_ns: int) -> tuple[Load, Slot]:
    """A batch begins in an open slot.

    Raises:
        MeteringError: one runs there, or it is nobody's, or ``SLOTS`` run on the device.
    """
    created_ns, _, running, _, carry, _, given_ns, lost_ns, executions, batch_ns = load
    opened_ns, began_ns, _, *rest = slot
    if opened_ns is None or began_ns is not None or running >= SLOTS:
        raise MeteringError(f"no batch can begin in {slot}: {running} of {SLOTS} run")
    at_ns, integral, busy_ns = _moved(load, now_ns)
    return Load(
        created_ns,
        at_ns,
        running + 1,
        integral,
        carry,
        busy_ns,
        given_ns,
        lost_ns,
        executions,
        batch_ns,
    ), Slot(opened_ns, at_ns, integral, *rest)


def end(load: Load, slot: Slot, now_ns: int, batches: int = 1) -> tuple[Load, Slot, int]:
    """The batch ends; its share in ns. It may stand for several that came one after the other.

    Raises:
        MeteringError: none runs in the slot.
    """
    return _leave(load, slot, now_ns, batches)


def add_alone(load: Load, slot: Slot, batches: int, batch_ns: int) -> tuple[Load, Slot]:
    """Batches that are over, beside which nothing ran, had all of their time."""
    return load._replace(
        busy_ns=load.busy_ns + batch_ns,
        given_ns=load.given_ns + batch_ns,
        executions=load.executions + batches,
        batch_ns=load.batch_ns + batch_ns,
    ), slot._replace(
        busy_ns=slot.busy_ns + batch_ns,
        batch_ns=slot.batch_ns + batch_ns,
        executions=slot.executions + batches,
    )


def abandon(load: Load, slot: Slot, now_ns: int) -> tuple[Load, Slot]:
    """Nobody will ask for the running batch's share: what it had up to now is ``lost_ns``.

    Raises:
        MeteringError: none runs in the slot.
    """
    load, slot, _ = _leave(load, slot, now_ns, 0)
    return load, slot


def unshared(load: Load, slot: Slot, executions: int, batch_ns: int) -> tuple[Load, Slot]:
    """Count batches that ended without a share."""
    return load._replace(
        executions=load.executions + executions, batch_ns=load.batch_ns + batch_ns
    ), slot._replace(
        executions=slot.executions + executions,
        batch_ns=slot.batch_ns + batch_ns,
        unshared=slot.unshared + executions,
    )


def _moved(load: Load, now_ns: int) -> tuple[int, int, int]:
    """``at_ns``, ``integral`` and ``busy_ns`` as of now."""
    _, at_ns, running, integral, _, busy_ns, *_ = load
    passed_ns = now_ns - at_ns
    if passed_ns <= 0:
        return at_ns, integral, busy_ns
    if running:
        return now_ns, integral + passed_ns * (UNITS // running), busy_ns + passed_ns
    return now_ns, integral, busy_ns


def _leave(load: Load, slot: Slot, now_ns: int, batches: int) -> tuple[Load, Slot, int]:
    """Both without the batch, and its share. One that counts as none is lost."""
    created_ns, _, running, _, carry, _, given_ns, lost_ns, executions, sum_ns = load
    opened_ns, began_ns, began_integral, slot_busy_ns, slot_sum_ns, slot_executions, *rest = slot
    if began_ns is None:
        raise MeteringError(f"no batch can end in {slot}: none runs there")
    at_ns, integral, busy_ns = _moved(load, now_ns)
    share_ns, carry = divmod(carry + integral - began_integral, UNITS)
    running -= 1
    if not running:  # Whole batches sum to whole nanoseconds: nothing is carried.
        integral = 0
    if batches:
        wall_ns = at_ns - began_ns
        given_ns, executions, sum_ns = given_ns + share_ns, executions + batches, sum_ns + wall_ns
        slot_busy_ns, slot_sum_ns = slot_busy_ns + share_ns, slot_sum_ns + wall_ns
        slot_executions += batches
    else:
        lost_ns += share_ns
    return (
        Load(
            created_ns,
            at_ns,
            running,
            integral,
            carry,
            busy_ns,
            given_ns,
            lost_ns,
            executions,
            sum_ns,
        ),
        Slot(opened_ns, None, 0, slot_busy_ns, slot_sum_ns, slot_executions, *rest),
        share_ns,
    )
