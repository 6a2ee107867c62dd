"""The usage log at its cap: each batch is sent or counted as lost, whoever dies in between."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st

from metering import wal_cap
from metering.wal import Loss, decode_loss, encode_frame, encode_loss, loss_of, requests_in
from metering.wal_cap import drop_lock, enforce, size_bytes, survey
from streams.shipper.losses import Losses
from streams.shipper.reader import SourceReader
from triton_models.emitter.log import UsageLog

SOURCES = ("a", "b", "c")
CAP_BYTES = 700

sources = st.sampled_from(SOURCES)
counts = st.integers(0, 2**60)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("write"), sources, st.integers(1, 12)),
        st.tuples(st.just("write"), sources, st.integers(1, 12)),
        st.tuples(st.just("write"), sources, st.integers(1, 12)),
        st.tuples(st.just("unwritten"), sources, st.integers(1, 12)),
        st.tuples(st.just("ship"), sources, st.just(0)),
        st.tuples(st.just("sent-then-killed"), sources, st.just(0)),  # no checkpoint is moved
        st.tuples(st.just("emitter-dies"), sources, st.just(0)),
        st.tuples(st.just("drop"), st.just(""), st.just(0)),
        st.tuples(st.just("killed-in-drop"), st.just(""), st.sampled_from([0, 1, 2])),
        st.tuples(st.just("gather"), st.just(""), st.just(0)),
        st.tuples(st.just("killed-in-gather"), st.just(""), st.sampled_from([0, 1, 2])),
    ),
    min_size=10,
    max_size=60,
)


class Killed(BaseException):
    """In the place of a kill: nothing below catches it."""


@contextmanager
def killed_before(target: object, name: str) -> Iterator[None]:
    """The process ends where it would have called this."""
    with mock.patch.object(target, name, side_effect=Killed):
        try:
            yield
        except Killed:
            return


@dataclass
class Host:
    log_dir: Path
    logs: dict[str, UsageLog] = field(default_factory=dict)
    lives: dict[str, int] = field(default_factory=dict)
    readers: dict[str, SourceReader] = field(default_factory=dict)
    batches: int = 0
    requests: int = 0
    unwritten: Loss = field(default_factory=Loss)
    sent: dict[tuple[str, int], int] = field(default_factory=dict)

    def source(self, name: str) -> str:
        return f"{name}/{self.lives.setdefault(name, 0)}"

    def log(self, name: str) -> UsageLog:
        source = self.source(name)
        if source not in self.logs:
            self.logs[source] = UsageLog(
                self.log_dir / source, segment_bytes=250, log_dir=self.log_dir
            )
        return self.logs[source]

    def write(self, name: str, requests: int) -> None:
        log = self.log(name)
        log.append(log.reserve(), json.dumps({"requests": ["r" * 9] * requests}).encode())
        self.batches += 1
        self.requests += requests

    def lose(self, name: str, requests: int) -> None:
        log = self.log(name)
        log.reserve()
        log.lose(requests)
        self.unwritten += Loss(1, requests)

    def reader(self, source: str) -> SourceReader:
        if source not in self.readers:
            self.readers[source] = SourceReader(self.log_dir / source, source, self.log_dir)
        return self.readers[source]

    def ship(self, source: str, *, killed: bool = False) -> bool:
        reader = self.reader(source)
        chunk = reader.read()
        if chunk is None:
            return False
        for frame in chunk.frames:
            self.sent[source, frame.sequence] = requests_in(frame.payload)
        if killed:
            self.new_shipper()
        else:
            reader.commit(chunk.end)
        return True

    def new_shipper(self) -> None:
        for reader in self.readers.values():
            reader.close()
        self.readers.clear()

    def gather(self) -> Losses:
        book = Losses(self.log_dir)
        book.gather(survey(self.log_dir))
        return book

    def do(self, step: str, name: str, number: int) -> None:
        if step == "write":
            for _ in range(3):
                self.write(name, number)
        elif step == "unwritten":
            self.lose(name, number)
        elif step == "ship":
            self.ship(self.source(name))
        elif step == "sent-then-killed":
            self.ship(self.source(name), killed=True)
        elif step == "emitter-dies":
            self.log(name).close()
            self.lives[name] += 1
        elif step == "drop":
            enforce(self.log_dir, CAP_BYTES)
        elif step == "killed-in-drop":
            self.die_in_drop(number)
        elif step == "gather":
            self.gather()
        else:
            with killed_before(Losses, ("_take_drop", "_save", "_forget")[number]):
                self.gather()

    def die_in_drop(self, number: int) -> None:
        before = set(self.log_dir.rglob("*.dropped"))
        if number < 2:
            with killed_before(wal_cap, ("settle_drop", "loss_of")[number]):
                enforce(self.log_dir, CAP_BYTES)
            return
        enforce(self.log_dir, CAP_BYTES)
        for path in set(self.log_dir.rglob("*.dropped")) - before:
            with path.open("ab") as file:  # as if it had not come to cutting the rest
                file.write(encode_frame(7, b'{"requests": [1]}'))


@given(steps)
def test_every_batch_is_sent_or_counted_as_dropped_and_never_both(
    plan: list[tuple[str, str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for step, name, number in plan:
            host.do(step, name, number)
        host.new_shipper()
        enforce(host.log_dir, CAP_BYTES)
        book = host.gather()
        for path in survey(host.log_dir):
            while host.ship(path.relative_to(host.log_dir).as_posix()):
                pass
        assert len(host.sent) + book.dropped.batches == host.batches
        assert sum(host.sent.values()) + book.dropped.requests == host.requests
        assert book.unwritten == host.unwritten
        assert host.gather().dropped == book.dropped  # nothing is counted again
        for log in host.logs.values():
            log.close()
        host.new_shipper()


@given(st.lists(st.tuples(sources, st.integers(1, 12)), min_size=1, max_size=120))
def test_the_log_stays_at_its_cap_but_for_the_segments_that_are_being_written(
    writes: list[tuple[str, int]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for name, requests in writes:
            host.write(name, requests)
            enforce(host.log_dir, CAP_BYTES)
            files = survey(host.log_dir)
            active = sum(of.segments[-1].size_bytes for of in files.values() if of.segments)
            assert size_bytes(files.values()) <= max(CAP_BYTES, active)
        for log in host.logs.values():
            log.close()


@given(st.lists(st.tuples(sources, st.integers(1, 12)), min_size=20, max_size=120))
def test_what_is_dropped_is_the_oldest_of_each_source(writes: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = Host(Path(folder))
        for name, requests in writes:
            host.write(name, requests)
        enforce(host.log_dir, CAP_BYTES)
        with drop_lock(host.log_dir) as mine:
            assert mine
        host.gather()
        for path in survey(host.log_dir):
            source = path.relative_to(host.log_dir).as_posix()
            while host.ship(source):
                pass
            kept = sorted(sequence for s, sequence in host.sent if s == source)
            assert kept == list(range(kept[0], kept[-1] + 1))
            assert kept[-1] == sum(f"{name}/0" == source for name, _ in writes) - 1
        for log in host.logs.values():
            log.close()
        host.new_shipper()


@given(counts, counts, counts, counts, st.binary(max_size=400))
def test_a_count_of_losses_is_read_back_whatever_lay_under_it(
    batches: int, requests: int, size: int, unreadable: int, under: bytes
) -> None:
    loss = Loss(batches, requests, size, unreadable)
    record = encode_loss(loss)
    assert decode_loss(record + under[len(record) :]) == loss


@given(st.lists(st.integers(0, 9), max_size=8), st.integers(0, 40), st.binary(max_size=9))
def test_the_loss_of_a_segment_is_its_sound_frames_and_their_requests(
    rows: list[int], torn_bytes: int, rubbish: bytes
) -> None:
    frames = [
        encode_frame(n, json.dumps({"requests": [{}] * requests}).encode())
        for n, requests in enumerate(rows)
    ]
    segment = b"".join(frames) + encode_frame(99, b"never answered" * 3)[:torn_bytes]
    assert loss_of(segment) == Loss(len(rows), sum(rows), len(segment), 0)
    damaged = bytearray(b"".join(frames))
    if len(rows) > 1:
        damaged[len(frames[0]) - 1] ^= 1
        assert loss_of(bytes(damaged)) == Loss(len(rows) - 1, sum(rows[1:]), len(damaged), 1)
    assert requests_in(rubbish) == 0
