"""What the endpoint finds in a statement before the engine gets it."""

from __future__ import annotations

import pytest

from sinks.embedded.errors import QueryError
from sinks.embedded.rewriting import as_utf8, selection, with_query_ids
from sinks.embedded.statement import examine, lexemes


@pytest.mark.parametrize(
    "sql",
    [
        "WITH insert AS (SELECT 13 AS n) SELECT * FROM insert FORMAT Native",
        "WITH 13 AS insert SELECT insert FORMAT Native",
        "WITH 1 AS a, insert AS (SELECT 2) SELECT a, insert FROM insert FORMAT Native",
        "SELECT {$x$:Int32} FORMAT Native",
        "SELECT {foo$x$bar:Int32} AS a$$b FORMAT Native",
        "SELECT $$ FORMAT CSV $$, $x$ ' $x$ FORMAT Native",
    ],
)
def test_names_that_look_like_something_else_do_not_hide_the_format(sql: str) -> None:
    statement = examine(sql.encode())
    assert (statement.format, statement.has_result, statement.reads_only) == ("Native", True, True)


@pytest.mark.parametrize(
    "sql",
    [
        "WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x",
        "WITH 1 AS x INSERT INTO t SELECT x",
        "with x as (select 1) insert t select * from x",
    ],
)
def test_an_insert_after_with_writes(sql: str) -> None:
    assert not examine(sql.encode()).reads_only


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 1", "SELECT 1"),
        ("SELECT 1 FORMAT Native", "SELECT 1 "),
        ("SELECT 'é' FORMAT CSV SETTINGS a = 1 ;;", "SELECT 'é'  SETTINGS a = 1 "),
        ("SELECT 1 AS format -- FORMAT CSV", "SELECT 1 AS format -- FORMAT CSV"),
        ("(SELECT 1) UNION ALL (SELECT 2)", "(SELECT 1) UNION ALL (SELECT 2)"),
        ("SHOW TABLES", None),
        ("WITH x AS (SELECT 1) INSERT INTO t SELECT * FROM x", None),
    ],
)  # fmt: skip
def test_a_selection_is_the_query_without_its_format(sql: str, expected: str | None) -> None:
    assert selection(sql, examine(sql.encode())) == expected


def rewritten(sql: str) -> str:
    return with_query_ids(sql, examine(sql.encode()), "it's")


def test_kill_query_goes_by_the_clients_ids() -> None:
    assert "chdb_client_name" in rewritten("KILL QUERY WHERE query_id = 'query_id'")
    assert rewritten("KILL QUERY WHERE query_id = 'x'").endswith(" = 'x'")


def test_processes_are_shown_with_the_clients_ids() -> None:
    sql = rewritten("SELECT 'é', 'FROM system.processes' FROM System.Processes AS p")
    assert sql.startswith("SELECT 'é', 'FROM system.processes' FROM (SELECT * REPLACE")
    assert sql.endswith(") AS p")
    assert rewritten("SELECT queryID( ), query_id") == "SELECT 'it\\'s', query_id"


@pytest.mark.parametrize(
    "sql",
    [
        "DESCRIBE system.processes",
        "SELECT 'system.processes', a FROM t",
        "SELECT a FROM my.processes",
        "CREATE VIEW v AS SELECT query_id FROM system.processes",
        "INSERT INTO t SELECT query_id FROM system.processes",
    ],
)
def test_other_statements_stay_as_they_are(sql: str) -> None:
    assert rewritten(sql) == sql


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("SELECT 'ü'".encode(), "SELECT 'ü'"),
        (b"SELECT '\xff\\'', \"\xfe\", `\xfd`", "SELECT '\\xFF\\'', \"\\xFE\", `\\xFD`"),
        ("SELECT 'ü', ".encode() + b"'\xff'", "SELECT 'ü', '\\xFF'"),
        (b"SELECT $a$it's \\ \xff$a$", "SELECT 'it\\'s \\\\ \\xFF'"),
        ("SELECT $a$ü$a$, '".encode() + b"\xff'", "SELECT $a$ü$a$, '\\xFF'"),
        (b"SELECT 1 -- \xff", "SELECT 1 -- \ufffd"),
    ],
)
def test_bytes_in_quotes_become_escapes(sql: bytes, expected: str) -> None:
    assert as_utf8(sql) == expected


def test_bytes_outside_of_quotes_are_refused() -> None:
    with pytest.raises(QueryError, match="not UTF-8 outside of quotes"):
        as_utf8(b"SELECT \xff FROM t")


@pytest.mark.timeout(60)
@pytest.mark.parametrize("before", ["", "$a$ ", "$a$ x $a$ "])
def test_tags_that_are_never_closed_are_read_once_and_not_once_for_each(before: str) -> None:
    """Read once for each they take minutes, in which nobody else is served."""
    sql = f"SELECT {before}" + " ".join(f"$t{n}$" for n in range(100_000)) + " FORMAT Native"
    assert examine(sql.encode()).format == "Native"


@pytest.mark.parametrize(
    ("sql", "found"),
    [
        ("$$a$$", ["quoted"]),
        ("$a$ $b$ $a$", ["quoted"]),
        ("$a$b$a$", ["quoted"]),
        ("$a$a$", ["word"]),
        ("$a$$a$x", ["quoted", "word"]),
        ("$a$ $a", ["word", "skip", "word"]),
        ("$a $a$", ["word", "skip", "word"]),
        ("$", ["word"]),
        ("x$a$ $a$", ["word", "skip", "word"]),
    ],
)
def test_a_heredoc_ends_at_the_next_tag_like_its_own(sql: str, found: list[str]) -> None:
    lexed = list(lexemes(sql))
    assert [lexeme.kind for lexeme in lexed] == found
    assert "".join(sql[lexeme.start : lexeme.end] for lexeme in lexed) == sql
