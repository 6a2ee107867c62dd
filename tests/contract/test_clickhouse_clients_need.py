"""What clients rely on beyond a plain query: versions, blocks, buffers, ids, limits."""

from __future__ import annotations

import gzip
import http.client
import json
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import clickhouse_connect
import lz4.block
import lz4.frame
import pytest
import zstandard

from sinks.embedded.blocks import encode
from tests.waiting import eventually

if TYPE_CHECKING:
    from conftest import ClickHouse, EmbeddedProcess

pytestmark = pytest.mark.stack

Start = Callable[..., "EmbeddedProcess"]
TABLE = "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a"
INFO = b"\x01\x00\x02\xff\xff\xff\xff\x00"


# ── client_protocol_version ──────────────────────────────────────────────────────────────────


def test_native_blocks_are_those_of_the_clients_protocol_version(address: ClickHouse) -> None:
    sql = "SELECT toDateTime(5, 'Asia/Tokyo') AS d, 7::UInt8 AS n FORMAT Native"
    plain = b"\x02\x01\x01d\x08DateTime\x05\0\0\0\x01n\x05UInt8\x07"
    zoned = b"\x02\x01\x01d\x16DateTime('Asia/Tokyo')\x05\0\0\0\x01n\x05UInt8\x07"
    flagged = b"\x02\x01\x01d\x16DateTime('Asia/Tokyo')\0\x05\0\0\0\x01n\x05UInt8\0\x07"
    assert address.post(sql).body == plain
    assert address.post(sql, client_protocol_version=54405).body == INFO + zoned
    assert address.post(sql, client_protocol_version=54460).body == INFO + flagged


@pytest.mark.parametrize("tail", [" FORMAT Native", " FORMAT Native;", ";", " -- the end", ""])
def test_time_zones_are_kept_however_the_query_ends(address: ClickHouse, tail: str) -> None:
    sql = f"SELECT toDateTime({{n:UInt32}}, 'Asia/Tokyo') AS d{tail}"
    url = {"default_format": "Native", "client_protocol_version": 54405, "param_n": 5}
    assert b"DateTime('Asia/Tokyo')" in address.post(sql, **url).body


def test_an_opaque_column_does_not_hide_those_behind_it(address: ClickHouse) -> None:
    sql = """SELECT uniqState(number) AS s, '{"a": [1, 2]}'::JSON AS j, 'x' AS e, 1::Dynamic AS d,
             toDateTime(0, 'UTC') AS t, maxState(toString(number)) AS m
             FROM numbers(1000) FORMAT Native"""
    body = address.post(sql, client_protocol_version=54460).body
    assert body.endswith(b"\x03999\x00") or b"999" in body[-16:]
    assert b"\x01e\x06String\x00\x01x" in body
    assert b"\x01t\x0fDateTime('UTC')\x00" in body


def test_clickhouse_connect_sees_the_time_zone_of_a_column(address: ClickHouse) -> None:
    client = clickhouse_connect.get_client(
        host=address.host, port=address.port, username=address.user, password=address.password
    )
    sql = "SELECT toDateTime('2026-01-02 03:04:05', 'UTC') AS a, a::DateTime('Asia/Tokyo') AS b"
    result = client.query(sql, column_tzs=None)
    assert [t.name for t in result.column_types] == ["DateTime('UTC')", "DateTime('Asia/Tokyo')"]
    tokyo = result.first_row[1]
    assert tokyo.utcoffset().total_seconds() == 9 * 3600
    assert tokyo == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    client.close()


# ── compress=1, decompress=1 ─────────────────────────────────────────────────────────────────


def decoded(body: bytes) -> bytes:
    """LZ4 blocks, read by hand; the checksums are held against the writer's in the unit tests."""
    out, at = b"", 0
    while at < len(body):
        assert body[at + 16] == 0x82
        size = int.from_bytes(body[at + 17 : at + 21], "little")
        plain = int.from_bytes(body[at + 21 : at + 25], "little")
        out += lz4.block.decompress(body[at + 25 : at + 16 + size], uncompressed_size=plain)
        at += 16 + size
    return out


def test_a_result_comes_in_compressed_blocks(address: ClickHouse) -> None:
    answer = address.post("SELECT number FROM numbers(500000)", compress=1)
    assert decoded(answer.body) == b"".join(b"%d\n" % i for i in range(500_000))
    assert len(answer.body) < 2_600_000
    zipped = address.post(
        "SELECT 1", {"Accept-Encoding": "gzip"}, compress=1, enable_http_compression=1
    )
    assert decoded(gzip.decompress(zipped.body)) == b"1\n"


