"""The layout of a board's file.

========  ==========================================================================
offset    content
========  ==========================================================================
0         magic, version, and (boot of the machine, device), written once
1024      per slot 8 bytes: when its batch ended, if the end could not be told; else 0
1536      per slot 8 bytes: when its last batch began, as the instance itself has put it there
2048      how often a slot was opened
2056      per slot 32 bytes: of batches that were alone on the device, how many, their time in sum,
          when the last was over, and once more how many
4608      the state, twice, 7 KiB each: CRC-32, slots in use, sequence, device, slots
18944     per slot 1 KiB: source, model, accelerator
========  ==========================================================================

All integers are little-endian. Texts are JSON behind their CRC-32 and length.
"""

from __future__ import annotations

import json
import struct
import zlib
from typing import Self

from metering.errors import MeteringError
from metering.occupancy import FREE, SLOTS, Load, Slot

HEADER_BYTES = 1024
ENDED_AT = 1024
BEGAN_AT = 1536
OPENED_AT = 2048
ALONE_AT = 2056
STATE_AT = 4608
COPY_BYTES = 7168
TEXTS_AT = STATE_AT + 2 * COPY_BYTES
TEXT_BYTES = 1024
FILE_BYTES = TEXTS_AT + SLOTS * TEXT_BYTES

PREFIX = struct.Struct("<8sI")
STAMP = struct.Struct("<q")
ALONE = struct.Struct("<4q")
MAGIC = (b"meteroc1", 4)
_TEXT = struct.Struct("<II")
_HEAD = struct.Struct("<IIQIi3q24s16s4q")
_SLOT = struct.Struct("<2q24s7q")
_HEAD_BYTES = _HEAD.size
_SLOT_BYTES = _SLOT.size
_POSTED = _HEAD_BYTES + _SLOT_BYTES - 3 * STAMP.size
_FIRST = struct.Struct("<IIQ")
_CRC = struct.Struct("<I")
_ONE = STATE_AT - ENDED_AT
_TWO = _ONE + COPY_BYTES
_NONE = bytes(STAMP.size * SLOTS)
_BEGAN = BEGAN_AT - ENDED_AT
_ALONE = ALONE_AT - ENDED_AT
_whole = int.from_bytes


class DamagedBoard(MeteringError):
    """The file is no board, or neither copy of its state is sound."""


def sealed(*values: str) -> bytes:
    """Texts with their checksum, in a field of 1 KiB.

    Raises:
        MeteringError: they don't fit into it.
    """
    text = json.dumps(values, ensure_ascii=False).encode()
    if len(text) > TEXT_BYTES - PREFIX.size - _TEXT.size:
        raise MeteringError(f"{values} take up {len(text)} bytes; a board has 1000 for them")
    return _TEXT.pack(zlib.crc32(text), len(text)) + text


def unsealed(raw: bytes) -> list[str]:
    """Raises DamagedBoard: its checksum is wrong."""
    crc, length = _TEXT.unpack_from(raw.ljust(_TEXT.size, b"\0"))
    text = raw[_TEXT.size : _TEXT.size + length]
    if len(text) < max(length, 1) or zlib.crc32(text) != crc:
        raise DamagedBoard(f"the text {text[:80]!r} has the wrong checksum")
    return [str(value) for value in json.loads(text)]


