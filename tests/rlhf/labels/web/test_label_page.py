"""People at work in a real browser: what they do becomes exactly the events that it should, and nothing is lost."""

import pytest

pytest.importorskip("playwright")
pytest.importorskip("fastapi")

from label_site import COOKIE, PROJECT, Opening, Person, add_person, add_tasks, events
from playwright.sync_api import Page, expect

from rlhf.labels.accounts.users import pause
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.store import LabelStore
from sft.core.text import user

LEFT_CLEARLY = ("label", "left", 2.0, None, None)
RIGHT_SLIGHTLY = ("label", "right", 1.0, None, None)
UNDONE = ("undo", None, None, None, None)


@pytest.fixture
def person(store: LabelStore) -> Person:
    pairs = [Pair(user(f"question {n}"), f"one answer {n}", f"another answer {n}") for n in range(3)]
    add_tasks(store, pairs, attributes=("helpful", "honest"))
    return add_person(store)


def task(page: Page) -> str:
    """Return the number in the prompt of the task that is shown."""
    return page.locator(".prompt .formatted").inner_text().split()[-1]


def press(page: Page, *keys: str) -> None:
    for key in keys:
        page.keyboard.press(key)


def submit(page: Page, *keys: str) -> None:
    """Choose and submit by keys, and wait for what comes next."""
    press(page, *keys)
    with page.expect_navigation():
        press(page, "Enter")


def follow(page: Page, what: str) -> None:
    """Click, and wait for the page that comes next."""
    with page.expect_navigation():
        page.click(what)


def test_a_whole_run_by_keyboard_alone(opened: Opening, store: LabelStore):
    page = opened()
    submit(page, "3", "1")
    expect(page.locator("#live")).to_have_text("Saved. This is the next task.")
    assert events(store) == [LEFT_CLEARLY]
    page.focus("#reason")
    page.keyboard.type("s u 5 ?\nf")
    assert page.locator("dialog[open], details[open], input:checked[name=verdict]").count() == 0
    press(page, "Escape", "4", "f", "Tab")
    page.keyboard.type("cut off")
    press(page, "Escape", "Escape")
    submit(page)
    assert events(store)[1:] == [
        (*RIGHT_SLIGHTLY[:4], "s u 5 ?\nf"),
        ("flag", None, None, None, "Something else: cut off"),
    ]
    press(page, "s", "Tab")
    submit(page)
    assert events(store)[3:] == [("skip", None, None, None, "I would rather not read this")]
    expect(page.locator("h1")).to_have_text("All done. Thank you!")
    press(page, "u")
    page.wait_for_url("**/label/*")
    submit(page, "0")
    assert events(store)[4:] == [UNDONE, ("label", "tie", None, None, None)]


def test_the_other_keys(opened: Opening):
    page = opened()
    press(page, "d")
    assert page.locator(".left del").inner_text() == "one"
    press(page, "d", "r")
    assert page.locator(".left .raw").is_visible()
    assert not page.locator(".left .formatted").is_visible()
    for key, name in (("g", "guidelines"), ("?", "help")):
        press(page, key, "1")
        assert page.locator("dialog[open]").get_attribute("id") == name
        press(page, "Escape")
    assert page.locator("input:checked[name=verdict]").count() == 0
    assert "stored" not in page.url


def test_a_whole_run_by_mouse_without_scripts(opened: Opening, store: LabelStore):
    page = opened(java_script_enabled=False)
    assert not page.locator("kbd:visible").count()
    page.click("label[for=left_slightly]")
    page.click("label[for=attribute-2-right]")
    page.fill("#reason", "shorter")
    follow(page, "#submit")
    assert events(store) == [("label", "left", 1.0, None, "shorter"), ("label", "right", None, "honest", None)]
    assert page.locator(".saved").get_attribute("role") == "status"
    assert page.locator(".saved").inner_text() == "Saved: Left slightly better"
    page.click("summary:has-text('Flag')")
    page.select_option("#flag-kind", "Unsafe or harmful")
    page.click("summary:has-text('Skip')")
    follow(page, "text=I cannot judge this")
    assert events(store)[2:] == [
        ("skip", None, None, None, "I cannot judge this"),
        ("flag", None, None, None, "Unsafe or harmful"),
    ]
    follow(page, "text=Undo")
    page.click("label[for=both_bad]")
    follow(page, "#submit")
    flagged_still = ("flag", None, None, None, "Unsafe or harmful")
    assert events(store)[4:] == [UNDONE, ("label", "tie", None, None, None), flagged_still]
    follow(page, "text=My answers")
    assert page.locator(".history .choice").all_inner_texts() == ["Both bad", "Left slightly better"]
    follow(page, ".history li:nth-child(2) a")
    assert page.input_value("#reason") == "shorter"
    assert page.is_checked("#left_slightly")
    assert page.is_checked("#attribute-2-right")
    page.click("label[for=tie]")
    follow(page, "#submit")
    assert events(store)[7:] == [
        ("label", "tie", None, None, "shorter"),
        ("label", "right", None, "honest", None),
    ]
    page.click("text=Differences")
    assert page.locator(".left .differences").is_visible()
    follow(page, "nav >> text=Guidelines")
    assert page.locator(".document strong").inner_text() == "helps"


