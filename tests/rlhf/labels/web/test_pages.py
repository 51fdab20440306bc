"""The annotator's routes without a browser: who sees what, and what is not told."""

import re

import pytest

pytest.importorskip("fastapi")

import visits
from fastapi import FastAPI
from label_site import PROJECT, Person, add_person, add_tasks, events
from starlette.testclient import TestClient

from rlhf.labels.accounts.users import Role, pause
from rlhf.labels.collection.queue import Purpose
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.records import Choice
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import GUIDELINES
from rlhf.labels.web.answer_form import FLAGS, SKIPS, Fields, answer, fields_of, sent
from rlhf.labels.web.app import create_app
from sft.core.errors import DataError
from sft.core.text import user

SECRETS = ("gold", "probe", "qualification", "purpose", "known answer", "secret-model", "score", "task_id", "test task")


def pairs(number: int, gold: Choice | None = None, prefix: str = "q") -> list[Pair]:
    of = {"model_a": "secret-model-a", "model_b": "secret-model-b", "score": 0.123456, "gold": gold}
    return [Pair(user(f"{prefix}{n}"), f"x {prefix}{n}", f"y {prefix}{n}", **of) for n in range(number)]


@pytest.fixture
def clock() -> visits.Clock:
    return visits.Clock()


@pytest.fixture
def app(store: LabelStore, clock: visits.Clock) -> FastAPI:
    return create_app(store, PROJECT, clock=clock)


def enter(app: FastAPI, store: LabelStore, name: str = "Noor", role: Role = Role.ANNOTATOR) -> TestClient:
    person: Person = add_person(store, name, role, now=visits.Clock().now)
    return visits.browser(app, person.token)


def fields(page: str) -> dict[str, str]:
    """Return the hidden fields of a task's form."""
    form = page[page.index('<form method="post" action="/label/') :]
    return dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[: form.index("</form>")]))


def address(page: str) -> str:
    return re.search(r'action="(/label/\d+)"', page)[1]


def send(client: TestClient, page: str, **given: str):
    return client.post(address(page), data={**fields(page), **given}, headers=visits.OURS)


def test_nothing_tells_what_a_task_is_for_or_what_wrote_it(app, store, clock):
    add_tasks(store, pairs(2, Choice.A, "k"), Purpose.QUALIFICATION)
    add_tasks(store, pairs(3, Choice.A, "g"), Purpose.GOLD)
    add_tasks(store, pairs(6), gold_share=0.5, probe_share=0.5, probe_after=0, qualification_accuracy=0)
    client = enter(app, store)
    shapes = set()
    for _ in range(20):
        clock.now += 60
        got = client.get("/label")
        told = (got.text + str(got.headers) + str(client.cookies)).lower()
        assert [word for word in SECRETS if word in told] == []
        if "data-lease" not in got.text:
            break
        shapes.add(
            re.sub(r"<pre.*?</pre>|<ins>.*?</ins>|<del>.*?</del>|\d+|<p>[xy]|[kgq]\d|(?<=</b> label)s", "", got.text)
        )
        sent_back = send(client, got.text, verdict="left_clearly")
        saved = address(got.text).replace("/label/", "/label?saved=")
        assert (sent_back.status_code, sent_back.headers["location"]) == (303, saved)
    assert len(shapes) == 1
    kinds = {row[0] for row in events(store)}
    assert kinds == {"gold", "label", "probe"}
    assert not [word for word in SECRETS if word in client.get("/history").text.lower()]


def test_why_there_is_nothing_to_do_is_told_without_numbers(app, store, clock):
    add_tasks(store, pairs(1))
    first, second = enter(app, store), enter(app, store, "Ida")
    page = first.get("/label").text
    assert "Others are working on the last tasks" in second.get("/label").text
    send(first, page, verdict="tie")
    assert "All done" in second.get("/label").text
    with store.changing(PROJECT) as (connection, project):
        pause(connection, project, "Ida", "3 of the last 10 tasks with a known answer were right", clock.now)
    paused = second.get("/label").text
    assert "Your work is paused" in paused
    assert not re.search(r"3 of|10 tasks|known answer|right", paused)


def test_who_failed_the_qualification_is_told_so_kindly(app, store):
    add_tasks(store, pairs(1, Choice.TIE), Purpose.QUALIFICATION)
    add_tasks(store, pairs(1, prefix="r"))
    client = enter(app, store)
    send(client, client.get("/label").text, verdict="left_clearly")
    page = client.get("/label").text
    assert "Thank you for your time" in page
    assert not re.search(r"0 of|1 of|qualification|wrong", page)


