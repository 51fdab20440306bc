import re
from dataclasses import replace

import pytest
from voters import judge, needs_pandalm, pandalm, rows, simulate

from rlhf.labels.records import Choice, Judgement
from rlhf.labels.trust import aggregation
from rlhf.labels.trust.render import Section
from rlhf.labels.trust.report import trust_report
from rlhf.labels.trust.report_text import DOUBTS_SHOWN, report_sections
from sft.core.durable import text_digest


def sections(judgements: list[Judgement]) -> dict[str, Section]:
    """Return the sections by the first words of their titles."""
    found = report_sections(trust_report(judgements, seed=0, resamples=100))
    return {re.split(r" \(", section.title)[0]: section for section in found}


def words(section: Section) -> str:
    rows = [f"{name} {cell}" for row in section.rows for name, cell in row.items()]
    lines = [f"{name} {value}" for name, value in section.lines]
    return "\n".join([*section.sentences, *lines, *rows, *section.after])


def test_counts_of_nothing_are_one_sentence():
    plain = sections(rows({"ann": "ab", "bob": "ab"}))["Labels"]
    assert plain.sentences == ["4 judgements, of which 4 votes on 2 pairs by 2 named people"]
    assert plain.lines == []
    assert plain.after == [
        "none: said again later by the same person, of two answers with the same text, without a name"
    ]
    given = [*rows({"ann": "ab"}), judge("0", Choice.B, "ann"), judge("7", Choice.A)]
    counted = sections(given)["Labels"]
    assert counted.lines == [("said again later by the same person", "1"), ("without a name", "1")]
    assert counted.after == ["none: of two answers with the same text"]


def test_numbers_have_interval_and_n():
    """ann: 2 of 4 left, so [0.15, 0.85] by Wilson."""
    found = sections([j if n % 2 else j.swapped() for n, j in enumerate(rows({"ann": "aaaa", "bob": "aaab"}))])
    assert found["People: habits"].rows[0]["left answer"] == "50 % [15, 85] n=4"
    assert dict(found["Agreement"].lines)["two labels of a pair are the same"].startswith("75 % [")
    assert dict(found["Agreement"].lines)["two labels of a pair are the same"].endswith("n=4")


def test_digests_are_short_and_lists_too():
    given = [replace(j, digest=text_digest(str(n))) for n, j in enumerate(simulate([0.6, 0.7, 0.8], seed=0, pairs=200))]
    report = trust_report(given, seed=0, resamples=100)
    doubts = sections(given)["Doubtful judgements"]
    assert len(report.noise) > DOUBTS_SHOWN == len(doubts.rows)
    assert doubts.after == [f"{len(report.noise) - 10} more, and whole digests: the same command with --json"]
    assert not re.search(r"[0-9a-f]{13}", words(doubts))
    assert [row["row"] for row in doubts.rows] == [doubt.digest[:12] for doubt in report.noise[:10]]
    assert f"about {report.wrong_expected:.0f} of 600 compared votes are wrong" in doubts.sentences[0]


def test_who_stands_out_is_named_first():
    found = sections(simulate([0.1, 0.9, 0.85, 0.8, 0.85], seed=1, pairs=400))["Look at"]
    [(name, why)] = found.lines
    assert (name, why.partition(" more")[0]) == ("ann00", "votes against the others")
    assert sections(rows({"ann": "ab", "bob": "ab"}))["Look at"].sentences == ["nobody: no annotator stands out"]


def test_what_is_not_known_says_so_and_what_would_tell():
    alone = sections([judge(str(n), Choice.A, "ann") for n in range(3)])
    assert "let several people judge the same pairs (--overlap)" in words(alone["Agreement"])
    assert "right" not in alone["People: how far to believe them"].rows[0]
    assert "nobody else judged the same pairs" in words(alone["People: how far to believe them"])
    assert "compares two different models" in words(alone["Ranking of models"])
    assert "none yet: import some" in words(sections([])["Labels"])
    assert "unknown: no judgement names who gave it" in words(sections([judge("p", Choice.A)])["People"])


def test_weighted_kappas_stand_only_where_strengths_are_known():
    given = rows({"ann": "aabb", "bob": "abbb"})
    assert "no weighted kappa" in words(sections(given)["Agreement"])
    graded = [replace(j, strength=1.0 + n % 2) for n, j in enumerate(given)]
    assert "Cohen's kappa, quadratic weights" in dict(sections(graded)["Agreement"].lines)


def test_a_fit_that_did_not_settle_says_what_to_do(monkeypatch: pytest.MonkeyPatch):
    given = simulate([0.6, 0.7, 0.8], seed=0, pairs=50)
    assert "not settled" not in words(sections(given)["Labels"])
    monkeypatch.setattr(aggregation, "MAX_ITERATIONS", 2)
    said = words(sections(given)["Labels"])
    assert "not settled: the fit behind skills, leans and doubts still moved" in said
    assert "more votes per pair settle it (a higher --overlap" in said


@needs_pandalm
def test_ranking_of_pandalm():
    found = sections(pandalm())["Ranking of models"]
    assert found.rows[0]["model"] == "llama-7b"
    assert all(row.keys() == {"model", "score", "wins", "ties", "losses"} for row in found.rows)
    assert "intervals clustered by" in found.after[0]
