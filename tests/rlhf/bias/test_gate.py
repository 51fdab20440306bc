from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pytest

from rlhf.bias import (
    BiasReport,
    Check,
    GroupAnswers,
    Probe,
    SampledAnswers,
    Skipped,
    counterfactual_prompts,
    make_probes,
    run_checks,
)
from rlhf.config import BiasConfig
from sft.core.errors import DataError
from sft.core.text import Conversation, user

GROUPS = {group: [f"{group[0]}{i:02d}" for i in range(12)] for group in ("women", "men", "nonbinary")}
CONFIG = BiasConfig(suite="test", groups=GROUPS)


class World(NamedTuple):
    """Texts in the shape of held-out comparisons and sampled answers; qualities are words q00 to q19."""

    probes: list[Probe]
    sampled: list[SampledAnswers]
    group_answers: list[GroupAnswers]


def make_world(*, probes: int, seed: int) -> World:
    generator = np.random.default_rng(seed)

    def answer(*words: str) -> str:
        return " ".join([f"q{generator.integers(20):02d}", *words, *["pad"] * int(generator.integers(4))])

    def someone() -> str:
        return str(generator.choice(GROUPS[str(generator.choice(list(GROUPS)))]))

    pairs = [(user(f"request {i}"), answer(someone(), str(i)), answer(str(i))) for i in range(probes)]
    both = [(user(f"both {i}"), answer(name := someone(), "first"), answer(name, "second")) for i in range(60)]
    sampled = [SampledAnswers(user(f"ask {i}"), tuple(answer(str(k)) for k in range(4))) for i in range(60)]
    requests = [user(f"{someone()} asks {i}") for i in range(90)]
    versions = counterfactual_prompts(requests, GROUPS, limit=60, seed=seed)
    answers = [GroupAnswers(v, (answer("x"), answer("y")), (answer("z"), answer("w"))) for v in versions]
    return World(make_probes([*pairs, *both], GROUPS, limit=400, seed=seed), sampled, answers)


class FakeScorer:
    """Reward = quality of the first word (sd 1) + an offset of each named person + a constant of the prompt."""

    def __init__(self, *, name_sd: float, planted: dict[str, float], seed: int) -> None:
        generator = np.random.default_rng(seed)
        self.words = {f"q{i:02d}": float(q) for i, q in enumerate(np.linspace(-1.65, 1.65, 20) / np.sqrt(2))}
        for group, names in GROUPS.items():
            for name in names:
                self.words[name] = float(generator.normal(0, name_sd)) - planted.get(group, 0.0)
        self.calls = 0

    def __call__(self, texts: Sequence[tuple[Conversation, str]]) -> np.ndarray:
        self.calls += 1
        assert len(set(texts)) == len(texts)
        return np.array([self._answer(answer) + self._prompt(prompt) for prompt, answer in texts])

    def _answer(self, answer: str) -> float:
        return sum(self.words.get(word, 0.0) for word in answer.split())

    @staticmethod
    def _prompt(prompt: Conversation) -> float:
        return float(sum(map(ord, prompt[0].content)) % 17)


def report_of(world: World, scorer: FakeScorer) -> BiasReport:
    return run_checks(
        probes=world.probes,
        sampled=world.sampled,
        group_answers=world.group_answers,
        score=scorer,
        config=CONFIG,
    )


@pytest.fixture(scope="module")
def worlds() -> list[World]:
    return [make_world(probes=240, seed=seed) for seed in range(10)]


def test_a_planted_bias_is_found_with_its_group_named(worlds: list[World]) -> None:
    """0.5 sd against one group, under random offsets of names: found in at least 9 of 10 repetitions, sign included."""
    hits = 0
    for repetition in range(60):
        scorer = FakeScorer(name_sd=0.15, planted={"women": 0.5}, seed=repetition)
        failed = {(c.name, c.group): c.effect for c in report_of(worlds[repetition % 10], scorer).failed}
        hits += failed.get(("swap_one", "women"), 0.0) < 0
        assert ("length", "all") not in failed
    assert hits >= 54


@pytest.mark.parametrize("name_sd", [0.1, 0.2])
def test_an_unbiased_scorer_with_an_offset_for_each_name_passes(worlds: list[World], name_sd: float) -> None:
    """At most 1 gate in 20 fails; resampling prompts alone would call such offsets bias."""
    alarms = [
        not report_of(worlds[r % 10], FakeScorer(name_sd=name_sd, planted={}, seed=1000 + r)).passed for r in range(200)
    ]
    assert len(alarms) == 200
    assert sum(alarms) <= 10


def test_every_check_is_made_and_every_text_is_scored_once(worlds: list[World]) -> None:
    scorer = FakeScorer(name_sd=0.1, planted={}, seed=0)
    report = report_of(worlds[0], scorer)
    by_group = ["swap_one", "swap_both", "flip_rate", "group_gap_length", "group_gap_reward"]
    made = [(check.name, check.group) for check in report.checks]
    assert made == [
        *((name, group) for name in by_group[:3] for group in GROUPS),
        ("length", "all"),
        *((name, group) for name in by_group[3:] for group in GROUPS),
    ]
    assert report.skipped == []
    assert scorer.calls == 1
    assert all(np.isfinite([*check.ci, check.effect]).all() for check in report.checks)


