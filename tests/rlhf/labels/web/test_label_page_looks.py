"""That the page can be read and used: contrast from the styles that hold, order of the focus, phone, dark."""

import pytest

pytest.importorskip("playwright")
pytest.importorskip("fastapi")

from label_site import PROJECT, Opening, Person, add_person, add_tasks
from playwright.sync_api import Page

from rlhf.labels.accounts.users import pause
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import LEASE
from sft.core.text import Message

TEXT = "A `code` **b** [l](u)\n\n> quote\n\n```py\nx\n```\n\n| a | b |\n|---|---|\n| 1 | 2 | 3 |\n\n\u202e"
COLOURS = """() => {
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const over = ([r, g, b, a = 1], under) => [r, g, b].map((c, i) => c * a + under[i] * (1 - a));
  const ground = (element) => {
    const layers = [];
    for (let e = element; e; e = e.parentElement) layers.unshift(parse(getComputedStyle(e).backgroundColor));
    return layers.reduce((under, layer) => over(layer, under), [255, 255, 255]);
  };
  const light = (c) => c.map((v) => v / 255).map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
  const luminance = (c) => { const [r, g, b] = light(c); return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  const seen = (e) => e.checkVisibility({ visibilityProperty: true }) && e.getClientRects().length;
  const found = [];
  for (const e of document.querySelectorAll("body *")) {
    if (!(own(e) || e.matches("input:not([type=radio]), textarea")) || !seen(e) || e.closest(".unseen")) continue;
    const under = ground(e);
    const [a, b] = [luminance(over(parse(getComputedStyle(e).color), under)), luminance(under)].sort((x, y) => y - x);
    found.push([(a + 0.05) / (b + 0.05), e.outerHTML.slice(0, 80)]);
  }
  return found;
}"""


@pytest.fixture
def person(store: LabelStore) -> Person:
    prompt = (Message("system", "s"), Message("user", TEXT), Message("assistant", TEXT), Message("user", "q"))
    add_tasks(store, [Pair(prompt, TEXT, f"{TEXT} more\n" + "line\n\n" * 80)], attributes=("helpful",), overlap=2)
    return add_person(store)


def check_contrast(page: Page, at_least: int) -> None:
    """See that every text that is seen has the contrast of WCAG 2.2, 1.4.3 (AA)."""
    found = page.evaluate(COLOURS)
    assert [(ratio, text) for ratio, text in found if ratio < 4.5] == []
    assert len(found) >= at_least


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_has_enough_contrast(opened: Opening, scheme: str):
    page = opened(color_scheme=scheme)
    page.keyboard.press("1")
    check_contrast(page, 60)
    page.click("label[for=attribute-1-left]")
    page.keyboard.press("d")
    check_contrast(page, 30)
    page.keyboard.press("f")
    page.select_option("#flag-kind", "Something else")
    check_contrast(page, 30)
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    check_contrast(page, 30)
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    check_contrast(page, 30)
    page.evaluate("document.querySelector('form[data-lease]').noValidate = true")
    page.evaluate("document.querySelector('#left_clearly').checked = false")
    with page.expect_navigation():
        page.click("#submit")
    assert page.locator("[role=alert]").count() == 1
    check_contrast(page, 30)
    page.keyboard.press("1")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    assert page.locator(".saved").is_visible()
    check_contrast(page, 8)
    page.goto("/nowhere")
    check_contrast(page, 3)
    for path, at_least in (
        ("/label/abc", 8),
        ("/label", 8),
        ("/history", 8),
        ("/guidelines", 6),
        ("/label/99", 6),
        ("/password", 5),
    ):
        page.goto(path)
        check_contrast(page, at_least)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_what_cannot_be_changed_can_be_read(opened: Opening, store: LabelStore, person: Person, scheme: str):
    page = opened(color_scheme=scheme, viewport={"width": 1440, "height": 900})
    answered = page.url
    page.keyboard.press("1")
    with page.expect_navigation():
        page.keyboard.press("Enter")
    with store.changing(PROJECT) as (connection, project):
        pause(connection, project, person.name, "Please read the guidelines again.", 1.0)
        connection.execute(LEASE.update().values(purpose="qualification"))
    for path, at_least in (("/label", 8), ("/history", 9), (answered, 30)):
        page.goto(path)
        check_contrast(page, at_least)
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    page.keyboard.press("Tab")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineWidth") == "3px"


def test_dark_is_dark_and_light_is_light(opened: Opening):
    def brightness(page: Page) -> int:
        return page.evaluate("Number(getComputedStyle(document.documentElement).backgroundColor.match(/\\d+/)[0])")

    assert brightness(opened(color_scheme="light")) > 220
    assert brightness(opened(color_scheme="dark")) < 40


def test_the_focus_goes_from_top_to_bottom(opened: Opening):
    page = opened(viewport={"width": 1440, "height": 900})
    seen = []
    where = (
        "() => (e => e.id || e.name || (e.closest('section') || e).className || e.innerText)(document.activeElement)"
    )
    outlined = """() => (e => getComputedStyle(e.type === 'radio' ? e.labels[0] : e).outline)(document.activeElement)
        .match(/solid 3px|3px solid/)"""
    page.keyboard.press("Tab")
    while not page.evaluate("document.activeElement === document.body"):
        seen.append(page.evaluate(where))
        assert page.evaluate(outlined), seen[-1]
        page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement === document.body")
    named = [name for name in seen if name]
    wanted = ["to-label", "to-history", "to-guidelines", "prompt pane", "view-formatted", "answer left", "answer right"]
    wanted += ["left_clearly", "attribute-1-left", "reason", "submit", "undo-last"]
    places = [named.index(name) for name in wanted]
    assert places == sorted(places)
    assert len(seen) < 22
    tops = page.evaluate(
        "['to-label', 'left_clearly', 'reason'].map(i => document.getElementById(i).getBoundingClientRect().top)"
    )
    assert tops == sorted(tops)


def test_a_desk_shows_the_whole_task_without_scrolling_the_page(opened: Opening):
    page = opened(viewport={"width": 1440, "height": 900})
    assert page.evaluate("document.documentElement.scrollHeight") <= 900
    left, right = (page.locator(f".{side} .pane").bounding_box() for side in ("left", "right"))
    assert (left["y"], left["height"], left["width"]) == (right["y"], right["height"], right["width"])
    assert left["x"] + left["width"] < right["x"]
    assert left["height"] > 250
    assert page.locator("#submit").bounding_box()["y"] < 900 - 44


def test_a_phone_shows_one_answer_below_the_other_and_buttons_for_thumbs(opened: Opening):
    page = opened(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    left, right = (page.locator(f".{side} .pane").bounding_box() for side in ("left", "right"))
    assert left["y"] + left["height"] < right["y"]
    assert page.locator(".answer h2").all_inner_texts() == ["First answer", "Second answer"]
    assert page.locator(".option label").first.inner_text() == "First clearly better"
    assert page.locator("kbd:visible").count() == 0
    for target in page.locator(".option label, .segments label, .bar button:visible, .bar summary").all():
        box = target.bounding_box()
        assert box["height"] >= 44
        assert box["width"] >= 44
    page.tap("label[for=right_clearly]")
    page.tap("#skip summary")
    with page.expect_navigation():
        page.tap("text=I cannot judge this")
    assert page.locator("h1").inner_text() == "All done. Thank you!"
