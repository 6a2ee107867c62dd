"""Memory that is kept, seen by the kernel's count of pages that were given."""

from __future__ import annotations

import subprocess
import sys

FAULTS = """
import resource
from streams.worker.memory import keep_memory
if {keeps}:
    keep_memory()

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def fill():
    pieces = [bytearray(b"x") * (3 * 2**20) for _ in range(8)]
    last = bytearray(100)  # at the end of the heap it would be all that is given back
    del pieces

fill()
before = faults()
for _ in range(10):
    fill()
print(faults() - before)
"""


def test_pieces_that_come_again_and_again_cost_no_pages() -> None:
    kept, given_back = (
        int(
            subprocess.run(
                [sys.executable, "-c", FAULTS.format(keeps=keeps)],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        )
        for keeps in (True, False)
    )
    assert kept < 1_000
    assert given_back > 10 * kept
