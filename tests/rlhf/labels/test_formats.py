import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.labels.formats import PARSERS, detect
from rlhf.labels.records import Choice, Judgement
from sft.config import LabelFormat
from sft.core.errors import DataError
from sft.core.rows import Row, RowError
from sft.core.text import Message, user

HH, TRL, PAIRWISE = LabelFormat.HH, LabelFormat.TRL, LabelFormat.PAIRWISE
USER, GOOD, BAD = ({"role": "user", "content": "hi"}, *({"role": "assistant", "content": c} for c in ("good", "bad")))


def row(**columns: object) -> Row:
    return Row(7, columns, "digest")


def parse(format: LabelFormat, **columns: object) -> Judgement:
    [found] = PARSERS[format](row(**columns))
    return found


def pairwise(**columns: object) -> Judgement:
    return parse(PAIRWISE, **{"prompt": "hi", "response_a": "x", "response_b": "y", "label": "a", **columns})


def talk(*turns: str) -> str:
    return "".join(f"\n\n{('Human', 'Assistant')[i % 2]}: {turn}" for i, turn in enumerate(turns))


def test_every_format_but_auto_has_a_parser():
    assert PARSERS.keys() == set(LabelFormat) - {LabelFormat.AUTO}


def test_hh_splits_at_the_last_answer_only_at_turn_boundaries():
    start = "hi\n\nthere Human: no turn\nAssistant: nor this"
    found = parse(HH, chosen=talk(start, "so", "more", " good\n\n1. x"), rejected=talk(start, "so", "more", "bad"))
    assert found.prompt == (Message("user", start), Message("assistant", "so"), Message("user", "more"))
    assert (found.response_a, found.response_b, found.choice) == ("good\n\n1. x", "bad", Choice.A)
    assert (found.line, found.digest, found.annotator, found.order_known) == (7, "digest", None, False)


@pytest.mark.parametrize(
    ("chosen", "rejected", "kind"),
    [
        (talk("hi", "good"), talk("ho", "bad"), "prompts differ"),
        (talk("hi", "good"), talk("hi", "bad", "more", "bad"), "prompts differ"),
        (talk("hi") + "\n\nAssistant: a\n\nAssistant: b", talk("hi", "b"), "prompts differ"),
        (talk("hi", "x") + "\n\nAssistant: a", talk("hi", "x") + "\n\nAssistant: b", "turns do not alternate"),
        (talk("hi", " "), talk("hi", "bad"), "empty answer"),
        (talk("hi", "good"), talk("hi", ""), "empty answer"),
        (talk(" ", "good"), talk(" ", "bad"), "empty turn"),
        (talk("hi", "same"), talk("hi", "same "), "identical answers"),
        (talk("hi", "good", "so"), talk("hi", "bad"), "no answer"),
        ("\n\nAssistant: good", "\n\nAssistant: bad", "turns do not alternate"),
        ("text" + talk("hi", "good"), talk("hi", "bad"), "no transcript"),
        ("no turns", "at all", "no transcript"),
        (3, talk("hi", "bad"), "wrong type"),
        (None, talk("hi", "bad"), "missing column"),
    ],
)
def test_hh_rows_that_cannot_be_used(chosen, rejected, kind):
    with pytest.raises(RowError, match=f"^{kind}: "):
        parse(HH, chosen=chosen, rejected=rejected)


@pytest.mark.parametrize(
    "columns",
    [
        {"prompt": "hi", "chosen": " good", "rejected": "bad"},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"prompt": "hi", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": None, "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"chosen": json.dumps([USER, GOOD]), "rejected": json.dumps([USER, BAD])},
        {"chosen": "hi good", "rejected": "hi bad"},
    ],
)
@pytest.mark.parametrize(("margin", "strength"), [({}, None), ({"margin": 1}, 1.0), ({"margin": "0.5"}, 0.5)])
def test_trl_explicit_and_implicit_prompts_text_and_messages(columns, margin, strength):
    found = parse(TRL, **columns, **margin)
    assert (found.prompt, found.response_a, found.response_b) == (user("hi"), "good", "bad")
    assert (found.choice, found.strength, found.order_known) == (Choice.A, strength, False)


@pytest.mark.parametrize(
    ("chosen", "rejected", "expected"),
    [
        ("The sky is blue.", "The sky is black.", ("The sky is", "blue.", "black.")),  # words stay whole
        ("The sky is", "The sky is blue", ("The sky", "is", "is blue")),
        ("a\nb c", "a\nb d", ("a\nb", "c", "d")),
    ],
)
def test_trl_implicit_text_is_split_between_words(chosen, rejected, expected):
    found = parse(TRL, chosen=chosen, rejected=rejected)
    assert (found.prompt[0].content, found.response_a, found.response_b) == expected


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"prompt": "hi", "chosen": "good"}, r"missing column: 'rejected' \(found prompt, chosen\)"),
        ({"prompt": "hi", "chosen": "x", "rejected": "x "}, "identical answers"),
        ({"prompt": "hi", "chosen": " ", "rejected": "x"}, "empty answer"),
        ({"prompt": " ", "chosen": "y", "rejected": "x"}, "empty prompt"),
        ({"prompt": [GOOD], "chosen": "y", "rejected": "x"}, "turns do not alternate"),
        ({"chosen": "yes", "rejected": "no"}, "no prompt: .*add the column 'prompt'"),
        ({"chosen": "hi yes", "rejected": [USER, BAD]}, "both be texts"),
        ({"chosen": [USER, GOOD], "rejected": [dict(USER, content="ho"), BAD]}, "prompts differ"),
        ({"chosen": [GOOD], "rejected": [BAD]}, "turns do not alternate"),
        ({"prompt": "hi", "chosen": True, "rejected": "x"}, "wrong type: .*found true or false"),
        ({"prompt": "hi", "chosen": "y", "rejected": "x", "margin": -1}, "wrong margin: found '-1'"),
        ({"prompt": "hi", "chosen": "y", "rejected": "x", "margin": float("inf")}, "wrong margin"),
        ({"prompt": "hi", "chosen": "y", "rejected": "x", "margin": True}, "wrong type: 'margin'"),
    ],
)
def test_trl_rows_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=reason):
        parse(TRL, **columns)


