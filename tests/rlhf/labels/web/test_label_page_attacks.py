"""Texts that try to run, load or pretend something reach every place that shows texts; nothing happens."""

import pytest

pytest.importorskip("playwright")
pytest.importorskip("fastapi")

from label_site import Opening, Person, add_person, add_tasks, events
from playwright.sync_api import Page

from rlhf.labels.collection.study import set_guidelines
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.store import LabelStore
from sft.core.text import Message

EVIL = "https://evil.invalid"
ATTACKS = [
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.invalid/x.js></ScRiPt >",
    "</textarea></pre></div><script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    f"<img src={EVIL}/pixel.png>",
    "<svg onload=alert(1)><animate onbegin=alert(1) attributeName=x></svg>",
    "<svg><style><img src=x onerror=alert(1)></style></svg>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(1)>",
    "<body onpageshow=alert(1)><details open ontoggle=alert(1)>",
    "<iframe srcdoc='<script>alert(1)</script>'></iframe>",
    f"<iframe src={EVIL}></iframe><object data={EVIL}></object><embed src={EVIL}>",
    f"<form action={EVIL} method=post><button formaction={EVIL}>Submit</button></form>",
    f"<link rel=stylesheet href={EVIL}/x.css><style>@import '{EVIL}/y.css'; body {{ display: none }}</style>",
    f"<meta http-equiv=refresh content='0;url={EVIL}'><base href={EVIL}>",
    f'<div style="background:url({EVIL}/b.png);position:fixed;inset:0">x</div>',
    f"<video poster={EVIL}/p.png src={EVIL}/v.mp4 autoplay><audio src={EVIL}/a.mp3>",
    "[a](javascript:alert(1)) [b](JaVaScRiPt&colon;alert(1)) [c](java\tscript:alert(1)) <javascript:alert(1)>",
    "[d](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==) [e](vbscript:msgbox(1))",
    f"![i]({EVIL}/i.png) ![j](data:image/svg+xml,<svg onload=alert(1)>) ![k][r]\n\n[r]: {EVIL}/r.png",
    f'[t]({EVIL} "x\\" onmouseover=alert(1) y=\\"")',
    "<!-- <img src=x onerror=alert(1)> --><![CDATA[<script>alert(1)</script>]]><?php alert(1) ?>",
    "{{7*7}} ${7*7} {% include '/etc/passwd' %} {{ config }} #{7*7} <%= 7*7 %>",
    "&lt;script&gt;alert(1)&lt;/script&gt; &#60;img src=x onerror=alert(1)&#62;",
    "\u202egnp.exe\u202c \u2066a\u2069 \u200b\u200d\ufeff \U000e0041\U000e0042",
    "＜script＞alert(1)＜/script＞ \x1b[31mred\x1b[0m \x08\x08",
    '```html" onclick=alert(1)\n<script>alert(1)</script>\n```\n~~~<img src=x onerror=alert(1)>\n~~~',
    "| <img src=x onerror=alert(1)> | b |\n|---|---|\n| [x](javascript:alert(1)) | <script>alert(1)</script> |",
    "<a href='javascript:alert(1)' target=_blank>click</a> <a href=//evil.invalid>x</a>",
    "Z" + "\u0300\u0310\u031a" * 60 + " " + "W" * 3000,
    "\ue000202Ex1\ue001 \ue000FFFFFFx1\ue001",
]
NAME = '<img src=x onerror="alert(1)">{{7*7}}'


@pytest.fixture
def person(store: LabelStore) -> Person:
    """All attacks at once: as prompts, speakers, answers, question, attribute, guidelines and name."""
    every = "\n\n".join(ATTACKS)
    prompt = (Message("system", every), Message(ATTACKS[3], every), Message("user", every))
    attributes = (ATTACKS[3], "{{7*7}}")
    add_tasks(store, [Pair(prompt, every, f"{every}\n")], question=ATTACKS[3], attributes=attributes)
    with store.changing("p") as (connection, project):
        set_guidelines(connection, project, every)
    return add_person(store, NAME)


