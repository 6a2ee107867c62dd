"""ClickHouse's HTTP interface, as its clients rely on it."""

from __future__ import annotations

import base64
import gzip
import http.client
import json
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import clickhouse_connect
import lz4.frame
import pytest
import zstandard
from clickhouse_connect.driver.client import Client
from clickhouse_connect.driver.exceptions import ClickHouseError
from clickhouse_connect.driver.external import ExternalData

from tests.waiting import eventually

if TYPE_CHECKING:
    from conftest import Answer, ClickHouse, EmbeddedProcess

pytestmark = pytest.mark.stack

TABLE = "CREATE TABLE t (a UInt64, b String) ENGINE = MergeTree ORDER BY a"
NATIVE_7_8 = b"\x01\x02\x01a\x06UInt64" + struct.pack("<QQ", 7, 8)


def running(query: str, query_id: str = "") -> str:
    """The question how many queries run that begin so."""
    is_it = f"startsWith(query, '{query}') AND query_id LIKE '%{query_id}%'"
    return f"SELECT countIf({is_it}) FROM system.processes"


# ── Being asked whether it is there ──────────────────────────────────────────────────────────


@pytest.mark.parametrize("path", ["/", "/ping", "/replicas_status"])
def test_health_paths_say_ok(address: ClickHouse, path: str) -> None:
    answer = address.send("GET", path)
    assert (answer.status, answer.body) == (200, b"Ok.\n")


def test_an_unknown_path_is_404(address: ClickHouse) -> None:
    answer = address.send("GET", "/nothing-here")
    assert answer.status == 404
    assert "There is no handle /nothing-here" in answer.text


# ── Queries ──────────────────────────────────────────────────────────────────────────────────


def test_a_query_comes_by_get_by_post_and_in_two_parts(address: ClickHouse) -> None:
    assert address.get("SELECT 1").body == b"1\n"
    assert address.post("SELECT 1").body == b"1\n"
    assert address.post(b"", query="SELECT 1").body == b"1\n"
    assert address.post("+ 41", query="SELECT 1").body == b"42\n"


def test_an_empty_query_is_a_syntax_error(address: ClickHouse) -> None:
    answer = address.post("")
    assert (answer.status, answer.code) == (400, 62)


def test_a_second_statement_is_refused(address: ClickHouse) -> None:
    assert address.post("SELECT 1; SELECT 2").code == 62
    assert address.post("SELECT ';'; -- ; \n ;").body == b";\n"


