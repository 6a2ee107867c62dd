"""Values and names as SQL writes them. Text may hold bytes that are not UTF-8, as surrogates."""

from __future__ import annotations

import re

from sinks.embedded.errors import QueryError

_ESCAPES = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "0": "\0"}


def literal(value: str) -> str:
    """A string literal of SQL."""
    return "'" + escaped(value.replace("\\", "\\\\").replace("'", "\\'")) + "'"


def quoted(identifier: str) -> str:
    return "`" + escaped(identifier.replace("\\", "\\\\").replace("`", "\\`")) + "`"


def escaped(text: str) -> str:
    """Bytes that are not UTF-8 as ``\\xNN``, which literals, quoted names and TSV understand."""
    return re.sub("[\udc80-\udcff]", lambda m: f"\\x{ord(m[0]) - 0xDC00:02X}", text)


def parameter_name(name: str) -> str:
    """Raises QueryError for what can't be the name of a query parameter."""
    if not re.fullmatch(r"[\w$]+", name, re.ASCII):
        raise QueryError.of("BAD_ARGUMENTS", f"'{name}' can't be the name of a query parameter")
    return name


def unescaped(value: str) -> str:
    """Undo TSV's escaping."""
    return re.sub(r"\\(.)", lambda m: _ESCAPES.get(m[1], m[1]), value, flags=re.DOTALL)
