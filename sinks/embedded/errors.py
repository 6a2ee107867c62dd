"""Errors as ClickHouse words them, and the HTTP status that each one has."""

from __future__ import annotations

import re
from typing import Final, Self

from metering.errors import MeteringError

_CODED = re.compile(r"Code: (\d+)\. (DB::\w*Exception: .*)", re.DOTALL)
_TRAILER = re.compile(r"\s*\(version [^()]*(?:\([^()]*\))?\)\s*\.?\s*$")
_NAME = re.compile(r"\(([A-Z][A-Z0-9_]+)\)\s*\.?\s*$")

# ClickHouse's table; what is not in it is 500.
_STATUS: Final[dict[str, int]] = {
    name: status
    for status, names in {
        400: """BAD_ARGUMENTS CANNOT_COMPILE_REGEXP CANNOT_PARSE_TEXT CANNOT_PARSE_ESCAPE_SEQUENCE
            CANNOT_PARSE_QUOTED_STRING CANNOT_PARSE_DATE CANNOT_PARSE_DATETIME CANNOT_PARSE_NUMBER
            CANNOT_PARSE_DOMAIN_VALUE_FROM_STRING CANNOT_PARSE_IPV4 CANNOT_PARSE_IPV6
            CANNOT_PARSE_INPUT_ASSERTION_FAILED CANNOT_PARSE_UUID DUPLICATE_COLUMN ILLEGAL_COLUMN
            UNKNOWN_ELEMENT_IN_AST UNKNOWN_TYPE_OF_AST_NODE THERE_IS_NO_COLUMN TOO_DEEP_AST
            TOO_BIG_AST UNEXPECTED_AST_STRUCTURE SYNTAX_ERROR INCORRECT_DATA TYPE_MISMATCH
            VALUE_IS_OUT_OF_RANGE_OF_DATA_TYPE""",
        401: "REQUIRED_PASSWORD",
        403: """UNKNOWN_USER WRONG_PASSWORD AUTHENTICATION_FAILED SET_NON_GRANTED_ROLE
            ACCESS_DENIED""",
        404: """UNKNOWN_TABLE UNKNOWN_FUNCTION UNKNOWN_IDENTIFIER UNKNOWN_TYPE UNKNOWN_STORAGE
            UNKNOWN_DATABASE UNKNOWN_SETTING UNKNOWN_DIRECTION_OF_SORTING
            UNKNOWN_AGGREGATE_FUNCTION UNKNOWN_FORMAT UNKNOWN_DATABASE_ENGINE
            UNKNOWN_TYPE_OF_QUERY UNKNOWN_ROLE""",
        408: "TIMEOUT_EXCEEDED",
        411: "HTTP_LENGTH_REQUIRED",
        413: "QUERY_IS_TOO_LARGE",
        415: "UNSUPPORTED_MEDIA_TYPE",
        501: "NOT_IMPLEMENTED",
        503: "SOCKET_TIMEOUT CANNOT_OPEN_FILE CANNOT_SCHEDULE_TASK",
    }.items()
    for name in names.split()
}

# The codes that are raised on this side of the engine.
CODES: Final[dict[str, int]] = {
    "BAD_ARGUMENTS": 36,
    "TOO_LARGE_SIZE_COMPRESSED": 39,
    "CHECKSUM_DOESNT_MATCH": 40,
    "NOT_IMPLEMENTED": 48,
    "LOGICAL_ERROR": 49,
    "SYNTAX_ERROR": 62,
    "UNKNOWN_COMPRESSION_METHOD": 89,
    "UNKNOWN_SETTING": 115,
    "READONLY": 164,
    "TOO_MANY_SIMULTANEOUS_QUERIES": 202,
    "SOCKET_TIMEOUT": 209,
    "NETWORK_ERROR": 210,
    "QUERY_WITH_SAME_ID_IS_ALREADY_RUNNING": 216,
    "QUERY_IS_TOO_LARGE": 229,
    "CANNOT_DECOMPRESS": 271,
    "INTO_OUTFILE_NOT_ALLOWED": 358,
    "SESSION_NOT_FOUND": 372,
    "SESSION_IS_LOCKED": 373,
    "INVALID_SESSION_TIMEOUT": 374,
    "UNKNOWN_ROLE": 511,
    "AUTHENTICATION_FAILED": 516,
}


class QueryError(MeteringError):
    """A request that ClickHouse refuses; ``text`` starts with ``DB::Exception:``."""

    def __init__(self, code: int, name: str, text: str) -> None:
        super().__init__(f"Code: {code}. {text} ({name})")
        self.code = code
        self.name = name
        self.text = text

    @classmethod
    def of(cls, name: str, message: str) -> Self:
        """An error that is raised here; ``name`` is one of `CODES`."""
        return cls(CODES[name], name, f"DB::Exception: {message}")

    @classmethod
    def parse(cls, message: str) -> Self:
        """The engine's own words; where it repeats an error inside itself, the inner one."""
        found = _CODED.search(message)
        if found is None:
            return cls.of("LOGICAL_ERROR", message.strip())
        while (inner := _CODED.match(found[2].partition("Exception: ")[2])) and inner[1] == found[
            1
        ]:
            found = inner
        text, name = found[2], ""
        while (version := _TRAILER.search(text)) or (named := _NAME.search(text)):
            if version is not None:
                text = text[: version.start()]
            elif named is not None:
                name = name or named[1]
                text = text[: named.start()].rstrip()
        return cls(int(found[1]), name or "UNKNOWN", text)

    @property
    def status(self) -> int:
        return _STATUS.get(self.name, 500)

    def body(self, version: str) -> str:
        return f"Code: {self.code}. {self.text} ({self.name}) (version {version})\n"


class DirectoryInUse(MeteringError):
    """Another process serves this directory."""
