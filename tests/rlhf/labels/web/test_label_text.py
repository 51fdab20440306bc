import re
from collections import Counter
from html.parser import HTMLParser

import pytest

pytest.importorskip("nh3")
pytest.importorskip("markdown_it")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from rlhf.labels.web.text import FORMATTED_AT_MOST, MOST_WORK, can_be_formatted, formatted, marked, work

TAGS = {"blockquote", "br", "code", "div", "em", "h3", "h4", "h5", "h6", "hr", "li", "ol", "p", "pre", "s", "span"}
TAGS |= {"strong", "table", "tbody", "td", "th", "thead", "tr", "ul"}
CLASSES = {"code-name", "table", "link", "url", "right", "center", "sign", "note", "raw"}


class Reader(HTMLParser):
    """What a browser would make of a text."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data

    def handle_comment(self, data):
        raise AssertionError(f"comment {data!r}")

    handle_decl = unknown_decl = handle_pi = handle_comment


def read(html: str) -> Reader:
    reader = Reader()
    reader.feed(str(html))
    reader.close()
    return reader


def check_safe(html: str) -> None:
    for tag, attributes in read(html).tags:
        assert tag in TAGS
        if tag == "ol" and "start" in attributes:
            assert attributes.pop("start").isdigit()
        if "title" in attributes:
            assert attributes["class"] == "sign"
            assert re.fullmatch("[a-z0-9 -]*", attributes.pop("title"))
        assert attributes.keys() <= {"class"}
        assert set((attributes.get("class") or "").split()) <= CLASSES


def test_markdown_is_shown_as_it_is_meant():
    html = formatted("# Title\n\nA *b* **c** ~~d~~ `e`\nnext\n\n| x | y |\n|---|--:|\n| 1 | 2 |\n\n> q\n\n3. t\n")
    assert html == (
        "<h3>Title</h3><p>A <em>b</em> <strong>c</strong> <s>d</s> <code>e</code><br>\nnext</p>\n"
        '<div class="table"><table><thead>\n<tr>\n<th>x</th>\n<th class="right">y</th>\n'
        "</tr>\n</thead>\n<tbody>\n<tr>\n"
        '<td>1</td>\n<td class="right">2</td>\n</tr>\n</tbody>\n</table></div><blockquote>\n<p>q</p>\n</blockquote>\n'
        '<ol start="3">\n<li>t</li>\n</ol>\n'
    )


def test_code_keeps_its_signs_and_its_language():
    html = formatted("```c++ <b>\nif (a < b && c) {}\n```")
    assert html == ('<div class="code-name">c++ &lt;b&gt;</div><pre><code>if (a &lt; b &amp;&amp; c) {}\n</code></pre>')


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('[a](javascript:alert(1) "t")', 'a (javascript:alert(1) "t")'),
        ("[a](https://x.example/?q=é)", "a (https://x.example/?q=é)"),
        ("![a *b*](https://x.example/y.png)", "[image: a *b*] (https://x.example/y.png)"),
        ("[![a](b)](c)", "[image: a] (b) (c)"),
        ("<https://x.example>", "https://x.example"),
        ("[x]: https://x.example 'hidden'", "[x]: https://x.example 'hidden'"),
        ("[//]: # (hidden)", "[//]: # (hidden)"),
        ("<!-- hidden --> <b>x</b>", "<!-- hidden --> <b>x</b>"),
        ("&lt;script&gt; &amp;", "<script> &"),
        ("{{7*7}} {% raw %}", "{{7*7}} {% raw %}"),
    ],
)
def test_links_images_and_html_are_text(text, shown):
    html = formatted(text)
    check_safe(html)
    assert read(html).text.strip() == shown


@pytest.mark.parametrize(
    "text", ["a\u202eb", "`a\u202eb`", "# a\u202eb", "a&#x202e;b", "```\na\u202eb\n```", "|a|\n|-|\n|\u202e|"]
)
def test_a_direction_control_is_marked(text):
    sign = '<span class="sign" title="right-to-left override">U+202E</span>'
    assert sign in formatted(text)
    assert "\u202e" not in formatted(text)


def test_runs_are_counted():
    assert marked("\u200b" * 3) == '<span class="sign" title="zero width space">U+200B ×3</span>'
    assert marked("a\r\nb\rc") == 'a\nb<span class="sign" title="no name">U+000D</span>c'


def test_the_own_placeholder_cannot_be_forged():
    assert formatted("\ue000202Ex1\ue001").count('class="sign"') == 2


@pytest.mark.parametrize(
    ("text", "is_noted"),
    [
        ("| a |\n|---|\n| 1 | lost |", True),
        ("| a |\n|---|\n| 1 | 2 |", True),
        ("3. x\n7. y", False),
        ("a &copy; b", False),
    ],
)
def test_what_the_formatting_leaves_out_is_said(text, is_noted):
    assert ("only seen in the raw view" in formatted(text)) == is_noted


def test_long_texts_are_not_formatted():
    assert "<strong>" in formatted("**a** " + "x" * (FORMATTED_AT_MOST - 6))
    html = formatted("**a** " + "x" * (FORMATTED_AT_MOST - 5))
    assert "too long to be formatted" in html
    assert "**a**" in html


@pytest.mark.parametrize("sign", ["![", "[a](", "<a>", "*_", "- ", "a\n", "> a\n", "- a\n  - b\n", "&amp;", "|a", "~~"])
def test_texts_with_many_signs_are_not_formatted(sign):
    """Each makes Markdown slow: 10 µs and more for every one."""
    assert "too long to be formatted" not in formatted(sign * 20)
    assert "too long to be formatted" in formatted(sign * (MOST_WORK + 1))


def test_all_texts_of_a_task_are_formatted_or_none_is():
    half = "- a\n" * (MOST_WORK // 4)
    assert work(half) == MOST_WORK // 2
    assert can_be_formatted([half, half])
    assert not can_be_formatted([half, half, "a\n"])
    assert can_be_formatted(["x" * 50_000] * 2)
    assert not can_be_formatted(["x" * 50_000] * 2 + ["x"])


def test_what_stands_beside_a_hidden_character_is_work():
    assert work("a" * 80) == 0
    assert work("a" * 79 + "\u200b\n" + "b" * 80) == 10 + 1


SIGNS = st.sampled_from(
    [*"[]()<>!*_`~|#>-+\n\n \\&;:=\"'{}\t1a", "javascript:", "<script>", "&#x202e;", "\u202e", "\ue000", "```"]
)


@settings(max_examples=300, deadline=None)
@example("\ud800 \x00 &#0; \ufeff")
@example("[" * 3000)
@example("> " * 500 + "a")
@given(st.text() | st.lists(SIGNS).map("".join))
def test_any_text_is_safe_and_nothing_of_it_is_lost_in_silence(text):
    html = formatted(text)
    check_safe(html)
    check_safe(marked(text))
    shown = read(html).text
    if "only seen in the raw view" not in html and "&" not in text:
        assert not Counter(filter(str.isalpha, text)) - Counter(filter(str.isalpha, shown))
    if text.isprintable() and 'class="sign"' not in marked(text):
        assert read(marked(text)).text == text
