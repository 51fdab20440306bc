"""The owner's pages in the real application."""

import json
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import pytest
from label_people import START, Worker, hire, open_study, pairs, work
from label_removal import erase
from starlette.testclient import TestClient

from rlhf.labels.accounts import sessions
from rlhf.labels.collection.monitor import overview
from rlhf.labels.collection.people import Standing
from rlhf.labels.collection.snapshot import snapshot
from rlhf.labels.collection.study import Study, guidelines
from rlhf.labels.store import LabelStore, now
from rlhf.labels.tables import ACCOUNT
from rlhf.labels.web.app import create_app
from rlhf.labels.web.owner import pages
from rlhf.labels.web.plots import Dot, Part, bar_plot, dot_plot, history_plot, progress_bar
from rlhf.labels.web.site import Site
from rlhf.labels.web.watch import FRESH_SECONDS, Watch
from sft.core.statistics import proportion

STUDY = Study(overlap=2, gold_share=0.2, probe_share=0.1, probe_after=2, pause_below=0.0)
HOSTILE = '<script>alert(1)</script>"'
WORKERS = (Worker("ann", skip=0.05, flag=0.1), Worker("lefty", left=1.0), Worker(HOSTILE, skill=0.6))
GETS = ("/dashboard", "/dashboard/tasks", "/dashboard/guidelines", "/api/v1/dashboard", "/dashboard/annotators/1")
POSTS = (
    "/dashboard/invite",
    "/dashboard/guidelines",
    "/dashboard/annotators/1/pause",
    "/dashboard/annotators/1/resume",
)


@dataclass
class Served:
    """The application, a browser of its owner's, and a clock that tests turn."""

    store: LabelStore
    client: TestClient
    csrf: str
    time: float

    def get(self, path: str) -> str:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.text

    def post(self, path: str, status: int, **fields: str) -> str:
        answer = self.client.post(path, data={"csrf": self.csrf, **fields}, follow_redirects=False)
        assert answer.status_code == status, answer.text
        return answer.text


def session_of(store: LabelStore, name: str, role: str, time: float, annotator_id: int | None = None) -> str:
    with store.changing("p") as (connection, project):
        account = {"project_id": project.id, "annotator_id": annotator_id, "name": name, "role": role}
        made = ACCOUNT.insert().values(**account, password_hash="-", created_at=now()).returning(ACCOUNT.c.id)
        return sessions.start(connection, connection.execute(made).scalar_one(), time)


class Begun(NamedTuple):
    file: Path
    token: str
    time: float


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Begun:
    """A project of some labels and an owner; each test works on a copy."""
    file = tmp_path_factory.mktemp("begun") / "labels.sqlite"
    store = LabelStore(f"sqlite:///{file}", create=True)
    open_study(store, "p", STUDY, label=pairs(24), gold=pairs(12, prefix="g", gold=True))
    end = work(store, "p", STUDY, WORKERS, answers=60, seed=1)
    return Begun(file, session_of(store, "boss", "owner", end), end)


@pytest.fixture
def served(begun: Begun, tmp_path: Path) -> Iterator[Served]:
    file = shutil.copy(begun.file, tmp_path / "labels.sqlite")
    store = LabelStore(f"sqlite:///{file}")
    app = create_app(store, "p", clock=lambda: found.time, allowed_hosts={"testserver"})
    with TestClient(app, cookies={"labels-p": begun.token}, headers={"origin": "http://testserver"}) as client:
        found = Served(store, client, sessions.csrf_token(begun.token), begun.time)
        yield found


def api(served: Served) -> dict[str, object]:
    return json.loads(served.get("/api/v1/dashboard"))


def test_the_json_is_the_overview(served):
    with served.store.reading("p") as labels:
        wanted = overview(snapshot(labels.connection, labels.project, served.time)).as_dict()
    assert api(served) == json.loads(json.dumps(wanted))
    assert len(wanted["annotators"]) == 3