def watched(page: Page) -> list[str]:
    """Return a list that grows by all that must not happen."""
    found: list[str] = []
    own = page.url.partition("/label")[0]
    page.on("dialog", lambda dialog: (found.append(f"dialog {dialog.message}"), dialog.dismiss()))
    page.on("request", lambda request: None if request.url.startswith(own) else found.append(request.url))
    page.on("console", lambda message: found.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: found.append(str(error)))
    page.on("popup", lambda popup: found.append(popup.url))
    page.on("framenavigated", lambda frame: found.append(frame.url) if frame != page.main_frame else None)
    return found


def check(page: Page, found: list[str]) -> None:
    """Press all that texts might have made, and see that there is nothing but our own page."""
    assert page.locator("main :is(img, svg, iframe, object, embed, video, audio, style, link, meta, base)").count() == 0
    assert page.locator("main a[href]:not([href^='/'])").count() == 0
    assert page.locator("script").count() == 1
    attributes = (
        "[...document.querySelectorAll('*')].flatMap(e => e.getAttributeNames()).filter(n => /^on|^style$/.test(n))"
    )
    assert page.evaluate(attributes) == []
    assert page.evaluate("[...document.forms].map(f => new URL(f.action).origin).every(o => o === location.origin)")
    shown = page.locator("main .formatted, main .raw, main .written")
    if shown.count():
        assert not any(sign in shown.first.inner_text() for sign in "\u202e\u2066\u200b\x1b\x08")
    page.evaluate("document.querySelectorAll('main .formatted *').forEach(e => e.click())")
    assert found == []


def test_nothing_in_any_text_runs_loads_or_pretends(opened: Opening, store: LabelStore):
    page = opened()
    found = watched(page)
    for path in ("/label", "/guidelines"):
        page.goto(path)
        check(page, found)
    page.goto("/label")
    text = page.locator(".left .formatted").inner_text()
    for words in (
        "<script>alert(1)</script>",
        "{% include '/etc/passwd' %}",
        "[image: i]",
        "U+202E",
        "U+001B",
        "<!-- <img",
    ):
        assert words in text
    assert page.locator(".left .pane").evaluate("pane => pane.scrollWidth <= pane.clientWidth + 1")
    page.keyboard.press("r")
    check(page, found)
    page.keyboard.press("d")
    check(page, found)
    page.fill("#reason", "\n".join(ATTACKS)[:9000])
    page.keyboard.press("Escape")
    page.keyboard.press("1")
    page.click("label[for=attribute-1-left]")
    page.keyboard.press("f")
    page.fill("#flag-note", ATTACKS[2])
    page.keyboard.press("Escape")
    with page.expect_navigation():
        page.click("#submit")
    assert [row[:2] for row in events(store)] == [("label", "left"), ("label", "left"), ("flag", None)]
    page.goto("/history")
    check(page, found)
    with page.expect_navigation():
        page.click(".history a")
    check(page, found)
    # an older page of the same task: the conflict shows what was written
    page.evaluate("document.querySelector('[name=revision]').value = 0")
    page.keyboard.press("5")
    with page.expect_navigation():
        page.click("#submit")
    errors = [words for words in found if "409" not in words]
    found.clear()
    assert page.title().startswith("Two answers")
    check(page, errors)
    assert ATTACKS[2] in page.locator(".both section").first.inner_text()


def test_a_strangers_text_never_leaves_its_box(opened: Opening):
    page = opened(viewport={"width": 1280, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 1280
    for pane in page.locator(".pane").all():
        style = pane.evaluate("pane => [getComputedStyle(pane).overflowY, getComputedStyle(pane).contain]")
        assert style == ["auto", "paint"]
        assert pane.bounding_box()["height"] < 800
