"""Run the tests of the Go and Node clients against a real endpoint with the project's tables.

``python -m tests.clients.run [go] [node]``; both without arguments. The clients find the endpoint
in ``CLICKHOUSE_HOST``, ``CLICKHOUSE_PORT``, ``CLICKHOUSE_USER``, ``CLICKHOUSE_PASSWORD`` and
``CLICKHOUSE_DATABASE``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from sinks.clickhouse.connection import ClickHouseTarget, connect
from sinks.clickhouse.schema import migrate

HERE = Path(__file__).parent
REPO = HERE.parents[1]
USER, PASSWORD, DATABASE = "meter", "päss:word", "meter"
COMMANDS: dict[str, list[list[str]]] = {
    "go": [["go", "vet", "./..."], ["go", "test", "-count=1", "-timeout=10m", "./..."]],
    "node": [["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], ["npm", "test"]],
}
ROWS = (
    """INSERT INTO cost_request_lines (time, source, sequence, position, tenant, model, region,
        output_tokens, gpu_ns, pricing_status, cost_usd, output_cost_usd)
    SELECT toDateTime64('2026-01-02 03:04:05.123456789', 9, 'UTC') + number, 'test', number, 0,
        ['acme', 'globex'][number % 2 + 1], 'tiny', 'eu', 1000, 5000000, 'priced',
        toDecimal128('0.000000000000000001', 18) * (number + 1), toDecimal128('0.002', 18)
    FROM numbers(1000)""",
    """INSERT INTO cost_window_rows (window_start, window_seconds, tenant, model, final, requests,
        output_tokens, gpu_ns, cost_usd, output_cost_usd, usd_per_request, version)
    SELECT toDateTime64('2026-01-02 03:00:00', 3, 'UTC') + 60 * number, 60, 'acme', 'tiny', true,
        10, 10000, 50000000, toDecimal128('0.5', 18), toDecimal128('0.5', 18),
        toDecimal128('0.05', 18), 1
    FROM numbers(10)""",
)


def main(wanted: list[str]) -> int:
    """0 where every client's tests pass; the clients' own output is what is shown."""
    names = wanted or list(COMMANDS)
    for name in names:
        tool = COMMANDS[name][0][0]
        if shutil.which(tool) is None:
            print(f"{tool} is not on the PATH: it is needed for the tests of the {name} client")
            return 1
    with tempfile.TemporaryDirectory(prefix="clients-") as folder, endpoint(Path(folder)) as url:
        fill(url)
        address = urlsplit(url)
        env = {
            **os.environ,
            "CLICKHOUSE_HOST": address.hostname or "",
            "CLICKHOUSE_PORT": str(address.port),
            "CLICKHOUSE_USER": USER,
            "CLICKHOUSE_PASSWORD": PASSWORD,
            "CLICKHOUSE_DATABASE": DATABASE,
        }
        for name in names:
            for command in COMMANDS[name]:
                print(f"» {name}: {' '.join(command)}", flush=True)
                done = subprocess.run(command, cwd=HERE / name, env=env, check=False)
                if done.returncode != 0:
                    return done.returncode
    return 0


@contextmanager
def endpoint(folder: Path) -> Iterator[str]:
    """The endpoint's address while it runs, on a port that is free."""
    secret = folder / "password"
    secret.write_text(PASSWORD)
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "sinks.embedded", "--path", str(folder / "data")),
            *("--port", "0", "--database", DATABASE),
            *("--user", USER, "--password-file", str(secret)),
        ],
        stdout=subprocess.PIPE,
        cwd=REPO,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line.startswith("listening on "):
            raise SystemExit(f"the endpoint did not start: {line!r}")
        yield line.removeprefix("listening on ").strip()
    finally:
        process.terminate()
        process.wait(timeout=30)


def fill(url: str) -> None:
    """The project's schema, with a thousand lines and ten windows."""
    target = ClickHouseTarget(url, USER, PASSWORD, DATABASE)
    migrate(target)
    with connect(target) as client:
        for rows in ROWS:
            client.command(rows)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
