"""How good is a policy? Win rate, KL, length, repetition, forgetting, each with n and an interval."""

from rlhf.evaluation.evaluate import EvaluationResult, Judge, evaluate_policy
from sft.core.measures import repetition, wins

__all__ = ["EvaluationResult", "Judge", "evaluate_policy", "repetition", "wins"]
