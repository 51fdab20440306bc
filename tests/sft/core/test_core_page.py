from pathlib import Path

import pytest
from jinja2 import UndefinedError

from sft.core.page import render_page

TEMPLATE = (
    "{% extends 'page.html.jinja' %}{% block title %}{{ name }}{% endblock %}{% block main %}{{ name }}{% endblock %}"
)


@pytest.fixture
def template(tmp_path: Path) -> Path:
    path = tmp_path / "some.html.jinja"
    path.write_text(TEMPLATE)
    return path


def test_texts_are_escaped_and_hidden_characters_shown(template: Path):
    page = render_page(template, {"name": "<script>\u202e&"})
    assert page.count("&lt;script&gt;⟨U+202E⟩&amp;") == 2
    assert "<script" not in page


def test_the_page_may_load_and_run_nothing(template: Path):
    page = render_page(template, {"name": "x"})
    assert "content=\"default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'" in page
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_a_name_that_is_not_given_is_an_error(template: Path):
    with pytest.raises(UndefinedError):
        render_page(template, {})
