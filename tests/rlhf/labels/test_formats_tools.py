"""Exports of labelling tools: Argilla, Label Studio, Prodigy, and tables with columns of one's own."""

import json

import pytest
from label_rows import ROWS, annotation, changed, parse_rows

from rlhf.labels.formats import ColumnMapping, mapped
from rlhf.labels.importing.ingest import ingest
from rlhf.labels.records import Choice, TieKind
from sft.config import LabelFormat as F
from sft.core.rows import Row, RowError, read_rows
from sft.core.text import user

A, B, TIE = Choice.A, Choice.B, Choice.TIE


def response(value: object, person: object = "jo", status: str = "submitted") -> dict[str, object]:
    return {"value": value, "user_id": person, "status": status}


def ranking(*ranks: int) -> list[dict[str, object]]:
    return [{"value": name, "rank": rank} for name, rank in zip(("response1", "response2", "r3"), ranks, strict=False)]


# Argilla


@pytest.mark.parametrize(
    ("value", "choice", "kind"),
    [
        ("response1", A, None),
        ("response2", B, None),
        ("Left", A, None),
        (2, B, None),
        ("tie", TIE, None),
        ("both_bad", TIE, TieKind.BOTH_BAD),
        (ranking(1, 2), A, None),
        (ranking(2, 1), B, None),
        (ranking(1, 1), TIE, None),
    ],
)
def test_argilla_labels_and_rankings(value, choice, kind):
    [found] = changed(F.ARGILLA, responses={"preference": [response(value)]})
    assert (found.choice, found.tie_kind, found.annotator, found.attribute) == (choice, kind, "jo", None)
    assert (found.prompt, found.response_a, found.response_b) == (user("hi"), "x", "y")


def test_argilla_keeps_every_person_and_question_that_submitted():
    responses = {
        "preference": [response("response1", "ann"), response("response2", "bob"), response("tie", "c", "draft")],
        "harmless": [response(ranking(2, 1), "ann"), response(ranking(1, 2), "bob", "discarded")],
        "why": [response("because", "ann")],
    }
    found = changed(F.ARGILLA, responses=responses)
    assert [(j.annotator, j.choice, j.attribute) for j in found] == [
        ("ann", A, None),
        ("bob", B, None),
        ("ann", B, "harmless"),
    ]


def test_argilla_rankings_of_three_answers():
    fields = {"prompt": "hi", "response1": "x", "response2": "y", "r3": "z"}
    found = changed(F.ARGILLA, fields=fields, responses={"ranking": [response(ranking(2, 3, 1))]})
    pairs = {frozenset((j.response_a, j.response_b)): j for j in found}
    winners = {
        pair: j.response_a if j.choice is A else j.response_b for pair, j in pairs.items() if j.choice is not TIE
    }
    assert winners == {frozenset("xy"): "x", frozenset("xz"): "z", frozenset("yz"): "z"}
    assert {j.order_known for j in found} == {False}


def test_argilla_flattened_says_the_same_as_nested():
    people, values, statuses = ["ann", "bob", "c"], ["response1", ranking(2, 1), "tie"], ["submitted"] * 2 + ["draft"]
    nested = [response(*parts) for parts in zip(values, people, statuses, strict=True)]
    flat = {
        "id": "1",
        "prompt": "hi",
        "response1": "x",
        "response2": "y",
        "preference.responses": values,
        "preference.responses.users": people,
        "preference.responses.status": statuses,
        "preference.suggestion": "response2",
        "preference.suggestion.agent": "gpt",
        "topic": "physics",
    }
    assert parse_rows(F.ARGILLA, flat) == changed(F.ARGILLA, responses={"preference": nested})


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"responses": {}}, "unlabelled: no submitted response"),
        ({"responses": {"preference": [response("response1", status="draft")]}}, "unlabelled"),
        ({"responses": {"better": [response("response1")]}}, "unlabelled: .* named preference, label, choice"),
        ({"responses": {"preference": [response("first")]}}, "unknown label: 'first', known are a, 1, left"),
        ({"responses": {"preference": [response([{"value": "z", "rank": 1}] * 2)]}}, "wrong ranking: z, z names"),
        ({"responses": {"q": [response([{"value": "z", "rank": 1}, {"value": "w", "rank": 2}])]}}, "missing column"),
        ({"responses": {"preference": [response(ranking(1))]}}, "no pair of answers: found 1"),
        ({"fields": {"response1": "x", "response2": "y"}}, "no prompt: found the fields response1, response2, one"),
        (
            {"fields": {"instruction": "hi", "input": "ho", "response1": "x", "response2": "y"}},
            "no prompt: found the fields instruction, input, response1, response2, one is needed of prompt",
        ),
        ({"fields": {"prompt": "hi", "good": "x", "bad": "y"}}, "no answers: found the fields prompt, good, bad, one"),
        ({"fields": {"prompt": "hi", **dict.fromkeys(("left", "right", "answer1", "answer2"), "x")}}, "no answers"),
        ({"responses": []}, "wrong type: responses must be an object"),
    ],
)
def test_argilla_records_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(F.ARGILLA, **columns)


