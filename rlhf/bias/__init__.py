"""Bias checks: what a reward model and a policy do when a text names one group instead of another."""

from rlhf.bias.checks import Check, Skipped
from rlhf.bias.gate import BiasReport, GroupAnswers, SampledAnswers, Scorer, run_checks
from rlhf.bias.swaps import CounterfactualPrompt, Probe, counterfactual_prompts, make_probes, mentions, swap_terms

__all__ = [
    "BiasReport",
    "Check",
    "CounterfactualPrompt",
    "GroupAnswers",
    "Probe",
    "SampledAnswers",
    "Scorer",
    "Skipped",
    "counterfactual_prompts",
    "make_probes",
    "mentions",
    "run_checks",
    "swap_terms",
]
