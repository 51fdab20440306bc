import csv
import gzip
import hashlib
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sft.core import rows as rows_module
from sft.core.errors import DataError
from sft.core.rows import BadRow, Row, read_rows

THREE = [{"prompt": "héllo", "n": 1}, {"prompt": "line\nbreak", "n": 2}, {"prompt": "😀", "n": 3}]
JSONL = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in THREE).encode()
same_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


def read(path: Path, content: bytes) -> list[Row | BadRow]:
    path.write_bytes(content)
    return list(read_rows(path))


def good(items: list[Row | BadRow]) -> list[dict[str, object]]:
    return [item.value for item in items if isinstance(item, Row)]


def bad(items: list[Row | BadRow]) -> list[tuple[int, str]]:
    return [(item.line, item.kind) for item in items if isinstance(item, BadRow)]


@pytest.mark.parametrize("prefix", [b"", b"\xef\xbb\xbf", b"\n\n"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
@pytest.mark.parametrize("name", ["rows.jsonl", "rows.json", "rows.jsonl.gz", "rows", "rows.csv"])
def test_json_lines_are_known_by_content(tmp_path, prefix, pack, name):
    items = read(tmp_path / name, pack(prefix + JSONL))
    assert good(items) == THREE
    first = 3 if prefix == b"\n\n" else 1
    assert [item.line for item in items] == [first, first + 1, first + 2]


def test_digest_is_that_of_the_raw_row_without_its_line_end(tmp_path):
    items = read(tmp_path / "rows.jsonl", b'{"a": 1}\r\n{"a":  1}\n')
    assert [item.digest for item in items if isinstance(item, Row)] == [
        hashlib.sha256(b'{"a": 1}').hexdigest(),
        hashlib.sha256(b'{"a":  1}').hexdigest(),
    ]


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (b'{"prompt": "half', "half-written or not JSON"),
        (b'{"a": 1} {"b": 2}', "half-written or not JSON"),
        (b"\0\0\0\0", "NUL bytes"),
        (b'{"a": "\\u0000"}', "NUL bytes"),
        (b'{"a": "caf\xe9"}', "not UTF-8"),
        (b'{"a": "\\ud800"}', "not UTF-8"),
        (b"[1, 2]", "not an object"),
        (b"3", "not an object"),
        (b"null", "not an object"),
        (b'{"label": "a", "label": "b"}', "repeated name"),
        (b'{"a": ' * 200 + b"1" + b"}" * 200, "nested too deep"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "nested too deep"),
        (b'{"a": ' + b"1" * 5000 + b"}", "number too long"),
    ],
)
def test_one_bad_line_costs_one_row(tmp_path, line, kind):
    items = read(tmp_path / "rows.jsonl", b'{"a": 1}\n' + line + b'\n{"a": 2}\n')
    assert good(items) == [{"a": 1}, {"a": 2}]
    assert bad(items) == [(2, kind)]


def test_bad_row_keeps_a_short_excerpt(tmp_path):
    (item,) = read(tmp_path / "rows.jsonl", b'{"a": "' + b"x" * 5000)
    assert isinstance(item, BadRow)
    assert len(item.text) == 2000


def test_a_first_line_of_nul_is_a_bad_row(tmp_path):
    items = read(tmp_path / "rows.jsonl", b"\0" * 40 + b"\n" + JSONL)
    assert good(items) == THREE
    assert bad(items) == [(1, "NUL bytes")]


@pytest.mark.parametrize("cut", range(len(JSONL) + 1))
def test_json_lines_cut_at_every_byte(tmp_path, cut):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(JSONL[:cut])
    if cut == 0:
        with pytest.raises(DataError, match="is empty"):
            list(read_rows(path))
        return
    items = list(read_rows(path))
    complete = [index for index, end in enumerate(ends(JSONL)) if cut >= end - 1]  # the last line end may be missing
    assert good(items) == [THREE[index] for index in complete]
    assert [item.line for item in items] == list(range(1, len(items) + 1))
    is_partial = cut > 0 and cut not in ends(JSONL) and cut + 1 not in ends(JSONL)
    assert len(items) - len(complete) == is_partial


def ends(content: bytes) -> list[int]:
    return [index + 1 for index, byte in enumerate(content) if byte == 10]


