"""Rules by name, so that a model's configuration can say which one divides its batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from metering.apportion.affine import EQUAL_SPLIT, AffineShapley
from metering.apportion.iteration import IterationLevel
from metering.apportion.padded import PaddedLength, PaddingPayer, RunToLongest
from metering.apportion.shares import ApportionmentRule
from metering.errors import MeteringError

COEFFICIENTS = ("fixed_ps", "input_token_ps", "step_ps", "output_token_ps")
"""Every name that a rule's coefficient can have, in picoseconds."""


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
    name: str, coefficients_ps: Mapping[str, int], calibration: str | None = None
) -> ApportionmentRule:
    """The rule with these coefficients; those that are missing are 0. A rule that needs some and
    gets none is an equal split, and its id says so. ``calibration`` is the version that the
    coefficients come from.

    Raises:
        MeteringError: no rule has that name, or a coefficient is negative.
    """
    kind = RULES.get(name)
    if kind is None:
        raise MeteringError(f"apportionment={name!r} is none of {', '.join(RULES)}")
    given = {n: coefficients_ps[n] for n in kind.coefficients if n in coefficients_ps}
    for coefficient, value_ps in given.items():
        if value_ps < 0:
            raise MeteringError(f"{coefficient}={value_ps} of apportionment={name!r} is negative")
    if kind.coefficients and not given:
        return EQUAL_SPLIT
    rule_id = f"{kind.name}/{kind.version}"
    if calibration is not None and kind.coefficients:
        rule_id += f"@{calibration}"
    return kind.make({n: given.get(n, 0) for n in kind.coefficients}, rule_id)


_AFFINE = ("fixed_ps", "input_token_ps", "output_token_ps")


def _padded(payer: PaddingPayer) -> Callable[[Mapping[str, int], str], ApportionmentRule]:
    return lambda ps, rule_id: PaddedLength(**ps, payer=payer, rule_id=rule_id)


for _kind in (
    RuleKind("affine-shapley", _AFFINE, lambda ps, rule_id: AffineShapley(**ps, rule_id=rule_id)),
    RuleKind("equal-split", (), lambda _ps, _id: EQUAL_SPLIT),
    RuleKind("padded-length", _AFFINE, _padded("causer")),
    RuleKind("padded-length-bearer", _AFFINE, _padded("bearer")),
    RuleKind("padded-length-shared", _AFFINE, _padded("shared")),
    RuleKind(
        "run-to-longest", COEFFICIENTS, lambda ps, rule_id: RunToLongest(**ps, rule_id=rule_id)
    ),
    RuleKind("iteration-level", (), lambda _ps, rule_id: IterationLevel(rule_id)),
):
    register(_kind)

BUILT_IN = frozenset(RULES)
"""Rules that every part of the project has; others are known only where they were registered."""