def test_the_dashboard_says_the_numbers(served):
    page = served.get("/dashboard")
    found = api(served)
    progress = found["progress"]
    assert f"<h1>{progress['labels']} of {progress['wanted']} labels</h1>" in page
    assert f"<b>{progress['complete']}</b> complete" in page
    lefty = next(one for one in found["annotators"] if one["name"] == "lefty")
    assert lefty["left"]["value"] == 1.0
    for text in lefty["attention"].values():
        assert text in page
    assert '<text class="name named"' in page
    alpha = found["agreement"]["krippendorff_ordinal"]
    assert f"{alpha['value']:.2f}" in page
    assert f"{alpha['ci'][0]:.2f} to {alpha['ci'][1]:.2f}" in page


def test_a_person_in_depth(served):
    found = next(one for one in api(served)["annotators"] if one["name"] == "lefty")
    page = served.get(f"/dashboard/annotators/{found['id']}")
    right = round(found["gold"]["value"] * found["gold"]["n"])
    assert f"{right} of {found['gold']['n']} right" in page
    assert page.count('class="right"') == right
    assert page.count('class="wrong"') == found["gold"]["n"] - right
    assert "probably wrong" in page


def test_tasks_with_their_reasons(served):
    page, progress = served.get("/dashboard/tasks"), api(served)["progress"]
    assert progress["flags"] == {"broken": page.count("<td>flag</td>")}
    assert sum(progress["skips"].values()) == page.count("<td>skip</td>") > 0
    assert set(progress["skips"]) <= {"unclear prompt", "outside my field"}
    assert "Contested" in page


@pytest.mark.parametrize("path", [*GETS[:3], GETS[4]])
def test_strangers_names_stay_text_and_nothing_is_inline(served, path):
    page = served.get(path)
    assert "<script>alert" not in page
    assert " style=" not in page
    assert "<style" not in page
    assert not re.search(r"<[^>]+ on\w+=", page)


@pytest.mark.parametrize("path", GETS)
def test_nothing_is_for_annotators_or_strangers(served, path):
    token = session_of(served.store, "other", "annotator", served.time, 1)
    served.client.cookies.clear()
    stranger = served.client.get(path, follow_redirects=False)
    assert stranger.status_code in (303, 401)
    served.client.cookies.set("labels-p", token)
    assert served.client.get(path).status_code == 403


@pytest.mark.parametrize("path", POSTS)
def test_nothing_changes_for_annotators_or_without_the_token(served, path):
    token = session_of(served.store, "other", "annotator", served.time, 1)
    fields = {"reason": "why", "text": "new", "role": "annotator"}
    assert served.client.post(path, data=fields).status_code == 403
    served.client.cookies.clear()
    served.client.cookies.set("labels-p", token)
    assert served.client.post(path, data={**fields, "csrf": sessions.csrf_token(token)}).status_code == 403
    with served.store.reading("p") as labels:
        assert guidelines(labels.connection, labels.project).version == 0


def test_every_route_is_the_owners(tmp_path):
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)
    found = pages(Site(store, "p"))
    assert {route.path for route in found.router.routes} == set(found.access)
    assert {frozenset(roles) for roles in found.access.values()} == {frozenset({"owner"})}


def test_pause_and_resume_show_at_once(served):
    served.post("/dashboard/annotators/1/pause", 303, reason="  too fast  ")
    first = next(one for one in api(served)["annotators"] if one["id"] == 1)
    assert (first["standing"], first["why"]) == (Standing.PAUSED, "too fast")
    assert first["attention"]["standing"] == "paused: too fast"
    assert "Resume" in served.get("/dashboard/annotators/1")
    served.post("/dashboard/annotators/1/resume", 303)
    assert next(one for one in api(served)["annotators"] if one["id"] == 1)["standing"] == Standing.ACTIVE


