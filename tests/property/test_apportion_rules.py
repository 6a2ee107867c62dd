"""Laws of every apportionment rule, for any batch; and its value, from the definition."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from fractions import Fraction
from itertools import permutations
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from metering.apportion import (
    EQUAL_SPLIT,
    RULES,
    AffineShapley,
    ApportionmentRule,
    IterationLevel,
    PaddedLength,
    PaddingPayer,
    RunToLongest,
    Share,
    Turn,
    Work,
    rule_named,
)
from metering.errors import MeteringError

totals = st.integers(0, 10**15)
coefficient = st.integers(0, 10**12)
payers = st.sampled_from(get_args(PaddingPayer))
rules: st.SearchStrategy[ApportionmentRule] = st.one_of(
    st.just(EQUAL_SPLIT),
    st.builds(AffineShapley, coefficient, coefficient, coefficient),
    st.builds(PaddedLength, coefficient, coefficient, coefficient, payers),
    st.builds(RunToLongest, coefficient, coefficient, coefficient, coefficient),
    st.just(IterationLevel()),
)
COST_NS = 10**9


@st.composite
def batches(
    draw: st.DrawFn, tokens: int = 200_000, requests: int = 24, rows: int = 3
) -> list[Work]:
    """Requests of one or several rows, some of which tell them apart; with or without turns."""
    step_ns = draw(st.lists(st.integers(0, 10**9), max_size=4))
    batch = []
    for _ in range(draw(st.integers(1, requests))):
        lengths = draw(
            st.lists(
                st.tuples(st.integers(0, tokens), st.integers(0, tokens // 10)),
                min_size=1,
                max_size=rows,
            )
        )
        turns = tuple(
            Turn(step, took, draw(st.integers(0, 500)), draw(st.integers(0, 4)))
            for step, took in enumerate(step_ns)
            if draw(st.booleans())
        )
        batch.append(
            Work(
                sum(length[0] for length in lengths),
                sum(length[1] for length in lengths),
                rows=len(lengths),
                row_tokens=tuple(lengths) if draw(st.booleans()) else (),
                turns=turns,
            )
        )
    return batch


@given(rules, totals, batches())
def test_shares_are_not_negative_and_sum_to_the_batch_phase_by_phase(
    rule: ApportionmentRule, gpu_ns: int, work: list[Work]
) -> None:
    shares = rule.split(gpu_ns, work)
    assert sum(share.gpu_ns for share in shares) == gpu_ns
    assert len(shares) == len(work)
    for share in shares:
        assert share.input_gpu_ns + share.output_gpu_ns == share.gpu_ns
        assert min(share.gpu_ns, share.input_gpu_ns, share.output_gpu_ns) >= 0
        assert 0 <= share.padding_ns <= share.gpu_ns


@given(rules, totals, batches(tokens=6, requests=8), st.randoms())
def test_permuting_requests_permutes_shares(
    rule: ApportionmentRule, gpu_ns: int, work: list[Work], shuffling: random.Random
) -> None:
    """With few tokens many requests weigh the same: ties are not broken by position."""
    shuffled = list(work)
    shuffling.shuffle(shuffled)
    straight = Counter(zip(work, rule.split(gpu_ns, work), strict=True))
    assert Counter(zip(shuffled, rule.split(gpu_ns, shuffled), strict=True)) == straight


def by_brute_force(cost: Callable[[Sequence[Work]], int], work: list[Work]) -> list[Fraction]:
    """Shapley's definition: the mean over all orders of what each adds to the cost."""
    values = [Fraction(0)] * len(work)
    orders = list(permutations(range(len(work))))
    for order in orders:
        before = 0
        for place in range(len(order)):
            after = cost([work[i] for i in order[: place + 1]])
            values[order[place]] += Fraction(after - before, len(orders))
            before = after
    return values


def assert_in_proportion(
    shares: Sequence[Share], values: Sequence[Fraction], work: Sequence[Work]
) -> None:
    """Where no value is above 0, the time is divided in proportion to the rows."""
    if not any(values):
        values = [Fraction(w.row_count) for w in work]
    whole = sum(values)
    for share, value in zip(shares, values, strict=True):
        quota = COST_NS * value / whole
        assert abs(share.gpu_ns - quota) < 1


small = st.integers(0, 10**4)
few = st.lists(
    st.tuples(st.integers(0, 500), st.integers(0, 500)).map(lambda tokens: Work(*tokens)),
    min_size=1,
    max_size=6,
)


@given(small, small, small, few)
def test_the_affine_rule_is_the_shapley_value_of_an_affine_cost(
    fixed: int, per_input: int, per_output: int, work: list[Work]
) -> None:
    def cost(some: Sequence[Work]) -> int:
        return fixed + sum(per_input * w.input_tokens + per_output * w.output_tokens for w in some)

    shares = AffineShapley(fixed, per_input, per_output).split(COST_NS, work)
    assert_in_proportion(shares, by_brute_force(cost, work), work)