def test_an_error_of_a_compressed_result_can_be_read(address: ClickHouse) -> None:
    answer = address.post("SELECT throwIf(1)", compress=1)
    assert (answer.status, answer.code) == (500, 395)
    assert decoded(answer.body).startswith(b"Code: 395.")
    late = "SELECT throwIf(number = 3000000), number FROM numbers(10000000)"
    with pytest.raises(http.client.IncompleteRead) as broken:
        address.post(late, max_block_size=65536, compress=1)
    assert b"\r\n__exception__\r\n" in broken.value.partial


def test_data_comes_in_compressed_blocks(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    rows = b"".join(b"%d,row\n" % i for i in range(300_000))
    body = b"".join(encode(rows[at : at + 100_000]) for at in range(0, len(rows), 100_000))
    url = {"query": "INSERT INTO t FORMAT CSV", "decompress": 1}
    assert clickhouse.post(body, **url).status == 200
    assert clickhouse.value("SELECT count(), sum(a) FROM t") == "300000\t44999850000"
    zipped = clickhouse.post(gzip.compress(encode(b"1,x\n")), {"Content-Encoding": "gzip"}, **url)
    assert zipped.status == 200
    assert clickhouse.post(encode(b"SELECT 41 + 1"), decompress=1).body == b"42\n"
    broken = bytearray(encode(b"1,x\n"))
    broken[3] ^= 1
    assert clickhouse.post(bytes(broken), **url).code == 40
    assert clickhouse.post(b"1,x\n", **url).code == 271
    assert clickhouse.value("SELECT count() FROM t") == "300001"


# ── Bounds ───────────────────────────────────────────────────────────────────────────────────

COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "deflate": zlib.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "lz4": lz4.frame.compress,
}


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_body_that_decompresses_to_a_large_one_takes_little_memory(
    embedded: EmbeddedProcess, encoding: str
) -> None:
    server = embedded.server
    server.value("SELECT 1")
    before = embedded.resident_bytes
    bomb = COMPRESS[encoding](b"SELECT 1 --" + bytes(256 << 20))
    answer = server.post(bomb, {"Content-Encoding": encoding})
    assert (answer.status, answer.code) == (413, 229)
    assert embedded.resident_bytes - before < 128 << 20


def test_a_body_is_bounded_before_and_after_decompression(
    start_embedded: Start, tmp_path: Path
) -> None:
    server = start_embedded(tmp_path / "data", "--max-body-bytes", "1000000").server
    server.value(TABLE)
    rows = b"1,x\n" * 300_000
    url = {"query": "INSERT INTO t FORMAT CSV"}
    tries = [
        server.post(rows, **url),
        server.post(gzip.compress(rows), {"Content-Encoding": "gzip"}, **url),
        server.post(encode(rows), **url, decompress=1),
    ]
    assert [(t.status, t.code) for t in tries] == [(413, 229)] * 3
    assert "--max-body-bytes" in tries[0].text
    assert server.value("SELECT count() FROM t") == "0"


def form(name: str, data: bytes, headers: str = "") -> tuple[bytes, dict[str, str]]:
    head = f'--b\r\nContent-Disposition: form-data; name="{name}"; filename="f"\r\n{headers}\r\n'
    return head.encode() + data + b"\r\n--b--\r\n", {
        "Content-Type": "multipart/form-data; boundary=b"
    }


@pytest.mark.parametrize("encoding", COMPRESS)
def test_a_compressed_part_of_a_form_is_bounded(embedded: EmbeddedProcess, encoding: str) -> None:
    url = {"query": "SELECT sum(a) FROM x", "x_structure": "a UInt64", "x_format": "CSV"}
    small, headers = form("x", COMPRESS[encoding](b"20\n22\n"), f"Content-Encoding: {encoding}\r\n")
    assert embedded.server.post(small, headers, **url).body == b"42\n"
    before = embedded.resident_bytes
    packed = COMPRESS[encoding](bytes(256 << 20))
    bomb, headers = form("x", packed, f"Content-Encoding: {encoding}\r\n")
    assert embedded.server.post(bomb, headers, **url).code == 229
    assert embedded.resident_bytes - before < 192 << 20


