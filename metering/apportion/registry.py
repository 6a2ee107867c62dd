"""Rules by name, so that a model's configuration can say which one divides its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metering.apportion.affine import (
    DEFAULT_LABEL,
    EQUAL_SPLIT,
    EQUAL_SPLIT_1,
    AffineShapley,
)
from metering.apportion.iteration import IterationLevel
from metering.apportion.padded import PaddedLength, PaddingPayer, RunToLongest
from metering.apportion.shares import ApportionmentRule
from metering.errors import MeteringError

COEFFICIENTS = ("fixed_ps", "input_token_ps", "step_ps", "output_token_ps")
"""Every name that a rule's coefficient can have, in picoseconds."""
_OF_TOKENS = ("input_token_ps", "step_ps", "output_token_ps")
"""Where all of them are 0, nothing tells a share's input from its output but ``DEFAULT_PHASES``."""


@dataclass(frozen=True, slots=True)
class RuleKind:
    """A rule before it has its coefficients: their names, and how it is made from them."""

    name: str
    coefficients: tuple[str, ...]
    make: Callable[[Mapping[str, int], str], ApportionmentRule]
    version: int = 1


RULES: dict[str, RuleKind] = {}


def register(kind: RuleKind) -> None:
    """Make a rule known by its name.

    Raises:
        MeteringError: the name is taken, or a coefficient is none of ``COEFFICIENTS``.
    """
    unknown = set(kind.coefficients) - set(COEFFICIENTS)
    if kind.name in RULES or unknown:
        raise MeteringError(
            f"apportionment {kind.name!r}: known already, or unknown coefficients {sorted(unknown)}"
        )
    RULES[kind.name] = kind


def rule_named(
    name: str,
    coefficients_ps: Mapping[str, int],
    calibration: str | None = None,
    version: int | None = None,
) -> ApportionmentRule:
    """The rule with these coefficients; those that are missing are 0. A rule that needs some and
    gets none is an equal split, and its id says so. ``calibration`` is the version that the
    coefficients come from. ``version`` is the rule's own, the newest where it is not said. Where
    no coefficient tells input from output, the id ends with ``DEFAULT_LABEL``.

    Raises:
        MeteringError: no rule has that name or version, or a coefficient is no integer from 0 on.
    """
    kind = kind_named(name, version)
    given = {n: coefficients_ps[n] for n in kind.coefficients if n in coefficients_ps}
    for coefficient, value_ps in given.items():
        if type(value_ps) is not int or value_ps < 0:
            raise MeteringError(
                f"{coefficient}={value_ps!r:.80} of apportionment={name!r} is no integer from 0 on"
            )
    if kind.coefficients and not given:
        return EQUAL_SPLIT_1 if name in BUILT_IN and kind.version == 1 else EQUAL_SPLIT
    rule_id = f"{kind.name}/{kind.version}"
    if calibration is not None and kind.coefficients:
        rule_id += f"@{calibration}"
    if kind.coefficients and kind.version > 1 and not any(given.get(n) for n in _OF_TOKENS):
        rule_id += DEFAULT_LABEL
    return kind.make({n: given.get(n, 0) for n in kind.coefficients}, rule_id)


def kind_named(name: str, version: int | None = None) -> RuleKind:
    """Raises MeteringError: no rule has that name or version."""
    kind = RULES.get(name)
    if kind is None:
        raise MeteringError(f"apportionment={name!r} is none of {', '.join(RULES)}")
    if version is None or version == kind.version:
        return kind
    earlier = EARLIER.get((name, version))
    if earlier is None:
        raise MeteringError(
            f"rule={name!r} version={version}: this version has {kind.version}; bring shipper and "
            "server to the same release"
        )
    return earlier


_AFFINE = ("fixed_ps", "input_token_ps", "output_token_ps")


def _padded(
    payer: PaddingPayer, version: int
) -> Callable[[Mapping[str, int], str], ApportionmentRule]:
    return lambda ps, rule_id: PaddedLength(**ps, payer=payer, rule_id=rule_id, version=version)


def _kinds(version: int) -> list[RuleKind]:
    """The rules of this package. Version 1 shared equally among requests what version 2 shares
    equally among rows, and called a share without coefficients input."""

    def affine(ps: Mapping[str, int], rule_id: str) -> ApportionmentRule:
        return AffineShapley(**ps, rule_id=rule_id, version=version)

    def equal(_ps: Mapping[str, int], _id: str) -> ApportionmentRule:
        return EQUAL_SPLIT_1 if version == 1 else EQUAL_SPLIT

    def longest(ps: Mapping[str, int], rule_id: str) -> ApportionmentRule:
        return RunToLongest(**ps, rule_id=rule_id, version=version)

    def iteration(_ps: Mapping[str, int], rule_id: str) -> ApportionmentRule:
        return IterationLevel(rule_id, version)

    return [
        RuleKind("affine-shapley", _AFFINE, affine, version),
        RuleKind("equal-split", (), equal, version),
        RuleKind("padded-length", _AFFINE, _padded("causer", version), version),
        RuleKind("padded-length-bearer", _AFFINE, _padded("bearer", version), version),
        RuleKind("padded-length-shared", _AFFINE, _padded("shared", version), version),
        RuleKind("run-to-longest", COEFFICIENTS, longest, version),
        RuleKind("iteration-level", (), iteration, version),
    ]


for _kind in _kinds(2):
    register(_kind)

EARLIER = {(kind.name, kind.version): kind for kind in _kinds(1)}
"""Versions that only old records and models that name them have."""
BUILT_IN = frozenset(RULES)
"""Rules that every part of the project has; others are known only where they were registered."""
