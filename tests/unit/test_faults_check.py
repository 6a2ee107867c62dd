"""The checks of `make faults-triton` find what they are there for; here on what is at hand."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest

from benchmarks.faults.check import Findings, judge
from benchmarks.faults.load import Answers, Told
from benchmarks.faults.losses import Losses
from benchmarks.faults.published import Published
from benchmarks.faults.stored import Part, Stored

ACME, GLOBEX = Told("acme", "tiny_llm", 3, 4), Told("globex", "tiny_llm", 5, 6)
FIRST: list[Part] = [("k-0", "acme", 60, 60), ("k-1", "globex", 40, 40)]
SECOND: list[Part] = [("k-2", "acme", 70, 70)]


class World:
    """Two batches of one source, whole; a client that got no answer for its request."""

    def __init__(self) -> None:
        self.answers = Answers(
            {"k-0": ACME, "k-1": GLOBEX, "k-2": ACME}, frozenset({"k-failed"}), {}
        )
        self.ever = self.before = Losses()
        self.stored = Stored(
            requests=Counter(["k-0", "k-1", "k-2"]),
            said={"k-0": ACME, "k-1": GLOBEX, "k-2": ACME},
            batches={("s", 0): list(FIRST), ("s", 1): list(SECOND)},
            windows=[],
            unpriced=0,
        )
        self.published = Published(
            batches={("s", 0): list(FIRST), ("s", 1): list(SECOND)},
            lines={("s", "0/0"), ("s", "0/1"), ("s", "1/0")},
        )

    @property
    def findings(self) -> Findings:
        return judge(self.answers, self.ever, self.before, self.stored, self.published)

    def lose_a_batch(self) -> None:
        """The first one, everywhere."""
        del self.stored.batches["s", 0], self.published.batches["s", 0]
        self.published.lines -= {("s", "0/0"), ("s", "0/1")}
        del self.stored.requests["k-0"], self.stored.requests["k-1"]


def test_a_whole_world_has_no_problems() -> None:
    assert World().findings.problems == []


def test_a_batch_that_is_gone_is_found_in_its_requests_and_in_its_sequence() -> None:
    world = World()
    world.lose_a_batch()
    assert (world.findings.unaccounted, world.findings.gaps) == (2, 1)
    assert len(world.findings.problems) == 2


def test_a_batch_that_is_gone_is_no_problem_when_the_log_has_counted_it() -> None:
    world = World()
    world.lose_a_batch()
    world.ever = Losses(dropped_requests=2, dropped_batches=1)
    assert world.findings.problems == []
    world.ever = Losses(unwritten_requests=2, unwritten_batches=1)
    assert world.findings.problems == []


def test_a_loss_that_was_counted_before_does_not_make_up_for_one_of_now() -> None:
    world = World()
    world.lose_a_batch()
    world.ever = world.before = Losses(dropped_requests=2, dropped_batches=1)
    assert world.findings.unaccounted == 2


@pytest.mark.parametrize("requests", [1, 3])
def test_a_count_that_is_off_by_one_request_is_found(requests: int) -> None:
    world = World()
    world.lose_a_batch()
    world.ever = Losses(dropped_requests=requests, dropped_batches=1)
    assert world.findings.unaccounted == 2 - requests
    assert len(world.findings.problems) == 1


def test_what_is_counted_as_lost_and_stored_all_the_same_is_found() -> None:
    world = World()
    world.ever = Losses(dropped_requests=1, dropped_batches=1)
    assert (world.findings.unaccounted, world.findings.gaps) == (-1, -1)


def double_a_batch(world: World) -> None:
    """Under another sequence: a new batch, to all who trust identities."""
    world.stored.batches["s", 2] = list(SECOND)
    world.published.batches["s", 2] = list(SECOND)
    world.published.lines.add(("s", "2/0"))
    world.stored.requests["k-2"] += 1


def shift_time(world: World) -> None:
    """From one tenant to another, within a batch."""
    world.stored.batches["s", 0] = [("k-0", "acme", 50, 50), ("k-1", "globex", 50, 50)]


def lose_time(world: World) -> None:
    """Before it came to the topic: parts that are not the whole."""
    world.published.unequal.add(("s", 0))


def drop_a_line(world: World) -> None:
    world.stored.batches["s", 0].pop()


def publish_a_line_too_few(world: World) -> None:
    world.published.lines.remove(("s", "0/1"))


def publish_a_line_too_many(world: World) -> None:
    world.published.lines.add(("s", "7/0"))


def swap_tenants(world: World) -> None:
    world.stored.said["k-0"] = GLOBEX


def count_a_token_more(world: World) -> None:
    world.stored.said["k-1"] = GLOBEX._replace(output_tokens=7)


def invent_a_request(world: World) -> None:
    world.stored.requests["k-9"] += 1


def spoil_a_window(world: World) -> None:
    world.stored.windows.append("10 s at 0 of acme × tiny_llm")


def refuse(world: World) -> None:
    world.published.refused += 1


def leave_unpriced(world: World) -> None:
    world.stored = replace(world.stored, unpriced=1)


def leave_in_the_log(world: World) -> None:
    world.ever = Losses(lag_bytes=100)


@pytest.mark.parametrize(
    ("spoil", "where"),
    [
        (double_a_batch, "twice"),
        (shift_time, "unconserved"),
        (lose_time, "unconserved"),
        (drop_a_line, "unconserved"),
        (publish_a_line_too_few, "unpublished"),
        (publish_a_line_too_many, "unpublished"),
        (swap_tenants, "wrong"),
        (count_a_token_more, "wrong"),
        (invent_a_request, "unknown"),
        (spoil_a_window, "windows"),
        (refuse, "refused"),
        (leave_unpriced, "unpriced"),
        (leave_in_the_log, "waiting_bytes"),
    ],
)
def test_what_is_spoilt_is_found_and_nothing_else(
    spoil: Callable[[World], None], where: str
) -> None:
    world = World()
    spoil(world)
    assert getattr(world.findings, where)
    assert len(world.findings.problems) == 1


def test_a_request_whose_client_got_no_answer_may_be_stored() -> None:
    world = World()
    world.stored.requests["k-failed"] += 1
    assert world.findings.extra == 1
    assert world.findings.problems == []
