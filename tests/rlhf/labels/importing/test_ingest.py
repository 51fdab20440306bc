import json
from pathlib import Path

import pytest

from rlhf.labels.importing.ingest import Ingested, ingest
from rlhf.labels.records import Choice
from sft.config import LabelFormat
from sft.core.errors import DataError

HH_FILE = Path(__file__).parents[3] / "../shared/data/hh_rlhf/harmless-base.jsonl.gz"


def read(path: Path, format: LabelFormat = LabelFormat.AUTO, limit: float = 0.05) -> Ingested:
    return ingest(path, format=format, max_quarantine_fraction=limit, quarantine_path=path.parent / "out/q.jsonl")


def quarantine(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (path.parent / "out/q.jsonl").read_text().splitlines()]


def judgement_row(number: int, **columns: object) -> str:
    return json.dumps({"prompt": f"p{number}", "response_a": "x", "response_b": "y", "label": "a", **columns}) + "\n"


def test_good_bad_and_repeated_rows_add_up(tmp_path):
    path = tmp_path / "labels.jsonl"
    good = [judgement_row(1), judgement_row(2, label="tie"), judgement_row(1), judgement_row(3, label="?")]
    path.write_text("".join([*good, '{"prompt": "' + "z" * 5000 + "\n", judgement_row(3, label="?"), judgement_row(4)]))
    found = read(path, limit=0.3)
    assert found.format is LabelFormat.PAIRWISE
    assert [(j.line, j.choice) for j in found.judgements] == [(1, Choice.A), (2, Choice.TIE), (7, Choice.A)]
    assert (found.rows_in, found.quarantined, found.duplicates) == (7, 2, 2)
    assert found.reasons == {"unknown label": 1, "half-written or not JSON": 1}
    kept = quarantine(path)
    assert [row["line"] for row in kept] == [4, 5]
    assert kept[0]["reason"] == "unknown label: '?', known are a, 1, left, b, 2, right, tie, 0, both_good, both_bad"
    assert json.loads(str(kept[0]["text"]))["prompt"] == "p3"
    assert len(str(kept[1]["text"])) == 2000


def test_without_bad_rows_no_quarantine_file_is_written(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(judgement_row(1))
    assert read(path).reasons == {}
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("bad", "stops"), [(5, False), (6, True)])
def test_the_threshold_is_the_largest_share_that_passes(tmp_path, bad, stops):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(judgement_row(n, label="?" if n < bad else "b") for n in range(100)))
    if not stops:
        assert read(path).quarantined == bad
        return
    with pytest.raises(DataError) as caught:
        read(path)
    message = str(caught.value)
    assert "6 of 100 rows (6.0%) cannot be used as pairwise" in message
    assert "labels.max_quarantine_fraction=0.05" in message
    assert "line 1: unknown label: '?'" in message
    assert "line 3: " in message
    assert "line 4: " not in message
    assert str(tmp_path / "out/q.jsonl") in message
    assert caught.value.exit_code == 1
    assert len(quarantine(path)) == 6


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("prompt,response_a,response_b\nhi,x,y\n", r"missing column: 'label' \(found prompt, response_a, response_b\)"),
        ("{broken\n{broken\n", "line 1: half-written"),
        (judgement_row(1, label="?"), "unknown label"),
    ],
)
def test_a_file_without_any_good_row_stops_at_every_threshold(tmp_path, content, reason):
    path = tmp_path / "labels"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"no good row is left.*{reason}"):
        read(path, limit=1.0)
    assert quarantine(path)


def test_a_wrong_format_is_named(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text(judgement_row(1))
    with pytest.raises(DataError, match=r"1 of 1 rows .* cannot be used as hh.*missing column: 'chosen'"):
        read(path, LabelFormat.HH)
    path.write_text('{"question": 1}\n')
    with pytest.raises(DataError, match=r"labels\.jsonl: the format of the preferences is not clear: .* question;"):
        read(path)


def test_bad_rows_before_the_first_good_one_do_not_hide_the_format(tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_text("\0\n" * 150 + "".join(judgement_row(n) for n in range(150)))
    assert len(read(path, limit=0.5).judgements) == 150


@pytest.mark.parametrize("labels", [[0, 1], ["0", "1"], [0.0, 1]])
def test_answers_counted_from_zero_are_refused(tmp_path, labels):
    path = tmp_path / "labels.jsonl"
    path.write_text("".join(judgement_row(n, label=labels[n % 2]) for n in range(10)))
    with pytest.raises(DataError, match=r"labels\.jsonl: the column label holds 0 \(5 times\) and 1 \(5 times\)"):
        read(path)
    path.write_text("".join(judgement_row(n, label=n % 3) for n in range(10)))
    assert len(read(path).judgements) == 10


def test_a_table_of_judgements(tmp_path):
    path = tmp_path / "labels.csv"
    path.write_text(
        "prompt,response_a,response_b,label,annotator,strength\n"
        '"[{""role"": ""user"", ""content"": ""hi""}]","x\nx",y,left,ann,3\n'
        "ho,x,y,TIE,,\n"
    )
    first, second = read(path).judgements
    assert (first.prompt[0].content, first.response_a, first.choice) == ("hi", "x\nx", Choice.A)
    assert (first.annotator, first.strength, first.line) == ("ann", 3.0, 2)
    assert (second.annotator, second.strength, second.line, second.choice) == (None, None, 4, Choice.TIE)


@pytest.mark.skipif(not HH_FILE.is_file(), reason="real preferences are not here: ../shared/data/hh_rlhf is absent")
def test_real_human_preferences(tmp_path):
    quarantine_path = tmp_path / "q.jsonl"
    found = ingest(HH_FILE, format=LabelFormat.AUTO, max_quarantine_fraction=0.05, quarantine_path=quarantine_path)
    assert found.format is LabelFormat.HH
    assert (found.rows_in, len(found.judgements), found.quarantined, found.duplicates) == (1791, 1782, 9, 0)
    assert found.reasons == {"prompts differ": 4, "empty answer": 3, "turns do not alternate": 2}
    kept = [json.loads(line) for line in quarantine_path.read_text().splitlines()]
    assert {row["line"]: row["reason"].partition(":")[0] for row in kept} == {
        66: "empty answer",
        714: "empty answer",
        855: "empty answer",
        964: "prompts differ",
        1017: "turns do not alternate",
        1431: "turns do not alternate",
        1511: "prompts differ",
        1513: "prompts differ",
        1581: "prompts differ",
    }
    first = found.judgements[0]
    assert [message.role for message in first.prompt] == ["user", "assistant"] * 2 + ["user"]
    assert first.prompt[0].content == "what are some pranks with a pen i can do?"
    assert first.response_a.startswith("No, sorry!  All of these involve a pen")
