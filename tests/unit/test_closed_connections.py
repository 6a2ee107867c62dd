"""What is sent to a broker that has just gone fails as any broken connection does."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop
from aiokafka.conn import AIOKafkaConnection
from aiokafka.errors import KafkaConnectionError

from streams import closed_connections
from streams.closed_connections import tell_closed_connections

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture
def _told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(AIOKafkaConnection, "send", AIOKafkaConnection.send)
    tell_closed_connections()


class Request:
    """Of no kind that a broker knows: nobody answers it."""

    def prepare(self, _: object) -> Request:
        return self

    def build_request_header(self, **_: object) -> Any:
        return SimpleNamespace(encode=lambda: b"head")

    def encode(self) -> bytes:
        return b"body"


async def connected() -> tuple[AIOKafkaConnection, asyncio.StreamReader, asyncio.Server]:
    """A connection as aiokafka has it, and what its broker reads."""
    arrived: asyncio.Future[asyncio.StreamReader] = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda r, _: arrived.set_result(r), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    connection = AIOKafkaConnection("127.0.0.1", port)
    connection._reader, connection._writer = await asyncio.open_connection("127.0.0.1", port)
    connection._read_task = asyncio.create_task(asyncio.sleep(60))
    connection._closed_fut = asyncio.get_running_loop().create_future()
    return connection, await arrived, server


def run(make_loop: Callable[[], asyncio.AbstractEventLoop], main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=make_loop) as runner:
        runner.run(main())


@pytest.mark.usefixtures("_told")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_to_a_broker_that_has_gone_is_a_broken_connection(loop: str) -> None:
    async def main() -> None:
        connection, _, server = await connected()
        closed = []
        connection._on_close_cb = lambda *told: closed.append(told)
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        with pytest.raises(KafkaConnectionError, match=r"127\.0\.0\.1:\d+ was closed"):
            connection.send(Request())
        assert len(closed) == 1, "the client is told that the connection is no more"
        with pytest.raises(KafkaConnectionError, match="No connection"):
            connection.send(Request())
        server.close()

    run(LOOPS[loop], main)


@pytest.mark.usefixtures("_told")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_request_to_a_broker_that_is_there_arrives(loop: str) -> None:
    async def main() -> None:
        connection, arrived, server = await connected()
        answer = connection.send(Request())
        assert await asyncio.wait_for(arrived.readexactly(12), 10) == b"\0\0\0\x08headbody"
        connection.close()
        with pytest.raises(KafkaConnectionError, match="closed"):
            await answer
        server.close()

    run(LOOPS[loop], main)


def test_without_it_uvloop_raises_what_no_client_of_kafka_expects() -> None:
    """When this fails, the module can go."""

    async def main() -> None:
        connection, _, server = await connected()
        connection._writer.transport.abort()
        await asyncio.sleep(0.01)
        with pytest.raises(RuntimeError, match="the handler is closed"):
            closed_connections._send(connection, Request())
        server.close()

    run(LOOPS["uvloop"], main)