class Table:
    """A copy of the state, to be changed and written; ``newest`` is the slot opened last.

    ``stamps`` are the begins and ends beside it, as the file has them from ``ENDED_AT`` on.
    """

    def __init__(self, content: bytearray, stamps: bytes | bytearray) -> None:
        (
            _,
            self.used,
            self.sequence,
            running,
            self.newest,
            created_ns,
            at_ns,
            busy_ns,
            integral,
            carry,
            given_ns,
            lost_ns,
            executions,
            batch_ns,
        ) = _HEAD.unpack_from(content)
        self.load = Load(
            created_ns,
            at_ns,
            running,
            _whole(integral, "little"),
            _whole(carry, "little"),
            busy_ns,
            given_ns,
            lost_ns,
            executions,
            batch_ns,
        )
        self._content = content
        self.stamps = stamps

    @classmethod
    def begun(cls, now_ns: int) -> Self:
        """The state of a new device."""
        table = cls(bytearray(_HEAD.size), bytes(STATE_AT - ENDED_AT))
        table.load, table.newest = Load(now_ns, now_ns), -1
        return table

    def slot(self, n: int) -> Slot:
        if n >= self.used:
            return FREE
        opened_ns, began_ns, began_integral, *rest = _SLOT.unpack_from(
            self._content, _HEAD_BYTES + n * _SLOT_BYTES
        )
        return Slot(
            None if opened_ns < 0 else opened_ns,
            None if began_ns < 0 else began_ns,
            _whole(began_integral, "little"),
            *rest,
        )

    def put(self, n: int, slot: Slot) -> None:
        at = _HEAD_BYTES + n * _SLOT_BYTES
        if n >= self.used:
            self._content.extend(_free_slots(n + 1 - self.used))
            self.used = n + 1
        opened_ns, began_ns, began_integral, *rest = slot
        _SLOT.pack_into(
            self._content,
            at,
            -1 if opened_ns is None else opened_ns,
            -1 if began_ns is None else began_ns,
            began_integral.to_bytes(24, "little"),
            *rest,
        )

    def began(self) -> list[tuple[int, int]]:
        """(when, slot) of the begins that the state does not know of yet."""
        found = []
        for n in range(self.used):
            if (stamp_ns := self.stamp_ns(n)) != self._posted_ns(n):
                found.append((stamp_ns, n))
        return found

    def alone(self) -> list[tuple[int, int, int, int]]:
        """(slot, batches, ns, when the last was over) of sums that the state does not know of yet.

        One that is just being written is left for the next time.
        """
        found = []
        for n in range(self.used):
            count, sum_ns, over_ns, again = ALONE.unpack_from(self.stamps, _ALONE + n * ALONE.size)
            (known,) = STAMP.unpack_from(self._content, _POSTED + STAMP.size + n * _SLOT_BYTES)
            if count == again != known:
                found.append((n, count, sum_ns, over_ns))
        return found

    def over_ns(self, n: int) -> int:
        """When the last batch of slot ``n`` that was alone was over."""
        return int(ALONE.unpack_from(self.stamps, _ALONE + n * ALONE.size)[2])

    def stamp_ns(self, n: int) -> int:
        """When the last batch of slot ``n`` began, as the instance itself has put it there."""
        return int(STAMP.unpack_from(self.stamps, _BEGAN + n * STAMP.size)[0])

    def opened(self) -> int:
        """How often a slot was opened."""
        return int(STAMP.unpack_from(self.stamps, OPENED_AT - ENDED_AT)[0])

    def is_shared(self, n: int) -> bool:
        """Whether another slot than ``n`` is somebody's."""
        return any(k != n and self.slot(k).opened_ns is not None for k in range(self.used))

    def _posted_ns(self, n: int) -> int:
        return int(STAMP.unpack_from(self._content, _POSTED + n * _SLOT_BYTES)[0])

    def ended(self) -> list[tuple[int, int]]:
        """(when, slot) of the ends that could not be told."""
        if self.stamps.startswith(_NONE):
            return []
        found = enumerate(stamp for (stamp,) in STAMP.iter_unpack(self.stamps[: len(_NONE)]))
        return [(stamp, n) for n, stamp in found if stamp]

    def encoded(self) -> bytearray:
        created_ns, at_ns, running, integral, carry, busy_ns, *rest = self.load
        _HEAD.pack_into(
            self._content,
            0,
            0,
            self.used,
            self.sequence,
            running,
            self.newest,
            created_ns,
            at_ns,
            busy_ns,
            integral.to_bytes(24, "little"),
            carry.to_bytes(16, "little"),
            *rest,
        )
        _CRC.pack_into(self._content, 0, zlib.crc32(memoryview(self._content)[_CRC.size :]))
        return self._content


def is_newest(content: bytearray, table: Table) -> bool:
    """Whether the table that was read or written before is what ``newest_sound`` would find."""
    one, two = _FIRST.unpack_from(content, _ONE), _FIRST.unpack_from(content, _TWO)
    return bool(max(one[2], two[2]) == table.sequence)


def newest_sound(content: bytearray) -> Table | None:
    """Of the file's bytes from ``ENDED_AT`` to ``TEXTS_AT``; ``None``: no copy is sound."""
    one_crc, one_used, one = _FIRST.unpack_from(content, _ONE)
    two_crc, two_used, two = _FIRST.unpack_from(content, _TWO)
    if one > two:
        return _sound(content, _ONE, one_used, one_crc) or _sound(content, _TWO, two_used, two_crc)
    return _sound(content, _TWO, two_used, two_crc) or _sound(content, _ONE, one_used, one_crc)


def _sound(content: bytearray, at: int, used: int, crc: int) -> Table | None:
    if used > SLOTS:
        return None
    copy = content[at : at + _HEAD_BYTES + used * _SLOT_BYTES]
    if zlib.crc32(memoryview(copy)[_CRC.size :]) != crc:
        return None
    return Table(copy, content[:_ONE])


def _free_slots(count: int) -> bytes:
    return _SLOT.pack(-1, -1, bytes(24), 0, 0, 0, 0, 0, 0, 0) * count
