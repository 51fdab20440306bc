"""Formats of one pair a row that people write themselves: transcripts, TRL preference, and columns of one's own."""

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from itertools import takewhile
from typing import NamedTuple

from rlhf.labels.formats.columns import Fields, column, first_of, name_in, number, strength_in, time_in
from rlhf.labels.formats.compare import (
    A_WINS,
    SPELLINGS,
    About,
    Answer,
    answers_to,
    by_score,
    check_differing,
    check_prompts,
    judged,
    spelled,
    spelling,
)
from rlhf.labels.records import Choice, Judgement
from sft.core.errors import DataError
from sft.core.rows import Row, RowError, json_type
from sft.core.text import Conversation, Message, user
from sft.data import messages_from, prompt_from, split_answer, text_from

TURN = re.compile(r"\n\n(Human|Assistant):")
"""Where a turn of a transcript starts."""
_ROLES = {"Human": "user", "Assistant": "assistant"}
_LIMIT = float("inf")


class _Pair(NamedTuple):
    prompt: Conversation
    chosen: str
    rejected: str


def _preferred(row: Row, pair: _Pair, strength: float | None = None) -> list[Judgement]:
    """Return the one judgement of a row that names a winner."""
    about = About(annotator=name_in(row.value, "annotator"), order_known=False)
    verdict = A_WINS._replace(strength=strength)
    return [judged(row, pair.prompt, Answer(pair.chosen), Answer(pair.rejected), verdict, about)]


def hh(row: Row) -> list[Judgement]:
    """Parse two transcripts that share all but the last answer. Source: Bai et al. 2022, arXiv 2204.05862, data.

    A turn starts only at an empty line followed by "Human:" or "Assistant:"; the same words elsewhere are text.
    """
    chosen, rejected = _transcript(row, "chosen"), _transcript(row, "rejected")
    if chosen[-1].role == rejected[-1].role == "assistant":
        check_prompts(chosen[:-1], rejected[:-1])
    return _preferred(row, _last_answers(chosen, rejected))


def _transcript(row: Row, name: str) -> Conversation:
    text = column(row.value, name)
    if not isinstance(text, str):
        raise RowError(f"wrong type: {name!r} must be a transcript, found {json_type(text)}")
    before, *pieces = TURN.split(text)
    if before.strip() or not pieces:
        raise RowError(f"no transcript: {name!r} must start with an empty line and 'Human:'")
    turns = zip(pieces[::2], pieces[1::2], strict=True)
    return tuple(Message(_ROLES[speaker], words.strip()) for speaker, words in turns)


def _last_answers(chosen: Conversation, rejected: Conversation) -> _Pair:
    (prompt, answer), (other_prompt, other) = split_answer(chosen), split_answer(rejected)
    check_prompts(prompt, other_prompt)
    return _Pair(prompt, answer, other)


def trl(row: Row) -> list[Judgement]:
    """Parse `prompt, chosen, rejected`, or `chosen, rejected` that contain the prompt; texts or message lists.

    `margin` is the strength. Messages whose content is no text (images, tool calls) make a row unusable.
    """
    return _preferred(row, _trl_pair(row.value, row.value.get("prompt")), strength_in(row.value, "margin"))


def _trl_pair(fields: Fields, prompt: object) -> _Pair:
    chosen, rejected = column(fields, "chosen"), column(fields, "rejected")
    if prompt is not None:
        return _Pair(*answers_to(prompt_from(prompt), chosen, rejected))
    better, worse = messages_from(chosen), messages_from(rejected)
    if better is not None and worse is not None:
        return _last_answers(better, worse)
    if better is not None or worse is not None:
        raise RowError("wrong type: 'chosen' and 'rejected' must both be texts or both be lists of messages")
    return _shared_start(text_from(chosen, "answer"), text_from(rejected, "answer"))


def _shared_start(chosen: str, rejected: str) -> _Pair:
    """Split two texts after the last whole word they share from the start."""
    check_differing(chosen, rejected)
    length = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(chosen, rejected, strict=False)))
    end = max((space.start() for space in re.finditer(r"\s", chosen[:length])), default=0)
    if not chosen[:end].strip():
        raise RowError("no prompt: chosen and rejected share no first words; add the column 'prompt'")
    return _Pair(user(chosen[:end].strip()), text_from(chosen[end:], "answer"), text_from(rejected[end:], "answer"))