def test_limits_come_from_the_configuration(worlds: list[World]) -> None:
    limits = {
        check.name: check.limit for check in report_of(worlds[0], FakeScorer(name_sd=0, planted={}, seed=0)).checks
    }
    assert limits == {
        "swap_one": CONFIG.max_swap_effect,
        "swap_both": CONFIG.max_swap_effect,
        "flip_rate": CONFIG.max_flip_rate,
        "length": CONFIG.max_length_correlation,
        "group_gap_length": CONFIG.max_group_gap,
        "group_gap_reward": CONFIG.max_group_gap,
    }


def test_what_both_answers_share_cancels(worlds: list[World]) -> None:
    """An offset that every answer naming women gets leaves the margin of two such answers alone."""
    checks = report_of(worlds[0], FakeScorer(name_sd=0.0, planted={"women": 2.0}, seed=0)).checks
    both = {check.group: check.effect for check in checks if check.name == "swap_both"}
    assert both == pytest.approx({"women": 0, "men": 0, "nonbinary": 0})


def test_a_preference_for_one_groups_better_answers_shows_when_both_are_swapped() -> None:
    """Quality counts half as much when the answers name women: preferred minus other shrinks for women."""

    def score(texts: Sequence[tuple[Conversation, str]]) -> np.ndarray:
        weight = {name: 0.5 if group == "women" else 1.0 for group, names in GROUPS.items() for name in names}
        return np.array([weight[answer.split()[0]] * int(answer.split()[1]) for _, answer in texts], dtype=float)

    pairs = [
        (user(f"request {i}"), f"{GROUPS[group][i % 12]} {3 + i % 2}", f"{GROUPS[group][i % 12]} {i % 3}")
        for i in range(24)
        for group in GROUPS
    ]
    report = run_checks(
        probes=make_probes(pairs, GROUPS, limit=400, seed=0), sampled=[], group_answers=[], score=score, config=CONFIG
    )
    both = {check.group: check for check in report.checks if check.name == "swap_both"}
    assert both["women"].n == 72
    assert both["women"].effect < -0.5
    assert not both["women"].passed


def test_the_policys_gaps_by_hand() -> None:
    """Words of (policy, SFT): (2, 1) where the request names women, else (4, 4); the reward counts words."""
    versions = counterfactual_prompts(
        [user(f"{GROUPS['men'][i % 12]} asks {i}") for i in range(36)], GROUPS, limit=99, seed=0
    )
    answers = [
        GroupAnswers(v, ("a b",), ("x",)) if v.group == "women" else GroupAnswers(v, ("a b c d",), ("w x y z",))
        for v in versions
    ]
    report = run_checks(
        probes=[],
        sampled=[],
        group_answers=answers,
        score=lambda texts: np.array([len(answer.split()) for _, answer in texts], dtype=float),
        config=CONFIG,
    )
    effects = {(check.name, check.group): check.effect for check in report.checks}
    assert len(effects) == 6
    for name, women, others in (("group_gap_length", 2, 4), ("group_gap_reward", 1, 0)):
        sd = np.std([women, others, others])
        assert effects[name, "women"] == pytest.approx((women - others) / sd)
        assert effects[name, "men"] == pytest.approx((others - women) / 2 / sd)
    assert not report.passed


def test_a_gate_without_any_check_of_a_group_has_not_passed(worlds: list[World]) -> None:
    scorer = FakeScorer(name_sd=0.0, planted={}, seed=0)
    empty = run_checks(probes=[], sampled=[], group_answers=[], score=scorer, config=CONFIG)
    assert (empty.passed, empty.checks, scorer.calls) == (False, [], 0)
    assert [s.n for s in empty.skipped] == [0] * 16
    length_only = run_checks(probes=[], sampled=worlds[0].sampled, group_answers=[], score=scorer, config=CONFIG)
    assert [check.name for check in length_only.checks] == ["length"]
    assert length_only.checks[0].passed
    assert not length_only.passed


def test_rewards_that_are_no_numbers_are_refused(worlds: list[World]) -> None:
    def diverged(texts: Sequence[tuple[Conversation, str]]) -> np.ndarray:
        return np.array([np.nan, np.inf, *[0.0] * (len(texts) - 2)])

    with pytest.raises(DataError, match=r"2 of \d+ rewards are not finite"):
        run_checks(probes=worlds[0].probes, sampled=[], group_answers=[], score=diverged, config=CONFIG)
    with pytest.raises(DataError, match=r"shape \(1,\) for \d+ answers"):
        run_checks(
            probes=worlds[0].probes, sampled=[], group_answers=[], score=lambda texts: np.zeros(1), config=CONFIG
        )


def test_a_request_without_one_version_is_refused(worlds: list[World]) -> None:
    with pytest.raises(ValueError, match="no answers of the policy and the SFT model for nonbinary"):
        run_checks(
            probes=[],
            sampled=[],
            group_answers=worlds[0].group_answers[:2],
            score=FakeScorer(name_sd=0, planted={}, seed=0),
            config=CONFIG,
        )


def test_a_report_as_dict_and_as_metrics() -> None:
    fails = Check("swap_one", "women", -0.5, (-0.7, -0.3), 100, 0.25, False, "")
    report = BiasReport(
        "gender", [fails, fails._replace(group="men", effect=0.5, passed=True)], [Skipped("length", "all", 3, "few")]
    )
    assert report.as_dict() == {
        "suite": "gender",
        "passed": False,
        "checks": [check.as_dict() for check in report.checks],
        "skipped": [{"name": "length", "group": "all", "n": 3, "reason": "few"}],
    }
    assert report.metrics == {"checks": 2, "failed": 1, "skipped": 1, "swap_one/women": -0.5, "swap_one/men": 0.5}
    assert report.failed == [fails]
