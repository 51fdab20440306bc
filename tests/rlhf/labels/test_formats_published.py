"""Published datasets: what each format's fields mean, and its traps; and the real files that are at hand."""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest
from label_rows import ROWS, changed, messages, parse_rows

from rlhf.labels.importing.ingest import Ingested, ingest
from rlhf.labels.records import Choice
from sft.config import LabelFormat as F
from sft.core.rows import RowError
from sft.core.text import Message, user

A, B, TIE = Choice.A, Choice.B, Choice.TIE
DATA = Path(__file__).parents[3] / "../shared/data"


@pytest.mark.parametrize(
    ("format", "columns", "choice", "strength"),
    [
        (F.SUMMARIES, {}, A, 3.0),
        (F.SUMMARIES, {"extra": {"confidence": 1}}, A, 4.0),
        (F.SUMMARIES, {"extra": {"confidence": 5}}, A, 0.0),
        (F.SUMMARIES, {"choice": 1, "extra": {"confidence": 9}}, B, 4.0),
        (F.SUMMARIES, {"choice": 1, "extra": {"confidence": None}}, B, None),
        (F.SUMMARIES, {"choice": 1, "extra": None}, B, None),
        (F.WEBGPT, {"score_0": -1, "score_1": 1}, B, 1.0),
        (F.WEBGPT, {"score_0": 0.0, "score_1": -0.0}, TIE, 0.0),
        (F.SHP, {}, A, 3.0),
        (F.SHP, {"labels": 0, "score_A": 1, "score_B": 2, "score_ratio": 2}, B, 2.0),
        (F.SHP, {"score_ratio": 1.2}, A, 1.2),
        (F.ALPACA, {"preference": 1}, A, 1.0),
        (F.ALPACA, {"preference": 2.0}, B, 1.0),
        (F.ALPACA, {"preference": 1.75}, B, 0.5),
        (F.ALPACA, {"preference": 1.5}, TIE, 0.0),
        (F.ALPACA, {"preference": 0}, TIE, 0.0),
        (F.HELPSTEER2_PREFERENCE, {"preference_strength": -3}, A, 3.0),
        (F.HELPSTEER2_PREFERENCE, {"preference_strength": "2"}, B, 2.0),
        (F.HELPSTEER2_PREFERENCE, {"preference_strength": 0}, TIE, 0.0),
        (F.HELPSTEER3, {"individual_preference": [], "overall_preference": 1}, B, 1.0),
        (F.HELPSTEER3, {"individual_preference": None, "overall_preference": 0}, TIE, 0.0),
        (F.ULTRAFEEDBACK_BINARIZED, {}, A, 0.5),
        (F.ULTRAFEEDBACK_BINARIZED, {"score_rejected": 8.5}, TIE, 0.0),
    ],
)
def test_verdicts(format, columns, choice, strength):
    [found] = changed(format, **columns)
    assert (found.choice, found.strength) == (choice, strength)


@pytest.mark.parametrize(
    ("format", "columns", "reason"),
    [
        (F.SUMMARIES, {"choice": 2}, "unknown label: '2', known are 0, 1"),
        (F.SUMMARIES, {"choice": True}, "unknown label"),
        (F.SUMMARIES, {"extra": {"confidence": 6}}, "contradictory row: the confidence"),
        (F.SUMMARIES, {"extra": {"confidence": 10}}, "wrong confidence: found '10', it must be a number from 1 to 9"),
        (F.SUMMARIES, {"summaries": [{"text": "x"}]}, "wrong summaries: found 1"),
        (F.SUMMARIES, {"info": {"id": "x"}}, "missing column: 'article'"),
        (F.SUMMARIES, {"info": None}, "missing column: 'info'"),
        (F.WEBGPT, {"score_1": 0.5}, "contradictory row: score_0 is 0.5 and score_1 0.5"),
        (F.WEBGPT, {"score_0": 2, "score_1": -2}, "wrong score_0: found '2', it must be a number from -1 to 1"),
        (F.WEBGPT, {"question": "hi"}, "wrong type: question must be an object, found a text"),
        (F.SHP, {"labels": 2}, "unknown label: '2', known are 1, 0"),
        (F.SHP, {"labels": 0}, "contradictory row"),
        (F.SHP, {"score_B": 9}, "contradictory row"),
        (F.SHP, {"human_ref_B": "[removed]"}, "deleted text: 'human_ref_B'"),
        (F.SHP, {"history": " [deleted] "}, "deleted text: 'history'"),
        (F.ALPACA, {"preference": float("nan")}, "wrong preference: found 'nan'"),
        (F.ALPACA, {"preference": None}, "missing column: 'preference'"),
        (F.ALPACA, {"preference": 0.5}, "wrong preference: found 0.5"),
        (F.ALPACA, {"preference": 3}, "wrong preference"),
        (F.PANDALM, {"response1": True}, "wrong type: the answer must be a text .*found true or false"),
        (F.PANDALM, {"annotator2": 3}, "unknown label: '3', known are 0, 1, 2"),
        (F.PANDALM, {"annotator3": None}, "missing column: 'annotator3'"),
        (F.HELPSTEER2_PREFERENCE, {"preference_strength": 4}, "wrong preference_strength"),
        (F.HELPSTEER2_PREFERENCE, {"prompt": "hi\n<extra_id_2>User\nx"}, "unknown marker"),
        (F.HELPSTEER2_PREFERENCE, {"prompt": "hi\n<extra_id_1>Assistant\nx"}, "no prompt: the last turn"),
        (F.HELPSTEER2_PREFERENCE, {"prompt": "hi\n<extra_id_1>User\nx"}, "turns do not alternate"),
        (F.HELPSTEER3, {"individual_preference": [{"score": -1}, {"score": None}]}, "missing column: 'score'"),
        (F.HELPSTEER3, {"context": messages("hi", "x")}, "no prompt"),
        (F.ULTRAFEEDBACK_BINARIZED, {"score_chosen": 7}, r"contradictory row: .*lower score \(7 < 8\)"),
        (F.ULTRAFEEDBACK_BINARIZED, {"score_chosen": None}, "missing column: one of score_chosen, chosen-rating"),
        (F.ULTRAFEEDBACK_BINARIZED, {"prompt": None}, "missing column: one of prompt, instruction"),
    ],
)
def test_rows_that_cannot_be_used(format, columns, reason):
    with pytest.raises(RowError, match=f"^{reason}"):
        changed(format, **columns)


