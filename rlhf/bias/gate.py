"""The bias gate: scores all texts once, runs every check, and gives one verdict.

It needs no model of its own: the caller hands in a scoring function and texts that were sampled already.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from rlhf.bias.checks import (
    Check,
    Measured,
    Skipped,
    flip_rates,
    group_gaps,
    judge,
    length_effect,
    swap_effects,
    too_few,
)
from rlhf.bias.swaps import CounterfactualPrompt, Probe
from rlhf.config import BiasConfig
from sft.core.errors import DataError
from sft.core.statistics import Floats
from sft.core.text import Conversation, prompt_key

Scorer = Callable[[Sequence[tuple[Conversation, str]]], Floats]
"""Calibrated rewards of (prompt, answer) pairs, in their order."""
Rewards = Mapping[tuple[Conversation, str], float]


class SampledAnswers(NamedTuple):
    """Several sampled answers to one prompt."""

    prompt: Conversation
    answers: tuple[str, ...]


class GroupAnswers(NamedTuple):
    """What the policy and the SFT model answered to one version of a request."""

    request: CounterfactualPrompt
    policy: tuple[str, ...]
    """One or more sampled answers."""
    sft: tuple[str, ...]
    """One or more sampled answers, whose mean reward is the policy's yardstick."""


class BiasReport(NamedTuple):
    """The verdicts of one suite. It is no safety certificate: it sees only these groups, terms and texts."""

    suite: str
    checks: list[Check]
    skipped: list[Skipped]

    @property
    def passed(self) -> bool:
        """Tell whether no check failed and at least one check of a group was made at all."""
        return all(check.passed for check in self.checks) and any(check.group != "all" for check in self.checks)

    @property
    def failed(self) -> list[Check]:
        """Return the checks that failed."""
        return [check for check in self.checks if not check.passed]

    @property
    def metrics(self) -> dict[str, float]:
        """Return counts and every effect as `name/group`, for a metric ledger."""
        counts = {"checks": len(self.checks), "failed": len(self.failed), "skipped": len(self.skipped)}
        return {k: float(v) for k, v in counts.items()} | {f"{c.name}/{c.group}": c.effect for c in self.checks}

    def as_dict(self) -> dict[str, object]:
        """Return `{suite, passed, checks, skipped}` as JSON values."""
        return {
            "suite": self.suite,
            "passed": self.passed,
            "checks": [check.as_dict() for check in self.checks],
            "skipped": [check.as_dict() for check in self.skipped],
        }


class _Margins(NamedTuple):
    """Margins of N probes in G versions, and what the probes share."""

    values_NG: Floats
    origins_N: list[int]
    terms: list[str]
    prompts: list[str]


def run_checks(
    *,
    probes: Sequence[Probe],
    sampled: Sequence[SampledAnswers],
    group_answers: Sequence[GroupAnswers],
    score: Scorer,
    config: BiasConfig,
) -> BiasReport:
    """Run all checks of the reward model and the policy.

    Nothing here is random. A check that fewer than 30 items stand behind goes to `skipped`; inputs may be empty.

    Args:
        probes: from `make_probes`, of held-out comparisons and `config.groups`.
        sampled: two or more answers to each held-out prompt, for reward against length.
        group_answers: answers to every version of the requests of `counterfactual_prompts`.
        score: the reward model; called once, with every different (prompt, answer).
        config: groups and limits.

    Raises:
        DataError: the scorer returned a wrong number of rewards, or one that is not finite.
        ValueError: a request of `group_answers` lacks a version or answers.
    """
    groups = list(config.groups)
    requests = _by_request(group_answers, groups)
    rewards = _score_once(score, _texts(probes, sampled, group_answers))
    found = _swap_findings(probes, rewards, groups, config)
    found.append(_length_finding(sampled, rewards, config))
    found += _policy_findings(requests, rewards, groups, config)
    checks = judge([finding for finding in found if isinstance(finding, Measured)])
    return BiasReport(config.suite, checks, [finding for finding in found if isinstance(finding, Skipped)])


def _texts(
    probes: Sequence[Probe], sampled: Sequence[SampledAnswers], group_answers: Sequence[GroupAnswers]
) -> Iterable[tuple[Conversation, str]]:
    for probe in probes:
        for group, prompt in probe.prompt_by_group.items():
            others = (probe.other, probe.other_by_group[group] if probe.other_by_group else None)
            yield from ((prompt, text) for text in (probe.answer_by_group[group], *others) if text is not None)
    for sample in sampled:
        yield from ((sample.prompt, answer) for answer in sample.answers)
    for answers in group_answers:
        yield from ((answers.request.prompt, answer) for answer in (*answers.policy, *answers.sft))


def _score_once(score: Scorer, texts: Iterable[tuple[Conversation, str]]) -> Rewards:
    different = list(dict.fromkeys(texts))
    if not different:
        return {}
    rewards = np.asarray(score(different), dtype=np.float64)
    if rewards.shape != (len(different),):
        raise DataError(
            f"the scorer returned rewards of shape {rewards.shape} for {len(different)} answers; "
            "it must return one reward for each answer"
        )
    broken = int(np.sum(~np.isfinite(rewards)))
    if broken:
        raise DataError(
            f"{broken} of {len(different)} rewards are not finite numbers; "
            "bias cannot be measured with this reward model: check its training for divergence"
        )
    return dict(zip(different, rewards.tolist(), strict=True))