def test_a_query_has_a_memory_limit(start_embedded: Start, tmp_path: Path) -> None:
    process = start_embedded(tmp_path / "data", "--max-query-memory-bytes", "200000000")
    greedy = "SELECT length(groupArray(number)) FROM numbers(100000000)"
    answer = process.server.post(greedy)
    assert (answer.status, answer.code) == (500, 241)
    assert "maximum: 190.73 MiB" in answer.text
    assert process.server.value("SELECT getSetting('max_memory_usage')") == "200000000"


@pytest.mark.parametrize(("name", "begins"), [("Parquet", b"PAR1"), ("ORC", b"ORC")])
def test_data_that_the_engine_reads_whole_is_bounded_by_memory(
    start_embedded: Start, tmp_path: Path, name: str, begins: bytes
) -> None:
    server = start_embedded(tmp_path / "data", "--max-query-memory-bytes", "40000000").server
    server.value(TABLE)
    url = {"query": f"INSERT INTO t FORMAT {name}"}
    bomb = gzip.compress(begins + bytes(20_000_000))
    answer = server.post(bomb, {"Content-Encoding": "gzip"}, **url)
    assert (answer.status, answer.code) == (413, 229)
    assert "--max-query-memory-bytes" in answer.text


def test_no_setting_lifts_the_limit_of_the_engine(start_embedded: Start, tmp_path: Path) -> None:
    server = start_embedded(tmp_path / "data", "--max-memory-bytes", "1000000000").server
    greedy = "SELECT length(groupArray(number)) FROM numbers(1000000000)"
    answer = server.post(greedy, max_memory_usage=0)
    assert (answer.status, answer.code) == (500, 241)
    assert server.value("SELECT 1") == "1"


def test_by_default_a_query_may_take_a_quarter_of_the_memory(embedded: EmbeddedProcess) -> None:
    limit = int(embedded.server.value("SELECT getSetting('max_memory_usage')"))
    total = embedded.server.value(
        "SELECT value FROM system.server_settings WHERE name = 'max_server_memory_usage'"
    )
    assert 0 < limit <= int(total) // 2


# ── When the answer begins ───────────────────────────────────────────────────────────────────

SLOWLY = "SELECT number, sleepEachRow(0.05), throwIf(number = 40) FROM numbers(60)"


@pytest.mark.parametrize(
    "url", [{"buffer_size": 0}, {"buffer_size": 20}, {"wait_end_of_query": 0}], ids=str
)
def test_a_result_is_sent_as_it_comes_where_the_buffer_is_small(
    address: ClickHouse, url: dict[str, int]
) -> None:
    with pytest.raises(http.client.IncompleteRead) as broken:
        address.post(SLOWLY, max_block_size=1, **url)
    rows, _, error = broken.value.partial.partition(b"\r\n__exception__")
    assert rows.startswith(b"0\t0\t0\n1\t0\t0\n")
    assert b"Code: 395." in error


@pytest.mark.parametrize(
    "url",
    [
        {"buffer_size": 100_000},
        {"wait_end_of_query": 1},
        {"wait_end_of_query": 1, "buffer_size": 1},
        {},
    ],
    ids=str,
)
def test_an_error_is_the_status_while_the_result_is_held(
    address: ClickHouse, url: dict[str, int]
) -> None:
    answer = address.post(SLOWLY, max_block_size=1, **url)
    assert (answer.status, answer.code) == (500, 395)


# ── SQL in bytes ─────────────────────────────────────────────────────────────────────────────


def test_sql_need_not_be_utf_8(clickhouse: ClickHouse) -> None:
    sql = b"SELECT '\xff\xfe', /* \xff */ length('\xc3(') AS `\xf0`, $x$\xff'$x$ -- \xff\n"
    assert clickhouse.post(sql + b"FORMAT TSVRaw").body == b"\xff\xfe\t2\t\xff'\n"
    clickhouse.value(TABLE)
    insert = b"INSERT INTO t SELECT 1, '\xff' || {s:String}"
    assert clickhouse.post(insert, param_s=b"\xfe").status == 200
    assert clickhouse.post(b"INSERT INTO t VALUES (2, '\xfd\xfc')").status == 200
    assert (
        clickhouse.value("SELECT groupArray(hex(b)) FROM (SELECT b FROM t ORDER BY a)")
        == "['FFFE','FDFC']"
    )
    by_url = clickhouse.send("GET", "/?query=SELECT+hex('%FF%C3%A9')", None, clickhouse.credentials)
    assert by_url.body == b"FFC3A9\n"