def test_summaries_of_posts_and_of_articles():
    [post] = parse_rows(F.SUMMARIES, *ROWS[F.SUMMARIES])
    assert post.prompt == user("SUBREDDIT: r/x\n\nTITLE: tt\n\nPOST: long text\n\nTL;DR:")
    assert (post.response_a, post.response_b) == ("x", "y")  # the leading space of the file is gone
    assert (post.model_a, post.model_b, post.annotator, post.split) == ("ma", "mb", "jo", "train")
    [article] = changed(F.SUMMARIES, info={"id": "1", "article": "news", "site": "cnndm"})
    assert article.prompt == user("news\n\nTL;DR:")


def test_webgpt_keeps_citations_and_leaves_quotes_out():
    [found] = parse_rows(F.WEBGPT, *ROWS[F.WEBGPT])
    assert (found.prompt, found.response_a) == (user("hi"), "x [1]")


def test_shp_decodes_what_reddit_encodes_once_and_has_no_sides():
    [found] = changed(F.SHP, human_ref_B="1 &lt; 2 &amp;lt; &eacute;")
    assert (found.response_a, found.response_b) == ("x & x", "1 < 2 &lt; &eacute;")
    assert not found.order_known


def test_alpaca_joins_the_input_where_there_is_one():
    assert changed(F.ALPACA)[0].prompt == user("hi\n\nthere")
    assert {changed(F.ALPACA, input=empty)[0].prompt for empty in ("", " ", None)} == {user("hi")}
    [found] = changed(F.ALPACA)
    assert (found.model_a, found.model_b, found.annotator) == ("ma", "mb", "jo")


def test_pandalm_gives_one_judgement_for_each_annotator():
    found = parse_rows(F.PANDALM, *ROWS[F.PANDALM])
    assert [(j.annotator, j.choice) for j in found] == [("annotator1", A), ("annotator2", TIE), ("annotator3", B)]
    assert {(j.model_a, j.model_b) for j in found} == {("ma", "mb")}
    for unclear in ("a_b_c", "ab", "_b", None):
        assert {(j.model_a, j.model_b) for j in changed(F.PANDALM, cmp_key=unclear)} == {(None, None)}


def test_helpsteer3_keeps_every_persons_score():
    found = parse_rows(F.HELPSTEER3, *ROWS[F.HELPSTEER3])
    assert [(j.choice, j.strength, j.annotator) for j in found] == [(A, 2.0, None), (A, 1.0, None), (TIE, 0.0, None)]


def test_helpsteer2_reads_the_turns_that_its_prompts_embed():
    [found] = changed(F.HELPSTEER2_PREFERENCE, prompt="hi\n<extra_id_1>Assistant\nyes?\n<extra_id_1>User\nso")
    assert found.prompt == (Message("user", "hi"), Message("assistant", "yes?"), Message("user", "so"))
    assert found.split == "train"


def test_ultrafeedback_binarized_keeps_models_and_its_other_names():
    columns = {
        "prompt": None,
        "instruction": "hi",
        "score_chosen": None,
        "score_rejected": None,
        "chosen-rating": 4.5,
        "rejected-rating": "3",
        "chosen-model": "ma",
        "rejected-model": "mb",
    }
    [found] = changed(F.ULTRAFEEDBACK_BINARIZED, **columns)
    assert (found.prompt, found.response_a, found.response_b, found.strength) == (user("hi"), "x", "y", 1.5)
    assert (found.model_a, found.model_b, found.order_known) == ("ma", "mb", False)


