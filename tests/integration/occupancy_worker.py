"""An instance without a server, for the tests of the occupancy board: batches, until it is told
to stop. Says what it had, one JSON line a batch: ``[begin_ns, end_ns, share_ns]``. Every other one,
by its name, does without a mapping, so that both kinds meet.

``python occupancy_worker.py LOG_DIR NAME BATCHES PATIENCE_NS``
"""

from __future__ import annotations

import json
import random
import sys
import time
from pathlib import Path

from metering import occupancy_board, occupancy_file
from metering.occupancy_board import Board


def main() -> None:
    log_dir, name, batches, patience_ns = sys.argv[1:]
    occupancy_board.PATIENCE_NS = int(patience_ns)
    if sum(name.encode()) % 2:
        occupancy_file.mapping = None  # type: ignore[assignment]
    drawn = random.Random(name)
    board = Board.open(Path(log_dir), "gpu0", "L4", f"host/boot/{name}", "model")
    print("open", flush=True)
    for _ in range(int(batches)):
        board.begin()
        if drawn.random() < 0.8:
            time.sleep(drawn.random() * 0.003)
        held = board.end()
        print(json.dumps([held.start_ns, held.end_ns, held.share_ns]), flush=True)
        if drawn.random() < 0.5:
            time.sleep(drawn.random() * 0.002)
    board.close()


if __name__ == "__main__":
    main()