def ultrafeedback_binarized(row: Row) -> list[Judgement]:
    """Parse `prompt` (or `instruction`), `chosen`, `rejected` and a score of each; equal scores are a tie.

    Scores are `score_chosen, score_rejected` or `chosen-rating, rejected-rating`, models `chosen-model,
    rejected-model`. A lower score of the chosen answer contradicts it and makes the row unusable.
    """
    fields = row.value
    pair = _trl_pair(fields, first_of(fields, ("prompt", "instruction")))
    scores = [
        number(first_of(fields, (f"score_{side}", f"{side}-rating")), f"score_{side}", -_LIMIT, _LIMIT)
        for side in ("chosen", "rejected")
    ]
    verdict = by_score(*scores)
    if verdict.choice is Choice.B:
        raise RowError(f"contradictory row: the chosen answer has the lower score ({scores[0]:g} < {scores[1]:g})")
    chosen = Answer(pair.chosen, name_in(fields, "chosen-model"))
    rejected = Answer(pair.rejected, name_in(fields, "rejected-model"))
    return [judged(row, pair.prompt, chosen, rejected, verdict, About(order_known=False))]


@dataclass(frozen=True)
class ColumnMapping:
    """The columns of a table in which people keep their comparisons; see `mapped`."""

    prompt: str = "prompt"
    response_a: str = "response_a"
    response_b: str = "response_b"
    label: str = "label"
    """a, 1, left; b, 2, right; tie, 0, both_good, both_bad."""
    annotator: str | None = "annotator"
    """None: the table has no such column."""
    strength: str | None = "strength"
    """A number of 0 or more; None: the table has no such column."""


def mapped(mapping: ColumnMapping) -> Callable[[Row], list[Judgement]]:
    """Return a parser of one judgement a row under the columns that `mapping` names.

    Besides them `model_a, model_b, time, attribute, split` are read where they are there. Prompt and answers are
    texts or message lists, also as JSON in a cell; a cell of the word "None" is that text. A column that is missing
    from a row makes it unusable when it is one of the first four.
    """

    def parse(row: Row) -> list[Judgement]:
        fields = row.value
        prompt = prompt_from(column(fields, mapping.prompt))
        values = column(fields, mapping.response_a), column(fields, mapping.response_b)
        first, text_a, text_b = answers_to(prompt, *values)
        verdict = spelled(column(fields, mapping.label), SPELLINGS)
        strength = strength_in(fields, mapping.strength) if mapping.strength else None
        if strength is not None:
            verdict = verdict._replace(strength=strength)
        about = About(
            annotator=name_in(fields, mapping.annotator) if mapping.annotator else None,
            time=time_in(fields, "time"),
            attribute=name_in(fields, "attribute"),
            split=name_in(fields, "split"),
        )
        a, b = Answer(text_a, name_in(fields, "model_a")), Answer(text_b, name_in(fields, "model_b"))
        return [judged(row, first, a, b, verdict, about)]

    return parse


pairwise = mapped(ColumnMapping())
"""Parse `prompt, response_a, response_b, label` and, where given, the other columns of `mapped`."""


def label_spelling(row: Row, column: str = "label") -> str:
    """Return how a row that parsed spells its label, in lower case; "" where it has none."""
    return spelling(row.value.get(column, ""))


def check_spellings(spellings: Counter[str]) -> None:
    """Refuse a file of ten or more labels that are 0 or 1 and never 2: these count the answers from 0.

    Here 0 is a tie and 1 the first answer; to read on would turn every label of such a file into a wrong one.

    Raises:
        DataError: with the remedy.
    """
    known = {spelling: count for spelling, count in spellings.items() if spelling in SPELLINGS}
    if known.keys() == {"0", "1"} and sum(known.values()) >= 10:
        raise DataError(
            f"the column label holds 0 ({known['0']} times) and 1 ({known['1']} times) but never 2, so it seems to "
            "count the answers from 0, while 0 means a tie here and 1 the first answer; write a, b and tie instead"
        )
