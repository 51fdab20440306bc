"""Judgements of simulated annotators whose skill is known, and of the real annotators of PandaLM."""

import json
import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from rlhf.labels.records import Choice, Judgement
from sft.core.durable import text_digest
from sft.core.text import user

PANDALM = Path(__file__).parents[1] / "../shared/data/pandalm/pandalm.json"
needs_pandalm = pytest.mark.skipif(
    not PANDALM.is_file(), reason="real judgements are not here: ../shared/data/pandalm is absent"
)


def judge(prompt: str, choice: Choice, annotator: str | None = None) -> Judgement:
    """Return a judgement of two answers that are in the pair's own order (by hash), so that a is its first answer."""
    first, second = sorted([f"good {prompt}", f"bad {prompt}"], key=text_digest)
    return Judgement(user(prompt), first, second, choice, annotator, 1, "d")


def rows(votes: dict[str, str]) -> list[Judgement]:
    """Return judgements from `{annotator: "aabt."}`: one letter for each item, a point where there is none."""
    values = {"a": Choice.A, "b": Choice.B, "t": Choice.TIE}
    return [judge(str(i), values[v], name) for name, row in votes.items() for i, v in enumerate(row) if v != "."]


def simulate(
    skills: Sequence[float], *, seed: int, pairs: int = 600, votes: int = 3, left: Sequence[float] | None = None
) -> list[Judgement]:
    """Return what annotators of these skills say about pairs whose first answer is good, on a random side.

    Args:
        skills: chance of preferring the good answer.
        seed: of the draws.
        pairs: how many; each is judged by `votes` different annotators.
        votes: per pair.
        left: for each annotator the share of judgements in which they take the left answer without looking.
    """
    generator = random.Random(seed)
    given = []
    for item in range(pairs):
        for who in generator.sample(range(len(skills)), votes):
            choice = Choice.A if generator.random() < skills[who] else Choice.B
            judgement = Judgement(user(f"p{item}"), f"good {item}", f"bad {item}", choice, f"ann{who:02d}", 1, "d")
            shown = judgement if generator.random() < 0.5 else judgement.swapped()
            habit = left is not None and generator.random() < left[who]
            given.append(replace(shown, choice=Choice.A) if habit else shown)
    return given


def is_right(judgement: Judgement) -> bool:
    """Tell whether a simulated judgement prefers the good answer."""
    preferred = judgement.response_a if judgement.choice is Choice.A else judgement.response_b
    return judgement.choice is not Choice.TIE and preferred.startswith("good")


def pandalm() -> list[Judgement]:
    """Return all judgements of the file, one per row and annotator, answers as text whatever their type."""
    choices = {0: Choice.TIE, 1: Choice.A, 2: Choice.B}
    given = []
    for row in json.loads(PANDALM.read_text(encoding="utf-8")):
        model_a, model_b = row["cmp_key"].split("_")
        prompt, texts = user(f"{row['instruction']}\n{row['input']}"), (str(row["response1"]), str(row["response2"]))
        for name in ("annotator1", "annotator2", "annotator3"):
            choice = choices[row[name]]
            given.append(Judgement(prompt, *texts, choice, name, row["idx"], "d", model_a=model_a, model_b=model_b))
    return given
