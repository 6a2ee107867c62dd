"""How the time of a batch is divided among its requests.

Every rule returns non-negative integers that sum to the whole exactly (largest remainder), and
what a request gets depends on the batch's requests, not on their order.
"""

from metering.apportion.affine import DEFAULT_LABEL, EQUAL_SPLIT, AffineShapley
from metering.apportion.iteration import IterationLevel
from metering.apportion.padded import PaddedLength, PaddingPayer, RunToLongest
from metering.apportion.registry import (
    BUILT_IN,
    COEFFICIENTS,
    RULES,
    RuleKind,
    kind_named,
    register,
    rule_named,
)
from metering.apportion.shares import (
    ApportionmentRule,
    Share,
    Turn,
    Work,
    largest_remainder,
)

__all__ = [
    "BUILT_IN",
    "COEFFICIENTS",
    "DEFAULT_LABEL",
    "EQUAL_SPLIT",
    "RULES",
    "AffineShapley",
    "ApportionmentRule",
    "IterationLevel",
    "PaddedLength",
    "PaddingPayer",
    "RuleKind",
    "RunToLongest",
    "Share",
    "Turn",
    "Work",
    "kind_named",
    "largest_remainder",
    "register",
    "rule_named",
]
