"""The shipper's reader against any interleaving of writes, rotations, crashes and restarts."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from metering.wal import encode_frame, segment_name
from streams.shipper.reader import SourceReader
from triton_models.emitter.log import UsageLog

Record = tuple[int, bytes]

payloads = st.binary(min_size=1, max_size=60)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), payloads),
        st.tuples(st.just("write"), payloads),
        st.tuples(st.just("lose"), st.none()),  # reserved, and never written: a full disk
        st.tuples(st.just("crash"), st.integers(0, 29)),  # the emitter, with so many bytes torn
        st.tuples(st.just("ship"), st.none()),  # read, acknowledge, commit
        st.tuples(st.just("fail"), st.none()),  # read, and no acknowledgement
        st.tuples(st.just("restart"), st.none()),  # the shipper
    ),
    max_size=40,
)


@contextmanager
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


class Shipping:
    """A reader whose chunks go to a Kafka that is a list."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.reader = SourceReader(log, "s")
        self.shipped: list[Record] = []
        self.corrupt = 0
        self.missing = 0

    def restart(self) -> None:
        self.reader.close()
        self.reader = SourceReader(self._log, "s")

    def ship(self) -> bool:
        chunk = self.reader.read()
        if chunk is None:
            return False
        self.shipped += [(f.sequence, f.payload) for f in chunk.frames]
        self.corrupt += chunk.corrupt
        self.missing += chunk.missing
        self.reader.commit(chunk.end)
        return True


@given(steps, st.integers(1, 300))
def test_all_that_was_written_is_shipped_once_in_order_whatever_happens_in_between(
    plan: list[tuple[str, object]], segment_bytes: int
) -> None:
    with folder() as log_dir:
        log = UsageLog(log_dir, segment_bytes=segment_bytes)
        shipping = Shipping(log_dir)
        written: list[Record] = []
        for step, value in plan:
            if step == "write":
                assert isinstance(value, bytes)
                sequence = log.reserve()
                log.append(sequence, value)
                written.append((sequence, value))
            elif step == "lose":
                log.reserve()
            elif step == "crash":
                assert isinstance(value, int)
                log.open()
                segments = sorted(log_dir.glob("*.wal"))
                if segments:
                    with segments[-1].open("ab") as file:
                        file.write(encode_frame(10**6, b"never answered")[:value])
                log.close()  # frees descriptors, and changes nothing on the disk
                log = UsageLog(log_dir, segment_bytes=segment_bytes)
            elif step == "ship":
                shipping.ship()
            elif step == "fail":
                shipping.reader.read()
            else:
                shipping.restart()
            assert shipping.shipped == written[: len(shipping.shipped)]
        log.open()  # cuts a torn tail, as every emitter does at its start
        while shipping.ship():
            pass
        assert shipping.shipped == written
        assert shipping.corrupt == 0
        assert shipping.missing == (written[-1][0] + 1 - len(written) if written else 0)
        assert shipping.reader.lag_bytes() == 0
        assert len(list(log_dir.glob("*.wal"))) == (1 if written else 0)
        log.close()
        shipping.restart()


@given(st.lists(payloads, min_size=1, max_size=12), st.integers(1, 300), st.data())
def test_lag_is_what_was_written_less_what_was_committed(
    rows: list[bytes], segment_bytes: int, data: st.DataObject
) -> None:
    with folder() as log_dir:
        log = UsageLog(log_dir, segment_bytes=segment_bytes)
        for payload in rows:
            log.append(log.reserve(), payload)
        shipping = Shipping(log_dir)
        for _ in range(data.draw(st.integers(0, 2 * len(rows)))):
            shipping.ship()
        waiting = rows[len(shipping.shipped) :]
        log.close()
        assert shipping.reader.lag_bytes() == sum(len(encode_frame(0, p)) for p in waiting)


@given(
    st.lists(st.lists(payloads, min_size=1, max_size=5), min_size=1, max_size=4),
    st.integers(1, 255),
    st.data(),
)
def test_one_damaged_byte_costs_one_frame_and_is_seen(
    segments: list[list[bytes]], flip: int, data: st.DataObject
) -> None:
    """Wherever it is, unless nothing has been written behind it yet: then it may be a torn tail."""
    with folder() as log_dir:
        written: list[Record] = []
        places: list[tuple[Path, int, int]] = []
        for rows in [*segments, [b"the last one is sound"]]:
            path, content = log_dir / segment_name(len(written)), b""
            for payload in rows:
                frame = encode_frame(len(written), payload)
                places.append((path, len(content), len(content) + len(frame)))
                content += frame
                written.append((len(written), payload))
            path.write_bytes(content)
        hit = data.draw(st.integers(0, len(written) - 2))
        path, start, end = places[hit]
        content_now = bytearray(path.read_bytes())
        content_now[data.draw(st.integers(start, end - 1))] ^= flip
        path.write_bytes(content_now)
        shipping = Shipping(log_dir)
        while shipping.ship():
            pass
        assert shipping.shipped == [record for record in written if record[0] != hit]
        assert (shipping.corrupt, shipping.missing) == (1, 1)
