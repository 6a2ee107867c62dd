"""What is compiled trusts nothing that it is given: each try is in a process of its own, so that a
crash is a failed test."""

# ruff: noqa: E501  # programs in texts
from __future__ import annotations

import subprocess
import sys

import pytest

from metering.compiled_server import IS_COMPILED

pytestmark = pytest.mark.skipif(not IS_COMPILED, reason="there is no C compiler")

BEGIN = """
import random, sys
import numpy as np
from metering import mapping, recorder, scanner, writer
from metering.records import Timing
from triton_models.emitter.identity import payer_of_text
from triton_models.emitter.record import Served

def tried(call, *args, **named):
    try:
        return call(*args, **named)
    except Exception as exc:
        return exc

def fresh(batched=True):
    return recorder.Recorder(b"{", payer_of_text, "unattributed", Served, batched)

T = Timing(1, 2, 3)
HOSTILE = [None, (), [], {}, 0, -1, True, 7.0, float("nan"), "a", "\\ud800", b"x", object(), 2**63,
    2**70, (None,), ((),), [None], {"Y": None}, {"Y": np.zeros(())}, {"Y": np.zeros((0,))},
    {"Y": np.zeros((2, 2))}, {"Y": "text"}, {1: 2}, np.int64(3), np.zeros(()), np.zeros((3,)), Served,
    lambda *a: None, type("S", (), {"shape": ()})(), type("S", (), {"shape": [3]})(),
    {"Y": type("S", (), {"shape": ()})()}, {"Y": type("S", (), {"shape": [3]})()},
    {"Y": type("S", (), {"shape": (None,)})()}, {"Y": type("S", (), {"shape": (2**80,)})()}]
"""
TRIES = {
    "an output without dimensions": """
        outputs = {"Y": np.zeros(())}
        assert fresh().record(1, T, b"", [Served(outputs)]) is None
    """,
    "outputs of every kind": """
        for one in HOSTILE:
            tried(fresh().record, 1, T, b"", [Served(one)])
    """,
    "fields of every kind": """
        rng = random.Random(7)
        for n in range(3000):
            served = [Served(*rng.choices(HOSTILE, k=9)) for _ in range(rng.randrange(4))]
            tried(fresh(n % 2 == 0).record, rng.choice(HOSTILE), rng.choice([T, *HOSTILE]), b"", served)
    """,
    "arguments of every kind": """
        class Request:
            def __init__(self, one, two): self.one, self.two = one, two
            def request_id(self): return self.one
            def parameters(self): return self.two
        rng = random.Random(7)
        for one in HOSTILE:
            for two in HOSTILE:
                tried(fresh().record, one, T, two, [Served({"Y": np.zeros((1,))})])
                tried(fresh().record, 1, one, b"", two)
                tried(fresh().asked, [Request(one, two)])
                tried(fresh().asked, one)
                tried(recorder.frame, one, two)
                made = tried(recorder.Recorder, *rng.choices([b"{", "n", *HOSTILE], k=5))
                if isinstance(made, recorder.Recorder):
                    tried(made.asked, [Request("r", "{}")]), tried(made.record, 1, T, b"", [Served()])
    """,
    "a recorder of other parts": """
        class Request:
            def request_id(self): return "r"
            def parameters(self): return '{"tenant":7}'
        for payer_of in HOSTILE:
            made = recorder.Recorder(b"{", lambda text: payer_of, "n", Served, True)
            tried(made.asked, [Request()] * 3)
        for told in (object, list, dict, tuple, int, Served):
            made = tried(recorder.Recorder, b"{", payer_of_text, "n", told, True)
            if isinstance(made, recorder.Recorder):
                tried(made.record, 1, T, b"", [tried(told)])
    """,
    "a recorder that was not begun": """
        class Request:
            def request_id(self): return "r"
            def parameters(self): return '{}'
        bare = recorder.Recorder.__new__(recorder.Recorder)
        tried(bare.asked, [Request()]), tried(bare.record, 1, T, b"", [Served()])
        tried(bare.record, 1, T, b"", [()])
    """,
    "outputs that go away while they are looked at": """
        outputs = {}
        class Shape:
            @property
            def shape(self):
                outputs.clear()
                return (1,)
        outputs["Y"] = Shape()
        tried(fresh().record, 1, T, b"", [Served(outputs)])
    """,
    "a list that shrinks or grows while it is read": """
        served = []
        for change in (served.clear, lambda: served.extend(served)):
            class Shape:
                @property
                def shape(self):
                    change()
                    return (1,)
            served[:] = [Served({"Y": Shape()}) for _ in range(9)]
            assert fresh().record(1, T, b"", served) is None
    """,
    "a mapping of every kind": """
        import os, tempfile
        with tempfile.TemporaryFile() as file:
            file.truncate(4096)
            one = mapping.Mapping(file.fileno(), 4096)
            for place in (-1, 512, 2**62, -2**63, None, "a", 509, 510, 511):
                tried(one.get, place), tried(one.put, place, 1), tried(one.put_between, place, 1, 2, 3)
            one.close()
            tried(one.get, 0), one.close()
        for fd in (-1, 10**6):
            for size in (0, 1, 2**62):
                tried(mapping.Mapping, fd, size)
    """,
    "a writer of every kind": """
        rng = random.Random(7)
        arrays = [np.zeros(3, np.int64), np.zeros(3, np.int32), np.zeros(3, np.uint8),
            np.arange(4), np.array([9, -9, 3], np.int32), np.zeros((3, 3)), np.zeros(0, np.int64),
            np.array([0, 2**40, 3]), np.array([0, -1, 3])]
        some = [*arrays, *HOSTILE]
        columns = []
        for n in range(6000):
            made = tried(writer.Column, rng.choice([b"a", b"b", *HOSTILE]), rng.choice([0, 1, 2, 3, 4, 9, -1]),
                *(rng.choice(some) for _ in range(rng.randrange(1, 6))))
            if isinstance(made, writer.Column):
                columns.append(made)
        bare = writer.Column.__new__(writer.Column)
        columns += [bare, None]
        for n in range(3000):
            own = rng.choice([[rng.choice(columns) for _ in range(rng.randrange(3))], *HOSTILE])
            made = tried(writer.Writer, rng.choice([3, 2, 0, -1, 4]), own, rng.choice(columns),
                rng.choice([lambda used: b"x", lambda used: None, None]))
            if isinstance(made, writer.Writer):
                for at in ((0, 3), (0, 0), (-1, 3), (2, 9), (1, 2)):
                    tried(made.message, rng.choice([b"h", None]), *at)
            tried(writer.rows, rng.choice([[b"h"] * 3, [None] * 3, *HOSTILE]), own, rng.choice([b"e", None]))
        tried(writer.Writer.__new__(writer.Writer).message, b"h", 0, 1)
    """,
    "a scanner of every kind": """
        rng = random.Random(7)
        for n in range(3000):
            head = [("a", rng.choice([0, 1, 2, 3, 9, -1]))] * rng.randrange(3)
            made = tried(scanner.Scanner, rng.choice([b"{", b"", *HOSTILE]), rng.choice([head, *HOSTILE]),
                rng.choice([head, *HOSTILE]), rng.choice([0, 1, -1, 2**62]), rng.choice([0, 9, -1]))
            if isinstance(made, scanner.Scanner):
                for text in (b"", b"{", b'{"a":1,"requests":{"request_id":["r"]', b"{" * 99):
                    tried(made.scan, [text]), tried(made.scan, rng.choice(HOSTILE)), tried(made.scan, [rng.choice(HOSTILE)])
        tried(scanner.Scanner.__new__(scanner.Scanner).scan, [b"{}"])
        values = scanner.Values("n", 0, 9, 4)
        for count in (-1, 0, 4, 5, 2**62):
            tried(values.values, count), tried(values.known_of, count)
        few = [np.zeros(3, np.uint8), np.array([0, 2, 3]), np.array([0, 9]), np.array([5, 3]), np.array([-1, 7]), np.zeros(0, np.int64), np.array([0])]
        for _ in range(3000):
            picked = rng.choices([*few, *HOSTILE], k=3)
            tried(scanner.gathered, *picked)
            before, behind = rng.choice([0, 1, 9, -1, 2**62]), rng.choice([0, 1, -9])
            tried(scanner.without_frames, *picked[:2], before, behind)
    """,
}


@pytest.mark.parametrize("what", TRIES)
def test_nothing_ends_the_process(what: str) -> None:
    lines = TRIES[what].rstrip().split("\n")
    code = BEGIN + "\n".join(line[8:] for line in lines) + "\nprint('whole')\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "whole\n"), done.stderr[-2000:]
