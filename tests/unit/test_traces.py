"""Traces are read as their publishers wrote them; a row that can't be read is refused by name."""

from __future__ import annotations

import gzip
import itertools
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from metering.errors import InvalidTrace
from streams.replay.traces import TRACE_FORMATS, TraceFormat, TraceRequest, read_trace

SHARED = Path(
    os.environ.get("METER_SHARED_DATA", Path(__file__).parents[2].parent / "shared" / "data")
)
MADE: dict[str, str] = {
    "azure_llm_2023_code.csv.gz": (
        "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
        "2023-11-16 18:17:03.9799600,4808,10\r\n"
        "2023-11-16 18:17:04.0319600,3180,8\r\n"
        "2023-11-16 19:14:19.9280160,549,173\r\n"
    ),
    "mooncake_synthetic.jsonl.gz": (
        '{"timestamp": 0, "input_length": 1200, "output_length": 6, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 40, "input_length": 1300, "output_length": 3, "hash_ids": [0, 1, 9]}\n'
        '{"timestamp": 1022025, "input_length": 1200, "output_length": 83, "hash_ids": [0, 1, 2]}\n'
    ),
    "servegen_draw_m-small_2h.csv.gz": (
        "t_s,client,input_tokens,output_tokens\n"
        "9e-06,14,36,3\n0.015363,35,765,13\n7199.538499,26,77,5\n"
    ),
    "servegen_draw_mm-image_2h.csv.gz": (
        "t_s,client,text_tokens,image_count,output_tokens\n"
        "0.0,7,75,1,137\n0.0,7,75,0,384\n7199.999999,8,227,1,2\n"
    ),
    "vtc_arena_fcfs_0-240s.csv.gz": (
        "client,prompt_len,output_len,request_latency,first_token_latency,req_time\n"
        "client-13,13,199,9.41563868522644,1.1826088428497314,0.0\n"
        "client-2,36,137,6.773577451705933,1.5456695556640625,0.20793754160099873\n"
        "client-10,12,51,17.746367692947388,15.624874353408813,239.583482273968\n"
    ),
}
TracePath = Callable[[str], Path]
SOURCES = ("made", "public") if (SHARED / "traces").is_dir() else ("made",)


@pytest.fixture(params=SOURCES)
def trace(request: pytest.FixtureRequest, tmp_path: Path) -> TracePath:
    """The path of a public file by its name, or of one made in the same form."""

    def path_of(name: str) -> Path:
        if request.param == "public":
            return SHARED / "traces" / name
        path = tmp_path / name
        path.write_bytes(gzip.compress(MADE[name].encode()))
        return path

    return path_of


def _write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "trace"
    path.write_text(text)
    return path


def test_azure_times_keep_their_seventh_decimal_and_count_from_the_first_row(
    trace: TracePath,
) -> None:
    rows = list(read_trace(trace("azure_llm_2023_code.csv.gz"), "azure"))
    assert rows[0] == TraceRequest(0.0, 4808, 0, 10, None, 1)
    assert rows[1] == TraceRequest(0.052, 3180, 0, 8, None, 2)
    assert rows[-1].at_s == 3435.948056
    assert (rows[-1].input_tokens, rows[-1].output_tokens) == (549, 173)


def test_mooncake_times_are_milliseconds_and_the_cache_leaves_a_token_to_compute(
    trace: TracePath,
) -> None:
    rows = list(read_trace(trace("mooncake_synthetic.jsonl.gz"), "mooncake"))
    assert rows[0].cached_input_tokens == 0
    assert rows[-1].at_s == 1022.025
    assert rows[-1].output_tokens == 83
    assert any(r.cached_input_tokens for r in rows)
    assert all(
        r.cached_input_tokens % 512 == 0 or r.cached_input_tokens == r.input_tokens - 1
        for r in rows
    )
    assert all(r.cached_input_tokens < r.input_tokens for r in rows)


def test_servegen_has_clients_and_counts_from_its_first_row(trace: TracePath) -> None:
    rows = list(read_trace(trace("servegen_draw_m-small_2h.csv.gz"), "servegen"))
    assert rows[0] == TraceRequest(0.0, 36, 0, 3, "14", 1)
    assert rows[1] == TraceRequest(0.015354, 765, 0, 13, "35", 2)
    assert rows[-1] == TraceRequest(7199.53849, 77, 0, 5, "26", len(rows))