def test_get_only_reads(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    for write in ("INSERT INTO t VALUES (1, 'x')", "DROP TABLE t", "CREATE DATABASE never"):
        assert clickhouse.get(write).code == 164
    assert clickhouse.get("SELECT count() FROM t", max_threads=1).body == b"0\n"
    assert clickhouse.get("SELECT 1", readonly=0).code == 164
    assert clickhouse.post("DROP TABLE t", readonly=1).code == 164


def test_parameters_are_bound_by_the_server(address: ClickHouse) -> None:
    injection = "'; DROP TABLE x; --"
    sql = "SELECT {n:UInt8} + 1, {s:String}, {l:Array(UInt8)}, {z:Nullable(String)}"
    row = address.get(sql, param_n=41, param_s=injection, param_l="[1,2]", param_z="\\N")
    assert row.text == "42\t\\'; DROP TABLE x; --\t[1,2]\t\\N\n"
    assert address.get("SELECT {s:String} = '\\t'", param_s="\\t").body == b"1\n"
    assert address.get("SELECT {n:UInt8}", param_n="x").code == 457
    assert address.get("SELECT {n:UInt8}").code == 456


def test_the_format_comes_from_the_clause_then_the_header_then_the_url(
    address: ClickHouse,
) -> None:
    header = {"X-ClickHouse-Format": "JSONEachRow"}
    clause = address.get("SELECT 1 AS x FORMAT CSV", header, default_format="TSV")
    by_header = address.get("SELECT 1 AS x", header, default_format="TSV")
    by_url = address.get("SELECT 1 AS x", default_format="CSVWithNames")
    assert (clause.body, clause.headers["X-ClickHouse-Format"]) == (b"1\n", "CSV")
    assert by_header.body == b'{"x":1}\n'
    assert by_url.body == b'"x"\n1\n'


@pytest.mark.parametrize(
    ("name", "content_type"),
    [
        ("TabSeparated", "text/tab-separated-values; charset=UTF-8"),
        ("CSVWithNames", "text/csv; charset=UTF-8; header=present"),
        ("JSON", "application/json; charset=UTF-8"),
        ("Native", "application/octet-stream"),
        ("PrettyCompact", "text/plain; charset=UTF-8"),
    ],
)
def test_the_content_type_is_the_formats(address: ClickHouse, name: str, content_type: str) -> None:
    answer = address.get(f"SELECT 1 FORMAT {name}")
    assert answer.headers["Content-Type"] == content_type


def test_the_answer_says_who_answered_what(address: ClickHouse) -> None:
    query_id = f"mine-{uuid4()}"
    headers = address.get("SELECT number FROM numbers(7)", query_id=query_id).headers
    assert headers["X-ClickHouse-Query-Id"] == query_id
    assert headers["X-ClickHouse-Timezone"] == address.value("SELECT timezone()")
    assert headers["X-ClickHouse-Server-Display-Name"]
    assert len(address.get("SELECT 1").headers["X-ClickHouse-Query-Id"]) == 36


def test_the_summary_counts_what_was_read_and_written(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    wrote = clickhouse.post("INSERT INTO t SELECT number, 'x' FROM numbers(1234)")
    read = clickhouse.post("SELECT sum(a) FROM t", wait_end_of_query=1)
    assert json.loads(wrote.headers["X-ClickHouse-Summary"])["written_rows"] == "1234"
    assert json.loads(read.headers["X-ClickHouse-Summary"])["read_rows"] == "1234"
    assert json.loads(read.headers["X-ClickHouse-Summary"])["result_rows"] == "1"


def test_only_a_statement_with_a_result_names_a_format(clickhouse: ClickHouse) -> None:
    assert clickhouse.post(TABLE).headers["X-ClickHouse-Format"] is None
    assert clickhouse.post("SELECT a FROM t").headers["X-ClickHouse-Format"] == "TabSeparated"


def test_the_database_is_that_of_the_request(clickhouse: ClickHouse) -> None:
    headers = {**clickhouse.credentials, "X-ClickHouse-Database": clickhouse.database}
    by_header = clickhouse.send("GET", "/", None, headers, query="SELECT currentDatabase()")
    assert clickhouse.value("SELECT currentDatabase()") == clickhouse.database
    assert by_header.text == f"{clickhouse.database}\n"
    missing = clickhouse.post("SELECT 1", database="no_such_database")
    assert (missing.status, missing.code) == (404, 81)


# ── Settings and sessions ────────────────────────────────────────────────────────────────────


def test_a_setting_holds_for_one_request(address: ClickHouse) -> None:
    asked = "SELECT getSetting('max_block_size')"
    usual = address.value(asked)
    assert address.value(asked, max_block_size=17) == "17"
    assert {address.value(asked) for _ in range(8)} == {usual}


def test_set_without_a_session_is_forgotten(address: ClickHouse) -> None:
    usual = address.value("SELECT getSetting('max_block_size')")
    address.value("SET max_block_size = 17")
    assert address.value("SELECT getSetting('max_block_size')") == usual


def test_an_unknown_setting_is_refused(address: ClickHouse) -> None:
    answer = address.get("SELECT 1", no_such_setting=1)
    assert (answer.status, answer.code) == (404, 115)
    assert "no_such_setting" in answer.text


def test_a_session_keeps_settings_and_temporary_tables(clickhouse: ClickHouse) -> None:
    session = str(uuid4())
    clickhouse.value("SET max_block_size = 17", session_id=session)
    clickhouse.value("CREATE TEMPORARY TABLE kept (a UInt8)", session_id=session)
    clickhouse.value("INSERT INTO kept VALUES (5)", session_id=session)
    kept = "SELECT getSetting('max_block_size'), (SELECT sum(a) FROM kept)"
    assert clickhouse.value(kept, session_id=session) == "17\t5"
    assert clickhouse.get(kept, session_id=session).text == "17\t5\n"
    assert clickhouse.post(kept).code == 60
    assert clickhouse.value(kept, session_id=session, session_check=1, close_session=1) == "17\t5"
    assert clickhouse.post(kept, session_id=session, session_check=1).code == 372


def test_what_a_request_sets_is_not_kept_by_its_session(clickhouse: ClickHouse) -> None:
    session = str(uuid4())
    asked = "SELECT getSetting('max_block_size'), getSetting('max_threads'), currentDatabase()"
    clickhouse.value("SET max_block_size = 17", session_id=session)
    before = clickhouse.value(asked, session_id=session)
    during = clickhouse.value(
        asked, session_id=session, max_block_size=19, max_threads=1, database="system"
    )
    assert during == "19\t1\tsystem"
    assert clickhouse.get("DROP TABLE t", session_id=session).code == 164
    assert clickhouse.post("SELECT throwIf(1)", session_id=session, max_block_size=19).code == 395
    assert clickhouse.value(asked, session_id=session) == before


def test_a_session_serves_one_request_at_a_time(address: ClickHouse) -> None:
    session = str(uuid4())
    with ThreadPoolExecutor(1) as pool:
        question = f"SELECT sleep(3) AS s{uuid4().hex}"
        slow = pool.submit(address.post, question, session_id=session)
        eventually(lambda: address.value(running(question)) == "1", slow)
        assert address.post("SELECT 1", session_id=session).code == 373
        assert slow.result().status == 200
    assert address.value("SELECT 1", session_id=session) == "1"
    assert address.post("SELECT 1", session_id=session, session_timeout="soon").code == 374


# ── Credentials ──────────────────────────────────────────────────────────────────────────────


def test_credentials_come_by_header_by_url_or_as_basic(address: ClickHouse) -> None:
    basic = base64.b64encode(f"{address.user}:{address.password}".encode()).decode()
    header = {"Authorization": f"Basic {basic}"}
    by_basic = address.send("GET", "/", None, header, query="SELECT 1")
    right = {"user": address.user, "password": address.password}
    by_url = address.send("GET", query="SELECT 1", **right)
    assert (by_basic.body, by_url.body) == (b"1\n", b"1\n")


@pytest.mark.parametrize(
    ("headers", "url"),
    [
        ({"X-ClickHouse-User": "nobody", "X-ClickHouse-Key": "x"}, {}),
        ({}, {"user": "nobody", "password": "x"}),
        ({"Authorization": "Basic " + base64.b64encode(b"nobody:x").decode()}, {}),
        ({"Authorization": "Basic !"}, {}),
        ({"X-ClickHouse-User": "default"}, {"user": "default"}),
    ],
)
def test_wrong_or_mixed_credentials_are_refused(
    address: ClickHouse, headers: dict[str, str], url: dict[str, str]
) -> None:
    answer = address.send("GET", "/", None, headers, query="SELECT 1", **url)
    assert (answer.status, answer.code) == (403, 516)
    assert "AUTHENTICATION_FAILED" in answer.text


# ── Errors ───────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "status", "code", "name"),
    [
        ("SELECT * FROM no_such_table", 404, 60, "UNKNOWN_TABLE"),
        ("SELECT no_such_function()", 404, 46, "UNKNOWN_FUNCTION"),
        ("SELECT no_such_column", 404, 47, "UNKNOWN_IDENTIFIER"),
        ("SELECT * FROM no_such_database.t", 404, 81, "UNKNOWN_DATABASE"),
        ("SELECT 1 FORMAT NoSuchFormat", 404, 73, "UNKNOWN_FORMAT"),
        ("SELEC 1", 400, 62, "SYNTAX_ERROR"),
        ("SELECT 1 INTO OUTFILE 'x'", 500, 358, "INTO_OUTFILE_NOT_ALLOWED"),
        ("SELECT throwIf(1)", 500, 395, "FUNCTION_THROW_IF_VALUE_IS_NON_ZERO"),
    ],
)
def test_an_error_has_clickhouses_status_code_and_words(
    address: ClickHouse, query: str, status: int, code: int, name: str
) -> None:
    answer = address.post(query)
    assert (answer.status, answer.code) == (status, code)
    assert answer.text.startswith(f"Code: {code}. DB::Exception: ")
    assert f"({name}) (version {address.value('SELECT version()')}" in answer.text


def test_an_error_in_mid_stream_is_no_whole_answer(address: ClickHouse) -> None:
    late = "SELECT throwIf(number = 3000000), number FROM numbers(10000000)"
    with pytest.raises(http.client.IncompleteRead) as broken:
        address.post(late, max_block_size=65536)
    assert b"__exception__" in broken.value.partial
    assert b"Code: 395. DB::Exception" in broken.value.partial
    held = address.post(late, max_block_size=65536, wait_end_of_query=1)
    assert (held.status, held.code) == (500, 395)


# ── Inserts ──────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("query", "body"),
    [
        ("", b"INSERT INTO t VALUES (7, ''), (8, lower('') || '')"),
        ("", b"INSERT INTO t (a) VALUES (7), (8);"),
        ("", b'insert into table t(a) format JSONEachRow\n{"a":7}\n{"a":8}'),
        ("", b"INSERT INTO t SELECT number + 7, '' FROM numbers(2)"),
        ("", b"INSERT INTO t (a) FORMAT Native\n" + NATIVE_7_8),
        ("INSERT INTO t (a) FORMAT Native", NATIVE_7_8),
        ("INSERT INTO t (a) FORMAT RowBinary", struct.pack("<QQ", 7, 8)),
        ("INSERT INTO t (a) /* FORMAT TSV */ FORMAT CSV", b"7\n8\n"),
        ("INSERT INTO t FORMAT TSV", b"7\t\n8\t\n"),
        ("INSERT INTO t (a) VALUES", b"(7), (8)"),
        (
            "INSERT INTO t SETTINGS async_insert = 1, wait_for_async_insert = 1 FORMAT CSV",
            b"7,\n8,",
        ),
    ],
)
def test_data_comes_in_the_query_or_in_the_body(
    clickhouse: ClickHouse, query: str, body: bytes
) -> None:
    clickhouse.value(TABLE)
    url = {"query": query} if query else {}
    answer = clickhouse.post(body, **url)
    assert answer.status == 200, answer.text
    assert clickhouse.value("SELECT groupArray((a, b)) FROM t") == "[(7,''),(8,'')]"