def test_a_pause_needs_a_reason_of_some_length(served):
    assert "Say why" in served.post("/dashboard/annotators/1/pause", 422, reason=" ")
    assert "at most 500" in served.post("/dashboard/annotators/1/pause", 422, reason="x" * 501)
    assert api(served)["annotators"][0]["standing"] == Standing.ACTIVE


@pytest.mark.parametrize("path", ["/dashboard/annotators/999", "/dashboard/annotators/999/pause"])
def test_an_unknown_annotator(served, path):
    answer = served.client.get(path) if path.endswith("999") else None
    text = answer.text if answer is not None else served.post(path, 404, reason="x")
    assert "There is no such annotator" in text


def test_an_invite_is_shown_once_and_works(served):
    page = served.post("/dashboard/invite", 200, role="annotator")
    link = re.search(r'value="http://testserver(/invite/[^"]+)"', page)
    assert link is not None
    assert "A link for one annotator" in page
    served.client.cookies.clear()
    assert served.client.get(link[1]).status_code == 200
    assert served.client.get("/invite/wrong").status_code != 200


def test_an_invite_for_nobody(served):
    served.post("/dashboard/invite", 422, role="king")


def test_guidelines_get_versions_with_their_labels(served):
    without = "labels were given without guidelines"
    assert without in served.get("/dashboard/guidelines")
    served.post("/dashboard/guidelines", 303, text="# Read\r\nboth")
    served.post("/dashboard/guidelines", 303, text="# Read\nboth")
    served.post("/dashboard/guidelines", 303, text="Read it all")
    page = served.get("/dashboard/guidelines")
    with served.store.reading("p") as labels:
        assert tuple(guidelines(labels.connection, labels.project)) == (2, "Read it all")
    assert "Publish as version 3" in page
    assert page.count("<summary>Version") == 2
    assert "The guidelines would be empty" in served.post("/dashboard/guidelines", 422, text=" \r\n ")


def test_an_erased_person_is_gone_at_once(served):
    assert "lefty" in served.get("/dashboard")
    erase(served.store, "p", "lefty")
    assert "lefty" not in served.get("/dashboard")
    assert "lefty" not in served.get("/dashboard/tasks")
    assert all(one["name"] != "lefty" for one in api(served)["annotators"])


def test_new_answers_show_when_the_kept_numbers_are_too_old(served):
    before = api(served)
    work(served.store, "p", STUDY, WORKERS, answers=2, seed=9, start=served.time)
    assert api(served) == before
    served.time += FRESH_SECONDS
    after = api(served)
    assert after["newest_event"] > before["newest_event"]


def test_old_numbers_are_computed_again_only_where_something_happened(served):
    watch = Watch(Site(served.store, "p", lambda: served.time))
    first = watch.seen()
    served.time += 3600
    second = watch.seen()
    assert second.overview.annotators is first.overview.annotators
    assert second.overview.progress.hourly[-2] == first.overview.progress.hourly[-1] > 0
    assert watch.doubts() is watch.doubts()


def test_labels_that_wait_for_more_people(served):
    def done_in() -> str:
        return re.search(r"<h2>Done in</h2>(.*?)</section>", served.get("/dashboard"), re.DOTALL)[1]

    assert "cannot come" not in done_in()
    assert "Assumed:" in done_in()
    with served.store.changing("p") as (connection, _):
        connection.execute(ACCOUNT.update().where(ACCOUNT.c.name != "ann").values(paused_at=1.0, paused_reason="away"))
    progress = api(served)["progress"]
    assert 0 < progress["out_of_reach"] < progress["missing"]
    found = re.sub(r"\s+", " ", done_in())
    wanted = f"<b>{progress['out_of_reach']} labels</b> cannot come at any pace: nobody is left who may label"
    assert wanted in found
    assert "1 more person would do" in found
    assert f"{progress['missing'] - progress['out_of_reach']} labels are missing. Assumed:" in found
    with served.store.changing("p") as (connection, _):
        connection.execute(ACCOUNT.update().values(paused_at=1.0, paused_reason="away"))
    assert "Waits for people" in done_in()
    assert "Assumed" not in done_in()


