import gc
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from label_removal import erase
from sqlalchemy import func, select

from rlhf.labels.importing.imports import ImportReport, import_file
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import EVENT, IMPORT, QUARANTINE, TASK
from sft.config import LabelFormat
from sft.core.errors import DataError, UsageError

DATA = Path(__file__).parents[3] / "../shared/data"


def store_in(folder: Path) -> LabelStore:
    return LabelStore(f"sqlite:///{folder / 'labels.sqlite'}", create=True)


def row(number: int, **columns: object) -> str:
    return json.dumps({"prompt": f"p{number}", "response_a": "xx", "response_b": "y", "label": "a", **columns}) + "\n"


def read(folder: Path, *lines: str, name: str = "labels.jsonl", **given: object) -> ImportReport:
    path = folder / name
    path.write_text("".join(lines))
    return import_file(store_in(folder), "p", path, **given)


def counts(folder: Path) -> tuple[int, ...]:
    with store_in(folder).reading("p") as labels:
        tables = (TASK, EVENT, QUARANTINE, IMPORT)
        return tuple(labels.connection.scalar(select(func.count()).select_from(table)) or 0 for table in tables)


def test_good_bad_and_repeated_rows_add_up(tmp_path):
    bad = row(3, label="?")
    report = read(tmp_path, row(1), row(2, label="tie"), row(1), bad, '{"prompt": "z\n', bad, row(4))
    assert (report.format, report.rows_in) == (LabelFormat.PAIRWISE, 7)
    assert (report.rows_used, report.comparisons, report.ties) == (3, 3, 1)
    assert (report.quarantined, report.duplicates) == (2, 2)
    assert report.reasons == {"unknown label": 1, "half-written or not JSON": 1}
    assert report.lines == {"unknown label": [4], "half-written or not JSON": [5]}
    assert report.examples[0].startswith("line 4: unknown label: '?'")
    assert counts(tmp_path) == (3, 3, 2, 1)


def test_the_same_file_twice_adds_nothing(tmp_path):
    lines = [row(1), row(2), row(3, label="?")]
    read(tmp_path, *lines)
    again = read(tmp_path, *lines)
    assert (again.rows_in, again.comparisons, again.duplicates, again.quarantined) == (3, 0, 2, 1)
    assert counts(tmp_path) == (2, 2, 2, 2)


def test_duplicates_far_apart_are_found(tmp_path):
    """More rows than a batch between the two."""
    lines = [row(n) for n in range(2500)]
    bad = row(9999, label="?")
    report = read(tmp_path, bad, *lines, lines[0], lines[2000], *lines[:3], bad)
    assert (report.comparisons, report.duplicates, report.quarantined) == (2500, 6, 1)


def test_rows_of_an_earlier_file_are_found_among_new_ones(tmp_path):
    lines = [row(n) for n in range(1200)]
    read(tmp_path, *lines[:600])
    report = read(tmp_path, *lines, name="longer.jsonl")
    assert (report.comparisons, report.duplicates) == (600, 600)
    assert counts(tmp_path) == (1200, 1200, 0, 2)


def test_columns_that_only_some_rows_have(tmp_path):
    """One row in a later batch has what no row before it had."""
    lines = [row(n) for n in range(1500)]
    read(tmp_path, *lines, row(1500, strength=2, model_a="m", annotator="ann", attribute="kind", time=5, split="test"))
    with store_in(tmp_path).reading("p") as labels:
        (found,) = labels.judgements("kind")
        assert (found.strength, found.model_a, found.annotator) == (2, "m", "ann")
        assert (found.time, found.split, found.line) == (5, "test", 1501)
        others = labels.judgements()
    assert {(j.strength, j.model_a, j.annotator, j.time, j.split) for j in others} == {(None,) * 5}
    assert len(others) == 1500


def test_the_search_for_garbage_is_as_before_also_after_an_error(tmp_path):
    found = gc.get_threshold()
    broken = tmp_path / "broken.jsonl.gz"
    broken.write_bytes(gzip.compress("".join(row(n) for n in range(2, 2000)).encode())[:-8] + b"wrongsum")
    gc.set_threshold(600, 11, 12)
    try:
        read(tmp_path, row(1))
        assert gc.get_threshold() == (600, 11, 12)
        with pytest.raises(DataError, match="is damaged after line"):
            import_file(store_in(tmp_path), "p", broken)
        assert gc.get_threshold() == (600, 11, 12)
    finally:
        gc.set_threshold(*found)


def test_a_row_put_aside_can_come_back_after_a_repair_of_the_mapping(tmp_path):
    line = json.dumps({"prompt": "p", "response_a": "x", "response_b": "y", "vote": "b"}) + "\n"
    read(tmp_path, row(1), line)
    report = read(tmp_path, line, mapping={"label": "vote"})
    assert (report.comparisons, report.duplicates) == (1, 0)