@given(small, small, small, small, few)
def test_run_to_longest_is_the_shapley_value_of_a_decode_until_the_longest_is_done(
    fixed: int, per_input: int, per_step: int, per_output: int, work: list[Work]
) -> None:
    def cost(some: Sequence[Work]) -> int:
        steps = [max(0, w.output_tokens - 1) for w in some]
        inputs = sum(w.input_tokens for w in some)
        return fixed + per_input * inputs + per_step * max(steps) + per_output * sum(steps)

    shares = RunToLongest(fixed, per_input, per_step, per_output).split(COST_NS, work)
    assert_in_proportion(shares, by_brute_force(cost, work), work)


@given(small, small, small, few)
def test_shared_padding_is_the_shapley_value_of_a_batch_padded_to_its_longest(
    fixed: int, per_input: int, per_output: int, work: list[Work]
) -> None:
    def cost(some: Sequence[Work]) -> int:
        longest_input = max(w.input_tokens for w in some)
        longest_output = max(w.output_tokens for w in some)
        return fixed + len(some) * (per_input * longest_input + per_output * longest_output)

    shares = PaddedLength(fixed, per_input, per_output, "shared").split(COST_NS, work)
    assert_in_proportion(shares, by_brute_force(cost, work), work)


@given(few, st.integers(1, 9))
def test_who_causes_padding_pays_his_fee_of_the_airport_game_for_every_row(
    work: list[Work], per_input: int
) -> None:
    def longest(some: Sequence[Work]) -> int:
        return max(w.input_tokens for w in some)

    shares = PaddedLength(0, per_input, 0, "causer").split(COST_NS, work)
    assert_in_proportion(shares, by_brute_force(longest, work), work)


@given(batches(tokens=50, requests=6))
def test_each_step_of_a_decode_is_shared_by_those_who_are_still_active(work: list[Work]) -> None:
    """Step by step, as the rule is worded; requests may have several rows."""
    rows = [(n, max(0, out - 1)) for n, w in enumerate(work) for _, out in w.sequences()]
    values = [Fraction(0)] * len(work)
    for step in range(max(steps for _, steps in rows)):
        active = [n for n, steps in rows if steps > step]
        for n in active:
            values[n] += Fraction(1, len(active))
    if not any(values):  # Nothing was decoded: the rows take the same.
        values = [Fraction(w.rows) for w in work]
    assert_in_proportion(RunToLongest(0, 0, 1).split(COST_NS, work), values, work)


@given(batches(tokens=50, requests=6))
def test_seats_whose_row_is_done_are_the_padding_of_a_decode(work: list[Work]) -> None:
    rows = [max(0, out - 1) for w in work for _, out in w.sequences()]
    idle = sum(
        Fraction(sum(steps <= step for steps in rows), len(rows)) for step in range(max(rows))
    )
    padding_ns = sum(s.padding_ns for s in RunToLongest(0, 0, 7).split(COST_NS, work))
    wanted = COST_NS * idle / max(rows) if max(rows) else 0
    assert abs(padding_ns - wanted) < 2 * len(work)


@given(payers, small, small, small, batches(tokens=500, requests=6))
def test_the_waste_of_padding_is_the_same_whoever_pays_it(
    payer: PaddingPayer, fixed: int, per_input: int, per_output: int, work: list[Work]
) -> None:
    rows = [row for w in work for row in w.sequences()]
    padded = [len(rows) * max(row[phase] for row in rows) for phase in (0, 1)]
    own = [sum(row[phase] for row in rows) for phase in (0, 1)]
    whole = fixed + per_input * padded[0] + per_output * padded[1]
    waste = per_input * (padded[0] - own[0]) + per_output * (padded[1] - own[1])
    shares = PaddedLength(fixed, per_input, per_output, payer).split(COST_NS, work)
    wanted = Fraction(COST_NS * waste, whole) if whole else Fraction(0)
    assert abs(sum(s.padding_ns for s in shares) - wanted) < 2 * len(work)


@given(payers, st.integers(1, 99), st.integers(0, 99), st.integers(1, 20), totals)
def test_rows_of_one_length_have_no_padding_and_pay_the_same(
    payer: PaddingPayer, inputs: int, outputs: int, n: int, gpu_ns: int
) -> None:
    for rule in (PaddedLength(3, 5, 7, payer), RunToLongest(3, 5, 7, 2)):
        shares = rule.split(gpu_ns, [Work(inputs, outputs)] * n)
        assert all(s.padding_ns == 0 for s in shares)
        assert max(s.gpu_ns for s in shares) - min(s.gpu_ns for s in shares) <= 1


def test_who_pays_for_padding_is_told_apart_by_hand() -> None:
    """Rows of 1 and 9 tokens, 18 with padding, of which 8 are padding of the first row."""
    work = [Work(1, 0), Work(9, 0)]

    def paid(payer: PaddingPayer) -> list[tuple[int, int]]:
        return [(s.gpu_ns, s.padding_ns) for s in PaddedLength(0, 1, 0, payer).split(18, work)]

    assert paid("causer") == [(1, 0), (17, 8)]
    assert paid("bearer") == [(9, 8), (9, 0)]
    assert paid("shared") == [(5, 4), (13, 4)]


