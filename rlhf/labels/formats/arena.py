"""Formats of the chatbot arena: two models' conversations and a vote for one of them.

A vote counts only if it was blind, and only if the conversations differ in nothing but their last answer: of answers
in several turns that differ, no single one can stand for the vote. Such rows are unusable, with that reason.
"""

import json
import re
from collections.abc import Mapping

from rlhf.labels.formats.columns import Fields, column, list_of, name_in, number_in, objects_in, time_in
from rlhf.labels.formats.compare import (
    A_WINS,
    B_WINS,
    BOTH_BAD,
    TIE,
    About,
    Answer,
    Verdict,
    judged,
    spelled,
)
from rlhf.labels.formats.transcripts import last_answers
from rlhf.labels.records import Judgement
from sft.core.durable import text_digest
from sft.core.rows import Row, RowError
from sft.core.text import Conversation, Message
from sft.data import messages_from

_WINNERS: Mapping[str, Verdict] = {
    "model_a": A_WINS,
    "model_b": B_WINS,
    "tie": TIE,
    "tie (bothbad)": BOTH_BAD,
    "both_bad": BOTH_BAD,
}
_VOTES = {"leftvote": A_WINS, "rightvote": B_WINS, "tievote": TIE, "bothbad_vote": BOTH_BAD}
_ONE_HOT = {"winner_model_a": A_WINS, "winner_model_b": B_WINS, "winner_tie": TIE}
_NAMES = re.compile(
    r"\b(alpaca|anthropic|bard|chatglm|chatgpt|claude|deepseek|dolly|gemini|gpt-?[345]\w*|koala|llama|lmsys|mistral"
    r"|openai|palm 2|qwen|vicuna)\b",
    re.IGNORECASE,
)
"""Names of models and their makers: an answer that holds one may have told the voter who wrote it."""


def arena(row: Row) -> list[Judgement]:
    """Parse `model_a, model_b, winner, conversation_a, conversation_b`, `judge` and `tstamp`; both generations.

    A row of `anony` false is unusable: the voter saw the models' names. All languages are kept.
    Source: Zheng et al. 2023, arXiv 2309.11998 (LMSYS-Chat) and lmsys/chatbot_arena_conversations.
    """
    if row.value.get("anony") is False:
        raise RowError("not blind: anony is false, the voter saw the names of the models")
    return _conversations(row, turns=None)


def mt_bench(row: Row) -> list[Judgement]:
    """Parse MT-bench's human judgements: the arena's columns, and in `turn` which answer (1 or 2) was judged.

    The judge of turn 1 is asked about the first answer alone, though the whole conversations stand in the row.
    Source: Zheng et al. 2023, arXiv 2306.05685.
    """
    turn = number_in(row.value, "turn", 1, 2)
    if turn not in (1, 2):
        raise RowError(f"wrong turn: found {turn:g}, known are 1 and 2")
    return _conversations(row, turns=2 * int(turn))


def _conversations(row: Row, turns: int | None) -> list[Judgement]:
    fields = row.value
    a, b = (_conversation(fields, f"conversation_{side}")[:turns] for side in "ab")
    about = About(annotator=name_in(fields, "judge"), time=time_in(fields, "tstamp"))
    verdict = spelled(column(fields, "winner"), _WINNERS)
    return _vote(row, a, b, [name_in(fields, "model_a"), name_in(fields, "model_b")], verdict, about)


def _conversation(fields: Fields, name: str) -> Conversation:
    messages = messages_from(column(fields, name))
    if messages is None:
        raise RowError(f"wrong type: {name!r} must be a list of messages, found a text")
    return messages


def _vote(
    row: Row, a: Conversation, b: Conversation, models: list[str | None], verdict: Verdict, about: About
) -> list[Judgement]:
    shared = last_answers(a, b)
    first, second = Answer(shared.text_a, models[0]), Answer(shared.text_b, models[1])
    return [judged(row, shared.prompt, first, second, verdict, about)]