def test_argilla_flattened_lists_of_unequal_length_are_refused():
    row = {"prompt": "hi", "q.responses": ["a", "b"], "q.responses.users": ["x"], "q.responses.status": ["submitted"]}
    with pytest.raises(RowError, match=r"^broken record: 'q' has not as many responses as users and statuses"):
        parse_rows(F.ARGILLA, row)


# Label Studio


def choices(*values: str) -> dict[str, object]:
    return {"from_name": "tie", "to_name": "x", "type": "choices", "value": {"choices": list(values)}}


def test_label_studio_keeps_every_finished_annotation():
    strength = {"from_name": "strength", "type": "rating", "value": {"rating": 2}}
    other = {"from_name": "fluency", "type": "rating", "value": {"rating": 5}}
    [pairwise] = annotation("right")["result"]  # type: ignore[misc]
    annotations = [
        annotation("left"),
        annotation("left", was_cancelled=True),
        annotation("left", result=[]),
        annotation("", result=[pairwise, choices("fluent"), other, strength], completed_by={"id": 9, "email": "e"}),
        annotation("", result=[choices("tie")], completed_by=None, created_at=None),
        annotation("", result=[choices("Both_Bad")]),
    ]
    found = changed(F.LABEL_STUDIO, annotations=annotations)
    assert [(j.choice, j.annotator, j.time, j.strength, j.tie_kind) for j in found] == [
        (A, "4", 7.0, None, None),
        (B, "9", 7.0, 2.0, None),
        (TIE, None, None, None, None),
        (TIE, "4", 7.0, None, TieKind.BOTH_BAD),
    ]


def test_label_studio_sides_follow_to_name_where_it_names_fields():
    swapped = annotation("left")
    swapped["result"][0]["to_name"] = "answer2,answer1"  # type: ignore[index]
    [found] = changed(F.LABEL_STUDIO, annotations=[swapped])
    assert (found.response_a, found.response_b, found.choice) == ("y", "x", A)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"annotations": []}, "unlabelled: none of 0 annotations is finished"),
        ({"annotations": [annotation("left", was_cancelled=True)]}, "unlabelled: none of 1"),
        ({"annotations": [annotation("First")]}, "unknown label: 'First', known are left, right"),
        ({"annotations": [annotation("", result=[choices("equal")])]}, "unknown label: no result of type pairwise"),
        (
            {"annotations": [annotation("", result=[*annotation("left")["result"], choices("tie")])]},  # type: ignore[misc]
            "contradictory row: an annotation holds more than one",
        ),
        ({"annotations": [annotation("left", created_at="yesterday")]}, "wrong created_at: found 'yesterday'"),
        ({"annotations": [annotation("left", created_at="2024-01-01T00:00:00")]}, "wrong created_at"),
        ({"data": {"prompt": "hi", "one": "x", "two": "y"}}, "no answers: found the fields prompt, one, two"),
        ({"data": None}, "missing column: 'data'"),
    ],
)
def test_label_studio_tasks_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(F.LABEL_STUDIO, **columns)


# Prodigy


def options(*pairs: tuple[object, str]) -> list[dict[str, object]]:
    return [{"id": name, "text": text} for name, text in pairs]


