"""Several answers to one prompt: k-wise rows, trees, and rows that are joined with their neighbours."""

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from label_rows import ROWS, changed, node, parse_rows, rated, reply

from rlhf.labels.formats import JOINERS, PARSERS, rejected, rows_behind
from rlhf.labels.formats.compare import MAX_ANSWERS
from rlhf.labels.formats.trees import MAX_TURNS
from rlhf.labels.importing.ingest import ingest
from rlhf.labels.records import Choice, Judgement
from sft.config import LabelFormat as F
from sft.core.rows import BadRow, Row, RowError
from sft.core.text import Message, user

A, B, TIE = Choice.A, Choice.B, Choice.TIE


def beats(found: list[Judgement]) -> list[tuple[str, str, Choice]]:
    return [(j.response_a, j.response_b, j.choice) for j in found]


# k-wise


def test_qa_feedback_labels_stand_in_the_order_of_its_paper():
    found = parse_rows(F.QA_FEEDBACK, *ROWS[F.QA_FEEDBACK])
    expected = [("x", "y", A), ("x", "z", B), ("x", "w", TIE), ("y", "z", A), ("y", "w", B), ("z", "w", TIE)]
    assert beats(found) == expected
    assert {j.prompt for j in found} == {user("hi\n\ntitle\none. two.")}
    assert changed(F.QA_FEEDBACK, passages=None)[0].prompt == user("hi")
    assert all(j.order_known for j in found)


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ({"preference": [1, 2, 0]}, "wrong preference: found 3 labels, needed are 6"),
        ({"preference": [1, 2, 0, 1, 2, 3]}, "unknown label: '3', known are 0, 1, 2"),
        ({"prediction 4": "x"}, "identical answers"),
        ({"prediction 3": None}, "missing column: 'prediction 3'"),
        ({"passages": [["t", 1]]}, "wrong type"),
    ],
)
def test_qa_feedback_rows_that_cannot_be_used(columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(F.QA_FEEDBACK, **columns)


def test_ultrafeedback_compares_mean_ratings_and_never_the_overall_score():
    completions = [rated("x", honesty="5", helpfulness="2"), rated("y"), rated("z", truthfulness="4")]
    found = changed(F.ULTRAFEEDBACK, completions=completions)
    assert beats(found) == [("x", "y", A), ("x", "z", TIE), ("y", "z", B)]
    assert [j.strength for j in found] == [0.25, 0.0, 0.25]
    assert (found[0].model_a, found[0].model_b, found[0].order_known) == ("m-x", "m-y", False)


def test_ultrafeedback_leaves_out_the_aspect_that_is_not_rated_in_both():
    found = changed(F.ULTRAFEEDBACK, completions=[rated("x", honesty="N/A"), rated("y", honesty="5"), rated("z")])
    assert [(*pair, j.strength) for pair, j in zip(beats(found), found, strict=True)] == [
        ("x", "y", TIE, 0.0),
        ("x", "z", TIE, 0.0),
        ("y", "z", A, 0.5),
    ]


NOTHING_RATED = dict.fromkeys(("instruction_following", "honesty", "truthfulness", "helpfulness"), "N/A")


@pytest.mark.parametrize(
    ("completions", "reason"),
    [
        ([], "no pair of answers: found 0"),
        ([rated("x")], "no pair of answers: found 1 of them, needed are 2 to 32"),
        ([rated(str(n)) for n in range(MAX_ANSWERS + 1)], "no pair of answers: found 33"),
        ([rated("x", **NOTHING_RATED), rated("y")], "no rating: two answers"),
        ([rated("x", honesty="6"), rated("y")], "wrong Rating: found '6', it must be a number from 1 to 5"),
        ([rated("x", honesty=None), rated("y")], "wrong type: 'Rating'"),
        ([rated("x", honesty="n/a"), rated("y")], "wrong Rating"),
        ([rated("x"), rated("x")], "identical answers"),
        ([{"response": "x"}, rated("y")], "missing column: 'annotations'"),
    ],
)
def test_ultrafeedback_rows_that_cannot_be_used(completions, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(F.ULTRAFEEDBACK, completions=completions)


# Trees


def tree(*replies: dict[str, object], **more: object) -> list[Judgement]:
    return changed(F.OASST, prompt=node("prompter", "hi", *replies, **more))


def test_ranked_replies_become_pairs_and_the_lower_rank_is_better():
    found = parse_rows(F.OASST, *ROWS[F.OASST])
    assert beats(found) == [("y", "x", B)]
    assert (found[0].model_a, found[0].prompt, found[0].strength, found[0].order_known) == (
        "m-y",
        user("hi"),
        None,
        False,
    )


def test_deeper_replies_have_the_turns_before_them_as_prompt():
    deep = node("prompter", "so", reply("x", 0), reply("y", 2), reply("z", 2))
    found = tree(reply("first", 0, deep), reply("second", 1))
    assert beats(found) == [("first", "second", A), ("x", "y", A), ("x", "z", A), ("y", "z", TIE)]
    assert found[1].prompt == (Message("user", "hi"), Message("assistant", "first"), Message("user", "so"))


@pytest.mark.parametrize("gone", [{"deleted": True}, {"review_result": False}])
def test_deleted_and_failed_messages_are_left_out_with_what_follows(gone):
    below = node("prompter", "so", reply("p", 0), reply("q", 1))
    assert beats(tree(reply("x", 0), reply("y", 1), reply("z", 2, below, **gone))) == [("x", "y", A)]
    with pytest.raises(RowError, match=r"^no pair of answers: "):
        tree(reply("x", 0), reply("y", 1), **gone)
    assert len(tree(reply("x", 0), reply("y", 1, review_result=None))) == 1


@pytest.mark.parametrize(
    ("replies", "reason"),
    [
        ([reply("x", 0), reply("y", None)], "no pair of answers"),
        ([reply("x", 0), reply("x", 1)], "identical answers"),
        ([reply("x", 0), reply("y", "first")], "wrong rank"),
        ([node("user", "x", rank=0)], "unknown role: a message has 'user', known are prompter, assistant"),
        ([node("prompter", "x", rank=0), node("prompter", "y", rank=1)], "turns do not alternate"),
        ([reply(str(n), n) for n in range(MAX_ANSWERS + 1)], "no pair of answers: found 33"),
        ([reply("", 0), reply("y", 1)], "empty"),
        ([reply("x", 0, "no message")], "wrong type: an item of replies"),  # type: ignore[arg-type]
    ],
)
def test_trees_that_cannot_be_used(replies, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        tree(*replies)


def test_a_tree_without_end_is_refused():
    branch = reply("x", 0)
    for depth in range(50_000):
        branch = node(("prompter", "assistant")[depth % 2], "x", branch)
    with pytest.raises(RowError, match=rf"^nested too deep: the tree has more than {MAX_TURNS} turns"):
        changed(F.OASST, prompt=branch)
    while branch["replies"]:  # taken apart by hand: Python frees nested dicts by recursion
        [branch] = branch["replies"]  # type: ignore[misc]


# Joined rows


def rating(prompt: object, response: str, helpfulness: object = 1) -> dict[str, object]:
    return {"prompt": prompt, "response": response, "helpfulness": helpfulness}


def opinion(prompt: object, completion: str, label: object) -> dict[str, object]:
    return {"prompt": prompt, "completion": completion, "label": label}


def joined(format: F, *rows: dict[str, object]) -> list[Row | BadRow]:
    return list(JOINERS[format](iter([Row(n, row, f"d{n}") for n, row in enumerate(rows, 1)])))


def test_helpsteer2_is_joined_by_two_neighbours_and_compared_by_helpfulness():
    [found] = parse_rows(F.HELPSTEER2, rating("hi", "x", 0), rating("hi", "y", 3))
    assert (found.choice, found.strength, found.order_known, found.line) == (B, 3.0, False, 7)
    [tie] = parse_rows(F.HELPSTEER2, rating("hi", "x", 2), rating("hi", "y", "2"))
    assert (tie.choice, tie.strength) == (TIE, 0.0)


def test_only_adjacent_rows_are_a_pair():
    items = joined(F.HELPSTEER2, *(rating(prompt, str(n)) for n, prompt in enumerate("abaaaacc")))
    # a | b | a a | a a | c c: the first a is not paired with the later ones.
    kinds = [(item.line, item.kind if isinstance(item, BadRow) else rows_behind(item)) for item in items]
    assert kinds == [(1, "no pair"), (2, "no pair"), (3, 2), (5, 2), (7, 2)]


def test_bad_rows_pass_a_joiner_and_do_not_part_a_pair():
    rows = iter([Row(1, rating("a", "x"), "d1"), BadRow(2, "why: so", "text"), Row(3, rating("a", "y"), "d3")])
    bad, pair = JOINERS[F.HELPSTEER2](rows)
    assert bad == BadRow(2, "why: so", "text")
    assert isinstance(pair, Row)
    assert len(PARSERS[F.HELPSTEER2](pair)) == 1


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([rating("hi", "x"), rating("hi", "y", 5)], "wrong helpfulness: found '5', it must be a number from 0 to 4"),
        ([rating("hi", "x"), rating("hi", "y", None)], "missing column: 'helpfulness'"),
        ([rating("hi", "x"), rating("hi", "x", 3)], "identical answers"),
        ([rating("", "x"), rating("", "y", 3)], "empty prompt"),
        ([rating("hi", "x")], "no pair: neither neighbour"),
    ],
)
def test_helpsteer2_rows_that_cannot_be_used(rows, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        parse_rows(F.HELPSTEER2, *rows)


def test_kto_compares_each_good_answer_with_each_bad_one():
    labels = [("x", True), ("y", "down"), ("z", 1), ("w", "False"), ("v", "up"), ("u", 0)]
    found = parse_rows(F.KTO, *(opinion("hi", text, label) for text, label in labels))
    assert beats(found) == [(good, bad, A) for good in "xzv" for bad in "ywu"]
    assert {j.order_known for j in found} == {False}


def test_kto_in_messages():
    prompt = [{"role": "user", "content": "hi"}]
    texts = ([{"role": "assistant", "content": text}] for text in "xy")
    found = parse_rows(F.KTO, *({"prompt": prompt, "completion": t, "label": n} for n, t in enumerate(texts)))
    assert beats(found) == [("y", "x", A)]
    assert found[0].prompt == user("hi")


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ([opinion("hi", "x", True), opinion("hi", "y", True)], "only one label: all 2 answers of the prompt are good"),
        ([opinion("hi", "x", 0), opinion("hi", "y", 0)], "only one label: all 2 answers of the prompt are bad"),
        ([opinion("hi", "x", True)], "no pair: neither neighbour has the same prompt, so there is no other answer"),
        ([opinion("hi", "x", True), opinion("ho", "y", False)], "no pair"),
        ([opinion("hi", "x", True), opinion("hi", "x", False)], "identical answers"),
        ([opinion("hi", "x", True), opinion("hi", "y", "bad")], "unknown label: 'bad', known are true, 1, up, false"),
        ([opinion("hi", "x", True), opinion("hi", "y", 2)], "unknown label"),
        ([opinion("hi", "x", True), opinion("hi", "", False)], "empty answer"),
        ([{"completion": "x", "label": True}, {"completion": "y", "label": False}], "no pair"),
    ],
)
def test_kto_rows_that_cannot_be_used(rows, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        parse_rows(F.KTO, *rows)


def test_a_row_that_no_joiner_made_is_refused():
    for format in JOINERS:
        with pytest.raises(RowError, match=r"^not joined: "):
            PARSERS[format](Row(1, ROWS[format][0], "d"))


@given(st.lists(st.sampled_from("ab"), max_size=90))
def test_joining_keeps_every_row_once_in_bounded_groups(prompts):
    for format, largest in ((F.HELPSTEER2, 2), (F.KTO, MAX_ANSWERS)):
        items = joined(format, *(rating(prompt, str(n)) for n, prompt in enumerate(prompts)))
        sizes = [1 if isinstance(item, BadRow) else rows_behind(item) for item in items]
        assert sum(sizes) == len(prompts)
        assert all(size <= largest for size in sizes)
        starts = [1 + sum(sizes[:index]) for index in range(len(sizes))]
        assert [item.line for item in items] == starts
        digests = [item.digest for item in items if isinstance(item, Row)]
        assert all(first != second for first, second in combinations(digests, 2))


def test_every_row_of_a_rejected_group_is_in_the_quarantine(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text("prompt,completion,label\nhi,x,true\nhi,y,true\nho,x,true\nho,y,false\nho2,x,up\n")
    found = ingest(path, format=F.AUTO, max_quarantine_fraction=1.0, quarantine_path=tmp_path / "q.jsonl")
    assert (found.format, found.rows_in, len(found.judgements), found.quarantined) == (F.KTO, 5, 1, 3)
    assert found.reasons == {"only one label": 2, "no pair": 1}
    assert [line.split('"line": ')[1][0] for line in (tmp_path / "q.jsonl").read_text().splitlines()] == ["2", "3", "6"]
    assert [bad.line for bad in rejected(Row(3, {"x": 1}, "d"), "why: so")] == [3]


def test_a_repeated_group_is_a_duplicate_of_all_its_rows(tmp_path):
    path = tmp_path / "labels.csv"
    group = "hi,x,1\nhi,y,3\n"
    other = "hi,x,1\nhi,z,2\n"
    path.write_text(f"prompt,response,helpfulness\n{group}{other}{group}")
    found = ingest(path, format=F.AUTO, max_quarantine_fraction=0.0, quarantine_path=tmp_path / "q.jsonl")
    assert (found.rows_in, len(found.judgements), found.duplicates, found.quarantined) == (6, 2, 2, 0)