def arena_votes(row: Row) -> list[Judgement]:
    """Parse an event of FastChat's log: `type, models, states, ip, tstamp`.

    Only events of the four kinds of vote are judgements. `models` are empty texts in a blind battle, the names then
    stand in `states`; a battle with names, or an answer that holds the name of a model or its maker, was not blind
    and is unusable. The first `offset` messages of a state are the template's examples, no part of the talk. The
    voter's address is a person's: the annotator is a hash of it.
    """
    fields = row.value
    verdict = spelled(column(fields, "type"), _VOTES)
    if any(list_of(column(fields, "models"), "models")):
        raise RowError("not blind: the event names its models, so the voter saw them")
    states = objects_in(column(fields, "states"), "states")
    if len(states) != 2:
        raise RowError(f"wrong states: found {len(states)}, a vote is about 2")
    a, b = (_state(state) for state in states)
    if any(_NAMES.search(turn.content) for turn in a + b if turn.role == "assistant"):
        raise RowError("not blind: an answer holds the name of a model or its maker")
    address = name_in(fields, "ip")
    annotator = None if address is None else f"ip-{text_digest(address)[:16]}"
    models = [name_in(state, "model_name") for state in states]
    return _vote(row, a, b, models, verdict, About(annotator=annotator, time=time_in(fields, "tstamp")))


def _state(state: Fields) -> Conversation:
    messages = [list_of(item, "a message") for item in list_of(column(state, "messages"), "messages")]
    if any(len(message) != 2 for message in messages):
        raise RowError("broken message: a message must be a list of speaker and text")
    offset = 0.0 if state.get("offset") is None else number_in(state, "offset", 0, len(messages))
    if offset % 1:
        raise RowError(f"wrong offset: found {offset:g}, it must be a whole number")
    said = messages[int(offset) :]
    if any(message[0] != said[index % 2][0] for index, message in enumerate(said)):
        raise RowError("turns do not alternate: a speaker of a state speaks twice")
    system = [] if state.get("system_message") in (None, "") else [("system", state["system_message"])]
    turns = system + [(("user", "assistant")[index % 2], message[1]) for index, message in enumerate(said)]
    found = messages_from([{"role": role, "content": text} for role, text in turns])
    assert found is not None, "a list gives messages or raises"
    return found


def arena_onehot(row: Row) -> list[Judgement]:
    """Parse `prompt, response_a, response_b`, lists of turns written as JSON, and three columns of which one is 1."""
    fields = row.value
    marks = {name: number_in(fields, name, 0, 1) for name in _ONE_HOT}
    if sorted(marks.values()) != [0, 0, 1]:
        raise RowError(f"unknown label: one of {', '.join(marks)} must be 1 and the others 0")
    verdict = next(_ONE_HOT[name] for name, mark in marks.items() if mark == 1)
    prompts = _turns(fields, "prompt")
    a, b = (_interleaved(prompts, _turns(fields, f"response_{side}")) for side in "ab")
    return _vote(row, a, b, [name_in(fields, "model_a"), name_in(fields, "model_b")], verdict, About())


def _turns(fields: Fields, name: str) -> list[str]:
    value = column(fields, name)
    try:
        turns = json.loads(value) if isinstance(value, str) else value
    except (ValueError, RecursionError) as error:
        raise RowError(f"wrong type: {name!r} must be a list of turns written as JSON") from error
    texts = list_of(turns, name)
    if not all(isinstance(text, str) for text in texts):
        raise RowError(f"broken message: a turn of {name!r} is no text")
    return [str(text).strip() for text in texts]


def _interleaved(prompts: list[str], answers: list[str]) -> Conversation:
    if len(prompts) != len(answers):
        raise RowError(f"broken message: found {len(prompts)} prompts and {len(answers)} answers, needed as many")
    pairs = zip(prompts, answers, strict=True)
    return tuple(turn for ask, reply in pairs for turn in (Message("user", ask), Message("assistant", reply)))