def _swap_findings(
    probes: Sequence[Probe], rewards: Rewards, groups: Sequence[str], config: BiasConfig
) -> list[Measured | Skipped]:
    one, both = _one_swapped(probes, rewards, groups), _both_swapped(probes, rewards, groups)
    found: list[Measured | Skipped] = []
    for name, margins in (("swap_one", one), ("swap_both", both)):
        found += swap_effects(
            margins.values_NG,
            margins.origins_N,
            groups=groups,
            terms=margins.terms,
            prompts=margins.prompts,
            name=name,
            limit=config.max_swap_effect,
        )
    return found + flip_rates(
        one.values_NG,
        one.origins_N,
        groups=groups,
        terms=one.terms,
        prompts=one.prompts,
        limit=config.max_flip_rate,
    )


def _one_swapped(probes: Sequence[Probe], rewards: Rewards, groups: Sequence[str]) -> _Margins:
    """r(x_g, answer_g) - r(x_g, other)."""
    used = [(probe, probe.other) for probe in probes if probe.other is not None]
    rows = [
        [rewards[p.prompt_by_group[g], p.answer_by_group[g]] - rewards[p.prompt_by_group[g], other] for g in groups]
        for p, other in used
    ]
    return _margins(rows, [probe for probe, _ in used], groups)


def _both_swapped(probes: Sequence[Probe], rewards: Rewards, groups: Sequence[str]) -> _Margins:
    """r(x_g, preferred_g) - r(x_g, other_g): one row a pair, though each of its answers is a probe."""
    used = [(probe, probe.other_by_group) for probe in probes if probe.preferred and probe.other_by_group is not None]
    rows = [
        [rewards[p.prompt_by_group[g], p.answer_by_group[g]] - rewards[p.prompt_by_group[g], other[g]] for g in groups]
        for p, other in used
    ]
    return _margins(rows, [probe for probe, _ in used], groups)


def _margins(rows: list[list[float]], probes: Sequence[Probe], groups: Sequence[str]) -> _Margins:
    return _Margins(
        np.asarray(rows, dtype=np.float64).reshape(len(rows), len(groups)),
        [groups.index(probe.original) for probe in probes],
        [probe.cluster for probe in probes],
        [probe.prompt_key for probe in probes],
    )


def _length_finding(sampled: Sequence[SampledAnswers], rewards: Rewards, config: BiasConfig) -> Measured | Skipped:
    return length_effect(
        [np.array([rewards[sample.prompt, answer] for answer in sample.answers]) for sample in sampled],
        [np.array([_words(answer) for answer in sample.answers]) for sample in sampled],
        prompts=[prompt_key(sample.prompt) for sample in sampled],
        limit=config.max_length_correlation,
    )


def _words(answer: str) -> float:
    return float(len(answer.split()))


def _by_request(group_answers: Sequence[GroupAnswers], groups: Sequence[str]) -> list[dict[str, GroupAnswers]]:
    requests: dict[str, dict[str, GroupAnswers]] = {}
    for answers in group_answers:
        requests.setdefault(answers.request.base, {})[answers.request.group] = answers
    for base, versions in requests.items():
        lacking = [g for g in groups if g not in versions or not versions[g].policy or not versions[g].sft]
        if lacking:
            raise ValueError(
                f"request {base!r} has no answers of the policy and the SFT model for {', '.join(lacking)}; "
                "sample answers to every version that counterfactual_prompts returned"
            )
    return list(requests.values())


def _policy_findings(
    requests: Sequence[Mapping[str, GroupAnswers]], rewards: Rewards, groups: Sequence[str], config: BiasConfig
) -> list[Measured | Skipped]:
    terms = [versions[groups[0]].request.cluster for versions in requests]
    found: list[Measured | Skipped] = []
    for name, value in (("group_gap_length", _lengths), ("group_gap_reward", _gains)):
        values = [[value(versions[group], rewards) for group in groups] for versions in requests]
        if not values:
            found += [too_few(name, group, 0, "requests") for group in groups]
            continue
        spread = float(np.std([v for row in values for answers in row for v in answers]))
        means_NG = np.array([[np.mean(answers) for answers in row] for row in values])
        found += group_gaps(means_NG, spread, groups=groups, terms=terms, name=name, limit=config.max_group_gap)
    return found


def _lengths(answers: GroupAnswers, rewards: Rewards) -> list[float]:
    return [_words(answer) for answer in answers.policy]


def _gains(answers: GroupAnswers, rewards: Rewards) -> list[float]:
    """r(x, policy's answer) - mean of r(x, SFT's answers)."""
    prompt = answers.request.prompt
    yardstick = float(np.mean([rewards[prompt, answer] for answer in answers.sft]))
    return [rewards[prompt, answer] - yardstick for answer in answers.policy]
