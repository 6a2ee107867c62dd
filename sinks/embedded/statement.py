"""What a statement is, as far as HTTP has to know: where its data begins, which format it names.

Offsets are bytes: a statement is read as Latin-1 here, so that a character is a byte. The
engine does the parsing; this finds only words outside of strings, comments and parentheses.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from sinks.embedded.errors import QueryError

_LEXEME = re.compile(
    r"""(?P<skip>\s+|--[^\n]*|\#[!\ ][^\n]*|/\*.*?(?:\*/|\Z))
      | (?P<quoted>'(?:[^'\\]|\\.|'')*(?:'|\Z)
                 | "(?:[^"\\]|\\.|"")*(?:"|\Z)
                 | `(?:[^`\\]|\\.|``)*(?:`|\Z))
      | (?P<heredoc>\$(?P<tag>\w*)\$)
      | (?P<word>[\w$]+)
      | (?P<sign>.)""",
    re.DOTALL | re.VERBOSE,
)
_WORD = re.compile(r"[\w$]+")
_TAG = re.compile(r"\$(?=(\w*)\$)")
_OPENING, _CLOSING = ("(", "[", "{"), (")", "]", "}")
_READS = ("SELECT", "WITH", "FROM", "(", "SHOW", "DESC", "DESCRIBE", "EXPLAIN", "EXISTS", "KILL")
_WITH_RESULT = frozenset((*_READS, "CHECK", "VALUES"))
_BEFORE_NAMES = frozenset(("WITH", "AS", "FROM", "JOIN", "SELECT", "IN", ",", "."))
_READING = frozenset((*_READS, "SET", "USE"))


@dataclass(frozen=True, slots=True)
class Token:
    """A word in upper case, a sign, or ``''`` for something quoted, outside of parentheses."""

    text: str
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class InsertData:
    """``INSERT … FORMAT X`` or ``VALUES``: the statement ends before the format, then the data."""

    statement_end: int
    format: str
    data_start: int


@dataclass(frozen=True, slots=True)
class Statement:
    """``insert`` is there where data follows; ``format`` is what a FORMAT clause asks for."""

    verb: str
    insert: InsertData | None
    format: str | None
    has_result: bool
    reads_only: bool


class Lexeme(NamedTuple):
    """``kind`` is skip (blanks and comments), quoted, word or sign."""

    kind: str
    start: int
    end: int


def lexemes(text: str) -> Iterator[Lexeme]:
    """All of the text, in time proportional to its length. What lies between ``$tag$`` and the next
    ``$tag$`` is quoted; a tag that is never closed is a word."""
    closings: dict[str, list[int]] | None = None
    at = 0
    while (found := _LEXEME.match(text, at)) is not None:
        kind, end = found.lastgroup or "", found.end()
        if kind == "heredoc":
            closings = _tags(text) if closings is None else closings
            places = closings[found["tag"]]
            n = bisect_left(places, end)
            if n < len(places):
                kind, end = "quoted", places[n] + end - at
            elif (word := _WORD.match(text, at)) is not None:
                kind, end = "word", word.end()
        yield Lexeme(kind, at, end)
        at = end


def _tags(text: str) -> dict[str, list[int]]:
    """Where each ``$tag$`` begins, in order."""
    places: dict[str, list[int]] = {}
    for found in _TAG.finditer(text):
        places.setdefault(found[1], []).append(found.start())
    return places


def tokens(text: str, every_depth: bool = False) -> Iterator[Token]:
    """Tokens at depth 0, where a bracketed group is its opening bracket alone; or all of them."""
    depth = 0
    for kind, start, end in lexemes(text):
        if kind == "skip":
            continue
        word = text[start:end].upper() if kind in ("word", "sign") else ""
        if word in _CLOSING:
            depth = max(0, depth - 1)
        elif depth == 0 or every_depth:
            yield Token(word, start, end)
        if word in _OPENING:
            depth += 1


def examine(head: bytes) -> Statement:
    """Examine a statement, or as much of it as holds everything before its data.

    Raises:
        QueryError: it is empty, has a second statement, or wants a file of the server's.
    """
    text = head.decode("latin-1")
    walk = tokens(text)
    verb = next((t.text for t in walk if t.text != ";"), "")
    if not verb:
        raise QueryError.of("SYNTAX_ERROR", "Syntax error: Empty query.")
    insert = _insert_data(text, walk) if verb == "INSERT" else None
    if insert is not None:
        return Statement(verb, insert, None, has_result=False, reads_only=False)
    rest = list(tokens(text))
    words = [t.text for t in rest]
    _refuse(words)
    if verb == "INSERT":
        _refuse_input_function(text)
    writes = verb == "WITH" and _inserts(words)
    return Statement(
        verb,
        None,
        _output_format(text, rest),
        has_result=verb in _WITH_RESULT and not writes,
        reads_only=verb in _READING and not writes,
    )


def _inserts(words: list[str]) -> bool:
    """Whether INSERT is a keyword here, and not the name of a CTE, a column or a table."""
    around = zip(["WITH", *words], words, [*words[1:], ""], strict=False)
    return any(
        word == "INSERT" and before not in _BEFORE_NAMES and after not in ("AS", "SELECT")
        for before, word, after in around
    )


def _refuse(words: list[str]) -> None:
    statement_ended = False
    for word in words:
        if word == ";":
            statement_ended = True
        elif statement_ended:
            raise QueryError.of("SYNTAX_ERROR", "Syntax error (Multi-statements are not allowed)")
    if ("INTO", "OUTFILE") in pairwise(words):
        raise QueryError.of("INTO_OUTFILE_NOT_ALLOWED", "INTO OUTFILE is not allowed")


def _refuse_input_function(text: str) -> None:
    """The engine would take ``input(…)`` for an empty table and insert nothing, silently."""
    words = [t.text for t in tokens(text, every_depth=True)]
    if ("INPUT", "(") in pairwise(words):
        raise QueryError.of(
            "NOT_IMPLEMENTED",
            "INSERT … SELECT … FROM input(…) is not supported by the embedded engine: "
            "insert into the table, or select from format(…)",
        )


def _insert_data(text: str, walk: Iterator[Token]) -> InsertData | None:
    """Where an INSERT's data begins; None where it selects. ``walk`` stands after INSERT."""
    token = next(walk, None)
    for optional in ("INTO", "TABLE", "FUNCTION"):
        if token is not None and token.text == optional:
            token = next(walk, None)
    previous = "."
    while token is not None:
        is_name, previous = previous == ".", token.text
        if is_name:
            token = next(walk, None)
            continue
        if token.text == "VALUES":
            return InsertData(token.start, "Values", token.end)
        if token.text in ("SELECT", "WITH"):
            return None
        if token.text == "FROM":
            after = next(walk, None)
            if after is not None and after.text == "INFILE":
                raise QueryError.of(
                    "NOT_IMPLEMENTED", "FROM INFILE reads a client's file: send it as the data"
                )
            return None
        if token.text == "FORMAT":
            name = next(walk, None)
            if name is None:
                return None
            start = _after_format(text, name.end)
            return InsertData(token.start, text[name.start : name.end], start)
        token = next(walk, None)
    return None


def _after_format(text: str, at: int) -> int:
    """Data begins after the first line break, or after the blanks where there is none."""
    if text[at : at + 1] == ";":
        at += 1
    while text[at : at + 1] in (" ", "\t", "\f"):
        at += 1
    if text[at : at + 1] == "\r":
        at += 1
    if text[at : at + 1] == "\n":
        at += 1
    return at


def _output_format(text: str, rest: list[Token]) -> str | None:
    for i in range(len(rest) - 2, -1, -1):
        if rest[i].text == "FORMAT" and rest[i + 1].text.replace("_", "").isalnum():
            following = rest[i + 2].text if i + 2 < len(rest) else ";"
            if following in (";", "SETTINGS"):
                return text[rest[i + 1].start : rest[i + 1].end]
    return None
