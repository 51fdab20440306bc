"""The whole site: every route against everybody."""

import json

import pytest
from entrants import GOOD, OTHER, annotator_id, hash_cheaply, joined, new_store
from queued import fill
from sqlalchemy import func, select
from visits import HOST, OURS, PLACE, Clock, all_routes, browser, filled

from rlhf.labels.accounts.sessions import csrf_token
from rlhf.labels.accounts.users import Role, pause
from rlhf.labels.collection import queue
from rlhf.labels.collection.study import Study, study
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import EVENT, TASK
from rlhf.labels.web.app import create_app, loopback_hosts
from rlhf.labels.web.site import STATIC, static_url

MARKER = "model-that-nobody-may-see"
SETTINGS = Study(overlap=2, gold_share=0.0, probe_share=0.0, attributes=("helpful",))
OPEN = {"/", "/login", "/invite/{token}", "/static/{name}", "/api/v1/session"}
ANNOTATORS = {
    "/label",
    "/label/{lease_id}",
    "/undo",
    "/history",
    "/api/v1/claim",
    "/api/v1/labels",
    "/api/v1/undo",
    "/api/v1/progress",
}
BOTH = {"/guidelines", "/password", "/logout", "/api/v1/logout", "/api/v1/openapi.json"}


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    hash_cheaply(monkeypatch)


@pytest.fixture
def store(tmp_path) -> LabelStore:
    store = new_store(tmp_path)
    fill(store, 5, settings=SETTINGS)
    with store.changing("p") as (connection, _):
        connection.execute(TASK.update().values(model_a=MARKER, model_b=MARKER))
    return store


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(store, clock):
    return create_app(store, "p", clock=clock)


@pytest.fixture
def tokens(store, clock) -> dict[str, str]:
    """Return the sessions of everybody; Bo has a task open, Cy is paused."""
    found = {name: joined(store, name, now=clock()) for name in ("Bo", "Cy", "Di")}
    found["Ada"] = joined(store, "Ada", Role.OWNER, clock())
    with store.changing("p") as (connection, project):
        pause(connection, project, "Cy", "on leave", clock())
    claimed(store, "Bo", clock)
    return found


def claimed(store, name, clock) -> queue.Lease:
    person = annotator_id(store, name)
    with store.changing("p") as (connection, project):
        found = queue.claim(connection, project, study(connection, project), person, clock())
    assert isinstance(found, queue.Lease)
    return found


def events(store) -> int:
    with store.changing("p") as (connection, _):
        return connection.scalar(select(func.count()).select_from(EVENT)) or 0


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def status(app, token, method, path, **headers) -> int:
    given = {**OURS, "x-csrf-token": csrf_token(token), **headers}
    return browser(app, token).request(method, filled(path), headers=given).status_code


def test_every_route_is_walked_by_everybody(app, tokens):
    """Refused are exactly those who may not; what else a page answers is its own affair."""
    routes = all_routes(app)
    owners = {path for _, path in routes} - OPEN - ANNOTATORS - BOTH
    assert len(routes) > 25
    assert {"/dashboard", "/dashboard/invite", "/api/v1/dashboard"} <= owners
    assert all(path.startswith(("/dashboard", "/api/v1/dashboard")) for path in owners)
    for method, path in routes:
        if path in OPEN | {"/logout", "/api/v1/logout"}:
            continue
        assert status(app, "", method, path) == 401, path
        page = status(app, "", method, path, accept="text/html")
        assert page == (303 if method == "GET" and not path.startswith("/api/") else 401), path
        for name in ("Bo", "Cy", "Di"):
            is_allowed = path in ANNOTATORS | BOTH
            assert (status(app, tokens[name], method, path) == 403) != is_allowed, (name, path)
        assert (status(app, tokens["Ada"], method, path) == 403) == (path in ANNOTATORS), path


