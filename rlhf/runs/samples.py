"""What policies answered to the same prompt."""

from collections.abc import Sequence
from typing import NamedTuple

from rlhf.runs.folder import RunFolder
from rlhf.runs.groups import Group
from sft.core.values import Json, items, number, text


class Answer(NamedTuple):
    """One model's answer."""

    letter: str
    """Of its group; empty for the SFT model."""
    seed: int
    text: str
    reward: float | None
    """Proxy: by the reward model of that run, whose scale is its own."""
    gold: float | None


class Question(NamedTuple):
    """A prompt and the answers to it."""

    prompt: str
    answers: tuple[Answer, ...]


def questions(groups: Sequence[Group], *, prompts: int, models: int) -> list[Question]:
    """Return prompts that most groups answered, with one answer of each, and the first run's SFT model before them.

    A group speaks through its run of the lowest seed.

    Args:
        groups: those that come first are shown.
        prompts: at most.
        models: groups at most.
    """
    tables = [(group, run, _samples(run)) for group in groups if (run := _speaker(group)) is not None][:models]
    counts: dict[str, int] = {}
    for _, _, table in tables:
        for prompt in table:
            counts[prompt] = counts.get(prompt, 0) + 1
    shared = sorted(counts, key=lambda prompt: -counts[prompt])[:prompts]  # sorting is stable: the order of the run
    return [_question(prompt, tables) for prompt in shared]


def _speaker(group: Group) -> RunFolder | None:
    return next((run for run in group.runs if _samples(run)), None)


def _samples(run: RunFolder) -> dict[str, Json]:
    return {text(row.get("prompt")): row for row in items(run.evaluation.get("samples"))}


def _question(prompt: str, tables: Sequence[tuple[Group, RunFolder, dict[str, Json]]]) -> Question:
    known = [(group.letter, run.record.seed, table[prompt]) for group, run, table in tables if prompt in table]
    _, seed, first = known[0]
    answers = [_answer("", seed, first, "sft"), *(_answer(letter, own, row, "policy") for letter, own, row in known)]
    return Question(prompt, tuple(answers))


def _answer(letter: str, seed: int, row: Json, side: str) -> Answer:
    said = text(row.get(side))
    return Answer(letter, seed, said, number(row.get(f"{side}_reward")), number(row.get(f"{side}_gold")))
