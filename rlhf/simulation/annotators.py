"""Simulated annotators: each sees the gold utility through noise of their own, and has habits.

`write_label_file` writes what they say into a file of the `pairwise` format, which the label stage then reads like
any file of human labels.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.simulation.gold import gold_utility
from rlhf.simulation.people import GROUPS
from sft.core.durable import write_jsonl
from sft.core.text import Conversation, as_dicts


@dataclass(frozen=True)
class Annotator:
    """One simulated person.

    Attributes:
        name: as it stands in the label file.
        skill: logit of the choice per unit of utility difference; higher is more reliable.
        carelessness: share of judgements clicked at random.
        left_habit: logit added to the left answer.
        tie_band: differences of perceived utility below this are called a tie.
        bias: utility taken from an answer that names someone of `biased_against`.
        biased_against: a group, or None.
    """

    name: str
    skill: float
    carelessness: float
    left_habit: float
    tie_band: float
    bias: float = 0.0
    biased_against: str | None = None

    def perceived(self, request: str, answer: str) -> float:
        """Return the answer's utility as this person sees it, before noise."""
        names_group = self.biased_against is not None and names_someone_of(answer, self.biased_against)
        return gold_utility(request, answer) - self.bias * names_group

    def judge(self, request: str, left: str, right: str, generator: random.Random) -> str:
        """Return "a" (left is better), "b" (right is better) or "tie"."""
        if generator.random() < self.carelessness:
            return generator.choice("ab")
        difference = self.perceived(request, left) - self.perceived(request, right)
        if abs(difference) < self.tie_band:
            return "tie"
        logit = self.skill * difference + self.left_habit
        return "a" if generator.random() < 1 / (1 + math.exp(-logit)) else "b"


def names_someone_of(answer: str, group: str) -> bool:
    """Tell whether an answer holds a name or pronoun of the group."""
    return not set(answer.split()).isdisjoint(GROUPS[group].terms)


def make_annotators(count: int, *, seed: int, bias: float, biased_against: str, biased: int) -> list[Annotator]:
    """Return `count` people from careful to careless; with a bias, `biased` of them, spread evenly, share it."""
    generator = random.Random(f"annotators-{seed}")
    people = []
    for index in range(count):
        rank = index / max(1, count - 1)
        has_bias = bias > 0 and (index * biased) % count < biased
        people.append(
            Annotator(
                name=f"annotator-{index + 1:02d}",
                skill=4.0 - 2.2 * rank,
                carelessness=0.08 * rank,
                left_habit=generator.uniform(0.0, 0.4),
                tie_band=generator.uniform(0.0, 0.1),
                bias=bias if has_bias else 0.0,
                biased_against=biased_against if has_bias else None,
            )
        )
    return people


def write_label_file(
    path: Path,
    pairs: Sequence[tuple[Conversation, str, str]],
    annotators: Sequence[Annotator],
    *,
    repeat_fraction: float,
    seed: int,
) -> None:
    """Let the annotators judge all pairs, sides drawn per judgement, and write one row a judgement.

    A share `repeat_fraction` of the pairs goes to three different people, the rest to one.
    """
    generator = random.Random(f"labels-{seed}")
    rows: list[dict[str, object]] = []
    for prompt, first, second in pairs:
        judges = 3 if generator.random() < repeat_fraction else 1
        for annotator in generator.sample(list(annotators), min(judges, len(annotators))):
            left, right = (first, second) if generator.random() < 0.5 else (second, first)
            rows.append(
                {
                    "prompt": as_dicts(prompt),
                    "response_a": left,
                    "response_b": right,
                    "label": annotator.judge(prompt[-1].content, left, right, generator),
                    "annotator": annotator.name,
                }
            )
    write_jsonl(path, rows)
