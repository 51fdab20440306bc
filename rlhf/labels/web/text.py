"""Texts of models and strangers as HTML that is safe to show: Markdown, or as it stands.

Nothing in them becomes a link, an image, a style or an attribute. What nobody would see is written out (bidirectional
controls, zero-width characters), and where the formatting leaves something out, it says so.
"""

import html
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

import nh3
from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token
from markdown_it.utils import EnvType, OptionsDict
from markupsafe import Markup, escape

from rlhf.labels.web.remembered import remembered
from sft.core.visible import code_point, may_hide, replace_hidden

FORMATTED_AT_MOST = 50_000
"""Longest text that is read as Markdown, in characters; a longer one is shown as it stands."""
MOST_WORK = 8_000
"""Of what is formatted at once, as `work` counts it: at most about a fifth of a second."""
_FORMATTED_IN_ALL = 100_000
"""Longest texts of one task together that are read as Markdown, in characters."""
_SIGNS = "\n!&*+-<>[\\]_`|~"
"""What Markdown stops at; each costs 5 to 30 µs, whatever lies between them next to nothing."""
HIDDEN_PER_SIGN = 8
"""Characters beside a hidden one that cost as much as a sign."""
_MOST_CELLS = 10_000
"""Of tables: Markdown adds the cells that short rows lack, so that 4 kB may become a page of 65 000."""
_LEFT_OUT = Markup('<p class="note">Some of this text is only seen in the raw view.</p>')
_TOO_LONG = Markup(
    '<p class="note">This text, or a table in it, is too long to be formatted; it is shown as it stands.</p>'
)
_BLOCKS = ("blockquote", "br", "code", "hr", "li", "ol", "p", "pre", "ul", "h3", "h4", "h5", "h6")
_TAGS = {*_BLOCKS, "div", "em", "s", "span", "strong", "table", "tbody", "td", "th", "thead", "tr"}
_SIDES = {"right", "center"}
_CLASSES = {"div": {"code-name", "table"}, "span": {"link", "url"}, "th": _SIDES, "td": _SIDES}
# Private use: no source text holds these once its hidden characters are marked, but its entities may.
_MARK = "\ue000{}x{}\ue001"
_MARKED = re.compile("\ue000[0-9A-F]{4,6}x[0-9]+\ue001")
_LIST_MARKER = re.compile(r"^[\s>*+\-0-9.)]+", re.MULTILINE)
_RULE = re.compile(r"^[^\w\n]*\|[^\w\n]*$", re.MULTILINE)
"""The line between a table's head and its rows, and what looks like one."""
_TAG = re.compile(r"<[^>]*>")


@remembered
def formatted(text: str) -> Markup:
    """Return Markdown as HTML; headings begin at h3, for the page has its own."""
    text = _lines(text)
    if len(text) > FORMATTED_AT_MOST or work(text) > MOST_WORK or _cells(text) > _MOST_CELLS:
        return as_it_stands(marked(text))
    issued: dict[str, str] = {}

    def mark(sign: str, count: int) -> str:
        placeholder = _MARK.format(f"{ord(sign):04X}", count)
        issued[placeholder] = _sign(sign, count)
        return placeholder

    source = _without_hidden(text, mark)
    made = nh3.clean(_MARKDOWN.render(source), tags=_TAGS, attributes={"ol": {"start"}}, allowed_classes=_CLASSES)
    own = _MARKED.sub(lambda found: "" if found[0] in issued else found[0], made)
    note = _LEFT_OUT if _leaves_out(text, own) else Markup()
    # Markdown makes our brackets of entities too: what was not issued here is the text's own
    made = _MARKED.sub(lambda found: issued.get(found[0], found[0]), made)
    return Markup(_without_hidden(made, _sign)) + note  # again: Markdown makes hidden characters of entities


def can_be_formatted(texts: Iterable[str]) -> bool:
    """Say whether all texts of a task can be formatted before somebody waits for them."""
    known = list(texts)
    return sum(map(len, known)) <= _FORMATTED_IN_ALL and sum(map(work, known)) <= MOST_WORK


