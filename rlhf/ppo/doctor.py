"""What goes wrong in a running PPO job, told with cause and remedy. Pure: numbers in, symptoms out.

The training loop examines the tokenizer once, every rollout, and every minibatch before its optimiser steps, so that a
fatal symptom (NaN, a misplaced score) changes no weight. A warning stops nothing and is told once per run; `tell`
counts the rest. `docs/ppo.md` lists the thresholds beside the pitfalls that they watch.

Letters: B batch, R response tokens.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from typing import NamedTuple

import torch

from sft.core.generation import Responses

RATIO_WARNING = 1e-4
"""Largest |ratio - 1| over the tokens of the first minibatch that float32 explains. The same forward pass in other
micro-batches was measured at 2e-6; a larger model rounds worse, and has 50 times the room."""
RATIO_FATAL = 1e-2
"""No rounding of float32 comes near; dropout, another temperature or another mask does."""
RATIO_WARNING_BF16 = 0.2
"""Neighbouring bfloat16 numbers between 16 and 32 differ by 0.125, so one flip in a logit moves a ratio by 13 %; other
micro-batches of a tiny model were measured at 0.03. Never fatal: rounding and a fault cannot be told apart for sure."""
KL_TOLERANCE_NATS = 0.1
"""A KL is never negative; its estimate is, by chance. Below this nobody would act."""
KL_TOLERANCE_ERRORS = 4.0
"""Standard errors of the mean KL per sequence; chance crosses them once in 30,000 iterations."""
EXPLAINED_VARIANCE_HARMFUL = -1.0
"""The critic's error has twice the variance of the returns: its advantages are more noise than signal."""
EXPLAINED_VARIANCE_USELESS = 0.0
"""A constant would predict the returns as well. Allowed in the first iterations: the quickstart starts at -0.3."""
CRITIC_GRACE_ITERATIONS = 10
"""Iterations in which the critic may still be useless; the quickstart's needs 3."""
ENTROPY_COLLAPSE = 0.1
"""Share of the first iteration's entropy. The quickstart ends at 0.5; at a tenth all answers are alike."""
TRUNCATED = 0.5
"""Share of answers without EOS: from here on, most scores are those of texts that the length limit made."""
EQUAL_SCORES = 1e-6
"""Standard deviation of scores in log-odds; what is left is rounding, and there is nothing to learn from."""
LARGE_UPDATE_NATS = 0.1
"""Mean of (log ratio)^2 / 2 per token of a minibatch: a typical ratio is then 1.56, far outside the clip of 0.2. The
quickstart's largest iteration has 0.01."""
PLACEMENT_TOLERANCE = 1e-4
"""Relative to the larger of score and KL part, at least 1. float32 leaves 1e-7 when a score is added to a KL part and
taken off again; a KL part that was computed twice may differ by more."""


class Severity(StrEnum):
    """What a symptom does to the run."""

    WARNING = "warning"
    """Told once; the run goes on."""
    ALERT = "alert"
    """A warning that must also reach those who do not watch."""
    FATAL = "fatal"
    """The run stops before the next optimiser step."""


class Symptom(NamedTuple):
    """Something that is wrong."""

    name: str
    severity: Severity
    cause: str
    """What was found, and what it comes from."""
    remedy: str

    def __str__(self) -> str:
        """Return the symptom as one line."""
        return f"{self.severity} ({self.name}): {self.cause}; {self.remedy}"


class RolloutSigns(NamedTuple):
    """What a rollout shows, over the global batch."""

    iteration: int
    """0 is the first."""
    policy_learns: bool
    """False while only the critic warms up."""
    kl_mean: float
    """k1 summed over an answer, mean over answers, in nats."""
    kl_standard_error: float
    """Of that mean: standard deviation over answers / sqrt(answers)."""
    entropy: float
    """Mean over tokens, in nats."""
    first_entropy: float
    """Of the run's first iteration."""
    truncated_fraction: float
    """Share of answers without EOS."""
    scores_finite: bool
    scores_std: float
    """Standard deviation over answers, before penalties."""
    explained_variance: float
    """1 - var(returns - values) / var(returns); NaN where that is undefined."""


class UpdateSigns(NamedTuple):
    """What a minibatch shows after its backward pass, before its optimiser steps."""

    first_ratio_deviation: float | None
    """Largest |ratio - 1| in the first minibatch of an iteration; None in the others."""
    approx_kl: float
    """Mean of (log ratio)^2 / 2 over tokens, in nats."""
    policy_loss: float
    value_loss: float
    policy_grad_norm: float | None
    """Before clipping; None while only the critic learns."""
    critic_grad_norm: float | None
    """Before clipping; None where the critic is a head on the policy."""
    fp32: bool
    """False with bfloat16 autocast."""


def examine_tokens(*, pad_id: int, eos_id: int) -> list[Symptom]:
    """Return what is wrong with the special tokens; once per run."""
    if pad_id != eos_id:
        return []
    cause = f"the pad token is the EOS (id {eos_id}): a mask of padding hides the EOS, and no model learns to stop"
    return [Symptom("pad_is_eos", Severity.FATAL, cause, "give an existing, unused token with model.pad_token=...")]


