"""NVIDIA's HelpSteer formats: ratings of single answers, and preferences from -3 (first) to 3 (second better)."""

import re

from rlhf.labels.formats.columns import column, name_in, number_in, objects_at
from rlhf.labels.formats.compare import UNORDERED, About, answer, by_score, judged, on_scale
from rlhf.labels.formats.joining import parts_of
from rlhf.labels.records import Judgement
from sft.core.rows import Row, RowError
from sft.core.text import Conversation, Message
from sft.data import check_turns, prompt_from, text_from

_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)\n")
_MARKER = "<extra_id_"
_STRONGEST = 3


def helpsteer2(row: Row) -> list[Judgement]:
    """Parse two joined rows of `prompt, response, helpfulness` (0 to 4): the more helpful answer is better.

    Only helpfulness is an overall opinion; the difference is the strength, equal ratings are a tie. The weights by
    which NVIDIA mixes all five ratings differ from model to model and are left to the user.
    Source: Wang et al. 2024, arXiv 2406.08673; nvidia/HelpSteer2, "difference in helpfulness".
    """
    parts = parts_of(row)
    prompt = _prompt(column(parts[0], "prompt"))
    if len(parts) != 2:
        raise RowError(f"no pair: found {len(parts)} answers, needed are 2")
    first, second = (answer(column(part, "response")) for part in parts)
    verdict = by_score(*(number_in(part, "helpfulness", 0, 4) for part in parts))
    return [judged(row, prompt, first, second, verdict, UNORDERED)]


def helpsteer2_preference(row: Row) -> list[Judgement]:
    """Parse `prompt, response_1, response_2, preference_strength` and `split`: one joint judgement a row.

    A negative strength prefers response 1, 0 is a tie. Source: Wang et al. 2024, arXiv 2410.01257.
    """
    fields = row.value
    prompt = _prompt(column(fields, "prompt"))
    first, second = (answer(column(fields, name)) for name in ("response_1", "response_2"))
    verdict = on_scale(column(fields, "preference_strength"), "preference_strength", _STRONGEST)
    return [judged(row, prompt, first, second, verdict, About(split=name_in(fields, "split")))]


def helpsteer3(row: Row) -> list[Judgement]:
    """Parse `context, response1, response2` and one judgement for each score of `individual_preference`.

    The row does not say who they were, so the annotators are unknown. A row without individual scores gives one
    judgement of its `overall_preference`. Source: Wang et al. 2025, arXiv 2505.11475.
    """
    fields = row.value
    prompt = prompt_from(column(fields, "context"))
    first, second = (answer(column(fields, name)) for name in ("response1", "response2"))
    people = objects_at(fields, "individual_preference")
    scores = [column(person, "score") for person in people] or [column(fields, "overall_preference")]
    verdicts = [on_scale(score, "preference", _STRONGEST) for score in scores]
    return [judged(row, prompt, first, second, verdict) for verdict in verdicts]


def _prompt(value: object) -> Conversation:
    """Return a prompt whose further turns, if any, stand after "<extra_id_1>User" or "<extra_id_1>Assistant"."""
    first, *pieces = _TURN.split(text_from(value, "prompt"))
    turns = [("user", first), *zip([role.lower() for role in pieces[::2]], pieces[1::2], strict=True)]
    prompt = tuple(Message(role, text.strip()) for role, text in turns)
    if any(_MARKER in turn.content for turn in prompt):
        raise RowError(
            f"unknown marker: a turn holds {_MARKER!r}, known are <extra_id_1>User and <extra_id_1>Assistant"
        )
    check_turns(prompt)
    if prompt[-1].role != "user":
        raise RowError("no prompt: the last turn must be the user's, found assistant")
    return prompt