def work(text: str) -> int:
    """Return about how much there is to do for `formatted`, in signs of Markdown."""
    return sum(map(text.count, _SIGNS)) + beside_hidden(text) // HIDDEN_PER_SIGN


def beside_hidden(text: str) -> int:
    """Return how many characters stand in lines with a hidden one, which are looked at one by one."""
    return sum(len(line) for line in text.split("\n") if may_hide(line))


def as_it_stands(raw: Markup) -> Markup:
    """Return a text of `marked` that is too long for `formatted`, and say so."""
    return _TOO_LONG + Markup('<pre class="raw">') + raw + Markup("</pre>")


def marked(text: str) -> Markup:
    """Return a text as it stands, with its hidden characters written out."""
    return Markup(_without_hidden(str(escape(_lines(text))), _sign))


def _without_hidden(text: str, mark: Callable[[str, int], str]) -> str:
    """Replace hidden characters line by line, for lines without any cost nothing."""
    return "\n".join(replace_hidden(line, mark) for line in text.split("\n"))


def _cells(text: str) -> int:
    """Return how many cells the tables of a text have at most."""
    widest = max((row.count("|") + 1 for row in _RULE.findall(text)), default=0)
    return widest * (text.count("\n") + 1)


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")


def _sign(sign: str, count: int) -> str:
    name = unicodedata.name(sign, "no name").lower()
    times = f" ×{count}" if count > 1 else ""
    return f'<span class="sign" title="{name}">{code_point(sign)}{times}</span>'


def _leaves_out(source: str, made: str) -> bool:
    """Say whether letters or digits of the source are missing: cells beyond a table's last column, for one."""
    told = html.unescape(_LIST_MARKER.sub("", source))
    shown = html.unescape(_TAG.sub("", made))
    return bool(Counter(filter(str.isalnum, told)) - Counter(filter(str.isalnum, shown)))


# Markdown


def _markdown() -> MarkdownIt:
    reader = MarkdownIt("commonmark", {"html": False, "linkify": False, "breaks": True})
    reader.enable(["table", "strikethrough"]).disable("reference")  # a reference's text would vanish
    reader.validateLink = lambda url: True  # type: ignore[method-assign]  # none becomes a link
    reader.normalizeLink = lambda url: url  # type: ignore[method-assign]
    reader.add_render_rule("image", _image)
    reader.add_render_rule("link_open", lambda *_: '<span class="link">')
    reader.add_render_rule("link_close", _link_close)
    reader.add_render_rule("fence", _fence)
    reader.add_render_rule("heading_open", _heading)
    reader.add_render_rule("heading_close", _heading)
    reader.add_render_rule("table_open", lambda *_: '<div class="table"><table>')
    reader.add_render_rule("table_close", lambda *_: "</table></div>")
    reader.add_render_rule("th_open", _cell)
    reader.add_render_rule("td_open", _cell)
    return reader


def _target(token: Token, attribute: str) -> Markup:
    title = token.attrGet("title")
    shown = f"{token.attrGet(attribute)}" + (f' "{title}"' if title else "")
    return Markup(' <span class="url">({})</span>').format(shown)


def _image(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    return Markup("[image: {}]").format(tokens[index].content) + _target(tokens[index], "src")


def _link_close(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    opened = next(token for token in reversed(tokens[:index]) if token.type == "link_open")
    return Markup("</span>") + (Markup() if opened.markup == "autolink" else _target(opened, "href"))


def _fence(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    name = Markup('<div class="code-name">{}</div>').format(token.info.strip()) if token.info.strip() else Markup()
    return name + Markup("<pre><code>{}</code></pre>").format(token.content)


def _heading(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    tag = f"h{min(6, int(token.tag[1:]) + 2)}"
    return f"<{tag}>" if token.nesting == 1 else f"</{tag}>"


def _cell(self: RendererHTML, tokens: Sequence[Token], index: int, options: OptionsDict, env: EnvType) -> str:
    token = tokens[index]
    side = str(token.attrGet("style") or "").removeprefix("text-align:")
    return f'<{token.tag} class="{side}">' if side in _SIDES else f"<{token.tag}>"


_MARKDOWN = _markdown()
