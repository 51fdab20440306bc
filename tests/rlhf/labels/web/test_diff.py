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
    by_lines = difference(f"{words}\n\nx\n", f"{words}\n\ny\n")
    assert by_lines.unit == "lines"
    assert by_lines.left.endswith("<del>x</del>\n")
    assert difference("x\n" * 5000, "y\n" * 5000) is None
    assert difference("x\n" * 900, "x\n" * 900 + "y\n") is None


def every_other(own: str, end: str, pieces: int = 1900) -> str:
    """Return pieces of which each second is this answer's own: difflib looks at the rest again after each."""
    return "".join(f"both{n}{end}{own}{n}{end}" for n in range(pieces))


def test_steps_are_counted_through_the_whole_comparison():
    assert difference(every_other("l", " ", 500), every_other("r", " ", 500)).unit == "words"
    assert difference(every_other("l", " "), every_other("r", " ")).unit == "lines"
    assert difference(every_other("l", "\n"), every_other("r", "\n")) is None


def test_texts_whose_signs_are_looked_at_one_by_one_are_not_compared():
    hidden = "word\u200b " * 10_000
    assert difference("left " + hidden, "right " + hidden) is None
    assert difference("left \u200b", "right").unit == "words"


def test_the_empty_lines_between_paragraphs_are_no_lines_of_their_own():
    """Six hundred that are equal to six hundred others would be too much work."""
    left, right = ("".join(f"{own} {n} a b c d e f\n\n" for n in range(600)) for own in ("old", "new"))
    found = difference(left, right)
    assert found.unit == "lines"
    assert found.left.startswith("<del>old 0 a b c d e f</del>\n\n<del>")


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