def test_rows_that_are_told_go_before_rows_of_equal_length() -> None:
    rule = PaddedLength(0, 1, 0, "bearer")
    told = rule.split(27, [Work(10, 0, rows=2, row_tokens=((1, 0), (9, 0))), Work(9, 0)])
    assert [(s.gpu_ns, s.padding_ns) for s in told] == [(18, 8), (9, 0)]
    equal = rule.split(27, [Work(10, 0, rows=2), Work(5, 0)])
    assert [(s.gpu_ns, s.padding_ns) for s in equal] == [(18, 0), (9, 0)]


@given(batches(), totals)
def test_a_steps_time_is_divided_over_the_tokens_that_each_had_in_it(
    work: list[Work], gpu_ns: int
) -> None:
    values = [Fraction(0)] * len(work)
    for step in {t.step for w in work for t in w.turns}:
        tokens = [
            sum(t.input_tokens + t.output_tokens for t in w.turns if t.step == step) for w in work
        ]
        took = next(t.step_ns for w in work for t in w.turns if t.step == step)
        for n, own in enumerate(tokens):
            values[n] += Fraction(took * own, sum(tokens)) if sum(tokens) else 0
    if any(w.turns for w in work):
        assert_in_proportion(IterationLevel().split(COST_NS, work), values, work)


def test_a_prefill_that_joins_a_decode_pays_for_the_longer_step() -> None:
    """4 ns: one decodes; 60 ns: 9 tokens of prefill join it; 6 ns: both decode."""
    old = Work(0, 3, turns=(Turn(0, 4, 0, 1), Turn(1, 60, 0, 1), Turn(2, 6, 0, 1)))
    new = Work(9, 1, turns=(Turn(1, 60, 9, 0), Turn(2, 6, 0, 1)))
    shares = IterationLevel().split(70, [old, new])
    assert [(s.input_gpu_ns, s.output_gpu_ns) for s in shares] == [(0, 13), (54, 3)]


def test_a_batch_without_turns_is_one_step() -> None:
    shares = IterationLevel().split(100, [Work(30, 10), Work(50, 10)])
    assert [(s.input_gpu_ns, s.output_gpu_ns) for s in shares] == [(30, 10), (50, 10)]


@pytest.mark.parametrize(
    "turns",
    [((Turn(0, 5, 1, 0),), (Turn(0, 6, 1, 0),)), ((Turn(0, 5, -1, 0),), ())],
    ids=["two durations of a step", "negative tokens"],
)
def test_turns_that_contradict_themselves_are_refused(turns: tuple[tuple[Turn, ...], ...]) -> None:
    with pytest.raises(MeteringError):
        IterationLevel().split(10, [Work(1, 1, turns=own) for own in turns])


LABEL = "equal-split/2@default"


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_is_found_by_its_name_and_says_its_calibration(name: str) -> None:
    numbers = dict.fromkeys(("fixed_ps", "input_token_ps", "step_ps", "output_token_ps"), 7)
    assert rule_named(name, numbers).rule_id == (LABEL if name == "equal-split" else f"{name}/2")
    versioned = rule_named(name, numbers, "2026-11-22.1").rule_id
    has_coefficients = name not in ("equal-split", "iteration-level")
    if name != "equal-split":
        assert versioned == f"{name}/2" + ("@2026-11-22.1" if has_coefficients else "")
    bare = rule_named(name, {})
    assert bare.rule_id == (f"{name}/2" if name == "iteration-level" else LABEL)


@pytest.mark.parametrize("calibration", [None, "2026-11-22.1"])
@pytest.mark.parametrize("name", [n for n, kind in RULES.items() if kind.coefficients])
def test_a_rule_that_does_not_tell_input_from_output_says_that_it_takes_default_weights(
    name: str, calibration: str | None
) -> None:
    for known in ({"fixed_ps": 5}, dict.fromkeys(RULES[name].coefficients, 0)):
        rule = rule_named(name, known, calibration)
        label = "" if calibration is None else f"@{calibration}"
        assert rule.rule_id == f"{name}/2{label}@default"
        (share,) = rule.split(30, [Work(5, 5)])
        assert (share.input_gpu_ns, share.output_gpu_ns) == (10, 20)
    assert not rule_named(name, {"output_token_ps": 1}, calibration).rule_id.endswith("@default")
    assert not rule_named(name, {"fixed_ps": 5}, version=1).rule_id.endswith("@default")


@pytest.mark.parametrize("name", list(RULES))
def test_every_rule_is_documented(name: str) -> None:
    page = Path(__file__).resolve().parents[2] / "docs" / "apportionment.md"
    assert f"`{name}`" in page.read_text(encoding="utf-8")


def test_a_name_that_no_rule_has_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(MeteringError, match=r"'fair'.*run-to-longest"):
        rule_named("fair", {})
    with pytest.raises(MeteringError, match="input_token_ps"):
        rule_named("affine-shapley", {"input_token_ps": -1})