def test_every_route_that_changes_something_wants_the_token(app, store, tokens):
    before = events(store)
    walked = 0
    for method, path in all_routes(app):
        if method == "GET" or path in OPEN:
            continue
        walked += 1
        for name in ("Bo", "Ada"):
            token = tokens[name]
            for headers in ({}, {"x-csrf-token": csrf_token(tokens["Di"])}, {"origin": "http://evil.tld"}):
                sent = {**OURS, **headers}
                assert browser(app, token).request(method, filled(path), headers=sent).status_code == 403, path
    assert walked >= 10
    assert events(store) == before


def test_every_answer_has_the_headers(app, tokens):
    for method, path in all_routes(app):
        for token in ("", tokens["Bo"], tokens["Ada"]):
            response = browser(app, token).request(method, filled(path), headers=OURS)
            assert "default-src 'none'" in response.headers["content-security-policy"], path
            assert response.headers["x-content-type-options"] == "nosniff"
            assert response.headers["cache-control"] == "no-store", path


def test_another_ones_task_is_as_unknown_as_none(app, store, tokens, clock):
    theirs = claimed(store, "Bo", clock).id
    client = browser(app, tokens["Di"])
    form = {"csrf": csrf_token(tokens["Di"]), "revision": "0", "verdict": "tie"}
    for path in (f"/label/{theirs}", "/label/999"):
        assert client.get(path).status_code == 404
        assert client.post(path, data=form, headers=OURS).status_code == 404
    body = {"revision": 0, "verdict": "tie", "guideline_version": 0}
    for lease_id in (theirs, 999):
        answer = client.post("/api/v1/labels", json={"lease_id": lease_id, **body}, headers=bearer(tokens["Di"]))
        assert (answer.status_code, answer.json()) == (404, {"error": "There is no such task of yours; claim one."})
    assert events(store) == 0


def test_no_page_tells_an_annotator_what_wrote_an_answer(app, tokens):
    client = browser(app, tokens["Bo"])
    walked = 0
    for method, path in all_routes(app):
        if method == "GET" and "static" not in path:
            response = client.get(filled(path))
            walked += response.status_code == 200
            assert MARKER not in response.text, path
            assert MARKER not in str(response.headers), path
    assert walked >= 6
    task = client.post("/api/v1/claim", headers=bearer(tokens["Bo"]))
    assert MARKER not in task.text
    assert set(task.json()) == {
        "nothing",
        "lease_id",
        "revision",
        "prompt",
        "left",
        "right",
        "question",
        "attributes",
        "guideline_version",
    }


def test_labelling_by_program(app, store, clock):
    joined(store, "Eve", now=clock())
    client = browser(app)

    def call(path, status=200, **body):
        response = client.post(f"/api/v1{path}", json=body or None, headers=bearer(token) if token else {})
        assert response.status_code == status, response.text
        return response.json() if response.content else None

    token = ""
    assert call("/session", 401, name="Eve", password=OTHER) == {"error": "Name or password is wrong."}
    token = call("/session", name="Eve", password=GOOD)["token"]
    task = call("/claim")
    assert (task["nothing"], task["revision"], task["attributes"]) == (None, 0, ["helpful"])
    assert [turn["role"] for turn in task["prompt"]] == ["user"]
    assert call("/claim")["lease_id"] == task["lease_id"]
    label = {"lease_id": task["lease_id"], "revision": 0, "verdict": "left_clearly", "guideline_version": 0}
    label |= {"attributes": {"helpful": "right"}, "reason": "clearer"}
    assert call("/labels", **label) == {"status": "stored", "revision": 1}
    assert call("/labels", **label) == {"status": "repeated", "revision": 1}
    assert events(store) == 2
    assert "revision is 1" in call("/labels", 409, **{**label, "verdict": "tie"})["error"]
    assert client.get("/api/v1/progress", headers=bearer(token)).json() == {
        **{"labels": 1, "today": 1, "skipped": 0, "stands": 0},
        "tasks": 5,
    }
    assert call("/undo") == {"lease_id": task["lease_id"]}
    skip = {**label, "revision": 2, "verdict": None, "reason": "", "attributes": {}}
    assert "a skipped task needs a reason" in call("/labels", 422, **skip)["error"]
    assert call("/labels", **{**skip, "reason": "cannot tell"}) == {"status": "stored", "revision": 3}
    call("/logout", 204)
    assert call("/claim", 401).keys() == {"error"}


