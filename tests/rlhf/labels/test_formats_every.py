"""What holds for every format: it is detected, keeps its sides, and refuses a row only with a reason."""

import copy
import gzip
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from label_rows import EXCHANGED, ROWS, exchanged, parse_rows

from rlhf.labels.formats import JOINERS, PARSERS, detect
from rlhf.labels.importing.ingest import ingest
from rlhf.labels.records import Choice, Judgement
from sft.config import LabelFormat
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, RowError, read_rows

FORMATS = list(ROWS)
IN_TWO_SHAPES = [
    (format, rows)
    for format, rows in (
        (LabelFormat.ARENA, [{name: value for name, value in ROWS[LabelFormat.ARENA][0].items() if name != "turn"}]),
        (LabelFormat.ARGILLA, [{"prompt": "hi", "x": "x", "y": "y", "better.responses": []}]),
    )
]


def test_every_format_but_auto_has_a_parser_and_an_example():
    assert PARSERS.keys() == ROWS.keys() == set(LabelFormat) - {LabelFormat.AUTO}
    assert JOINERS.keys() == {format for format, rows in ROWS.items() if len(rows) > 1}


@pytest.mark.parametrize(("format", "rows"), [*ROWS.items(), *IN_TWO_SHAPES])
def test_every_format_is_detected_by_its_columns(format, rows):
    assert detect([Row(1, row, "d") for row in rows]) is format


@pytest.mark.parametrize("format", FORMATS)
def test_every_example_prefers_x_to_y_and_says_where_it_stood(format):
    first = parse_rows(format, *ROWS[format])[0]
    texts = (first.response_a[0], first.response_b[0])
    assert (texts, first.choice) in [(("x", "y"), Choice.A), (("y", "x"), Choice.B)]
    assert first.line == 7
    assert first.prompt[-1].role == "user"


@pytest.mark.parametrize("format", EXCHANGED)
def test_exchanging_the_sides_in_the_file_exchanges_them_in_the_judgement(format):
    given_, turned = parse_rows(format, *ROWS[format]), parse_rows(format, *exchanged(format))
    if format is LabelFormat.HELPSTEER2:
        assert len(given_) == len(turned) == 1
    assert turned == [judgement.swapped() for judgement in given_]