@pytest.mark.parametrize(
    ("labels", "choice"),
    [
        (["a", "A", " a ", "1", 1, 1.0, "1.0", "left", "Left"], Choice.A),
        (["b", "B", "2", 2, 2.0, "right", "RIGHT"], Choice.B),
        (["tie", "Tie", "0", 0, 0.0], Choice.TIE),
    ],
)
def test_pairwise_labels(labels, choice):
    assert [pairwise(label=label).choice for label in labels] == [choice] * len(labels)


@pytest.mark.parametrize("label", ["", "c", "3", -1, 0.5, True, False, ["a"], "model_a", "ab", "nan"])
def test_unknown_labels_are_never_guessed(label):
    with pytest.raises(RowError, match=r"^unknown label: "):
        pairwise(label=label)


def test_pairwise_keeps_sides_annotator_models_and_strength():
    found = pairwise(label="b", annotator=12, model_a="m", model_b="n", strength="2")
    assert (found.response_a, found.response_b, found.choice) == ("x", "y", Choice.B)
    assert (found.annotator, found.model_a, found.model_b, found.strength) == ("12", "m", "n", 2.0)
    assert found.order_known


@pytest.mark.parametrize("empty", ["", " ", "nan", "None", None, float("nan")])
def test_empty_cells_of_optional_columns_are_unknown(empty):
    found = pairwise(annotator=empty, strength=empty, model_a=empty)
    assert (found.annotator, found.strength, found.model_a) == (None, None, None)


@pytest.mark.parametrize("prompt", [[USER], json.dumps([USER]), " hi"])
def test_pairwise_prompts(prompt):
    assert pairwise(prompt=prompt).prompt == user("hi")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"label": None}, r"missing column: 'label' \(found prompt, response_a, response_b, label\)"),
        ({"response_b": "x"}, "identical answers"),
        ({"response_b": ""}, "empty answer"),
        ({"response_b": [BAD, USER, BAD]}, "prompts differ"),
        ({"prompt": 3}, "wrong type"),
        ({"annotator": ["x"]}, "wrong type: 'annotator' .*found a list"),
        ({"strength": "much"}, "wrong strength: found 'much'"),
        ({"strength": 10**400}, "wrong strength"),
    ],
)
def test_pairwise_rows_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=reason):
        pairwise(**columns)


@pytest.mark.parametrize(
    ("columns", "format"),
    [
        ({"chosen": talk("hi", "a"), "rejected": talk("hi", "b")}, HH),
        ({"chosen": None, "rejected": talk("hi", "b")}, HH),
        ({"chosen": "x", "rejected": "y"}, TRL),
        ({"chosen": [USER, GOOD], "rejected": [USER, BAD]}, TRL),
        ({"prompt": talk("hi"), "chosen": talk("hi", "a"), "rejected": "y"}, TRL),
        ({"prompt": "x", "chosen": "y"}, TRL),
        ({"prompt": "x", "response_a": "y", "response_b": "z", "label": "a"}, PAIRWISE),
        ({"prompt": "x", "response_a": "y", "response_b": "z"}, PAIRWISE),
    ],
)
def test_detection(columns, format):
    assert detect([row(**columns)]) is format


def test_detection_goes_with_most_rows():
    odd = row(chosen="x", rejected="y")
    assert detect([odd, *[row(chosen=talk("hi", "a"), rejected=talk("hi", "b"))] * 2, row(x=1)]) is HH


def test_detection_names_what_is_there_and_what_is_needed():
    with pytest.raises(
        DataError, match=r"found the columns prompt, winner; needed are chosen and rejected .*response_a"
    ):
        detect([row(prompt="x", winner="a"), row(prompt="y")])


cells = st.none() | st.booleans() | st.integers(0, 2) | st.floats() | st.sampled_from(["x", "y z", "", talk("hi", "a")])
cells = cells | st.lists(st.sampled_from([USER, GOOD, BAD, "x", None]), max_size=3)
names = st.sampled_from(
    ["prompt", "chosen", "rejected", "response_a", "response_b", "label", "annotator", "strength", "margin"]
)


@given(st.sampled_from([HH, TRL, PAIRWISE]), st.dictionaries(names, cells))
def test_any_row_gives_a_judgement_or_a_reason(format, columns):
    try:
        found = parse(format, **columns)
    except RowError:
        return
    assert found.prompt[-1].role == "user"
    assert found.response_a.strip()
    assert found.response_b.strip()
    assert found.response_a != found.response_b
