"""Where a cost changed: the slices whose cohorts moved together, for each driver that moved.

A search over the lattice of dimensions, for any number of them. It rests on what RiskLoc and
Squeeze call the ripple effect: the leaves under one cause move by like ratios (M. Kalander,
"RiskLoc: localization of multi-dimensional root causes by weighted risk", 2022). Only what moved
significantly is tagged; where nothing did, there is no tag.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from math import fsum

from detectors.levers import lever, mechanism
from detectors.options import DetectorOptions
from detectors.readings import Judgement, Reading
from metering.costs import DRIVERS, CauseTag, Driver
from metering.money import usd

NAMED_WHERE_IT_NARROWS = frozenset({"region"})
"""Dimensions that are left out of a slice that has the same leaves without them."""
LIKE_RATIO = 0.5
"""A leaf that moved by at least this part of the anomaly's logarithm moved with it."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One cohort: its value in every dimension, in the order of their precedence."""

    where: Mapping[str, str]
    judgement: Judgement


@dataclass(frozen=True, slots=True)
class _Slice:
    where: Mapping[str, str]
    moved: tuple[Leaf, ...]
    members: tuple[Leaf, ...]
    purity: float


def find_causes(
    anomalous: Leaf, leaves: Sequence[Leaf], options: DetectorOptions
) -> tuple[CauseTag, ...]:
    """Tags of one anomaly, the largest share first. ``leaves`` are all judged cohorts of the
    window, ``anomalous`` among them.

    Every driver that pushed ``anomalous`` the way its spend went, significantly and with at least
    ``min_share`` of its change, gets the slice (one of those that contain the cohort) in which
    most cohorts moved alike and few held still; of slices with the same cohorts the narrowest, in
    which a region is named only if the slice would have other cohorts without it.
    ``share`` and ``usd_per_hour`` are sums of the leaves' LMDI effects over the slice; a share is
    above 1 where another driver took some of the change back.

    ``confidence = purity × z²/(z² + z_threshold²)``: 0.5 at the threshold and towards 1 above it,
    times the part of the slice's cohorts (of those that could have been seen moving) that moved.
    """
    change = anomalous.judgement.change_usd_per_hour
    sign = 1.0 if change > 0 else -1.0
    alone = _Slice(_named(anomalous.where, leaves), (anomalous,), (anomalous,), 1.0)
    ranked: list[tuple[float, CauseTag]] = []
    for driver in DRIVERS:
        move = anomalous.judgement.moves.get(driver)
        if move is None or change == 0.0:
            continue
        share = move.effect_usd_per_hour / change
        certain = anomalous.judgement.new and driver == "volume"
        if share < options.min_share or (sign * move.z < options.z_threshold and not certain):
            continue
        found = _search(driver, alone, leaves, sign, options)
        strength = move.z**2 / (move.z**2 + options.z_threshold**2)
        ranked.append((share, _tag(driver, found, alone, sign, strength)))
    ranked.sort(key=lambda r: -r[0])
    return tuple(tag for _, tag in ranked)


def _search(
    driver: Driver,
    alone: _Slice,
    leaves: Sequence[Leaf],
    sign: float,
    options: DetectorOptions,
) -> _Slice:
    (anomalous,) = alone.members
    moved, still = _sides(driver, anomalous, leaves, sign, options.z_threshold)
    best = alone
    for where in _generalisations(anomalous.where):
        inside = tuple(leaf for leaf in moved if _contains(where, leaf))
        held = sum(_contains(where, leaf) for leaf in still)
        purity = len(inside) / (len(inside) + held)
        if purity >= options.min_purity and len(inside) > len(best.moved):
            members = tuple(leaf for leaf in leaves if _contains(where, leaf))
            best = _Slice(_named(where, leaves), inside, members, purity)
    return best


def _sides(
    driver: Driver, anomalous: Leaf, leaves: Iterable[Leaf], sign: float, z_threshold: float
) -> tuple[list[Leaf], list[Leaf]]:
    """Who moved with the anomalous leaf and who held still. Who is too noisy or too small to have
    been seen moving so far counts for neither.
    """
    like = LIKE_RATIO * sign * anomalous.judgement.moves[driver].log_change
    moved, still = [anomalous], []
    for leaf in leaves:
        move = leaf.judgement.moves.get(driver)
        if leaf is anomalous or move is None:
            continue
        if sign * move.z >= z_threshold and sign * move.log_change >= like:
            moved.append(leaf)
        elif like >= z_threshold * move.log_noise:
            still.append(leaf)
    return moved, still


def _generalisations(where: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Every slice around a leaf, the narrow ones and the first dimensions first."""
    for size in range(len(where), -1, -1):
        for names in combinations(where, size):
            yield {name: where[name] for name in names}


def _named(where: Mapping[str, str], leaves: Sequence[Leaf]) -> Mapping[str, str]:
    """The slice without those dimensions that it can do without."""
    count = sum(_contains(where, leaf) for leaf in leaves)
    for name in where.keys() & NAMED_WHERE_IT_NARROWS:
        wider = {other: value for other, value in where.items() if other != name}
        if sum(_contains(wider, leaf) for leaf in leaves) == count:
            where = wider
    return where


def _contains(where: Mapping[str, str], leaf: Leaf) -> bool:
    return all(leaf.where.get(name) == value for name, value in where.items())


def _tag(driver: Driver, found: _Slice, alone: _Slice, sign: float, strength: float) -> CauseTag:
    effect = _effect(driver, found.members)
    change = fsum(leaf.judgement.change_usd_per_hour for leaf in found.members)
    if sign * change <= 0.0 or sign * effect <= 0.0:
        # Other drivers turned the slice's sum round: speak of the anomalous leaf alone.
        found = replace(alone, purity=found.purity)
        effect = _effect(driver, found.members)
        change = fsum(leaf.judgement.change_usd_per_hour for leaf in found.members)
    words = mechanism(
        driver,
        Reading.total(leaf.judgement.expected for leaf in found.moved),
        Reading.total(leaf.judgement.observed for leaf in found.moved),
        rise=sign > 0,
    )
    share = effect / change
    return CauseTag(
        driver=driver,
        slice=dict(found.where),
        share=share,
        usd_per_hour=usd(round(effect * 1e6) * 10**12),
        confidence=found.purity * strength,
        lever=lever(driver, words, found.where, share, change),
    )


def _effect(driver: Driver, members: Iterable[Leaf]) -> float:
    moves = (leaf.judgement.moves.get(driver) for leaf in members)
    return fsum(move.effect_usd_per_hour for move in moves if move is not None)
