"""What ``capacity_device_minutes`` says of heartbeats that are lost, repeated, told by two
sentinels, or stamped by a clock that was set: never more wall time than has passed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metering.capacity import CapacityHeartbeat, DeviceCapacity
from sinks.clickhouse.capacity import CapacityReader, CapacityWriter
from sinks.clickhouse.schema import migrate
from tests.contract.conftest import ClickHouse

pytestmark = pytest.mark.stack

NS = 10**9
NOON_NS = 1_780_000_020 * NS
"""On a whole minute."""


@dataclass
class Store:
    writer: CapacityWriter
    reader: CapacityReader

    def minutes(self, host: str) -> list[tuple[int, int, int]]:
        """Wall, idle and busy of each minute of the host's devices."""
        return [
            (int(wall), int(idle), int(busy))
            for wall, idle, busy in self.reader.rows(
                "SELECT wall_ns, idle_ns, busy_ns FROM capacity_device_minutes "
                "WHERE host = {host:String} ORDER BY minute",
                {"host": host},
            )
        ]


@pytest.fixture
def store(clickhouse: ClickHouse) -> Iterator[Store]:
    target = clickhouse.target(clickhouse.database)
    migrate(target)
    found = Store(CapacityWriter(target), CapacityReader(target))
    yield found
    found.reader.close()
    found.writer.close()


@dataclass
class Board:
    """A board that was begun at ``begun_ns``; ``busy`` are whole busy seconds of its life."""

    begun_ns: int
    name: str = ""
    busy: frozenset[int] = field(default_factory=frozenset)

    def read(self, at_ns: int, clock_ns: int) -> DeviceCapacity:
        wall_ns = at_ns - self.begun_ns
        busy_ns = sum(min(NS, max(0, wall_ns - s * NS)) for s in self.busy)
        return DeviceCapacity(
            device="cpu:0", accelerator="cpu", boot="machine", running=0, wall_ns=wall_ns,
            busy_ns=busy_ns, idle_ns=wall_ns - busy_ns, board=self.name,
            read_ns=clock_ns if self.name else None,
        )  # fmt: skip


def beat(host: str, sequence: int, time_ns: int, device: DeviceCapacity) -> CapacityHeartbeat:
    return CapacityHeartbeat(
        source=f"{host}/b/sentinel", sequence=sequence, host=host, boot_id="boot",
        time_ns=time_ns, asked_ns=time_ns, triton_answers=True, devices=(device,),
    )  # fmt: skip


@pytest.mark.parametrize("name", ["", "board"], ids=["of an older sentinel", "with an identity"])
def test_two_sentinels_on_one_host_3_ms_apart_count_the_time_once(store: Store, name: str) -> None:
    """The second asks Triton later, and has read the board earlier."""
    board = Board(NOON_NS - 100_000 * NS, name, frozenset(range(100_000)))
    beats = []
    for second in (0, 5, 10):
        at_ns = NOON_NS + second * NS
        for asked_ns, read_ns in (
            (at_ns, at_ns + 6_000_000),
            (at_ns + 3_000_000, at_ns + 4_000_000),
        ):
            beats.append(beat("h", read_ns, asked_ns, board.read(read_ns, read_ns)))
    store.writer.write_heartbeats(beats)
    ((wall_ns, idle_ns, busy_ns),) = store.minutes("h")
    assert 10 * NS - 10_000_000 <= wall_ns <= 10 * NS + 6_000_000
    assert wall_ns == idle_ns + busy_ns
    assert idle_ns >= 10 * NS - 10_000_000, "no batch ran in these seconds"


@pytest.mark.parametrize("names", [("", ""), ("one", "two")], ids=["of older sentinels", "named"])
def test_two_log_folders_with_one_device_name_are_one_device(
    store: Store, names: tuple[str, str]
) -> None:
    """Their busy times add up, and their wall time is that of the one device."""
    old = Board(NOON_NS - 100_000 * NS, names[0], frozenset([100_001]))
    new = Board(NOON_NS - 10 * NS, names[1], frozenset([15]))
    beats = []
    for second in range(12):
        at_ns = NOON_NS + second * NS
        beats.append(beat("h", at_ns, at_ns, old.read(at_ns, at_ns)))
        beats.append(beat("h", at_ns + 3, at_ns + 3, new.read(at_ns + 3, at_ns + 3)))
    store.writer.write_heartbeats(beats)
    ((wall_ns, idle_ns, busy_ns),) = store.minutes("h")
    assert 11 * NS - 10 <= wall_ns <= 11 * NS + 10
    assert (idle_ns + busy_ns, round(busy_ns / NS)) == (wall_ns, 2)


def test_a_clock_that_is_set_back_and_forward_again_gives_no_minute_twice(store: Store) -> None:
    board = Board(NOON_NS - 100 * NS, "board")
    beats = []
    for second in range(0, 600, 5):
        at_ns = NOON_NS + second * NS
        clock_ns = at_ns - 200 * NS if 300 <= second < 400 else at_ns
        beats.append(beat("h", at_ns, clock_ns, board.read(at_ns, clock_ns)))
    store.writer.write_heartbeats(beats)
    minutes = store.minutes("h")
    assert sum(wall for wall, _, _ in minutes) == 595 * NS
    assert max(wall for wall, _, _ in minutes) == 60 * NS