def test_binary_data_that_looks_like_text_stays_as_it_is(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    every_byte = bytes(range(256)) + b"\r\n;--' /* FORMAT CSV \n\n"
    row = struct.pack("<Q", int.from_bytes(b"\n\n;'`\r\t ", "little"))
    row += bytes([len(every_byte) & 0x7F | 0x80, len(every_byte) >> 7]) + every_byte
    assert clickhouse.post(b"INSERT INTO t FORMAT RowBinary\n" + row).status == 200
    assert clickhouse.post("SELECT * FROM t FORMAT RowBinary").body == row


def test_parameters_are_bound_in_an_insert(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    insert = "INSERT INTO {t:Identifier} VALUES ({a:UInt64}, {b:String})"
    assert clickhouse.post(insert, param_t="t", param_a=7, param_b="it's\\ta tab").status == 200
    assert clickhouse.value("SELECT b = 'it\\'s\\ta tab' FROM t WHERE a = 7") == "1"


def test_an_insert_that_fails_inserts_nothing(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)
    answer = clickhouse.post("INSERT INTO t FORMAT CSV\n1,x\n2,y\nthree,z\n")
    assert (answer.status, answer.code) in {(400, 27), (400, 117)}
    assert clickhouse.post("INSERT INTO nowhere FORMAT CSV\n1\n").code == 60
    assert clickhouse.value("SELECT count() FROM t") == "0"


def test_a_large_insert_comes_in_chunks(clickhouse: ClickHouse) -> None:
    clickhouse.value(TABLE)

    def rows() -> Iterator[bytes]:
        for first in range(0, 2_000_000, 20_000):
            yield b"".join(b"%d,row %d\n" % (i, i) for i in range(first, first + 20_000))

    answer = clickhouse.post(rows(), query="INSERT INTO t FORMAT CSV")
    assert json.loads(answer.headers["X-ClickHouse-Summary"])["written_rows"] == "2000000"
    assert clickhouse.value("SELECT count(), uniqExact(b) FROM t") == "2000000\t2000000"


@pytest.mark.parametrize(
    ("length", "body"),
    [
        ("Content-Length: 1000", b"1,x\n2,y\n"),
        ("Transfer-Encoding: chunked", b"8\r\n1,x\n2,y\n\r\n"),
        ("Transfer-Encoding: chunked", b"8\r\n1,x\n2,y\n\r\nno length\r\n"),
    ],
)
def test_a_body_that_breaks_off_inserts_nothing(
    clickhouse: ClickHouse, length: str, body: bytes
) -> None:
    clickhouse.value(TABLE)
    head = (
        f"POST /?database={clickhouse.database}&query=INSERT+INTO+t+FORMAT+CSV HTTP/1.1\r\n"
        f"Host: x\r\nX-ClickHouse-User: {clickhouse.user}\r\n"
        f"X-ClickHouse-Key: {clickhouse.password}\r\n{length}\r\n\r\n"
    )
    with socket.create_connection((clickhouse.host, clickhouse.port)) as client:
        client.sendall(head.encode())
        time.sleep(0.1)
        client.sendall(body)
        client.settimeout(0.3)
        with suppress(TimeoutError, ConnectionError):
            assert b"200 OK" not in client.recv(4096)
    time.sleep(0.3)
    assert clickhouse.value("SELECT count() FROM t") == "0"


# ── Compression ──────────────────────────────────────────────────────────────────────────────

ENCODINGS: dict[str, tuple[Callable[[bytes], bytes], Callable[[bytes], bytes]]] = {
    "gzip": (gzip.compress, gzip.decompress),
    "deflate": (zlib.compress, zlib.decompress),
    "zstd": (
        zstandard.ZstdCompressor().compress,
        lambda data: zstandard.ZstdDecompressor().decompressobj().decompress(data),
    ),
    "lz4": (lz4.frame.compress, lz4.frame.decompress),
}


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_body_may_be_compressed_in_one_frame_or_in_several(
    clickhouse: ClickHouse, encoding: str
) -> None:
    compress, _ = ENCODINGS[encoding]
    clickhouse.value(TABLE)
    frames = [b"INSERT INTO t FORMAT CSV\n1,x\n2,y\n"]
    if encoding != "deflate":  # which has no frames
        frames.append(b"3,z\n")
    answer = clickhouse.post(b"".join(map(compress, frames)), {"Content-Encoding": encoding})
    assert answer.status == 200, answer.text
    assert clickhouse.value("SELECT count() FROM t") == str(1 + len(frames))


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_a_compressed_body_that_is_cut_short_inserts_nothing(
    clickhouse: ClickHouse, encoding: str
) -> None:
    clickhouse.value(TABLE)
    body = ENCODINGS[encoding][0](b"".join(b"%d,x\n" % i for i in range(1000)))
    url = {"query": "INSERT INTO t FORMAT CSV"}
    assert clickhouse.post(body[:-9], {"Content-Encoding": encoding}, **url).code != 0
    assert clickhouse.value("SELECT count() FROM t") == "0"


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_an_answer_is_compressed_as_the_client_accepts(address: ClickHouse, encoding: str) -> None:
    answer = address.post(
        "SELECT number FROM numbers(500000)",
        {"Accept-Encoding": encoding},
        enable_http_compression=1,
    )
    assert answer.headers["Content-Encoding"] == encoding
    plain = ENCODINGS[encoding][1](answer.body)
    assert plain == b"".join(b"%d\n" % i for i in range(500_000))


def test_an_answer_is_not_compressed_unless_both_sides_want_it(address: ClickHouse) -> None:
    unwanted = address.get("SELECT 1", {"Accept-Encoding": "gzip"}, enable_http_compression=0)
    unknown = address.get("SELECT 1", {"Accept-Encoding": "none"}, enable_http_compression=1)
    assert (unwanted.body, unknown.body) == (b"1\n", b"1\n")


# ── Many at once, large, and gone ────────────────────────────────────────────────────────────


def test_two_queries_run_at_the_same_time(address: ClickHouse) -> None:
    mark = f"slow_{uuid4().hex}"
    with ThreadPoolExecutor(4) as pool:
        slow = [pool.submit(address.post, f"SELECT sleep(3) AS {mark}") for _ in range(4)]
        eventually(lambda: int(address.value(running(f"SELECT sleep(3) AS {mark}"))) >= 2, *slow)
        assert [s.result().body for s in slow] == [b"0\n"] * 4


def test_the_same_query_id_runs_once_at_a_time(address: ClickHouse) -> None:
    query_id = str(uuid4())
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(address.post, "SELECT sleep(3)", query_id=query_id)
        eventually(lambda: address.value(running("SELECT sleep(3)", query_id)) == "1", slow)
        assert address.post("SELECT 1", query_id=query_id).code == 216
        assert slow.result().status == 200
    assert address.value("SELECT 1", query_id=query_id) == "1"


@pytest.mark.parametrize(
    "name",
    [
        *("TSV", "CSVWithNames", "TSVWithNamesAndTypes", "JSONEachRow", "Native", "RowBinary"),
        *("RowBinaryWithNamesAndTypes", "JSONCompactEachRowWithNamesAndTypes"),
    ],
)
def test_a_result_of_many_blocks_reads_back_as_it_was(clickhouse: ClickHouse, name: str) -> None:
    clickhouse.value('CREATE TABLE back (`a"\n,b` UInt64, s String) ENGINE = Memory')
    many = 'SELECT number AS `a"\n,b`, toString(number) AS s FROM numbers(300000)'
    data = clickhouse.post(f"{many} FORMAT {name}").body
    assert clickhouse.post(data, query=f"INSERT INTO back FORMAT {name}").status == 200
    sums = clickhouse.value('SELECT count(), sum(`a"\n,b`), sum(toUInt64(s)) FROM back')
    assert sums == "300000\t44999850000\t44999850000"


def test_a_result_in_json_is_one_document(address: ClickHouse) -> None:
    answer = address.post("SELECT number FROM numbers(200000) FORMAT JSONCompact")
    document = json.loads(answer.body)
    assert document["rows"] == len(document["data"]) == 200_000


def test_totals_follow_the_rows(address: ClickHouse) -> None:
    sql = "SELECT number % 2 AS k, count() FROM numbers(10) GROUP BY k WITH TOTALS ORDER BY k"
    assert address.value(sql) == "0\t5\n1\t5\n\n0\t10"


@pytest.mark.parametrize("name", ["CSVWithNames", "TSVWithNamesAndTypes", "JSON"])
def test_an_empty_result_has_its_header(address: ClickHouse, name: str) -> None:
    assert b"some_name" in address.post(f"SELECT 1 AS some_name WHERE 0 FORMAT {name}").body


def test_a_client_that_goes_away_ends_its_query(address: ClickHouse) -> None:
    mark = f"gone_{uuid4().hex}"
    query = f"SELECT sum(sleepEachRow(0.1)) AS {mark} FROM numbers(1000)"
    connection = http.client.HTTPConnection(address.host, address.port)
    connection.request(
        "POST",
        "/?max_block_size=1&cancel_http_readonly_queries_on_client_close=1&readonly=1",
        query,
        address.credentials,
    )
    eventually(lambda: address.value(running(query)) == "1")
    connection.close()
    eventually(lambda: address.value(running(query)) == "0")


# ── Clients ──────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def client(clickhouse: ClickHouse) -> Iterator[Client]:
    made = clickhouse_connect.get_client(
        host=clickhouse.host,
        port=clickhouse.port,
        username=clickhouse.user,
        password=clickhouse.password,
        database=clickhouse.database,
    )
    yield made
    made.close()


def test_clickhouse_connect_inserts_and_queries(client: Client) -> None:
    when = datetime(2026, 1, 2, 3, 4, 5, 678000, tzinfo=UTC)
    client.command(
        "CREATE TABLE t (a UInt64, b Nullable(String), c Decimal(38, 18), d DateTime64(3, 'UTC'), "
        "e LowCardinality(String), f Array(Float64), g Map(String, UInt8)) "
        "ENGINE = MergeTree ORDER BY a"
    )
    row = (1, None, Decimal("0.000000000000000001"), when, "é", [0.5, 1.5], {"k": 1})
    summary = client.insert("t", [row, (2, "x", *row[2:])], column_names="*")
    assert summary.written_rows == 2
    result = client.query("SELECT * FROM t WHERE a = {a:UInt64}", parameters={"a": 1})
    stored = result.result_rows[0]
    assert (*stored[:3], *stored[4:]) == (*row[:3], *row[4:])
    assert stored[3].replace(tzinfo=UTC) == when
    assert client.query("SELECT a FROM t WHERE 0").result_rows == []
    assert client.query("SELECT a, b FROM t LIMIT 0").column_names == ("a", "b")


def test_clickhouse_connect_does_everything_else_that_it_can(client: Client) -> None:
    assert client.command("SELECT 1") == 1
    assert client.command("SELECT a FROM (SELECT 1 AS a) WHERE 0") == ""
    client.command("CREATE TABLE t (a UInt64) ENGINE = MergeTree ORDER BY a")
    client.raw_insert("t", ["a"], b"1\n2\n3\n", fmt="CSV")
    assert client.raw_query("SELECT sum(a) FROM t", fmt="JSONEachRow") == b'{"sum(a)":6}\n'
    assert client.query_np("SELECT a FROM t ORDER BY a").tolist() == [[1], [2], [3]]
    assert client.query_df("SELECT a FROM t ORDER BY a")["a"].tolist() == [1, 2, 3]
    assert client.query_arrow("SELECT a FROM t ORDER BY a").column(0).to_pylist() == [1, 2, 3]
    limited = client.query("SELECT getSetting('max_block_size')", settings={"max_block_size": 9})
    assert limited.first_row == (9,)
    with client.query_row_block_stream("SELECT number FROM numbers(500000)") as blocks:
        assert sum(len(block) for block in blocks) == 500_000
    with pytest.raises(ClickHouseError, match="UNKNOWN_TABLE"):
        client.query("SELECT * FROM nowhere")
    assert client.ping()


def test_clickhouse_connect_sees_an_error_in_mid_stream(client: Client) -> None:
    late = "SELECT throwIf(number = 3000000, 'late'), number FROM numbers(10000000)"
    with (
        pytest.raises(ClickHouseError, match="late"),
        client.query_row_block_stream(late) as blocks,
    ):
        for _ in blocks:
            pass


def test_clickhouse_connect_sends_tables_and_long_parameters(client: Client) -> None:
    table = ExternalData(
        file_name="extra.csv", fmt="CSV", structure=["a UInt8", "b String"], data=b"1,x\n2,y\n"
    )
    assert client.query("SELECT sum(a) FROM extra", external_data=table).first_row == (3,)
    long = "x" * 100_000
    query = client.query("SELECT length({s:String})", parameters={"s": long})
    assert query.first_row == (100_000,)


def test_curl_pipes_a_file_in_and_a_result_out(clickhouse: ClickHouse, tmp_path: Path) -> None:
    clickhouse.value(TABLE)
    rows = tmp_path / "rows.csv.gz"
    rows.write_bytes(gzip.compress(b"1,one\n2,two\n"))
    credentials = ("-u", f"{clickhouse.user}:{clickhouse.password}")
    url = f"http://{clickhouse.host}:{clickhouse.port}/?database={clickhouse.database}"
    curl = ("curl", "--silent", "--show-error", "--fail-with-body", *credentials)
    insert = f"{url}&query=INSERT%20INTO%20t%20FORMAT%20CSV"
    gzipped = ("-H", "Content-Encoding: gzip", "--data-binary", f"@{rows}")
    subprocess.run([*curl, *gzipped, insert], check=True)
    select = ("--compressed", url, "-d", "SELECT b FROM t ORDER BY a")
    shown = subprocess.run([*curl, *select], check=True, stdout=subprocess.PIPE)
    assert shown.stdout == b"one\ntwo\n"
    failed = subprocess.run([*curl, url, "-d", "SELEC"], check=False, stdout=subprocess.PIPE)
    assert failed.returncode == 22
    assert failed.stdout.startswith(b"Code: 62.")


# ── The embedded process ─────────────────────────────────────────────────────────────────────

Start = Callable[..., "EmbeddedProcess"]


def test_a_restart_keeps_the_data(start_embedded: Start, tmp_path: Path) -> None:
    for number in (signal.SIGTERM, signal.SIGINT):
        process = start_embedded(tmp_path / "data")
        process.server.value(TABLE.replace("TABLE", "TABLE IF NOT EXISTS"))
        process.server.value("INSERT INTO t VALUES (1, 'kept')")
        assert process.stop(number) == 0
    again = start_embedded(tmp_path / "data").server
    assert again.value("SELECT count(), any(b) FROM t") == "2\tkept"


def test_a_kill_loses_no_insert_that_was_acknowledged(
    start_embedded: Start, tmp_path: Path
) -> None:
    process = start_embedded(tmp_path / "data")
    process.server.value(TABLE)
    acknowledged = 0

    def insert_until_it_dies() -> None:
        nonlocal acknowledged
        while True:
            try:
                answer = process.server.post(f"INSERT INTO t VALUES ({acknowledged}, 'x')")
            except (OSError, http.client.HTTPException):
                return
            assert answer.status == 200
            acknowledged += 1

    with ThreadPoolExecutor(1) as pool:
        inserting = pool.submit(insert_until_it_dies)
        eventually(lambda: acknowledged > 20 or inserting.done())
        process.kill()
        inserting.result()
    after = start_embedded(tmp_path / "data").server
    kept = after.value(f"SELECT uniqExact(a) FROM t WHERE a < {acknowledged}")
    assert int(kept) == acknowledged > 20
    assert int(after.value("SELECT count() FROM t")) <= acknowledged + 1


def test_a_second_process_on_the_same_directory_is_refused(embedded: EmbeddedProcess) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "sinks.embedded", "--path", embedded.path, "--port", "0"],
        check=False,
        capture_output=True,
        timeout=30,
    )
    assert second.returncode == 1
    assert b"is in use by another process" in second.stderr
    assert embedded.server.value("SELECT 1") == "1"