def test_another_persons_task_does_not_exist(app, store):
    add_tasks(store, pairs(2))
    first, second = enter(app, store), enter(app, store, "Ida")
    page = first.get("/label").text
    other = second.get("/label").text
    assert second.get(address(page)).status_code == 404
    got = second.post(
        address(page), data={**fields(other), "verdict": "tie", "reason": "kept <b>"}, headers=visits.OURS
    )
    assert got.status_code == 404
    assert "kept &lt;b&gt;" in got.text
    assert "q" not in re.findall(r'<div class="formatted">(.*?)</div>', got.text)
    assert events(store) == []


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "Nothing is chosen yet"),
        ({"skip": "", "reason": " ", "flag_note": "long thoughts"}, "choose why you skip"),
        ({"verdict": "best"}, "does not know what was chosen"),
        ({"verdict": "tie", "attribute:other": "left"}, "is not asked in this project"),
        ({"verdict": "tie", "attribute:clear": "up"}, "does not know what was chosen"),
        ({"verdict": "tie", "flag_note": "\0"}, "U+0000"),
        ({"verdict": "tie", "flag": "x" * 10_001}, "please shorten it"),
        ({"verdict": "tie", "revision": "-1"}, "without its number"),
        ({"verdict": "tie", "guideline_version": "9" * 30}, "without its number"),
    ],
)
def test_what_cannot_be_stored_comes_back_with_all_that_was_typed(app, store, given, told):
    add_tasks(store, pairs(1), attributes=("clear",))
    client = enter(app, store)
    page = client.get("/label").text
    got = send(client, page, **{"reason": "long thoughts", **given})
    assert got.status_code == 422
    assert told in got.text
    assert "long thoughts" in got.text or "without its number" in told
    assert events(store) == []


def test_the_version_that_the_page_showed_is_stored(app, store):
    add_tasks(store, pairs(1))
    client = enter(app, store)
    page = client.get("/label").text
    with store.changing(PROJECT) as (connection, _):
        connection.execute(GUIDELINES.update().values(version=7))
    assert fields(page)["guideline_version"] == "1"
    assert fields(client.get("/label").text)["guideline_version"] == "7"


def test_undo_without_an_answer_changes_nothing(app, store):
    add_tasks(store, pairs(1))
    client = enter(app, store)
    csrf = fields(client.get("/label").text)["csrf"]
    assert client.post("/undo", data={"csrf": csrf}, headers=visits.OURS).headers["location"] == "/label"
    assert events(store) == []


def test_undo_offers_the_answer_again_and_sent_twice_takes_back_one(app, store):
    add_tasks(store, pairs(3))
    client = enter(app, store)
    first = client.get("/label").text
    send(client, first, verdict="tie", reason="one")
    second = client.get("/label").text
    send(client, second, verdict="left_clearly", reason="two words")
    page = client.get("/label").text
    form = page[page.index('action="/undo"') :]
    undo = dict(re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)">', form[: form.index("</form>")]))
    answers = [client.post("/undo", data=undo, headers=visits.OURS) for _ in range(2)]
    assert [answer.headers["location"] for answer in answers] == [address(second)] * 2
    assert [row[0] for row in events(store)] == ["label", "label", "undo"]
    again = client.get(address(second)).text
    assert re.search(r'value="left_clearly"[^>]* checked', again)
    assert "two words" in again
    assert "You have answered this task before" not in again


def test_an_owner_reads_the_guidelines_and_labels_nothing(app, store):
    add_tasks(store, pairs(1))
    client = enter(app, store, "Ada", Role.OWNER)
    assert client.get("/guidelines").status_code == 200
    assert [client.get(path).status_code for path in ("/label", "/label/1", "/history")] == [403] * 3


@pytest.mark.parametrize("number", ["0", "-1", "99999999999", "x", "abc"])
def test_numbers_that_no_task_has(app, store, number):
    add_tasks(store, pairs(1))
    client = enter(app, store)
    page = client.get(f"/label/{number}", headers={"accept": "text/html"})
    assert (page.status_code, "check its number" in page.text) == (404, True)
    assert 'href="/label">To your next task</a>' in page.text
    assert "app.css" in page.text
    as_json = client.get(f"/label/{number}", headers={"accept": "application/json"})
    assert (as_json.status_code, set(as_json.json())) == (404, {"error"})


def saved(page: str) -> str | None:
    found = re.search(r'<p class="saved" role="status"><b>Saved:</b>(.*?)</p>', page, re.DOTALL)
    return None if found is None else " ".join(re.sub("<[^>]*>", " ", found[1]).split())