def test_an_answer_that_is_closed_is_read_with_the_keys_that_read(opened: Opening, store: LabelStore, person: Person):
    page = opened()
    answered = page.url
    submit(page, "1")
    with store.changing(PROJECT) as (connection, project):
        pause(connection, project, person.name, "a word first", 1.0)
    page.goto(answered)
    assert "a word first" in page.locator(".notice").inner_text()
    press(page, "d")
    assert page.locator(".left del").is_visible()
    press(page, "d", "s", "f", "1", "Enter", "g")
    assert page.locator("dialog[open]").get_attribute("id") == "guidelines"
    assert len(events(store)) == 1


def test_a_reload_loses_nothing(opened: Opening, store: LabelStore):
    page = opened()
    first = task(page)
    page.fill("#reason", "half a tho")
    press(page, "Escape", "2", "f")
    page.select_option("#flag-kind", "Broken or cut off")
    page.reload()
    assert task(page) == first
    assert (page.input_value("#reason"), page.input_value("#flag-kind")) == ("half a tho", "Broken or cut off")
    assert page.is_checked("#left_slightly")
    submit(page)
    assert task(page) != first
    assert page.input_value("#reason") == ""
    assert page.evaluate("Object.keys(sessionStorage)") == []
    assert len(events(store)) == 2


def test_the_back_button_shows_the_answer_to_edit(opened: Opening, store: LabelStore):
    page = opened()
    first = task(page)
    submit(page, "1")
    page.go_back()
    assert task(page) == first
    assert page.is_checked("#left_clearly")
    submit(page)
    assert events(store) == [LEFT_CLEARLY, LEFT_CLEARLY]
    assert task(page) != first


def test_two_tabs_with_the_same_answer_store_it_once(opened: Opening, store: LabelStore):
    page = opened()
    other = opened(beside=page)
    assert task(page) == task(other)
    submit(page, "1")
    submit(other, "1")
    assert events(store) == [LEFT_CLEARLY]
    assert task(page) == task(other)


@pytest.mark.parametrize("keeps", [True, False])
def test_two_tabs_with_different_answers_ask_which_one_holds(opened: Opening, store: LabelStore, keeps: bool):
    page = opened()
    other = opened(beside=page)
    submit(page, "1")
    other.fill("#reason", "<b>my</b>\nreason")
    other.click("label[for=attribute-1-left]")
    submit(other, "4")
    assert events(store) == [LEFT_CLEARLY]
    shown = [section.inner_text() for section in other.locator(".both section").all()]
    assert "Left clearly better" in shown[0]
    assert all(words in shown[1] for words in ("Right slightly better", "<b>my</b>\nreason", "helpful"))
    follow(other, "text=Keep this one" if keeps else "text=Use this one instead")
    sent = [("label", "right", 1.0, None, "<b>my</b>\nreason"), ("label", "left", None, "helpful", None)]
    assert events(store)[1:] == ([] if keeps else sent)
    assert task(other) != task(page) or other.url == page.url


def test_an_answer_is_sent_once_however_often_one_clicks(opened: Opening, store: LabelStore):
    page = opened()
    posts = []
    page.on("request", lambda request: posts.append(request.url) if request.method == "POST" else None)
    press(page, "1")
    page.dblclick("#submit", no_wait_after=True)
    page.wait_for_function("document.querySelector('.done').innerText.startsWith('1')")
    assert len(posts) == 1
    assert events(store) == [LEFT_CLEARLY]


def test_nothing_overtakes_an_answer_on_its_way(opened: Opening, store: LabelStore):
    page = opened()
    press(page, "1")
    key = "document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'u', bubbles: true }))"
    with page.expect_navigation():
        page.evaluate(
            f"document.getElementById('submit').click(); {key}; document.getElementById('undo').requestSubmit()"
        )
    assert events(store) == [LEFT_CLEARLY]


def test_an_answer_without_a_choice_is_not_sent(opened: Opening, store: LabelStore):
    page = opened()
    page.fill("#reason", "kept")
    press(page, "Escape", "Enter")
    assert page.evaluate("document.activeElement.name") == "verdict"
    page.evaluate("document.querySelector('form[data-lease]').noValidate = true")
    submit(page)
    assert "Nothing is chosen yet" in page.locator("[role=alert]").inner_text()
    assert page.input_value("#reason") == "kept"
    submit(page, "1")
    assert events(store) == [(*LEFT_CLEARLY[:4], "kept")]


def test_the_answer_of_somebody_who_was_logged_out_is_kept(opened: Opening, store: LabelStore, person: Person):
    page = opened()
    page.fill("#reason", "long thoughts")
    page.context.clear_cookies()
    press(page, "Escape")
    submit(page, "1")
    assert "nothing was stored" in page.inner_text("main")
    page.context.add_cookies([{"name": COOKIE, "value": person.token, "url": page.url.partition("/label")[0]}])
    page.goto("/label")
    assert page.input_value("#reason") == "long thoughts"
    assert page.is_checked("#left_clearly")
    assert events(store) == []