def test_a_password_is_needed_where_one_is_set(start_embedded: Start, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("pass:wörd\n")
    process = start_embedded(tmp_path / "data", "--user", "meter", "--password-file", str(secret))
    server = process.server
    right = {"user": "meter", "password": "pass:wörd"}
    assert server.send("GET", query="SELECT 1", **right).body == b"1\n"
    assert server.get("SELECT 1").code == 516
    assert server.send("GET", "/ping").status == 200


def test_too_many_queries_are_refused_and_leave_no_trace(
    start_embedded: Start, tmp_path: Path
) -> None:
    server = start_embedded(tmp_path / "data", "--max-concurrent-queries", "2").server

    def slow_answer() -> Answer:
        """Asked again where a quick question had its place."""
        while (answer := server.post("SELECT sleep(3)")).code == 202:
            pass
        return answer

    with ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(slow_answer) for _ in range(2)]
        answers: list[Answer] = []

        def is_refused() -> bool:
            answers.append(server.post("SELECT 1"))
            return answers[-1].code == 202

        eventually(is_refused, *slow)
        assert answers[-1].status == 500
        assert [s.result().status for s in slow] == [200, 200]
    for _ in range(20):
        with socket.create_connection((server.host, server.port)) as leaving:
            leaving.sendall(
                b"GET /?query=SELECT+sleepEachRow(0.5)+FROM+numbers(4) HTTP/1.1\r\n\r\n"
            )
            time.sleep(0.02)
    eventually(lambda: server.post("SELECT 1").code != 202)
    assert [server.value("SELECT 1") for _ in range(5)] == ["1"] * 5


