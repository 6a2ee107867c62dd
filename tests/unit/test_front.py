"""The parts of a front that need no Triton: its config, its verdicts, its flags and its watch."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from metering.errors import MeteringError
from metering.finishing import usage_of_payload
from metering.usage import UNEXECUTED, Outcome
from triton_models.emitter.facts import Process, facts_of
from triton_models.emitter.flags import Flags, Shown
from triton_models.emitter.front_config import front_config_of
from triton_models.emitter.identity import Identity
from triton_models.emitter.receipt import Receipt
from triton_models.emitter.unexecuted import Arrived, head_of, unexecuted
from triton_models.emitter.verdict import distinct, verdict_of
from triton_models.emitter.watch import Watch

FULL = "Model m - Error when running inference: [request id: a] Exceeds maximum queue size"
IDENTITY = Identity("acme", "search", "p", "ann", "r-0", "header")


def quiet(_: str) -> None:
    """A log that nobody reads."""


class Client:
    """A request whose client stays until it is told to go."""

    def __init__(self) -> None:
        self.gone = False
        self.answered = False
        self.asked_too_late = False

    def is_cancelled(self) -> bool:
        self.asked_too_late = self.asked_too_late or self.answered
        time.sleep(0.001)
        return self.gone


@pytest.mark.parametrize(
    ("given", "problem"),
    [
        ({}, "target"),
        ({"target": "m", "target_is_metered": "yes"}, "target_is_metered='yes'"),
        ({"target": "m", "max_in_flight": "0"}, "max_in_flight='0'"),
        ({"target": "m", "max_queue_size": "-1"}, "max_queue_size='-1'"),
        ({"target": "m", "target_version": "latest"}, "target_version='latest'"),
        (
            {"target": "m", "target_is_metered": "false", "target_gives_receipts": "true"},
            "m can't give any",
        ),
    ],
    ids=str,
)
def test_a_front_with_a_config_that_can_not_be_used_does_not_load(
    given: dict[str, str], problem: str
) -> None:
    with pytest.raises(MeteringError, match=problem):
        front_config_of(given)


def test_a_front_needs_to_be_told_no_more_than_its_target() -> None:
    config = front_config_of({"target": "m"})
    assert (config.target_is_metered, config.target_gives_receipts) == (True, False)
    assert (config.max_in_flight, config.max_queue_size, config.target_version) == (32, 0, "")


@pytest.mark.parametrize(
    ("message", "outcome", "told", "code"),
    [
        (FULL, "rejected", "[request id: a] Exceeds maximum queue size", "UNAVAILABLE"),
        (
            "Model m - Error when running inference: Failed for execute the inference request. "
            "Model 'm' is not ready.",
            "rejected",
            "Failed for execute the inference request. Model 'm' is not ready.",
            "UNAVAILABLE",
        ),
        (
            "Model m - Error when running inference: unexpected inference input 'X' for model 'm'",
            "rejected",
            "unexpected inference input 'X' for model 'm'",
            "INVALID_ARG",
        ),
        ("Request timeout expired", "timed_out", "Request timeout expired", "UNAVAILABLE"),
        ("as wished", None, "as wished", "INTERNAL"),
        (FULL.replace("Model m", "Model n"), None, FULL.replace("Model m", "Model n"), "INTERNAL"),
        ("Request timeout expired.", None, "Request timeout expired.", "INTERNAL"),
    ],
    ids=str,
)
def test_tritons_own_words_say_what_became_of_a_request(
    message: str, outcome: Outcome | None, told: str, code: str
) -> None:
    verdict = verdict_of("m", message)
    assert (verdict.outcome, verdict.message, verdict.code) == (outcome, told, code)


@pytest.mark.parametrize("message", ["Request timeout expired", FULL])
def test_a_models_own_error_is_never_taken_for_tritons(message: str) -> None:
    assert verdict_of("m", distinct(message, "m")).outcome is None
    assert message in distinct(message, "m")


@pytest.mark.parametrize("outcome", sorted(UNEXECUTED))
def test_what_a_front_logs_is_an_event_without_gpu_time(outcome: Outcome) -> None:
    args = {
        "model_config": '{"parameters": {"accelerator": {"string_value": "h100"}}}',
        "model_name": "front",
        "model_version": "1",
        "model_instance_name": "front_0_0",
    }
    facts = facts_of(args, {}, Process("host", "0a1b-1-2", "3-4"))
    payload = unexecuted(
        head_of(facts, "chat"),
        7,
        Arrived("r-1", IDENTITY, 2, 1_000),
        outcome,
        end_ns=5_000,
        end_epoch_ns=10**18,
        receipt=Receipt("e", 20, 6, 14, 2),
    )
    event = usage_of_payload(payload)
    (request,) = event.requests
    assert (event.executed, event.wall_ns, event.gpu_ns, event.batch_size) == (False, 0, 0, 2)
    assert (event.accelerator, event.sequence) == ("h100", 7)
    assert (request.status, request.tenant, request.retry_of) == (outcome, "acme", "r-0")
    assert (request.queue_ns, request.rows) == (4_000, 2)
    assert (request.input_tokens, request.cached_input_tokens) == (20, 6)
    assert (request.output_tokens, request.reasoning_tokens) == (14, 2)


def test_a_flag_is_seen_by_the_model_until_its_slot_is_given_back() -> None:
    flags, shown = Flags(slots=2), Shown()
    first, second = flags.take(), flags.take()
    assert first is not None
    assert second is not None
    assert flags.take() is None
    flags.show(second)
    assert not shown.cancelled(flags.reference(first))
    assert shown.cancelled(flags.reference(second))
    reference = flags.reference(second)
    flags.give_back(second)
    assert not shown.cancelled(reference)
    assert flags.take() == second
    flags.close()


def test_a_model_opens_nothing_but_a_fronts_page(tmp_path: Path) -> None:
    flags, shown = Flags(slots=4), Shown()
    reference = flags.reference(0)
    pid, fd, token, _ = reference.split(".")
    secret = tmp_path / "secret"
    secret.write_bytes(b"\x01" * 8)
    with secret.open() as opened:
        for wrong in (
            f"{pid}.{opened.fileno()}.{token}.0",
            f"{pid}.{fd}.{'0' * 16}.0",
            f"1.{fd}.{token}.0",
            f"{pid}.{fd}.{token}.99",
            f"{pid}/../{pid}.{fd}.{token}.0",
            "",
            "...",
            f"{pid}.{fd}.{token}.٣",
        ):
            assert not shown.cancelled(wrong), wrong
    flags.show(0)
    assert shown.cancelled(reference)
    assert not any(secret.name in os.readlink(f"/proc/self/fd/{f}") for f in open_files())
    flags.close()


def open_files() -> list[int]:
    found = []
    for name in os.listdir("/proc/self/fd"):
        if os.path.lexists(f"/proc/self/fd/{name}"):
            found.append(int(name))
    return found


def test_who_has_gone_is_shown_and_his_neighbours_are_not() -> None:
    watch, shown = Watch(quiet, every_s=0.005), Shown()
    gone, stays = Client(), Client()
    with watch.over(gone) as his, watch.over(stays) as hers:
        gone.gone = True
        give_up = time.monotonic() + 10
        while not shown.cancelled(his) and time.monotonic() < give_up:
            time.sleep(0.005)
        assert shown.cancelled(his)
        assert not shown.cancelled(hers)
    watch.close()


def test_nobody_asks_about_a_request_that_is_being_answered() -> None:
    """Triton's side of it goes with the answer, and the question would reach into freed memory."""
    watch, clients = Watch(quiet, every_s=0), [Client() for _ in range(200)]

    def serve(mine: list[Client]) -> None:
        for client in mine:
            with watch.over(client):
                time.sleep(0.001)
            client.answered = True

    threads = [threading.Thread(target=serve, args=(clients[i::4],)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    watch.close()
    assert not [c for c in clients if c.asked_too_late]


def test_a_watch_that_fails_says_so_once_and_fails_no_request() -> None:
    said: list[str] = []
    watch = Watch(said.append, every_s=0.001)

    class Broken:
        def is_cancelled(self) -> bool:
            raise OSError("no shared memory")

    with watch.over(Broken()):
        time.sleep(0.1)
    watch.close()
    assert len(said) == 1
    assert "no shared memory" in said[0]


def test_a_watch_ends_that_is_closed_just_as_it_goes_to_sleep() -> None:
    class Waits:
        def is_cancelled(self) -> bool:
            return False

    class Closing(threading.Event):
        def clear(self) -> None:
            watch._closed.set()
            self.set()
            super().clear()

    watch = Watch(print, every_s=0.001)
    watch._some = Closing()
    with watch.over(Waits()):
        pass
    watch._thread.join(5.0)
    assert not watch._thread.is_alive()
    watch.close()
