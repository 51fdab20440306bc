import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.labels.events import Event, EventKind
from rlhf.labels.exporting.csv_file import plain_cell, read_csv, safe_cell, write_csv
from rlhf.labels.records import Choice, Judgement, TieKind
from sft.core.errors import DataError
from sft.core.text import Message, user


def event(number: int, judgement: Judgement) -> Event:
    return Event(number, 7, EventKind.LABEL, judgement, judgement.annotator, 1.5, "=why", None, None, None)


texts = st.text(st.sampled_from("ab=+-@'\",;[{\n\t ü\uff1d"), min_size=1, max_size=6).map(str.strip).filter(bool)
prompts = st.one_of(
    texts.map(user),
    st.just((Message("system", "be =kind"), Message("user", "hi"))),
    st.just(user('[{"role": "user", "content": "not what it looks like"}]')),
)
ties = st.tuples(st.just(Choice.TIE), st.sampled_from([*TieKind, None]))
verdicts = st.one_of(ties, st.tuples(st.sampled_from([Choice.A, Choice.B]), st.none()))
maybe = st.one_of(st.none(), texts)
numbers = st.one_of(st.none(), st.floats(0, 1e12))


@st.composite
def judged(draw: st.DrawFn) -> Judgement:
    choice, kind = draw(verdicts)
    return Judgement(
        prompt=draw(prompts),
        response_a=draw(texts),
        response_b=draw(texts),
        choice=choice,
        annotator=draw(maybe),
        line=0,
        digest="",
        model_a=draw(maybe),
        model_b=draw(maybe),
        strength=draw(numbers),
        order_known=draw(st.booleans()),
        tie_kind=kind,
        time=draw(numbers),
        attribute=draw(maybe),
        split=draw(maybe),
    )


@settings(max_examples=150, deadline=None)
@given(st.lists(judged(), min_size=1, max_size=4))
def test_every_label_is_read_back_as_it_was(judgements: list[Judgement]):
    with TemporaryDirectory() as folder:
        path = Path(folder) / "labels.csv"
        assert write_csv(path, [event(n, judgement) for n, judgement in enumerate(judgements)]) == len(judgements)
        found = read_csv(path)
        with path.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
    assert [replace(judgement, line=0, digest="") for judgement in found] == judgements
    assert not any(cell.strip().startswith(("=", "+", "-", "@", "\uff1d")) for cell in cells)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\n=", " =", "＝", "'=", "''@"])
def test_no_cell_begins_as_a_formula(start):
    assert safe_cell(f"{start}HYPERLINK(1)") == f"'{start}HYPERLINK(1)"
    assert plain_cell(f"'{start}HYPERLINK(1)") == f"{start}HYPERLINK(1)"


@pytest.mark.parametrize(
    ("value", "cell"), [(None, ""), ("a=b", "a=b"), (-1.5, "-1.5"), ("", ""), (3, "3"), ("'t", "'t")]
)
def test_other_cells_stay(value, cell):
    assert safe_cell(value) == plain_cell(safe_cell(value)) == cell


def test_a_cut_row_is_refused(tmp_path):
    path = tmp_path / "labels.csv"
    write_csv(path, [event(1, Judgement(user("p"), "x", "y", Choice.A, "ann", 1, "d"))])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match=r"labels\.csv, line 2: wrong number of cells: .*; restore the file, or give"):
        read_csv(path)