def examine_rollout(signs: RolloutSigns) -> list[Symptom]:
    """Return what is wrong with a rollout."""
    return [symptom for check in _ROLLOUT_CHECKS if (symptom := check(signs)) is not None]


def examine_update(signs: UpdateSigns) -> list[Symptom]:
    """Return what is wrong with a minibatch."""
    return [symptom for check in _UPDATE_CHECKS if (symptom := check(signs)) is not None]


def examine_weights(*, finite: bool) -> list[Symptom]:
    """Return what is wrong with policy and critic after an iteration's last step, before they are saved."""
    if finite:
        return []
    cause = "a weight of policy or critic is NaN or infinite: the last step was too large"
    remedy = "lower ppo.learning_rate or ppo.critic_learning_rate and run again; the checkpoint before is intact"
    return [Symptom("non_finite_weights", Severity.FATAL, cause, remedy)]


def examine_placement(
    rewards_BR: torch.Tensor,
    kl_rewards_BR: torch.Tensor,
    scores_B: torch.Tensor,
    responses: Responses,
    ended_B: torch.Tensor,
    *,
    eos_id: int,
) -> list[Symptom]:
    """Return what is wrong with where answers end and where their scores stand.

    Args:
        rewards_BR: shaped rewards before any whitening.
        kl_rewards_BR: the KL part of them, -kl_coef * KL; anything outside the mask.
        scores_B: what the last token of each answer should hold beside its KL part.
        responses: ids and mask.
        ended_B: True where the rollout says that the answer ends with the EOS.
        eos_id: the token that ends an answer.
    """
    ids_BR, mask_BR = responses
    column = torch.arange(mask_BR.shape[1], device=mask_BR.device)
    last_BR = mask_BR & (column == mask_BR.sum(dim=1, keepdim=True) - 1)
    eos_BR = mask_BR & (ids_BR == eos_id)
    ends_wrong_B = (eos_BR & ~last_BR).any(dim=1) | ((eos_BR & last_BR).any(dim=1) != ended_B)
    zero = torch.zeros((), dtype=rewards_BR.dtype, device=rewards_BR.device)
    kl_rewards_BR = torch.where(mask_BR, kl_rewards_BR, zero)
    error_BR = (rewards_BR - kl_rewards_BR - torch.where(last_BR, scores_B[:, None], zero)).abs()
    largest_BR = torch.maximum(scores_B.abs()[:, None], kl_rewards_BR.abs()).clamp(min=1)
    score_wrong_B = ~(error_BR <= PLACEMENT_TOLERANCE * largest_BR).all(dim=1)
    found = []
    if ends_wrong_B.any():
        cause = f"{_some(ends_wrong_B)} answers do not end where the rollout says: EOS inside, missing, or the prompt's"
        remedy = "build mask and `ended` from the response alone, up to and including its first EOS"
        found.append(Symptom("answer_end", Severity.FATAL, cause, remedy))
    if score_wrong_B.any():
        cause = f"in {_some(score_wrong_B)} answers the reward beside the KL is not the score on the last token alone"
        remedy = "put the score on the last token that the response mask counts, and nothing on padding"
        found.append(Symptom("score_placement", Severity.FATAL, cause, remedy))
    return found


class Told(NamedTuple):
    """What to say now, and how often each symptom was found so far (JSON takes it as it is)."""

    new: list[Symptom]
    counts: dict[str, int]


def tell(counts: Mapping[str, int], found: Sequence[Symptom]) -> Told:
    """Return the symptoms to say: each warning at its first time in a run, every fatal one."""
    new, updated = [], dict(counts)
    for symptom in found:
        if symptom.severity is Severity.FATAL or symptom.name not in updated:
            new.append(symptom)
        updated[symptom.name] = updated.get(symptom.name, 0) + 1
    return Told(new, updated)


def _some(rows_B: torch.Tensor) -> str:
    return f"{int(rows_B.sum())} of {len(rows_B)}"


def _finite_scores(signs: RolloutSigns) -> Symptom | None:
    if signs.scores_finite:
        return None
    cause = "scores are NaN or infinite: the reward model overflows, or a reward function divides by 0"
    remedy = "score with runtime.dtype=float32, and look at the reward model on these answers"
    return Symptom("non_finite_scores", Severity.FATAL, cause, remedy)


def _finite_logprobs(signs: RolloutSigns) -> Symptom | None:
    values = {"KL": signs.kl_mean, "entropy": signs.entropy}
    broken = [f"{name} {value}" for name, value in values.items() if not math.isfinite(value)]
    if not broken:
        return None
    cause = (
        f"{' and '.join(broken)}: a log-probability of policy or reference is NaN or infinite, as broken weights give"
    )
    remedy = "lower ppo.learning_rate and run again; if it is the first iteration, retrain SFT"
    return Symptom("non_finite_logprobs", Severity.FATAL, cause, remedy)


