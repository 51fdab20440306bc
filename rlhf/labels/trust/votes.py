"""Judgements as a table of votes: who said what about which pair, in numbers.

Letters: N votes, I pairs ("items"), K known annotators, 3 values in the order FIRST, TIE, SECOND. Each pair's answers
have a fixed order of their own (by hash), so nothing here depends on which answer an annotator happened to see as a.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.labels.records import Choice, Judgement
from sft.core.text import prompt_key

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FIRST, TIE, SECOND = range(3)
VALUES = 3
UNKNOWN = -1


class Votes(NamedTuple):
    """Judgements as numbers: one vote for each known annotator and pair, and every vote of unknown ones."""

    pairs: tuple[str, ...]
    """Keys of the I pairs, by first appearance."""
    annotators: tuple[str, ...]
    """The K known names, sorted."""
    item_N: Ints
    annotator_N: Ints
    """Index of the annotator; UNKNOWN where there is no name."""
    value_N: Ints
    """FIRST, TIE or SECOND."""
    grade_N: Floats
    """How much better the first answer is, in the labels' own unit: below 0 the second is, 0 a tie, nan not said."""
    a_is_N: Ints
    """Which answer is the judgement's a: FIRST or SECOND."""
    left_is_N: Ints
    """Which answer was shown left: that of a, or UNKNOWN."""
    source_N: Ints
    """Index of the judgement."""
    prompt_I: Ints
    """Number of the pair's prompt; case and spacing do not tell prompts apart."""
    answers_I2: Ints
    """Numbers of the first and the second answer; the same text to the same prompt has one number."""
    repeated: int
    """Judgements left out because the same annotator judged the same pair later."""
    identical: int
    """Judgements left out because both answers are the same text: no choice between them is right or wrong."""


class _Vote(NamedTuple):
    value: int
    grade: float
    a_is: int
    left_is: int


def tabulate(judgements: Sequence[Judgement]) -> Votes:
    """Return the judgements as votes on pairs. Empty input gives no pair.

    Of several judgements of one pair by one known annotator the last counts; `repeated` says how many did not.
    """
    pairs: dict[str, int] = {}
    prompts: dict[str, int] = {}
    answers: dict[tuple[str, str], int] = {}
    prompt_I: list[int] = []
    answers_I2: list[tuple[int, int]] = []
    rows: dict[tuple[int, str | int], tuple[int, _Vote]] = {}
    known = identical = 0
    for source, judgement in enumerate(judgements):
        if judgement.response_a == judgement.response_b:
            identical += 1
            continue
        key = judgement.pair_key
        vote, texts = _oriented(judgement)
        if key not in pairs:
            prompt = prompt_key(judgement.prompt)
            prompt_I.append(prompts.setdefault(prompt, len(prompts)))
            first, second = (answers.setdefault((prompt, text), len(answers)) for text in texts)
            answers_I2.append((first, second))
        item = pairs.setdefault(key, len(pairs))
        known += judgement.annotator is not None
        rows[item, source if judgement.annotator is None else judgement.annotator] = (source, vote)
    names = tuple(sorted({name for _, name in rows if isinstance(name, str)}))
    index = {name: number for number, name in enumerate(names)}
    return Votes(
        pairs=tuple(pairs),
        annotators=names,
        item_N=_ints([item for item, _ in rows]),
        annotator_N=_ints([index[name] if isinstance(name, str) else UNKNOWN for _, name in rows]),
        value_N=_ints([vote.value for _, vote in rows.values()]),
        grade_N=np.array([vote.grade for _, vote in rows.values()], dtype=np.float64),
        a_is_N=_ints([vote.a_is for _, vote in rows.values()]),
        left_is_N=_ints([vote.left_is for _, vote in rows.values()]),
        source_N=_ints([source for source, _ in rows.values()]),
        prompt_I=_ints(prompt_I),
        answers_I2=np.array(answers_I2, dtype=np.int64).reshape(-1, 2),
        repeated=known - sum(isinstance(name, str) for _, name in rows),
        identical=identical,
    )


def _oriented(judgement: Judgement) -> tuple[_Vote, tuple[str, str]]:
    a, b = judgement.response_a, judgement.response_b
    left, right, texts = (FIRST, SECOND, (a, b)) if judgement.a_is_first else (SECOND, FIRST, (b, a))
    value = {Choice.A: left, Choice.B: right, Choice.TIE: TIE}[judgement.choice]
    return _Vote(value, _grade(judgement, value), left, left if judgement.order_known else UNKNOWN), texts


def _grade(judgement: Judgement, value: int) -> float:
    """Return the signed strength; a preference of strength 0 or none does not say how strong it is."""
    if value == TIE:
        return 0.0
    return (TIE - value) * judgement.strength if judgement.strength else float("nan")


def _ints(values: Sequence[int]) -> Ints:
    return np.array(values, dtype=np.int64)


def is_compared(votes: Votes) -> npt.NDArray[np.bool_]:
    """Tell which votes are on a pair that has another vote, (N,)."""
    return np.asarray(value_counts(votes).sum(axis=1)[votes.item_N] > 1, dtype=np.bool_)


def value_counts(votes: Votes) -> Ints:
    """Return how many votes each pair has for each value, (I, 3)."""
    cells = np.bincount(votes.item_N * VALUES + votes.value_N, minlength=VALUES * len(votes.pairs))
    return cells.reshape(-1, VALUES).astype(np.int64)
