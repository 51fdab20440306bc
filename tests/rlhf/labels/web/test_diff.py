import re

import pytest

pytest.importorskip("nh3")
pytest.importorskip("markdown_it")

from hypothesis import given
from hypothesis import strategies as st
from markupsafe import Markup

from rlhf.labels.web.diff import difference
from rlhf.labels.web.text import marked


def without_marks(html: Markup) -> str:
    return re.sub("</?(del|ins)>", "", html)


def test_words_that_only_one_answer_has_are_marked():
    found = difference("the red  house, old", "the blue house, very old")
    assert found == ("the <del>red</del>  house, old", "the <ins>blue</ins> house, <ins>very</ins> old", "words")


def test_a_mark_ends_with_its_line():
    found = difference("a\n    b\n    c\n", "a\n")
    assert found.left == "a\n    <del>b</del>\n    <del>c</del>\n"


def test_spaces_do_not_count():
    assert difference("a  b\n\nc", "a b c").left == "a  b\n\nc"


def test_markup_in_an_answer_is_text():
    found = difference("<del>x</del>\u202e", "<ins>y")
    assert "&lt;<del>del</del>&gt;" in found.left
    assert 'class="sign"' in found.left
    assert found.right.count("<ins>") == found.right.count("</ins>")


def test_more_work_is_done_by_lines_and_the_most_is_left():
    words = "a b c d e " * 400
    by_lines = difference(f"{words}\nx\n", f"{words}\ny\n")
    assert by_lines.unit == "lines"
    assert by_lines.left.endswith("<del>x</del>\n")
    assert difference("x\n" * 5000, "y\n" * 5000) is None
    assert difference("x\n" * 500, "x\n" * 500 + "y\n") is None


@pytest.mark.parametrize(("left", "right"), [("", ""), ("", "a"), ("   ", "\n")])
def test_empty_answers(left, right):
    found = difference(left, right)
    assert (without_marks(found.left), without_marks(found.right)) == (left, right)


@given(st.text(), st.text())
def test_nothing_of_the_answers_changes(left, right):
    left, right = left.replace("\r", ""), right.replace("\r", "")
    found = difference(left, right)
    unmarked = re.sub(r'<span class="sign"[^>]*>.*?</span>', "", without_marks(found.left))
    assert unmarked == re.sub(r'<span class="sign"[^>]*>.*?</span>', "", marked(left))
    assert (found.left.count("<del>"), found.right.count("<ins>")) != (0, 0) or left.split() == right.split()
