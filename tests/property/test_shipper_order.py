"""Laws of the order in which several sources' backlogs are sent."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from metering.usage import UsageBatch
from metering.wal import Frame
from streams.shipper.order import in_time_order

ends_ns = st.lists(st.integers(0, 2**63), max_size=20)
backlogs = st.dictionaries(st.sampled_from("abcd"), ends_ns, max_size=4)


def framed(sequence: int, end_ns: int) -> Frame:
    return Frame(sequence, b'{"sequence":%d,"end_epoch_ns":%d,"x":1}' % (sequence, end_ns), 0)


def frames_of(ends: dict[str, list[int]]) -> dict[str, list[Frame]]:
    return {s: [framed(n, end) for n, end in enumerate(own)] for s, own in ends.items()}


@given(backlogs)
def test_every_frame_is_sent_once_and_a_sources_own_order_is_kept(
    ends: dict[str, list[int]],
) -> None:
    frames = frames_of(ends)
    ordered = in_time_order(frames.items())
    for source, own in frames.items():
        assert [frame for name, frame in ordered if name == source] == own
    assert len(ordered) == sum(map(len, frames.values()))


@given(backlogs)
def test_no_source_runs_ahead_of_another_in_event_time(ends: dict[str, list[int]]) -> None:
    sorted_ends = {source: sorted(own) for source, own in ends.items()}
    ordered = in_time_order(frames_of(sorted_ends).items())
    sent = [sorted_ends[source][frame.sequence] for source, frame in ordered]
    assert sent == sorted(sent)


def test_the_end_is_read_from_what_an_emitter_writes(batch_of: Callable[..., UsageBatch]) -> None:
    late, early = (
        Frame(0, batch_of(0, end_epoch_ns=end_ns).model_dump_json().encode(), 0)
        for end_ns in (2_000_000_000, 1_000_000_000)
    )
    assert in_time_order([("a", [late]), ("b", [early])]) == [("b", early), ("a", late)]


def test_a_frame_that_tells_no_end_stays_with_the_one_before_it() -> None:
    first, torn, later = framed(0, 5), Frame(1, b"\xff", 0), framed(2, 9)
    other = framed(0, 7)
    assert in_time_order([("a", [first, torn, later]), ("b", [other])]) == [
        ("a", first),
        ("a", torn),
        ("b", other),
        ("a", later),
    ]
