"""The arena's formats: votes, blindness, and conversations of several turns."""

import pytest
from label_rows import ROWS, changed, messages, parse_rows, state

from rlhf.labels.formats import detect
from rlhf.labels.records import Choice, TieKind
from sft.config import LabelFormat as F
from sft.core.rows import Row, RowError
from sft.core.text import Message, user

A, B, TIE = Choice.A, Choice.B, Choice.TIE
CONVERSATIONS = [F.ARENA, F.MT_BENCH]


@pytest.mark.parametrize("format", CONVERSATIONS)
@pytest.mark.parametrize(
    ("winner", "choice", "kind"),
    [
        ("model_a", A, None),
        ("model_b", B, None),
        ("tie", TIE, None),
        ("tie (bothbad)", TIE, TieKind.BOTH_BAD),
        ("both_bad", TIE, TieKind.BOTH_BAD),
    ],
)
def test_winners_of_both_generations(format, winner, choice, kind):
    [found] = changed(format, winner=winner)
    assert (found.choice, found.tie_kind) == (choice, kind)


@pytest.mark.parametrize("format", CONVERSATIONS)
def test_people_models_and_times_are_kept(format):
    [found] = parse_rows(format, *ROWS[format])
    assert (found.annotator, found.model_a, found.model_b) == ("jo", "ma", "mb")
    assert (found.time, found.order_known) == (7.5 if format is F.ARENA else None, True)