def test_prodigy_keeps_people_and_times():
    [found] = parse_rows(F.PRODIGY, *ROWS[F.PRODIGY])
    assert (found.choice, found.annotator, found.time, found.prompt) == (A, "jo", 7.0, user("hi"))
    assert changed(F.PRODIGY, _annotator_id="ann")[0].annotator == "ann"
    assert changed(F.PRODIGY, text=None, input={"text": "ho"})[0].prompt == user("ho")


def test_prodigy_accepted_options():
    three = options((1, "x"), (2, "y"), (3, "z"))
    found = changed(F.PRODIGY, options=three, accept=[2])
    assert [(j.response_a, j.response_b, j.choice) for j in found] == [("x", "y", B), ("y", "z", A)]
    [tie] = changed(F.PRODIGY, options=options(("A", "x"), ("B", "y"), ("tie", "no difference")), accept=["tie"])
    assert (tie.choice, tie.response_a, tie.response_b) == (TIE, "x", "y")


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"answer": "ignore"}, "skipped: "),
        ({"answer": "reject"}, "rejected: "),
        ({"answer": "yes"}, "unknown label: 'answer' must be accept, reject or ignore"),
        ({"accept": []}, "no single choice: 0 options are accepted"),
        ({"accept": ["A", "B"]}, "no single choice: 2 options"),
        ({"accept": ["C"]}, "unknown label: the accepted option must be one of the ids a, b"),
        ({"options": options(("A", "x"), ("A", "y"))}, "unknown label: .* all different"),
        ({"options": options(("A", "x"))}, "no pair of answers: found 1"),
        ({"text": None}, "no prompt: .* one is needed of prompt, instruction, question, input, text"),
        ({"input": "more"}, "no prompt: "),
    ],
)
def test_prodigy_tasks_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(F.PRODIGY, **columns)


# Tables with columns of one's own


def test_a_table_is_read_under_the_columns_that_its_owner_names(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_bytes(
        b"\xef\xbb\xbfQuestion,First,Second,Winner,Who,Sure\n"
        b'"hi\nthere",None,"[{""role"": ""assistant"", ""content"": ""y""}]",RIGHT,ann,3\n'
        b"ho,x,y,both_good,,nan\n"
    )
    parse = mapped(ColumnMapping("Question", "First", "Second", "Winner", "Who", "Sure"))
    first, second = (found for row in read_rows(path) if isinstance(row, Row) for found in parse(row))
    assert (first.prompt, first.response_a, first.response_b) == (user("hi\nthere"), "None", "y")
    assert (first.choice, first.annotator, first.strength, first.line) == (B, "ann", 3.0, 2)
    assert (second.choice, second.tie_kind, second.annotator, second.strength) == (TIE, TieKind.BOTH_GOOD, None, None)


def test_a_mapping_without_annotator_and_strength_reads_neither():
    row = Row(1, {**ROWS[F.PAIRWISE][0], "strength": 2}, "d")
    [found] = mapped(ColumnMapping(annotator=None, strength=None))(row)
    assert (found.annotator, found.strength) == (None, None)
    with pytest.raises(RowError, match=r"^missing column: 'Q' \(found prompt, response_a"):
        mapped(ColumnMapping(prompt="Q"))(row)


def test_a_table_in_latin_1_loses_its_rows_with_a_reason(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_bytes(b"prompt\tresponse_a\tresponse_b\tlabel\nhi\tx\ty\ta\ncaf\xe9\tx\ty\ta\n")
    found = ingest(path, format=F.AUTO, max_quarantine_fraction=0.5, quarantine_path=tmp_path / "q.jsonl")
    assert (found.rows_in, len(found.judgements), found.reasons) == (2, 1, {"not UTF-8": 1})


def test_pairwise_rows_may_say_when_what_and_which_split():
    extra = {"time": "7.5", "attribute": "harmless", "split": "test", "label": "both_bad"}
    [found] = changed(F.PAIRWISE, **json.loads(json.dumps(extra)))
    assert (found.time, found.attribute, found.split, found.tie_kind) == (7.5, "harmless", "test", TieKind.BOTH_BAD)