@pytest.mark.parametrize("indent", [None, 2])
def test_json_array_cut_at_every_byte(tmp_path, indent):
    content = json.dumps(THREE, indent=indent, ensure_ascii=False).encode()
    path = tmp_path / "rows.json"
    for cut in range(1, len(content)):
        items = read(path, content[:cut])
        assert good(items) == THREE[: len(good(items))]
        assert len(bad(items)) == 1  # the missing end of the array, or the half row
        assert isinstance(items[-1], BadRow)
    assert good(read(path, content)) == THREE


def test_gzip_cut_at_every_byte_gives_the_rows_before_the_break(tmp_path):
    packed = gzip.compress(b"".join(json.dumps({"n": n, "text": "x" * n}).encode() + b"\n" for n in range(300)))
    seen = set()
    for cut in range(2, len(packed), 7):
        items = read(tmp_path / "rows.jsonl.gz", packed[:cut])
        assert [row["n"] for row in good(items)] == list(range(len(good(items))))
        assert bad(items) == [(len(good(items)) + 1, "cut off")]
        seen.add(len(good(items)))
    assert max(seen) > 250


def test_damaged_gzip_is_refused(tmp_path):
    packed = bytearray(gzip.compress(JSONL))
    packed[-6] ^= 1  # the checksum
    with pytest.raises(DataError, match=r"rows\.gz is damaged after line 3 .*download it again"):
        read(tmp_path / "rows.gz", bytes(packed))


def test_array_rows_have_line_numbers_and_bad_ones_are_skipped(tmp_path):
    content = b'[\n  {"a": 1},\n  7,\n  {"a": 2, "b": [\n    {"c": 3}\n  ]},\n  {"a": oops},\n  {"a": 4}\n]\n'
    items = read(tmp_path / "rows.json", content)
    assert good(items) == [{"a": 1}, {"a": 2, "b": [{"c": 3}]}, {"a": 4}]
    assert [item.line for item in items] == [2, 3, 4, 7, 8]
    assert bad(items) == [(3, "not an object"), (7, "half-written or not JSON")]


def test_array_of_one_line_that_is_broken_inside_is_refused(tmp_path):
    with pytest.raises(DataError, match=r"line 1: half-written or not JSON: .*one row per line"):
        read(tmp_path / "rows.json", b'[{"a": 1}, {"a": oops}, {"a": 3}]')


def test_a_list_in_the_first_line_of_json_lines(tmp_path):
    items = read(tmp_path / "rows.jsonl", b'[1, 2]\n{"a": 1}\n')
    assert good(items) == [{"a": 1}]
    assert bad(items) == [(1, "not an object")]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.csv", b'prompt,answer\nhi,"a, ""b""\nc"\nyou,d\n'),
        ("t.csv", b'\xef\xbb\xbfprompt;answer\r\nhi;"a, ""b""\nc"\r\nyou;d'),
        ("t.tsv", b'prompt\tanswer\nhi\t"a, ""b""\nc"\n\nyou\td\n'),
        ("t", gzip.compress(b'prompt,answer\nhi,"a, ""b""\nc"\nyou,d\n', mtime=0)),
    ],
)
def test_tables(tmp_path, name, content):
    items = read(tmp_path / name, content)
    assert good(items) == [{"prompt": "hi", "answer": 'a, "b"\nc'}, {"prompt": "you", "answer": "d"}]
    assert [item.line for item in items] == [2, 5 if name == "t.tsv" else 4]