def test_bytes_that_are_no_utf_8_outside_of_quotes_are_a_syntax_error(address: ClickHouse) -> None:
    answer = address.post(b"SELECT \xff")
    assert (answer.status, answer.code) == (400, 62)


# ── Query ids ────────────────────────────────────────────────────────────────────────────────


ENDLESS = "SELECT sum(sleepEachRow(0.05)) FROM system.numbers"


def test_a_query_is_killed_by_the_id_that_its_client_gave(address: ClickHouse) -> None:
    query_id = f"it's {uuid4()}"
    literal = query_id.replace("'", "\\'")
    running = f"SELECT count() FROM system.processes WHERE query_id = '{literal}'"
    with ThreadPoolExecutor(1) as pool:
        endless = pool.submit(
            address.post,
            ENDLESS,
            query_id=query_id,
            max_block_size=1,
            log_comment="mine",
        )
        eventually(lambda: address.value(running) == "1")
        killed = address.post(f"KILL QUERY WHERE query_id = '{literal}'")
        assert killed.status == 200
        assert "waiting" in killed.text
        answer = endless.result()
        assert (answer.status, answer.code) == (500, 394)
    assert address.value(running) == "0"


def test_a_query_knows_its_id(address: ClickHouse) -> None:
    query_id = f"known-{uuid4()}"
    sql = "SELECT queryID() AS a, p.query_id, p.initial_query_id FROM system.processes AS p "
    row = address.value(sql + "WHERE p.query_id = queryID()", query_id=query_id)
    assert row == f"{query_id}\t{query_id}\t{query_id}"


@pytest.mark.parametrize("query_id", ["a\nX-Evil: 1", "é", "x" * 1025])
def test_an_id_that_fits_into_no_header_is_refused(
    embedded: EmbeddedProcess, query_id: str
) -> None:
    answer = embedded.server.post("SELECT 1", query_id=query_id)
    assert (answer.status, answer.code) == (400, 36)


def test_replace_running_query_ends_the_one_before(address: ClickHouse) -> None:
    query_id = str(uuid4())
    running = f"SELECT count() FROM system.processes WHERE query_id = '{query_id}'"
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(address.post, ENDLESS, query_id=query_id, max_block_size=1)
        eventually(lambda: address.value(running) == "1")
        second = address.post("SELECT 2", query_id=query_id, replace_running_query=1)
        assert second.body == b"2\n"
        assert first.result().code == 394


# ── The database of a client that names none ─────────────────────────────────────────────────


@pytest.fixture
def nameless(start_embedded: Start, tmp_path: Path) -> ClickHouse:
    return start_embedded(tmp_path / "data", "--database", "meter").server


def ask(server: ClickHouse, sql: str, headers: dict[str, str] | None = None, **url: object) -> str:
    return server.send("POST", "/", sql.encode(), headers, **url).text.removesuffix("\n")


def test_a_client_that_names_no_database_gets_the_endpoints(nameless: ClickHouse) -> None:
    asked = "SELECT currentDatabase()"
    assert ask(nameless, asked) == "meter"
    assert nameless.send("GET", "/", query=asked).text == "meter\n"
    assert ask(nameless, asked, database="system") == "system"
    assert ask(nameless, asked, database="default") == "default"
    assert ask(nameless, asked, {"X-ClickHouse-Database": "default"}) == "default"
    assert ask(nameless, asked, session_id="s") == "meter"
    assert ask(nameless, "DROP DATABASE meter") == ""
    assert ask(nameless, asked) == "default"
    assert ask(nameless, "CREATE DATABASE meter") == ""
    assert ask(nameless, asked) == "meter"


# ── Settings of HTTP ─────────────────────────────────────────────────────────────────────────


def test_settings_of_http_do_what_they_say(address: ClickHouse) -> None:
    gzip_of = {"Accept-Encoding": "gzip", "Origin": "http://example.test"}
    sql = "SELECT number FROM numbers(100000)"
    sizes = [
        len(
            address.post(
                sql, gzip_of, enable_http_compression=1, http_zlib_compression_level=level
            ).body
        )
        for level in (0, 9)
    ]
    assert sizes[0] > sizes[1]
    answer = address.post("SELECT 1", gzip_of, add_http_cors_header=1)
    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    held = address.post(SLOWLY, max_block_size=1, http_response_buffer_size=100_000)
    assert held.status == 500
    summary = address.post("SELECT 1", send_progress_in_http_headers=1, wait_end_of_query=1)
    assert json.loads(summary.headers["X-ClickHouse-Summary"])["result_rows"] == "1"