def test_servegen_images_are_576_input_tokens_each(trace: TracePath) -> None:
    rows = list(read_trace(trace("servegen_draw_mm-image_2h.csv.gz"), "servegen"))
    assert rows[0] == TraceRequest(0.0, 75 + 576, 0, 137, "7", 1)
    assert rows[-1] == TraceRequest(7199.999999, 227 + 576, 0, 2, "8", len(rows))


def test_vtc_is_read_by_its_columns_names(trace: TracePath) -> None:
    rows = list(read_trace(trace("vtc_arena_fcfs_0-240s.csv.gz"), "vtc"))
    assert rows[0] == TraceRequest(0.0, 13, 0, 199, "client-13", 1)
    assert rows[-1] == TraceRequest(239.583482273968, 12, 0, 51, "client-10", len(rows))


@pytest.mark.parametrize(
    ("name", "format"),
    [
        ("azure_llm_2023_code.csv.gz", "azure"),
        ("mooncake_synthetic.jsonl.gz", "mooncake"),
        ("servegen_draw_m-small_2h.csv.gz", "servegen"),
        ("servegen_draw_mm-image_2h.csv.gz", "servegen"),
        ("vtc_arena_fcfs_0-240s.csv.gz", "vtc"),
    ],
)
def test_every_row_is_read_once_and_in_order(
    trace: TracePath, name: str, format: TraceFormat
) -> None:
    path = trace(name)
    rows = list(read_trace(path, format))
    lines = len(gzip.decompress(path.read_bytes()).splitlines()) - (format != "mooncake")
    assert [r.row for r in rows] == list(range(1, lines + 1))
    assert all(a.at_s <= b.at_s for a, b in itertools.pairwise(rows))


def test_the_azure_trace_of_2024_writes_its_zone(tmp_path: Path) -> None:
    text = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2024-05-10 00:00:00.009930+00:00,2162,5\n"
        "2024-05-10 02:00:01.009930+02:00,2399,0\n"
    )
    assert [r.at_s for r in read_trace(_write(tmp_path, text), "azure")] == [0.0, 1.0]


def test_a_prefix_is_cached_only_from_its_beginning(tmp_path: Path) -> None:
    text = "".join(
        f'{{"timestamp": 0, "input_length": 5000, "output_length": 1, "hash_ids": {ids}}}\n'
        for ids in ([1, 2, 3], [2, 3], [1, 2, 4], [2, 3, 4], [1, 2, 3, 5], [])
    )
    cached = [r.cached_input_tokens for r in read_trace(_write(tmp_path, text), "mooncake")]
    assert cached == [0, 0, 2 * 512, 2 * 512, 3 * 512, 0]


def test_our_own_format_names_tenant_and_model(tmp_path: Path) -> None:
    text = (
        '{"at_s": 10, "input_tokens": 5, "output_tokens": 0}\n'
        "\n"
        '{"at_s": 10.25, "input_tokens": 9, "output_tokens": 2, "cached_input_tokens": 9,'
        ' "tenant": "acme", "model": "m", "client": "c"}\n'
    )
    assert list(read_trace(_write(tmp_path, text), "jsonl")) == [
        TraceRequest(0.0, 5, 0, 0, None, 1),
        TraceRequest(0.25, 9, 9, 2, "c", 2, tenant="acme", model="m"),
    ]


AZURE = "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
OWN = '{"at_s": 1, "input_tokens": 5, "output_tokens": 1}\n'


