"""SQL as the engine has to get it: in UTF-8, and with the ids that clients gave their queries."""

from __future__ import annotations

import re
from typing import Final

from sinks.embedded.errors import QueryError
from sinks.embedded.sql import escaped, literal
from sinks.embedded.statement import Statement, Token, lexemes, tokens

QUERY_ID_SETTING: Final = "chdb_client_name"
# Where the engine keeps a client's query id: its own ids can't be chosen, and this setting does
# nothing else here.

_CLIENTS_ID = f"Settings['{QUERY_ID_SETTING}']"
_ID = f"if({_CLIENTS_ID} = '', query_id, toString({_CLIENTS_ID}))"
_PROCESSES = (
    f"(SELECT * REPLACE ({_ID} AS query_id, {_ID} AS initial_query_id) FROM system.processes)"  # noqa: S608
)
_SELECTIONS: Final = frozenset(("SELECT", "WITH", "FROM", "("))
_ID_FUNCTIONS: Final = frozenset(("QUERYID", "QUERY_ID", "INITIALQUERYID", "INITIAL_QUERY_ID"))
_NO_ARGUMENTS = re.compile(r"\s*\(\s*\)")


def as_utf8(sql: bytes) -> str:
    """The same SQL in UTF-8: other bytes in literals and quoted names are written as ``\\xNN``.

    Raises:
        QueryError: SYNTAX_ERROR where they stand outside of quotes and comments.
    """
    try:
        return sql.decode()
    except UnicodeDecodeError:
        pass
    parts: list[str] = []
    plain = bytearray()
    for kind, start, end in lexemes(sql.decode("latin-1")):
        piece = sql[start:end]
        if kind not in ("quoted", "skip"):
            plain += piece
            continue
        parts.append(_decoded(bytes(plain)))
        plain.clear()
        if kind == "skip":
            parts.append(piece.decode(errors="replace"))
        elif piece.startswith(b"$"):
            parts.append(_heredoc(piece))
        else:
            parts.append(escaped(piece.decode(errors="surrogateescape")))
    parts.append(_decoded(bytes(plain)))
    return "".join(parts)


def _decoded(plain: bytes) -> str:
    try:
        return plain.decode()
    except UnicodeDecodeError as exc:
        raise QueryError.of(
            "SYNTAX_ERROR",
            f"The query is not UTF-8 outside of quotes, at {plain[exc.start : exc.start + 100]!r}",
        ) from exc


def _heredoc(piece: bytes) -> str:
    """``$tag$…$tag$`` as a literal, where it has bytes that can't stand in it as they are."""
    try:
        return piece.decode()
    except UnicodeDecodeError:
        tag = piece.index(b"$", 1) + 1
        return literal(piece[tag:-tag].decode(errors="surrogateescape"))


def selection(sql: str, statement: Statement) -> str | None:
    """What DESCRIBE can be asked about: a SELECT without its FORMAT clause; None for others."""
    if statement.verb not in _SELECTIONS or not statement.reads_only:
        return None
    text = sql.encode().decode("latin-1")
    found = list(tokens(text))
    while found and found[-1].text == ";":
        text = text[: found.pop().start]
    if statement.format is not None:
        at = max(i for i, token in enumerate(found) if token.text == "FORMAT")
        text = text[: found[at].start] + text[found[at + 1].end :]
    return text.encode("latin-1").decode()


def with_query_ids(sql: str, statement: Statement, query_id: str) -> str:
    """``KILL QUERY``, ``system.processes`` and ``queryID()`` with the clients' ids of queries."""
    lower = sql.lower()
    if "kill" not in lower and "processes" not in lower and "query" not in lower:
        return sql
    text = sql.encode().decode("latin-1")
    found = list(tokens(text, every_depth=True))
    if statement.verb == "KILL":
        changes = [(t, _ID) for t in found if t.text == "QUERY_ID"]
    elif statement.verb in _SELECTIONS:
        changes = _selected(text, found, query_id)
    else:
        return sql
    for token, replacement in reversed(changes):
        text = text[: token.start] + replacement.encode().decode("latin-1") + text[token.end :]
    return text.encode("latin-1").decode()


def _selected(text: str, found: list[Token], query_id: str) -> list[tuple[Token, str]]:
    changes: list[tuple[Token, str]] = []
    for i, token in enumerate(found):
        if token.text in _ID_FUNCTIONS and (call := _NO_ARGUMENTS.match(text, token.end)):
            changes.append((Token("", token.start, call.end()), literal(query_id)))
        elif token.text in ("FROM", "JOIN") and [t.text for t in found[i + 1 : i + 4]] == [
            *("SYSTEM", ".", "PROCESSES"),
        ]:
            changes.append((Token("", found[i + 1].start, found[i + 3].end), _PROCESSES))
    return changes
