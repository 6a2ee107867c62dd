"""The implementations of ClickHouse's HTTP interface, and a plain client for them."""

from __future__ import annotations

import http.client
import os
import select
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlencode, urlsplit
from uuid import uuid4

import pytest

from sinks.clickhouse.connection import ClickHouseTarget

Body = bytes | Iterator[bytes]


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def code(self) -> int:
        return int(self.headers.get("X-ClickHouse-Exception-Code", "0"))


@dataclass(frozen=True)
class ClickHouse:
    """An address with credentials; every call is a connection of its own."""

    url: str
    database: str = "default"

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or 80

    @property
    def user(self) -> str:
        return urlsplit(self.url).username or "default"

    @property
    def password(self) -> str:
        return urlsplit(self.url).password or ""

    def target(self, database: str) -> ClickHouseTarget:
        """For the project's own clients; the database need not be there."""
        url = f"{urlsplit(self.url).scheme}://{self.host}:{self.port}"
        return ClickHouseTarget(url, self.user, self.password, database)

    def send(
        self,
        method: str,
        path: str = "/",
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        /,
        **url: object,
    ) -> Answer:
        """As it is given; ``body`` in chunks goes out in chunks."""
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        given = {"Accept-Encoding": "identity", **(headers or {})}
        target = f"{path}?{urlencode(url)}" if url else path
        chunked = not isinstance(body, bytes | None)
        if chunked:
            given["Transfer-Encoding"] = "chunked"
        try:
            connection.request(method, target, body, given, encode_chunked=chunked)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    @property
    def credentials(self) -> dict[str, str]:
        return {"X-ClickHouse-User": self.user, "X-ClickHouse-Key": self.password}

    def post(
        self, body: str | Body, headers: Mapping[str, str] | None = None, /, **url: object
    ) -> Answer:
        data = body.encode() if isinstance(body, str) else body
        given = {**self.credentials, **(headers or {})}
        return self.send("POST", "/", data, given, **{"database": self.database, **url})

    def get(self, query: str, headers: Mapping[str, str] | None = None, /, **url: object) -> Answer:
        given = {**self.credentials, **(headers or {})}
        url = {"query": query, "database": self.database, **url}
        return self.send("GET", "/", None, given, **url)

    def value(self, query: str, **url: object) -> str:
        """The answer in TSV, without its last line break; fails on an error."""
        answer = self.post(query, **url)
        assert answer.status == 200, answer.text
        return answer.text.removesuffix("\n")


class EmbeddedProcess:
    """``python -m sinks.embedded`` on a free port."""

    def __init__(self, path: Path, *options: str) -> None:
        self.path = path
        self.errors = path.with_name(f"{path.name}.{uuid4().hex[:6]}.log")
        with self.errors.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "sinks.embedded", "--path", path, "--port", "0", *options],
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=Path(__file__).parents[2],
            )
        assert self._process.stdout is not None
        ready, _, _ = select.select([self._process.stdout], [], [], 60)
        line = self._process.stdout.readline().decode() if ready else ""
        if not line.startswith("listening on "):
            self.kill()
            pytest.fail(f"no server: {line!r} {self.errors.read_text()}")
        self.server = ClickHouse(line.removeprefix("listening on ").strip())

    @property
    def resident_bytes(self) -> int:
        pages = Path(f"/proc/{self._process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        self._process.send_signal(number)
        return self._process.wait(timeout=30)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(timeout=30)


# A real server is one more implementation, where CLICKHOUSE_URL names one.
IMPLEMENTATIONS = ["embedded", *(["server"] if "CLICKHOUSE_URL" in os.environ else [])]


@pytest.fixture(scope="session")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedProcess]:
    """One process for every test that leaves it as it was."""
    process = EmbeddedProcess(tmp_path_factory.mktemp("embedded") / "data")
    yield process
    assert process.stop() == 0


@pytest.fixture(scope="session", params=IMPLEMENTATIONS)
def address(request: pytest.FixtureRequest) -> ClickHouse:
    if request.param == "server":
        return ClickHouse(os.environ["CLICKHOUSE_URL"])
    process: EmbeddedProcess = request.getfixturevalue("embedded")
    return process.server


@pytest.fixture
def clickhouse(address: ClickHouse) -> Iterator[ClickHouse]:
    """The implementation with a database that is the test's own."""
    name = f"contract_{uuid4().hex[:12]}"
    address.value(f"CREATE DATABASE {name}")
    yield ClickHouse(address.url, name)
    address.value(f"DROP DATABASE {name}")


@pytest.fixture
def target(address: ClickHouse) -> Iterator[ClickHouseTarget]:
    """A database of the test's own, not yet made."""
    name = f"contract_{uuid4().hex[:12]}"
    yield address.target(name)
    address.value(f"DROP DATABASE IF EXISTS {name}")


@pytest.fixture
def start_embedded() -> Iterator[Callable[..., EmbeddedProcess]]:
    """Starts processes, which end with the test."""
    started: list[EmbeddedProcess] = []

    def start(path: Path, *options: str) -> EmbeddedProcess:
        started.append(EmbeddedProcess(path, *options))
        return started[-1]

    yield start
    for process in started:
        process.kill()