# Numbers below 12,000,000 by their count of digits: the first of each, and how many there are.
DIGITS = [(0, 10), *((10**d, 9 * 10**d) for d in range(1, 7)), (10**7, 2 * 10**6)]


def test_a_large_result_is_streamed_and_not_held(embedded: EmbeddedProcess) -> None:
    server = embedded.server
    server.value("SELECT number, toString(number) FROM numbers(300000)")
    before = embedded.resident_bytes
    connection = http.client.HTTPConnection(server.host, server.port)
    connection.request("POST", "/", b"SELECT number, toString(number) FROM numbers(12000000)")
    response = connection.getresponse()
    read = most = 0
    while piece := response.read(1 << 20):
        read += len(piece)
        most = max(most, embedded.resident_bytes)
    connection.close()
    assert read == sum(2 * (len(str(first)) + 1) * count for first, count in DIGITS)
    assert most - before < read / 2


def test_an_insert_that_the_engine_would_lose_is_refused(embedded: EmbeddedProcess) -> None:
    into = "INSERT INTO FUNCTION null('a UInt64')"
    by_input = f"{into} SELECT * FROM input('a UInt64') FORMAT CSV\n1\n"
    assert embedded.server.post(by_input).code == 48
    assert embedded.server.post(f"{into} FROM INFILE '/etc/hostname' FORMAT CSV").code == 48


def test_a_running_query_does_not_hold_up_the_end(start_embedded: Start, tmp_path: Path) -> None:
    process = start_embedded(tmp_path / "data")
    endless = "SELECT count() FROM numbers(1000000000000)"
    with ThreadPoolExecutor(1) as pool:
        running_query = pool.submit(process.server.post, endless)
        eventually(lambda: process.server.value(running(endless)) == "1", running_query)
        assert process.stop() == 0
        with pytest.raises((OSError, http.client.HTTPException)):
            running_query.result()
