"""The calibration file: every set of coefficients that was ever fitted, as data.

A TOML file of ``[[calibration]]`` entries, to which each fit adds::

    [[calibration]]
    version = "2026-11-22.1"        # what events carry: affine-shapley/2@2026-11-22.1
    model = "llama-8b"
    accelerator = "NVIDIA H100"
    rule = "affine-shapley"
    fitted_at = 2026-11-22T12:00:00Z
    batches = 1200
    outliers = 14
    r_squared = 0.95
    robust_r_squared = 0.99
    fixed_ps = 2990070000
    input_token_ps = 27614800
    output_token_ps = 445447400

The last entry of a model, accelerator and rule holds. Earlier ones stay, so that the version on
any event can be looked up.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Self

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError, model_validator

from metering.apportion import COEFFICIENTS, RULES, ApportionmentRule, rule_named
from metering.errors import MeteringError

_HEAD = "# Coefficients of apportionment, fitted by `meter calibrate`. The last of a kind holds.\n"
_Name = Annotated[str, Field(min_length=1, max_length=256)]
_Ps = Annotated[int, Field(ge=0, lt=2**63)]
_VERSION = re.compile(r"(\d{4}-\d{2}-\d{2})\.(\d+)\Z")


class InvalidCalibration(MeteringError):
    """The calibration file can't be read; the message names the file, the entry and the field."""


class CalibrationEntry(BaseModel):
    """One fit. Coefficients are in picoseconds; those that its rule has not are ``None``."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: Annotated[str, Field(pattern=r"^[0-9A-Za-z._-]{1,64}$")]
    model: _Name
    accelerator: _Name
    rule: str
    fitted_at: AwareDatetime
    batches: Annotated[int, Field(ge=1)]
    outliers: Annotated[int, Field(ge=0)] = 0
    r_squared: float | None = None
    robust_r_squared: float | None = None
    fixed_ps: _Ps | None = None
    input_token_ps: _Ps | None = None
    step_ps: _Ps | None = None
    output_token_ps: _Ps | None = None

    @property
    def coefficients_ps(self) -> dict[str, int]:
        given = {name: getattr(self, name) for name in COEFFICIENTS}
        return {name: ps for name, ps in given.items() if ps is not None}

    @property
    def key(self) -> tuple[str, str, str]:
        return self.model, self.accelerator, self.rule

    def as_rule(self, version: int | None = None) -> ApportionmentRule:
        """In the rule's own ``version``, the newest where it is not said."""
        return rule_named(self.rule, self.coefficients_ps, self.version, version)

    @model_validator(mode="after")
    def _coefficients_of_its_rule(self) -> Self:
        kind = RULES.get(self.rule)
        if kind is None or set(self.coefficients_ps) != set(kind.coefficients):
            wanted = "a known rule" if kind is None else " and ".join(kind.coefficients)
            raise ValueError(f"rule={self.rule!r} with {sorted(self.coefficients_ps)}: {wanted}")
        return self


class CalibrationBook:
    """What the file holds. Immutable once made."""

    def __init__(self, entries: Iterable[CalibrationEntry] = ()) -> None:
        self.entries = tuple(entries)
        self._latest = {entry.key: entry for entry in self.entries}

    def latest(self, model: str, accelerator: str, rule: str) -> CalibrationEntry | None:
        return self._latest.get((model, accelerator, rule))

    def next_version(self, now: datetime) -> str:
        """``DATE.N``: the next fit of that day, in UTC."""
        day = f"{now.astimezone(UTC):%Y-%m-%d}"
        taken = [
            int(found[2])
            for entry in self.entries
            if (found := _VERSION.match(entry.version)) and found[1] == day
        ]
        return f"{day}.{max(taken, default=0) + 1}"

    def with_entries(self, entries: Iterable[CalibrationEntry]) -> CalibrationBook:
        return CalibrationBook((*self.entries, *entries))


def parse_calibrations(text: str, where: str) -> CalibrationBook:
    """``where`` names the text in errors.

    Raises:
        InvalidCalibration: not TOML, or an entry with a wrong, missing or unknown field.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise InvalidCalibration(f"{where}: {exc}") from exc
    found = document.get("calibration", [])
    if not isinstance(found, list) or set(document) - {"calibration"}:
        raise InvalidCalibration(f"{where}: only [[calibration]] entries are expected")
    entries = []
    for number, values in enumerate(found, 1):
        try:
            entries.append(CalibrationEntry.model_validate(values))
        except ValidationError as exc:
            problem = exc.errors()[0]
            name = ".".join(map(str, problem["loc"])) or "entry"
            raise InvalidCalibration(
                f"{where}: [[calibration]] {number}, {name}: {problem['msg']}"
            ) from exc
    return CalibrationBook(entries)


def read_calibrations(path: Path) -> CalibrationBook:
    """An absent file holds nothing.

    Raises:
        InvalidCalibration: it is there, but can't be read or parsed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return CalibrationBook()
    except (OSError, UnicodeDecodeError) as exc:
        raise InvalidCalibration(f"{path}: {exc}") from exc
    return parse_calibrations(text, str(path))


def write_calibrations(path: Path, book: CalibrationBook) -> None:
    """Replace the file as a whole: who reads it meanwhile sees the old one or the new one."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", encoding="utf-8") as file:
            file.write(render_calibrations(book))
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as exc:
        part.unlink(missing_ok=True)
        raise MeteringError(f"{path}: {exc}") from exc


def render_calibrations(book: CalibrationBook) -> str:
    """What :func:`parse_calibrations` reads."""
    return _HEAD + "".join(_render(entry.model_dump(exclude_none=True)) for entry in book.entries)


def _render(values: Mapping[str, object]) -> str:
    lines = [f"{name} = {_toml(value)}" for name, value in values.items()]
    return "\n".join(("", "[[calibration]]", *lines, ""))


def _toml(value: object) -> str:
    if isinstance(value, datetime):
        return f"{value.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"
    if isinstance(value, str):
        escaped = value.replace("\\", "\\\\").replace('"', '\\"')
        return '"' + "".join(c if c.isprintable() else f"\\U{ord(c):08x}" for c in escaped) + '"'
    return repr(value)