@pytest.mark.parametrize(
    ("format", "columns", "reason"),
    [
        (F.ARENA, {"winner": "x"}, r"unknown label: 'x', known are model_a, model_b, tie, tie \(bothbad\), both_bad"),
        (F.ARENA, {"anony": False}, "not blind: anony is false"),
        (F.ARENA, {"conversation_b": messages("ho", "y")}, "prompts differ"),
        (F.ARENA, {"conversation_b": messages("hi", "y", "so", "z")}, "prompts differ"),
        (F.ARENA, {"conversation_b": messages("hi", "x")}, "identical answers"),
        (F.ARENA, {"conversation_b": "hi"}, "wrong type: 'conversation_b' must be a list of messages"),
        (F.ARENA, {"conversation_a": []}, "no messages"),
        (F.ARENA, {"tstamp": 1.7e12}, "wrong tstamp"),
        (F.MT_BENCH, {"turn": 3}, "wrong turn"),
        (F.MT_BENCH, {"turn": None}, "missing column: 'turn'"),
        (F.MT_BENCH, {"judge": ["gpt-4", "pair-v2"]}, "wrong type: 'judge' must be a text"),
        (F.ARENA_VOTES, {"type": "chat"}, "unknown label: 'chat', known are leftvote, rightvote"),
        (F.ARENA_VOTES, {"models": ["ma", "mb"]}, "not blind: the event names its models"),
        (F.ARENA_VOTES, {"states": [state("ma", "hi", "x")]}, "wrong states: found 1"),
        (F.ARENA_ONEHOT, {"winner_tie": 1}, "unknown label: one of winner_model_a, winner_model_b, winner_tie must"),
        (F.ARENA_ONEHOT, {"winner_model_a": 0}, "unknown label"),
        (F.ARENA_ONEHOT, {"prompt": "hi"}, "wrong type: 'prompt' must be a list of turns written as JSON"),
        (F.ARENA_ONEHOT, {"response_a": "[null]"}, "broken message: a turn of 'response_a' is no text"),
        (F.ARENA_ONEHOT, {"response_a": '["x", "z"]'}, "broken message: found 1 prompts and 2 answers"),
        (F.ARENA_ONEHOT, {"response_a": "[" * 100_000}, "wrong type"),
    ],
)
def test_rows_that_cannot_be_used(format, columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(format, **columns)


def test_answers_of_several_turns_that_differ_stand_for_no_single_one():
    columns = {f"conversation_{side}": messages("hi", side, "so", "more " + side) for side in "ab"}
    for format in CONVERSATIONS:
        with pytest.raises(RowError, match=r"^several turns: "):
            changed(format, **columns, turn=2)
    with pytest.raises(RowError, match=r"^several turns: "):
        changed(F.ARENA_ONEHOT, prompt='["hi", "so"]', response_a='["x", "z"]', response_b='["y", "w"]')
    same = {f"conversation_{side}": messages("hi", "x", "so", side) for side in "ab"}
    for format in CONVERSATIONS:
        [found] = changed(format, **same, turn=2)
        assert found.prompt == (Message("user", "hi"), Message("assistant", "x"), Message("user", "so"))


def test_mt_bench_turn_one_is_about_the_first_answers_alone():
    columns = {f"conversation_{side}": messages("hi", side, "so", "more " + side) for side in "ab"}
    [found] = changed(F.MT_BENCH, **columns, turn=1)
    assert (found.prompt, found.response_a, found.response_b) == (user("hi"), "a", "b")


@pytest.mark.parametrize(
    ("event", "choice", "kind"),
    [
        ("leftvote", A, None),
        ("rightvote", B, None),
        ("tievote", TIE, None),
        ("bothbad_vote", TIE, TieKind.BOTH_BAD),
    ],
)
def test_votes_of_fastchats_log(event, choice, kind):
    [found] = changed(F.ARENA_VOTES, type=event)
    assert (found.choice, found.tie_kind, found.time) == (choice, kind, 7.5)
    assert (found.model_a, found.model_b) == ("ma", "mb")


def test_a_voters_address_is_not_kept():
    one, same, other = (changed(F.ARENA_VOTES, ip=ip)[0] for ip in ("192.0.2.1", "192.0.2.1", "192.0.2.2"))
    assert one.annotator is not None
    assert one.annotator == same.annotator != other.annotator
    assert "192.0.2" not in one.annotator
    assert changed(F.ARENA_VOTES, ip=None)[0].annotator is None


@pytest.mark.parametrize("leak", ["I am Vicuna, trained by a lab", "As ChatGPT I can", "made by OpenAI."])
def test_an_answer_that_names_its_maker_was_not_blind(leak):
    with pytest.raises(RowError, match=r"^not blind: an answer holds the name"):
        changed(F.ARENA_VOTES, states=[state("ma", "hi", "x"), state("mb", "hi", leak)])
    asked = [state("ma", "who is OpenAI?", "x"), state("mb", "who is OpenAI?", "y")]
    assert changed(F.ARENA_VOTES, states=asked)


def test_states_of_fastchat():
    states = [state("ma", "example", "reply", "hi", "x"), state("mb", "other", "reply", "hi", "y")]
    with_examples = [{**part, "offset": 2, "system_message": "be kind"} for part in states]
    [found] = changed(F.ARENA_VOTES, states=with_examples)
    assert found.prompt == (Message("system", "be kind"), Message("user", "hi"))
    unfinished = [state("ma", "hi", "x"), {**state("mb", "hi"), "messages": [["USER", "hi"], ["ASSISTANT", None]]}]
    with pytest.raises(RowError, match=r"^broken message: "):
        changed(F.ARENA_VOTES, states=unfinished)
    twice = [{"messages": [["USER", "hi"], ["BOT", "so"], ["BOT", "x"], ["BOT", "y"]]}] * 2
    with pytest.raises(RowError, match=r"^turns do not alternate: "):
        changed(F.ARENA_VOTES, states=twice)
    with pytest.raises(RowError, match=r"^wrong offset: "):
        changed(F.ARENA_VOTES, states=[{**part, "offset": 1.5} for part in states])


def test_the_one_hot_columns():
    marks = {"winner_model_a": 0, "winner_model_b": 0, "winner_tie": 0}
    labels = [changed(F.ARENA_ONEHOT, **{**marks, name: 1})[0].choice for name in marks]
    assert labels == [A, B, TIE]


def test_mt_bench_and_the_arena_are_told_apart_by_what_only_the_arena_has():
    [row] = ROWS[F.MT_BENCH]
    assert detect([Row(1, row, "d")]) is F.MT_BENCH
    assert detect([Row(1, {**row, "conv_metadata": {}}, "d")]) is F.ARENA