def test_rates_and_lengths(tmp_path):
    """Left: a, a, b of sides that are known; longer: xx (a), xx (a), y loses to xx (b); one tie of four."""
    report = read(tmp_path, row(1), row(2), row(3, response_a="y", response_b="xxx", label="b"), row(4, label="tie"))
    assert (report.tie_rate.value, report.tie_rate.n) == (0.25, 4)
    assert (report.left_rate.value, report.left_rate.n) == (2 / 3, 3)
    assert (report.longer_rate.value, report.longer_rate.n) == (1.0, 3)
    assert report.left_rate.ci == pytest.approx((0.2077, 0.9385), abs=1e-4)
    assert report.prompt_lengths == (4, 2.0, 2, 2, 2)
    assert report.answer_lengths == (8, 13 / 8, 1, 3, 3)


def test_rates_leave_out_equal_lengths_and_unknown_sides(tmp_path):
    equal, unequal = row(1, response_a="x", label="b"), row(2, label="b")
    report = read(tmp_path, equal, unequal, row(3, label="tie"))
    assert report.left_rate is not None
    assert report.longer_rate is not None
    assert (report.left_rate.value, report.left_rate.n) == (0, 2)
    assert (report.longer_rate.value, report.longer_rate.n) == (0, 1)
    winners = read(tmp_path, json.dumps({"prompt": "p", "chosen": "xx", "rejected": "y"}) + "\n", name="trl.jsonl")
    assert winners.left_rate is None
    assert winners.longer_rate is not None
    assert (winners.longer_rate.value, winners.longer_rate.n) == (1, 1)


def test_contradictions_of_one_annotator_also_across_files_and_sides(tmp_path):
    same = {"annotator": "ann"}
    first = read(tmp_path, row(1, **same), row(2, **same), row(3, **same), row(3, **same, strength=2), row(4))
    assert first.contradictions == 0
    turned = row(1, response_a="y", response_b="xx", label="a", **same)
    report = read(
        tmp_path, turned, row(2, label="b", annotator="other"), row(3, label="tie", **same), row(4, label="b")
    )
    assert report.contradictions == 1
    assert report.annotators == 2


@pytest.mark.parametrize("between", [0, 2500])
def test_a_contradiction_within_one_file(tmp_path, between):
    """The two rows stand in one batch, or in batches of their own."""
    others = [row(n, annotator="ann") for n in range(1, between + 1)]
    report = read(tmp_path, row(0, annotator="ann"), *others, row(0, annotator="ann", label="b"))
    assert report.contradictions == 1


def test_prompts_in_two_splits(tmp_path):
    lines = [row(1, split="train"), row(1, split="test", response_a="z"), row(2, split="train"), row(3, split="test")]
    report = read(tmp_path, *lines, row(3, split="train", prompt=" P3  "), row(4))
    assert report.leaked_prompts == 2
    assert report.splits == {"train": 3, "test": 2}


def test_identical_answers_are_counted(tmp_path):
    report = read(tmp_path, row(1), row(2, response_b="xx"), row(3, response_b="xx"))
    assert (report.identical_answers, report.quarantined) == (2, 2)


def test_several_comparisons_of_one_row(tmp_path):
    panda = {"instruction": "i", "input": "", "response1": "a", "response2": "b", "idx": 0, "motivation_app": "m"}
    votes = {"annotator1": 1, "annotator2": 2, "annotator3": 0, "cmp_key": "m_n"}
    report = read(tmp_path, json.dumps({**panda, **votes}), name="panda.jsonl", format=LabelFormat.PANDALM)
    assert (report.rows_in, report.rows_used, report.comparisons, report.ties) == (1, 1, 3, 1)
    again = read(tmp_path, json.dumps({**panda, **votes}), name="panda.jsonl", format=LabelFormat.PANDALM)
    assert (again.rows_in, again.comparisons, again.duplicates) == (1, 0, 1)
    store = store_in(tmp_path)
    with store.reading("p") as labels:
        name = labels.judgements()[0].annotator
    erase(store, "p", name)
    third = read(tmp_path, json.dumps({**panda, **votes}) + " ", name="panda.jsonl", format=LabelFormat.PANDALM)
    assert (third.comparisons, third.erased) == (2, 1)


def test_joined_rows_count_as_rows_of_the_file(tmp_path):
    pair = [
        json.dumps({"prompt": "p", "completion": c, "label": good}) + "\n" for c, good in (("x", True), ("y", False))
    ]
    lines = [*pair, json.dumps({"prompt": "alone", "completion": "x", "label": True}) + "\n"]
    report = read(tmp_path, *lines)
    assert report.format is LabelFormat.KTO
    assert (report.rows_in, report.rows_used, report.comparisons, report.quarantined) == (3, 2, 1, 1)
    assert read(tmp_path, *lines).duplicates == 2