@pytest.mark.parametrize(
    "change",
    [
        {"verdict": "left"},
        {"lease_id": 0},
        {"lease_id": 2**31},
        {"lease_id": "x"},
        {"revision": -1},
        {"attributes": {"helpful": "best"}},
        {"attributes": {"unknown": "left"}},
        {"reason": "x" * 10_001},
        {"more": 1},
        {"verdict": ...},
    ],
)
def test_a_label_that_is_none(app, store, tokens, clock, change):
    lease_id = claimed(store, "Bo", clock).id
    label = {"lease_id": lease_id, "revision": 0, "verdict": "tie", "guideline_version": 0, **change}
    body = {name: value for name, value in label.items() if value is not ...}
    response = browser(app).post("/api/v1/labels", json=body, headers=bearer(tokens["Bo"]))
    assert (response.status_code, set(response.json())) == (422, {"error"})
    assert "x" * 100 not in response.text
    assert events(store) == 0


def test_guessing_by_program(app, store, clock):
    joined(store, "Eve", now=clock())
    body = {"name": "Eve", "password": OTHER}
    responses = [browser(app).post("/api/v1/session", json=body) for _ in range(7)]
    assert [response.status_code for response in responses] == [401] * 5 + [429] * 2
    assert responses[-1].headers["retry-after"] == "1"
    as_form = browser(app).post("/api/v1/session", content=json.dumps(body), headers={"content-type": "text/plain"})
    assert as_form.status_code == 403


def test_a_paused_annotator_gets_no_task(app, tokens):
    response = browser(app).post("/api/v1/claim", headers=bearer(tokens["Cy"])).json()
    assert (response["nothing"], response["lease_id"], response["left"]) == ("paused", None, None)
    assert browser(app, tokens["Cy"]).get("/label").status_code == 200


def test_the_description_is_of_the_json_routes_alone(app, tokens):
    found = browser(app).get("/api/v1/openapi.json", headers=bearer(tokens["Bo"])).json()
    assert found["paths"].keys() == {path for _, path in all_routes(app) if path.startswith("/api/")} - {
        "/api/v1/openapi.json"
    }
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert browser(app, tokens["Ada"]).get(path).status_code == 404


def test_the_description_says_how_to_log_in(app, tokens):
    found = browser(app).get("/api/v1/openapi.json", headers=bearer(tokens["Bo"])).json()
    scheme = found["components"]["securitySchemes"]["session"]
    assert (scheme["type"], scheme["scheme"]) == ("http", "bearer")
    assert found["security"] == [{"session": []}]
    own = {
        path: route["security"]
        for path, routes in found["paths"].items()
        for route in routes.values()
        if "security" in route
    }
    assert own == {"/api/v1/session": []}, "all others want what is said for all"


def test_our_files_are_kept_by_browsers_for_as_long_as_they_stay(app):
    assert {"app.css", "app.js"} <= STATIC.keys()
    for name, file in STATIC.items():
        response = browser(app).get(static_url(name))
        assert (response.status_code, response.content) == (200, file.content)
        assert response.headers["content-type"].split(";")[0] == file.media_type
        assert response.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert "default-src 'none'" in response.headers["content-security-policy"]
        again = browser(app).get(f"/static/{name}?v=old", headers={"if-none-match": response.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "no-cache")


@pytest.mark.parametrize(
    "name", ["x", "../site.py", "..%2fsite.py", "%2e%2e/site.py", "app.css/", "APP.CSS", "app.css%00"]
)
def test_no_other_file_is_served(app, name):
    assert browser(app).get(f"/static/{name}").status_code in (404, 403)


def test_hosts_of_this_machine():
    assert loopback_hosts(80) == {"127.0.0.1:80", "localhost:80", "[::1]:80"}
    assert f"http://{HOST}" == PLACE