@pytest.mark.parametrize(
    ("format", "text", "named"),
    [
        ("azure", AZURE + "2023-11-16 18:17:04,-1,8\n", "row 2 (line 3): ContextTokens is '-1'"),
        ("azure", AZURE + "2023-11-16 18:17:04,12.0,8\n", "ContextTokens is '12.0'"),
        ("azure", AZURE + "2023-11-16 18:17:04,0,8\n", "ContextTokens is '0'"),
        ("azure", AZURE + "2023-11-16 18:17:04,2147483648,8\n", "ContextTokens is '2147483648'"),
        ("azure", AZURE + "2023-11-16 18:17:04,1\n", "GeneratedTokens is missing"),
        ("azure", AZURE + "2023-11-16 18:17:04,1,2,3\n", "row 2 (line 3): ['3']"),
        ("azure", AZURE + "2023-11-31 18:17:04,1,2\n", "TIMESTAMP is '2023-11-31 18:17:04'"),
        ("azure", AZURE + "yesterday,1,2\n", "TIMESTAMP is 'yesterday'"),
        ("azure", AZURE + "2023-11-16 18:17:03.9,1,2\n", "before the row above"),
        ("azure", "t_s,client\n1,2\n", "row 1 (line 2): TIMESTAMP is missing"),
        ("azure", "", "empty"),
        ("servegen", "t_s,client,input_tokens,output_tokens\nnan,a,1,1\n", "t_s is 'nan'"),
        ("servegen", "t_s,client,input_tokens,output_tokens\n1,,1,1\n", "client is ''"),
        (
            "servegen",
            "t_s,client,text_tokens,image_count,output_tokens\n1,a,1,9999999,1\n",
            "image_count is '9999999'",
        ),
        ("vtc", "client,prompt_len,output_len,req_time\nc,1,x,0\n", "output_len is 'x'"),
        ("vtc", "client,prompt_len,output_len,req_time\nc,1,1,1_0\n", "req_time is '1_0'"),
        (
            "mooncake",
            '{"timestamp": 0, "input_length": 1, "output_length": 1, "hash_ids": [1, "x"]}\n',
            "hash_ids is [1, 'x']: 'x' in it",
        ),
        ("mooncake", '{"timestamp": 0}\n', "input_length is missing"),
        ("jsonl", OWN + "[1]\n", "row 2 (line 2): not a JSON object"),
        ("jsonl", OWN + '{"at_s": 2\n', "row 2 (line 2): not JSON"),
        ("jsonl", OWN.replace("5", "true"), "input_tokens is True"),
        ("jsonl", OWN.replace("1}", "NaN}").replace("5", "1"), "output_tokens is nan"),
        ("jsonl", OWN.replace("1,", "1e400,", 1), "at_s is Decimal('1E+400')"),
        ("jsonl", OWN.replace("}", ', "cached_tokens": 3}'), "cached_tokens is 3: unknown"),
        ("jsonl", OWN.replace("}", ', "cached_input_tokens": 6}'), "cached_input_tokens is 6"),
        ("jsonl", OWN.replace("}", ', "tenant": ""}'), "tenant is ''"),
        ("jsonl", OWN.replace("}", ', "client": "\\ud800"}'), "client is '\\ud800'"),
        ("jsonl", OWN.replace("5", '"5"'), "input_tokens is '5'"),
    ],
)
def test_a_row_that_cannot_be_read_is_refused_by_file_row_field_and_value(
    tmp_path: Path, format: TraceFormat, text: str, named: str
) -> None:
    path = _write(tmp_path, text)
    with pytest.raises(InvalidTrace) as refused:
        list(read_trace(path, format))
    assert str(refused.value).startswith(f"{path}: ")
    assert named in str(refused.value)


def test_rows_before_a_bad_one_have_been_read(tmp_path: Path) -> None:
    rows = read_trace(_write(tmp_path, AZURE + "2023-11-16 18:17:04,x,8\n"), "azure")
    assert next(rows).input_tokens == 4808
    with pytest.raises(InvalidTrace, match="row 2"):
        next(rows)


@pytest.mark.parametrize("format", TRACE_FORMATS)
def test_a_missing_file_and_a_torn_one_are_invalid_traces(
    tmp_path: Path, format: TraceFormat
) -> None:
    with pytest.raises(InvalidTrace, match="No such file"):
        list(read_trace(tmp_path / "nowhere", format))
    with pytest.raises(InvalidTrace, match="can't be read"):
        list(read_trace(tmp_path, format))
    torn = tmp_path / "torn.gz"
    torn.write_bytes(gzip.compress(b"\n" * 1000)[:-12])
    with pytest.raises(InvalidTrace, match="can't be read"):
        list(read_trace(torn, format))


def test_the_public_draws_keep_their_clients_apart(trace: TracePath) -> None:
    rows = list(read_trace(trace("vtc_arena_fcfs_0-240s.csv.gz"), "vtc"))
    clients = Counter(r.client for r in rows)
    assert len(clients) >= 3
    assert None not in clients