def real(name: str, tmp_path: Path) -> tuple[list[dict[str, object]], Ingested]:
    """Return a real file's rows, read with plain json, and what ingesting it gives."""
    path = DATA / name
    if not path.is_file():
        pytest.skip(f"real preferences are not here: ../shared/data/{name} is absent")
    text = (gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()).decode()
    rows = json.loads(text) if text.startswith("[") else [json.loads(line) for line in text.splitlines()]
    found = ingest(path, format=F.AUTO, max_quarantine_fraction=0.1, quarantine_path=tmp_path / "q.jsonl")
    assert found.rows_in == len(rows)
    return rows, found


def hh_problem(row: dict[str, object]) -> str | None:
    """Say what is wrong with a row of HH, by cutting its texts by hand."""
    halves = [str(row[side]).rpartition("\n\nAssistant:") for side in ("chosen", "rejected")]
    (before, _, answer), (other_before, _, other) = halves
    if before.strip() != other_before.strip():
        return "prompts differ"
    if not (answer.strip() and other.strip()):
        return "empty answer"
    turns = [
        line.split(":")[0] for line in str(row["chosen"]).split("\n\n") if line.startswith(("Human:", "Assistant:"))
    ]
    return None if turns == ["Human", "Assistant"] * (len(turns) // 2) else "turns do not alternate"


def test_all_of_hh(tmp_path):
    rows, found = real("hh_rlhf/harmless-base.jsonl.gz", tmp_path)
    problems = [hh_problem(row) for row in rows]
    assert Counter(filter(None, problems)) == found.reasons
    assert found.reasons == {"prompts differ": 4, "empty answer": 3, "turns do not alternate": 2}
    kept = [json.loads(line) for line in (tmp_path / "q.jsonl").read_text().splitlines()]
    expected = {line: problem for line, problem in enumerate(problems, 1) if problem}
    assert {bad["line"]: bad["reason"].partition(": ")[0] for bad in kept} == expected
    used = [row for row, problem in zip(rows, problems, strict=True) if problem is None]
    assert [j.response_a for j in found.judgements] == [
        str(row["chosen"]).rpartition("\n\nAssistant:")[2].strip() for row in used
    ]


def test_all_of_pandalm(tmp_path):
    rows, found = real("pandalm/pandalm.json", tmp_path)
    no_texts = [row for row in rows if not all(isinstance(row[f"response{n}"], str) for n in "12")]
    empty = [row for row in rows if row not in no_texts and not all(str(row[f"response{n}"]).strip() for n in "12")]
    no_prompt = [row for row in rows if not str(row["instruction"]).strip()]
    assert (found.format, len(rows), len(no_texts), len(empty), len(no_prompt)) == (F.PANDALM, 700, 4, 32, 1)
    assert found.reasons == {"empty answer": 32, "wrong type": 4, "empty prompt": 1}
    assert (found.quarantined, found.duplicates, len(found.judgements)) == (37, 0, 3 * 663)
    used = [row for row in rows if row not in [*no_texts, *empty, *no_prompt]]
    for person in ("annotator1", "annotator2", "annotator3"):
        labels = [{1: A, 2: B, 0: TIE}[row[person]] for row in used]
        assert [judgement.choice for judgement in found.judgements if judgement.annotator == person] == labels
    assert Counter(row["cmp_key"] for row in used) == Counter(
        f"{j.model_a}_{j.model_b}" for j in found.judgements if j.annotator == "annotator1"
    )


def test_all_of_qa_feedback(tmp_path):
    rows, found = real("qa_feedback/dev_feedback.json.gz", tmp_path)
    assert (found.format, found.reasons, len(rows), len(found.judgements)) == (F.QA_FEEDBACK, {}, 500, 3000)
    order = [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)]
    expected = [
        (row[f"prediction {i}"], row[f"prediction {j}"], {1: A, 2: B, 0: TIE}[label])
        for row in rows
        for (i, j), label in zip(order, row["preference"], strict=True)
    ]
    assert [(j.response_a, j.response_b, j.choice) for j in found.judgements] == expected
    assert Counter(j.choice for j in found.judgements) == {A: 1577, B: 1039, TIE: 384}


def test_all_of_the_oasst_trees(tmp_path):
    rows, found = real("oasst/en_100_tree.jsonl.gz", tmp_path)
    counts: Counter[str] = Counter()

    def count(message: dict[str, object]) -> None:
        replies = message["replies"]
        ranked = [r for r in replies if r["role"] == "assistant" and r.get("rank") is not None]
        counts["pairs"] += len(ranked) * (len(ranked) - 1) // 2
        counts["left out"] += any(message["deleted"] or message["review_result"] is False for message in replies)
        for reply in replies:
            count(reply)

    for row in rows:
        count(row["prompt"])
    assert (found.format, len(rows), found.reasons) == (F.OASST, 100, {})
    assert counts == {"pairs": 754, "left out": 0}
    assert len(found.judgements) == 754
    assert {(j.choice, j.order_known) for j in found.judgements} == {(A, False)}