def test_what_was_saved_is_said_and_nothing_that_was_not(app, store):
    add_tasks(store, pairs(3))
    client = enter(app, store)
    first = client.get("/label").text
    after = [send(client, first, verdict="both_bad").headers["location"] for _ in range(2)]
    assert after[0] == after[1]
    second = client.get(after[0]).text
    assert (saved(first), saved(second)) == (None, "Both bad")
    own = address(first).removeprefix("/label/")
    for path in ("/label", "/label?saved=", "/label?saved=x", f"/label?saved={int(own) + 1}", address(first)):
        assert saved(client.get(path).text) is None
    undo = {"csrf": fields(second)["csrf"]}
    client.post("/undo", data=undo, headers=visits.OURS)
    assert saved(client.get(f"/label?saved={own}").text) is None, "it was taken back"
    for _ in range(3):
        last = send(client, client.get("/label").text, skip=SKIPS[0])
    page = client.get(last.headers["location"]).text
    assert ("All done" in page, saved(page)) == (True, "Skipped")


def test_labels_and_skips_are_counted_apart(app, store):
    add_tasks(store, pairs(4))
    client = enter(app, store)
    for given in ({"verdict": "tie"}, {"skip": SKIPS[0]}, {"verdict": "tie"}):
        page = client.get(send(client, client.get("/label").text, **given).headers["location"]).text
    header = " ".join(re.sub("<[^>]*>", "", re.search(r'<span class="done">(.*)', page)[1]).split())
    assert header.startswith("2 labels, 2 today · 1 skipped")
    history = re.sub("<[^>]*>", "", client.get("/history").text)
    assert "You have given 2 labels, 2 in the last 24 hours, and skipped 1 task. The project has 4 tasks" in history


def test_an_answer_from_before_the_work_is_closed(app, store):
    add_tasks(store, pairs(1, Choice.A, "k"), Purpose.QUALIFICATION)
    add_tasks(store, pairs(1), qualification_accuracy=0)
    client = enter(app, store)
    test = client.get("/label").text
    send(client, test, verdict="tie", reason="so it is")
    work = client.get("/label").text
    send(client, work, verdict="both_bad")
    listed = client.get("/history").text
    rows = re.findall(r'<li><a href="([^"]*)">(.*?)</li>', listed, re.DOTALL)
    assert [(path, "Closed" in row) for path, row in rows] == [(address(work), False), (address(test), True)]
    assert "those that are closed stay as they are" in listed
    page = client.get(address(test)).text
    assert "This answer cannot be changed" in page
    assert "so it is" in page
    assert 'form method="post" action="/label/' not in page
    assert 'action="/undo"' not in page
    got = send(client, work.replace(address(work), address(test)), verdict="both_bad", revision="1")
    assert (got.status_code, "its answer stands" in got.text, "Both bad" in got.text) == (422, True, True)
    assert [row[1] for row in events(store)] == ["tie", "tie"]


def test_who_is_paused_reads_why_and_changes_nothing(app, store, clock):
    add_tasks(store, pairs(2))
    client = enter(app, store)
    page = client.get("/label").text
    send(client, page, verdict="tie")
    with store.changing(PROJECT) as (connection, project):
        pause(connection, project, "Noor", "please <call> me", clock.now)
    assert "please &lt;call&gt; me" in client.get("/label").text
    shown = client.get(address(page)).text
    assert "please &lt;call&gt; me" in shown
    assert 'form method="post" action="/label/' not in shown
    got = send(client, page, verdict="both_bad", revision="1", reason="another word")
    assert (got.status_code, "another word" in got.text) == (422, True)
    csrf = {"csrf": fields(page)["csrf"]}
    assert client.post("/undo", data=csrf, headers=visits.OURS).headers["location"] == "/label"
    assert "change none" in client.get("/history").text
    bearer = {"authorization": f"Bearer {client.cookies['labels-p']}"}
    for path, body in (
        ("undo", {}),
        ("labels", {"lease_id": 1, "revision": 1, "verdict": None, "reason": "x", "guideline_version": 1}),
    ):
        response = client.post(f"/api/v1/{path}", json=body, headers=bearer)
        assert (response.status_code, "please <call> me" in response.json()["error"]) == (422, True)
    assert [row[0] for row in events(store)] == ["label"]


@pytest.mark.parametrize(
    "given",
    [
        Fields("tie", {"clear": "left"}, "why: not", None, FLAGS[0], "a: b", 3, 2),
        Fields(skip=SKIPS[1], reason="because: of", guideline_version=1, revision=1),
        Fields(skip="", reason="own words"),
        Fields("both_bad", flag=FLAGS[3]),
    ],
)
def test_an_answer_becomes_the_fields_that_it_was(given):
    assert fields_of(answer(given), given.revision, given.guideline_version) == given


def test_fields_of_a_form():
    form = {"verdict": "tie", "reason": " a\r\nb ", "attribute:x": "left", "attribute:y": "", "csrf": "c"}
    got = sent({**form, "revision": "2", "guideline_version": "1"})
    assert got == Fields("tie", {"x": "left"}, "a\nb", None, guideline_version=1, revision=2)
    with pytest.raises(DataError, match="sent without its number"):
        sent(form)