def _negative_kl(signs: RolloutSigns) -> Symptom | None:
    if not signs.kl_mean < -max(KL_TOLERANCE_NATS, KL_TOLERANCE_ERRORS * signs.kl_standard_error):
        return None
    cause = (
        f"the KL to the reference is {signs.kl_mean:.3g} nats per answer, below 0 by more than chance (standard error "
        f"{signs.kl_standard_error:.2g}): answers are not drawn from the distribution that scores them"
    )
    remedy = "sample at ppo.temperature from the full softmax: no top-p or top-k, no minimum length, no banned tokens"
    return Symptom("negative_kl", Severity.WARNING, cause, remedy)


def _explained_variance(signs: RolloutSigns) -> Symptom | None:
    harmful = signs.policy_learns and signs.explained_variance < EXPLAINED_VARIANCE_HARMFUL
    useless = signs.iteration >= CRITIC_GRACE_ITERATIONS and signs.explained_variance < EXPLAINED_VARIANCE_USELESS
    if not harmful and not useless:
        return None
    cause = (
        f"the critic explains {signs.explained_variance:.2f} of the variance of returns in iteration "
        f"{signs.iteration + 1}, less than a constant would: it lags behind, or the scores' scale is far from its own"
    )
    remedy = "raise ppo.critic_warmup_iterations or ppo.critic_learning_rate, or set ppo.normalize_scores=true"
    return Symptom("explained_variance", Severity.WARNING, cause, remedy)


def _entropy_collapse(signs: RolloutSigns) -> Symptom | None:
    if not signs.entropy < ENTROPY_COLLAPSE * signs.first_entropy:
        return None
    cause = (
        f"entropy fell from {signs.first_entropy:.3g} to {signs.entropy:.3g} nats per token: the policy gives nearly "
        "the same answer always"
    )
    remedy = "raise ppo.kl_coef or ppo.entropy_coef, or lower ppo.learning_rate; read the samples for what it exploits"
    return Symptom("entropy_collapse", Severity.WARNING, cause, remedy)


def _truncated_answers(signs: RolloutSigns) -> Symptom | None:
    if not signs.truncated_fraction > TRUNCATED:
        return None
    cause = f"{signs.truncated_fraction:.0%} of answers have no EOS within ppo.response_length"
    remedy = "raise ppo.response_length or ppo.missing_eos_penalty; if the first iteration shows it, SFT lacks EOS"
    return Symptom("truncated_answers", Severity.WARNING, cause, remedy)


def _equal_scores(signs: RolloutSigns) -> Symptom | None:
    if not signs.scores_std <= EQUAL_SCORES:
        return None
    cause = "all answers have the same score: nothing can be learnt but the KL"
    remedy = "check the reward model on two different answers, and whether ppo.score_clip cuts all scores"
    return Symptom("equal_scores", Severity.WARNING, cause, remedy)


def _finite_update(signs: UpdateSigns) -> Symptom | None:
    values = {
        "policy loss": signs.policy_loss,
        "value loss": signs.value_loss,
        "policy gradient norm": signs.policy_grad_norm,
        "critic gradient norm": signs.critic_grad_norm,
        "approximate KL": signs.approx_kl,
        "first ratio": signs.first_ratio_deviation,
    }
    broken = [f"{name} {value}" for name, value in values.items() if value is not None and not math.isfinite(value)]
    if not broken:
        return None
    cause = f"{', '.join(broken)}: the update before was too large, or a number format overflowed"
    remedy = "lower ppo.learning_rate or ppo.critic_learning_rate, or use runtime.dtype=float32; then run it again"
    return Symptom("non_finite_update", Severity.FATAL, cause, remedy)


def _first_ratio(signs: UpdateSigns) -> Symptom | None:
    deviation = signs.first_ratio_deviation
    if deviation is None or not deviation > (RATIO_WARNING if signs.fp32 else RATIO_WARNING_BF16):
        return None
    severity = Severity.FATAL if signs.fp32 and deviation > RATIO_FATAL else Severity.WARNING
    cause = (
        f"before any update of this iteration a ratio is off 1 by {deviation:.2g}: old and new log-probabilities come "
        "from different computations"
    )
    remedy = "switch dropout off, and compute both by the same forward pass at the same temperature and dtype"
    return Symptom("first_ratio", severity, cause, remedy)


def _large_update(signs: UpdateSigns) -> Symptom | None:
    if not signs.approx_kl > LARGE_UPDATE_NATS:
        return None
    cause = (
        f"a minibatch is {signs.approx_kl:.2g} nats per token away from the policy that sampled: updates are too large"
    )
    remedy = "lower ppo.learning_rate or ppo.num_ppo_epochs, or raise ppo.warmup_iterations"
    return Symptom("large_update", Severity.WARNING, cause, remedy)


_ROLLOUT_CHECKS: tuple[Callable[[RolloutSigns], Symptom | None], ...] = (
    _finite_scores,
    _finite_logprobs,
    _negative_kl,
    _explained_variance,
    _entropy_collapse,
    _truncated_answers,
    _equal_scores,
)
_UPDATE_CHECKS: tuple[Callable[[UpdateSigns], Symptom | None], ...] = (_finite_update, _first_ratio, _large_update)