scalars = st.none() | st.booleans() | st.integers(-9, 9) | st.floats() | st.sampled_from([10**400, -1])
scalars = scalars | st.sampled_from(
    ["", " ", "x", "a", "0", "nan", "[", '["x"]', '[{"role": 1}]', "submitted", "é" * 9]
)
junk = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["role", "content", "text", "value", "rank", "id", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


def places(value: object, path: tuple[object, ...] = ()) -> Iterator[tuple[object, ...]]:
    """Yield the path of everything inside a JSON value."""
    if path:
        yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in inner:
        yield from places(item, (*path, key))


def put(rows: list[dict[str, object]], path: tuple[object, ...], value: object) -> None:
    holder: object = rows
    for key in path[:-1]:
        holder = holder[key]  # type: ignore[index]
    holder[path[-1]] = value  # type: ignore[index]


def attempt(format: LabelFormat, rows: list[dict[str, object]]) -> tuple[list[Judgement], str]:
    """Return the judgements of rows, or why there are none."""
    try:
        return parse_rows(format, *rows), ""
    except RowError as error:
        return [], str(error)


def check(judgement: Judgement) -> None:
    assert judgement.prompt[-1].role == "user"
    assert judgement.response_a.strip()
    assert judgement.response_b.strip()
    assert judgement.response_a != judgement.response_b
    assert judgement.strength is None or 0 <= judgement.strength < float("inf")
    assert judgement.time is None or 0 <= judgement.time < 2**33


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_a_row_with_anything_in_any_place_gives_judgements_or_a_reason(format, data):
    rows = copy.deepcopy(ROWS[format])
    wanted = [path for path in places(rows) if len(path) > 1]
    for path in data.draw(st.lists(st.sampled_from(wanted), min_size=1, max_size=2)):
        value = data.draw(junk)
        try:
            put(rows, path, value)
        except (TypeError, KeyError, IndexError):
            continue  # the first change removed this place
    found, reason = attempt(format, rows)
    assert found or ": " in reason
    for judgement in found:
        check(judgement)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_a_row_without_some_columns_and_any_row_at_all_give_judgements_or_a_reason(format, data):
    names = sorted({name for row in ROWS[format] for name in row})
    known = st.fixed_dictionaries({}, optional={name: junk | st.just(ROWS[format][0].get(name)) for name in names})
    row = data.draw(known | st.dictionaries(st.text(max_size=3), junk, max_size=4))
    try:
        found = PARSERS[format](Row(7, row, "d"))
        assert found
    except RowError:
        found = []
    for judgement in found:
        check(judgement)


def opinion(judgement: Judgement) -> tuple[object, ...]:
    return (judgement.prompt, judgement.response_a, judgement.response_b, judgement.choice, judgement.strength)


def read(path: Path, format: LabelFormat) -> tuple[list[Judgement], int]:
    """Return the judgements of a file and how many rows could not be used, each of them with a line."""
    items: Iterator[Row | BadRow] = read_rows(path)
    found: list[Judgement] = []
    bad = 0
    for item in JOINERS[format](items) if format in JOINERS else items:
        try:
            found += [] if isinstance(item, BadRow) else PARSERS[format](item)
        except RowError:
            bad += 1
        if isinstance(item, BadRow):
            assert item.line > 0
            bad += 1
    return found, bad


def file_of(format: LabelFormat) -> bytes:
    """Return a file of three examples of a format with prompts or answers that differ."""
    texts = [json.dumps(row) for row in ROWS[format]]
    return "".join(text.replace('"y', f'"y{n}') + "\n" for n in range(3) for text in texts).encode()


@pytest.mark.parametrize("format", FORMATS)
def test_a_file_cut_at_any_byte_loses_rows_but_changes_none(format, tmp_path):
    content, path = file_of(format), tmp_path / "labels.jsonl"
    path.write_bytes(content)
    whole, bad = read(path, format)
    assert bad == 0
    known = {opinion(judgement) for judgement in whole}
    for length in range(1, len(content), 7):
        path.write_bytes(content[:length])
        found, bad = read(path, format)
        assert {opinion(judgement) for judgement in found} <= known
        assert bad or len(found) <= len(whole)


@pytest.mark.parametrize("format", FORMATS)
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_an_error_or_has_a_quarantine(format, data, tmp_path):
    content = file_of(format)
    position = data.draw(st.integers(0, len(content)))
    damage = data.draw(st.sampled_from([b"\0", b"\xef\xbb\xbf", b"\xff", b"\n", b'"', b"{", b"[", b"9" * 5000, b"]}"]))
    content = content[:position] + damage + content[position + data.draw(st.integers(0, 9)) :]
    if data.draw(st.booleans()):
        packed = gzip.compress(content)
        content = packed[: data.draw(st.integers(1, len(packed)))]
    path = tmp_path / "labels"
    path.write_bytes(content)
    message = ""
    try:
        found = ingest(path, format=format, max_quarantine_fraction=1.0, quarantine_path=tmp_path / "q.jsonl")
    except DataError as error:
        message = str(error)
    if message:
        assert str(path) in message
        return
    used = {judgement.line for judgement in found.judgements}
    assert len(used) <= found.rows_in - found.quarantined - found.duplicates
    assert sum(found.reasons.values()) == found.quarantined


@pytest.mark.parametrize("format", FORMATS)
def test_a_bom_is_no_part_of_the_first_row(format, tmp_path):
    path = tmp_path / "labels.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + file_of(format))
    assert read(path, format)[1] == 0


@pytest.mark.parametrize("format", FORMATS)
def test_a_huge_field_is_read_or_refused(format):
    rows = copy.deepcopy(ROWS[format])
    # A role is left out: `sft.data` shows it whole in its reason.
    for path in [path for path in places(ROWS[format]) if len(path) > 1 and path[-1] != "role"]:
        copied = copy.deepcopy(rows)
        put(copied, path, "z" * 200_000)
        found, reason = attempt(format, copied)
        assert found or 0 < len(reason) < 2000