def test_the_erased_do_not_come_back(tmp_path):
    lines = [row(1, annotator="Bo"), row(2)]
    read(tmp_path, *lines)
    erase(store_in(tmp_path), "p", "Bo")
    report = read(tmp_path, *lines, row(3, annotator="Bo"))
    assert (report.duplicates, report.comparisons) == (1, 0)
    assert report.reasons == {"erased annotator": 2}


def test_mapping_of_columns(tmp_path):
    text = "question,label,left,right,vote\np1,unused,x,y,b\n"
    mapping = {"prompt": "question", "response_a": "left", "response_b": "right", "label": "vote"}
    report = read(tmp_path, text, name="t.csv", mapping=mapping)
    assert (report.comparisons, report.reasons) == (1, {})
    with pytest.raises(UsageError, match=r"has no column 'votes' to map; it has question, label, left, right, vote"):
        read(tmp_path, text, name="t.csv", mapping={**mapping, "label": "votes"})


def test_nothing_is_kept_of_a_file_that_fails(tmp_path):
    read(tmp_path, row(0))
    path = tmp_path / "broken.jsonl.gz"
    packed = bytearray(gzip.compress("".join(row(n, response_b=os.urandom(20).hex()) for n in range(9000)).encode()))
    packed[len(packed) // 2 : len(packed) // 2 + 50] = bytes(50)
    path.write_bytes(packed)
    with pytest.raises(DataError, match="is damaged after line"):
        import_file(store_in(tmp_path), "p", path)
    assert counts(tmp_path) == (1, 1, 0, 1)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([row(1, label="?")], "none of its 1 rows can be used as pairwise; the first: line 1: unknown label"),
        (["{}\n"], "the format of the preferences is not clear"),
        (["{\n", "[\n"], "none of its 2 rows can be read; the first: line 1: half-written"),
        ([row(n, label=n % 2) for n in range(20)], "count the answers from 0"),
        ([], "is empty"),
    ],
)
def test_files_that_give_nothing_are_errors(tmp_path, lines, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path, *lines)


def test_the_stored_report_quotes_nobody(tmp_path):
    report = read(tmp_path, row(1), row(2, label="my secret"), source="a colleague", licence="MIT")
    assert "my secret" in report.examples[0]
    with store_in(tmp_path).reading("p") as labels:
        (stored,) = labels.reports()
        event = next(labels.labels())
    assert stored == json.loads(json.dumps(report.stored()))
    assert "examples" not in stored
    assert b"my secret" not in (tmp_path / "labels.sqlite").read_bytes()
    assert (event.source, event.licence) == ("a colleague", "MIT")


@settings(max_examples=25, deadline=None)
@given(cut=st.integers(0, 400))
def test_a_file_cut_at_any_byte_gives_whole_rows_or_an_error(tmp_path_factory, cut):
    folder = tmp_path_factory.mktemp("cut")
    content = (row(1) + row(2, label="b") + row(3, label="tie")).encode()
    (folder / "f.jsonl").write_bytes(content[:cut])
    try:
        report = import_file(store_in(folder), "p", folder / "f.jsonl")
    except DataError:
        assert b"}" not in content[:cut]
        return
    assert report.comparisons == content[:cut].count(b"}")
    assert report.rows_in == report.rows_used + report.quarantined + report.duplicates


def test_a_kill_leaves_nothing_and_the_same_command_carries_on(tmp_path):
    path = tmp_path / "f.jsonl"
    path.write_text("".join(row(n, annotator=f"a{n % 7}") for n in range(60_000)))
    read(tmp_path, row(1, response_b="before"), name="before.jsonl")
    code = (
        "import sys; from pathlib import Path; from rlhf.labels.importing.imports import import_file; "
        "from rlhf.labels.store import LabelStore; "
        "import_file(LabelStore(sys.argv[1]), 'p', Path(sys.argv[2]))"
    )
    size = (tmp_path / "labels.sqlite").stat().st_size
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path / 'labels.sqlite'}", str(path)]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[3])
    journal = tmp_path / "labels.sqlite-journal"
    while process.poll() is None and not journal.exists():
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert counts(tmp_path) == (1, 1, 0, 1)
    assert size > 0
    report = import_file(store_in(tmp_path), "p", path)
    assert (report.comparisons, report.duplicates) == (60_000, 0)


# Real files


def real(name: str) -> Path:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"the real data is not here: {name}")
    return path


def test_hh(tmp_path):
    path = real("hh_rlhf/harmless-base.jsonl.gz")
    report = import_file(store_in(tmp_path), "p", path)
    assert report.format is LabelFormat.HH
    assert report.rows_in == report.rows_used + report.quarantined + report.duplicates
    assert report.comparisons + report.quarantined + report.duplicates == 1791
    again = import_file(store_in(tmp_path), "p", path)
    assert (again.comparisons, again.duplicates) == (0, report.comparisons + report.duplicates)
    assert again.quarantined == report.quarantined