def test_a_clock_that_is_set_forward_by_50_years_leaves_a_gap(store: Store) -> None:
    board = Board(NOON_NS - 10 * NS, "board")
    store.writer.write_heartbeats(
        [
            beat("h", 1, 5 * NS, board.read(NOON_NS, 5 * NS)),
            beat("h", 2, NOON_NS + 6 * NS, board.read(NOON_NS + 6 * NS, NOON_NS + 6 * NS)),
        ]
    )
    assert store.minutes("h") == [(6 * NS, 6 * NS, 0)]


def test_a_sentinel_that_is_updated_counts_nothing_again(store: Store) -> None:
    """Its first heartbeat with the board's identity goes on where the last one without ended."""
    board = Board(NOON_NS - 1000 * NS)
    beats = [
        beat("h", n, NOON_NS + n * NS, board.read(NOON_NS + n * NS, NOON_NS + n * NS))
        for n in range(3)
    ]
    board.name = "board"
    beats += [
        beat("h", n, NOON_NS + n * NS, board.read(NOON_NS + n * NS, NOON_NS + n * NS))
        for n in range(3, 6)
    ]
    store.writer.write_heartbeats(beats)
    assert store.minutes("h") == [(5 * NS, 5 * NS, 0)]


seconds = st.integers(0, 400)


@st.composite
def _tellings(draw: st.DrawFn) -> tuple[list[tuple[int, int, int, int]], list[Board]]:
    """(board, when it was read, when its sentinel asked, what the clock said) in any order."""
    named = draw(st.booleans())
    boards = [
        Board(
            NOON_NS + draw(st.integers(-200, 99)) * NS + n,
            f"{uuid4().hex}/{n}" if named else "",
            draw(st.frozensets(seconds, max_size=100)),
        )
        for n in range(draw(st.integers(1, 3)))
    ]
    steps = draw(st.lists(st.tuples(seconds, st.integers(-300, 300)), max_size=3))
    told = []
    for board in range(len(boards)):
        for at_ms in draw(st.lists(st.integers(100_000, 400_000), min_size=1, max_size=20)):
            read_ns = NOON_NS + at_ms * 1_000_000
            clock_ns = read_ns + sum(by * NS for at, by in steps if at_ms >= at * 1000)
            asked_ns = clock_ns - draw(st.integers(0, 4_000_000_000))
            told += [(board, read_ns, asked_ns, clock_ns)] * draw(st.integers(1, 2))
    return draw(st.permutations(told)), boards


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(_tellings())
def test_wall_is_busy_and_idle_and_no_more_than_has_passed(
    store: Store, tellings: tuple[Sequence[tuple[int, int, int, int]], list[Board]]
) -> None:
    """Whatever is lost, repeated or comes in another order, and however the clock is set."""
    told, boards = tellings
    host = uuid4().hex
    beats = [
        beat(host, read_ns, asked_ns, boards[n].read(read_ns, clock_ns))
        for n, read_ns, asked_ns, clock_ns in told
    ]
    store.writer.write_heartbeats(beats[::2])
    store.writer.write_heartbeats(beats[1::2])
    minutes = store.minutes(host)
    named = boards[0].name != ""
    stamps = [clock if named else asked for _, _, asked, clock in told]
    assert sum(wall for wall, _, _ in minutes) <= max(stamps) - min(stamps)
    for wall_ns, idle_ns, busy_ns in minutes:
        assert wall_ns == busy_ns + idle_ns
        assert min(wall_ns, busy_ns, idle_ns) >= 0
        assert wall_ns <= 60 * NS


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    at_ms=st.lists(st.integers(0, 400_000), min_size=2, max_size=20, unique=True),
    busy=st.frozensets(seconds, max_size=200),
    jitter=st.randoms(use_true_random=False),
)
def test_of_a_clock_that_runs_on_every_nanosecond_is_counted(
    store: Store, at_ms: list[int], busy: frozenset[int], jitter: Any
) -> None:
    """From the first heartbeat to the last, busy and idle, though each is stamped a little late."""
    host, board = uuid4().hex, Board(NOON_NS, uuid4().hex, busy)
    read_ns = [NOON_NS + ms * 1_000_000 for ms in at_ms]
    late_ns = {ns: jitter.randrange(900) for ns in read_ns}
    late_ns[max(read_ns)] = 1000
    store.writer.write_heartbeats(
        [beat(host, ns, ns, board.read(ns, ns + late_ns[ns])) for ns in read_ns]
    )
    first, last = (board.read(ns, ns) for ns in (min(read_ns), max(read_ns)))
    minutes = store.minutes(host)
    assert sum(wall for wall, _, _ in minutes) == last.wall_ns - first.wall_ns
    assert sum(idle for _, idle, _ in minutes) == last.idle_ns - first.idle_ns


def test_boards_of_all_kinds_of_texts_and_extreme_counts_leave_the_view_readable(
    store: Store,
) -> None:
    most = 2**63 - 1
    devices = [
        DeviceCapacity(
            device="", accelerator="", boot="", running=0, wall_ns=wall, busy_ns=wall - idle,
            idle_ns=idle, board=board, read_ns=read_ns,
        )
        for board in ("", "\0", "b")
        for wall, idle, read_ns in ((0, 0, 0), (most, most, 0), (most, 0, most), (5, 5, NOON_NS))
    ]  # fmt: skip
    beats = [beat("h", n, NOON_NS, device) for n, device in enumerate(devices)]
    store.writer.write_heartbeats(beats)
    for wall_ns, idle_ns, busy_ns in store.minutes("h"):
        assert (wall_ns, min(idle_ns, busy_ns) >= 0) == (idle_ns + busy_ns, True)
        assert wall_ns <= 60 * NS