def test_bad_rows_of_a_table(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_CELL_CHARACTERS", 10)
    content = b'p,a\n1,2\n1\n1,2,3\n1,caf\xe9\n1,nul\0\n1,"' + b"x" * 11 + b'\ny"\n"q"x,2\n3,4\n'
    items = read(tmp_path / "t.csv", content)
    assert good(items) == [{"p": "1", "a": "2"}, {"p": "3", "a": "4"}]
    assert bad(items) == [
        (3, "wrong number of cells"),
        (4, "wrong number of cells"),
        (5, "not UTF-8"),
        (6, "NUL bytes"),
        (7, "cell too long"),
        (9, "broken quotes"),
    ]


def test_an_unclosed_quote_is_counted_with_the_rows_it_swallows(tmp_path):
    items = read(tmp_path / "t.csv", b'p,a\n1,2\n1,"open\n3,4\nmore\n5,6\n')
    assert good(items) == [{"p": "1", "a": "2"}]
    assert bad(items) == [(3, "broken quotes"), (4, "broken quotes"), (6, "broken quotes")]
    assert "line 3" in items[2].reason  # type: ignore[union-attr]


@pytest.mark.parametrize("cut", range(len(b"prompt,answer\n") + 1, 59))
def test_table_cut_at_every_byte(tmp_path, cut):
    content = b'prompt,answer\n1,"two\nthree"\n4,5\n6,"seven, eight\nnine"\n'
    items = read(tmp_path / "t.csv", content[:cut])
    assert [item.line for item in items] == [2, 4, 5][: len(items)]
    assert all(isinstance(item, Row) for item in items[:-1])


def test_the_table_limit_of_the_standard_library_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit(131_072)
    assert len(good(read(tmp_path / "t.csv", b"p,a\n1," + b"x" * 200_000))) == 1
    assert csv.field_size_limit(before) == 131_072


def test_a_table_in_a_gzip_file_that_is_cut_off(tmp_path):
    packed = gzip.compress(b"p,a\n" + b"".join(b"%d,%d\n" % (n, n * n) for n in range(3000)))
    items = read(tmp_path / "t.csv.gz", packed[: len(packed) // 2])
    assert len(good(items)) > 500
    assert bad(items) == [(len(good(items)) + 2, "cut off")]


def test_a_row_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "MAX_ROW_BYTES", 30)
    with pytest.raises(DataError, match="line 2: a row may hold"):
        read(tmp_path / "t.csv", b'p,a\n1,"' + b"x\n" * 30)
    with pytest.raises(DataError, match="line 1: a row may hold"):
        read(tmp_path / "t.jsonl", b"{" + b"x" * 30)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf\n \n", "is empty"),
        (gzip.compress(b"", mtime=0), "is empty"),
        ('{"a": 1}\n'.encode("utf-16"), "save it as UTF-8"),
        ('{"a": 1}\n'.encode("utf-16-le"), "save it as UTF-8"),
        ('{"a": 1}\n'.encode("utf-32-be"), "save it as UTF-8"),
        (gzip.compress(gzip.compress(JSONL, mtime=0), mtime=0), "compressed twice"),
        (b"just some words\n", "neither JSON lines"),
        (b"a,a\n1,2\n", "'a' more than once"),
        (b"a,b\xe9\n1,2\n", "save the file as UTF-8"),
        (b'a,"b"c\n1,2\n', "header cannot be read"),
        (b"a,b\n", "no rows"),
    ],
)
def test_files_of_which_nothing_can_be_used(tmp_path, content, message):
    with pytest.raises(DataError, match=message):
        read(tmp_path / "rows", content)


def test_missing_file_and_folder_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nothing\.jsonl does not exist"):
        read_rows(tmp_path / "nothing.jsonl")
    with pytest.raises(DataError, match="is a folder; give a file"):
        read_rows(tmp_path)


words = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8)


@same_folder
@given(st.lists(st.dictionaries(words, words | st.integers() | st.none() | st.lists(words)), min_size=1, max_size=4))
def test_json_round_trip(tmp_path, values):
    lines = b"".join(json.dumps(value, ensure_ascii=False).encode() + b"\n" for value in values)
    assert good(read(tmp_path / "r.jsonl", lines)) == values
    assert good(read(tmp_path / "r.json", json.dumps(values, ensure_ascii=False).encode())) == values
    assert good(read(tmp_path / "r.json", json.dumps(values, indent=1).encode())) == values


@same_folder
@given(st.binary(max_size=60), st.sampled_from(["r.jsonl", "r.csv", "r.tsv", "r", "r.json"]), st.booleans())
def test_any_bytes_give_rows_bad_rows_or_a_data_error(tmp_path, noise, name, after):
    content = JSONL + noise if after else noise
    try:
        items = read(tmp_path / name, content)
    except DataError:
        return
    assert items
    assert [item.line for item in items] == sorted(item.line for item in items)
    if after:
        assert good(items)[:2] == THREE[:2]


@same_folder
@given(st.text('a",\n;\t{[]}', max_size=40), st.sampled_from(["r.csv", "r.json"]))
def test_any_quoting_gives_rows_bad_rows_or_a_data_error(tmp_path, noise, name):
    try:
        items = read(tmp_path / name, b"p,a\n" + noise.encode() if name == "r.csv" else b"[" + noise.encode())
    except DataError:
        return
    assert all(item.line >= 1 for item in items)