def test_a_new_project(tmp_path):
    store = LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)
    open_study(store, "p", STUDY, label=pairs(3))
    token = session_of(store, "boss", "owner", START)
    app = create_app(store, "p", clock=lambda: START, allowed_hosts={"testserver"})
    client = TestClient(app, cookies={"labels-p": token})
    page = client.get("/dashboard").text
    assert "<h1>0 of 6 labels</h1>" in page
    assert "No annotator has an account yet" in page
    with store.changing("p") as (connection, project):
        hire(connection, project, "new")
    assert "not known yet" in client.get("/dashboard").text
    assert "No task with a known answer" in client.get("/dashboard/annotators/1").text
    assert client.get("/dashboard/tasks").status_code == 200


# Pictures


def marks(picture: str, kind: str) -> list[ElementTree.Element]:
    return [element for element in ElementTree.fromstring(picture).iter() if element.get("class") == kind]


def test_dots_stand_where_their_shares_are():
    dots = [
        Dot("all", proportion([1.0] * 4), False),
        Dot("half & half", proportion([1.0, 0.0]), True),
        Dot("?", None, False),
    ]
    picture = dot_plot('a "title"', dots, 0.5, "even")
    root = ElementTree.fromstring(picture)
    left, right = (float(marks(picture, "grid")[place].get("d").split()[0][1:]) for place in (0, 4))
    full, half = (float(circle.get("cx")) for circle in root.iter("circle"))
    assert (full, half) == (right, (left + right) / 2)
    assert marks(picture, "reference")[0].get("d").startswith(f"M{half} ")
    assert (root.get("role"), root.get("aria-label")) == ("img", 'a "title"')
    assert [text.text for text in root.iter("text")][-1] == "not known yet"
    assert "half & half: 50 %, n = 2" in [title.text for title in root.iter("title")]


def test_bars_are_as_high_as_their_counts():
    picture = bar_plot("t", [0, 4, 2], [(0, "start")])
    four, two = (float(bar.get("height")) for bar in marks(picture, "bar"))
    assert four == pytest.approx(2 * two, abs=0.2)
    places = [float(bar.get("x")) + float(bar.get("width")) / 2 for bar in marks(picture, "bar")]
    start = float(marks(picture, "tick")[-1].get("x"))
    assert places[0] - start == pytest.approx(1.5 * (places[1] - places[0]), abs=0.2)
    assert [mark.text for mark in marks(picture, "tick")] == ["0", "1", "2", "3", "4", "start"]
    assert marks(bar_plot("t", [], []), "bar") == []


@pytest.mark.parametrize(("highest", "ticks"), [(3, 4), (9, 5), (10, 3), (119, 3), (999, 5), (250_000, 3)])
def test_ticks_are_few_and_round(highest, ticks):
    found = [mark.text for mark in marks(bar_plot("t", [highest], []), "tick")]
    assert len(found) == ticks
    assert re.fullmatch("[125]0*", found[1])


def test_progress_fills_the_bar():
    picture = progress_bar("t", [Part("complete", 3, "done"), Part("untouched", 1, "none")])
    assert [float(marks(picture, kind)[0].get("width")) for kind in ("complete", "untouched")] == [750, 250]
    assert 'preserveAspectRatio="none"' in picture


def test_history_shows_each_answer_and_the_mean_of_the_last():
    picture = history_plot("t", [True, False, False, True], 2)
    assert (len(marks(picture, "right")), len(marks(picture, "wrong"))) == (2, 2)
    heights = [float(point.split(",")[1]) for point in marks(picture, "line")[0].get("points").split()]
    top, bottom = min(heights), max(heights)
    assert [(bottom - height) / (bottom - top) for height in heights] == [1, 0.5, 0, 0.5]
