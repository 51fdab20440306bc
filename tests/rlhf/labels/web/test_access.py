import asyncio

import pytest
from entrants import enter, hash_cheaply, joined, new_store
from fastapi import APIRouter, FastAPI, Form, Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from visits import HOST, OURS, PLACE, Clock, browser

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.sessions import IDLE_S, csrf_token
from rlhf.labels.accounts.users import Role, disable
from rlhf.labels.collection.study import NoTasks
from rlhf.labels.store import LabelStore
from rlhf.labels.web import access
from rlhf.labels.web.access import BODY_LIMIT, Gate
from rlhf.labels.web.app import join
from rlhf.labels.web.site import EVERYONE, Pages, Site, visitor
from sft.core.errors import DataError, StorageError, UsageError

HEADERS = {
    "content-security-policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
ROUTES = ("/open", "/own", "/any", "/desk", "/desk/{number}")
ERRORS = {
    "storage": StorageError("/secret/labels.sqlite: database is locked"),
    "tasks": NoTasks("project 'p' has no tasks to label; make some"),
    "usage": UsageError("/secret/labels.sqlite has none"),
    "data": DataError("a skipped task needs a reason"),
    "other": ZeroDivisionError("secret"),
}


def stand_in() -> Pages:
    """Return a route for everyone, for owners, for both and for annotators, and one that names nobody."""
    router = APIRouter()

    def told(request: Request) -> dict[str, object]:
        who = request.state.visitor
        return {"name": None if who is None else who.name}

    for path in (*ROUTES, "/undeclared"):
        router.add_api_route(path, told, methods=["GET", "POST"])

    @router.post("/form")
    def form(request: Request, word: str = Form(), csrf: str = Form("")) -> dict[str, str]:
        return {"word": word, "visitor": visitor(request).name}

    @router.get("/fails/{how}")
    def fails(how: str) -> None:
        raise ERRORS[how]

    annotators = frozenset({Role.ANNOTATOR})
    roles = {"/open": EVERYONE, "/own": frozenset({Role.OWNER}), "/any": frozenset(Role)}
    theirs = dict.fromkeys(("/desk", "/desk/{number}", "/form", "/api/v1/desk"), annotators)
    router.add_api_route("/api/v1/desk", told, methods=["GET", "POST"])
    return Pages(router, {**roles, **theirs, "/fails/{how}": EVERYONE})


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    hash_cheaply(monkeypatch)


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def app(store, clock) -> FastAPI:
    return join(Site(store, "p", clock), [stand_in()], [HOST, "labels.example.org"])


@pytest.fixture
def annotator(store, clock) -> str:
    return joined(store, "Bo", now=clock())


@pytest.fixture
def owner(store, clock) -> str:
    return joined(store, "Ada", Role.OWNER, clock())


def is_safe(response) -> bool:
    return {name: response.headers.get(name) for name in HEADERS} == HEADERS


@pytest.mark.parametrize(
    ("path", "nobody", "of_annotator", "of_owner"),
    [
        ("/open", 200, 200, 200),
        ("/own", 401, 403, 200),
        ("/any", 401, 200, 200),
        ("/desk", 401, 200, 403),
        ("/desk/7", 401, 200, 403),
        ("/api/v1/desk", 401, 200, 403),
        ("/undeclared", 403, 403, 403),
        ("/nowhere", 404, 404, 404),
        ("/desk/", 404, 404, 404),
        ("/desk/7/8", 404, 404, 404),
        ("//desk", 404, 404, 404),
        ("/desk%2f7", 401, 200, 403),
        ("/openapi.json", 404, 404, 404),
        ("/docs", 404, 404, 404),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_who_may_call_what(app, annotator, owner, path, nobody, of_annotator, of_owner, method):
    for token, expected in (("", nobody), ("wrong", nobody), (annotator, of_annotator), (owner, of_owner)):
        headers = {**OURS, "x-csrf-token": csrf_token(token)}
        response = browser(app, token).request(method, path, headers=headers)
        assert (response.status_code, is_safe(response)) == (expected, True)


def test_routes_that_are_added_in_any_way_are_refused(app, owner):
    async def open_to_all(request: Request) -> PlainTextResponse:
        return PlainTextResponse("open")

    later = APIRouter()
    later.add_api_route("/included", open_to_all)
    app.include_router(later)
    app.router.routes.append(Route("/plain", open_to_all))
    app.router.routes.append(Mount("/mounted", app=open_to_all))
    app.add_api_route("/added", open_to_all)
    for path in ("/included", "/plain", "/mounted/x", "/added"):
        for token in ("", owner):
            assert browser(app, token).get(path).status_code == 403


def test_a_browser_without_log_in_is_sent_to_it_and_a_program_is_told(app):
    page = browser(app).get("/desk", headers={"accept": "text/html,*/*"})
    assert (page.status_code, page.headers["location"]) == (303, "/login")
    assert is_safe(page)
    for method, path, accept in (
        ("POST", "/desk", "text/html"),
        ("GET", "/desk", "*/*"),
        ("GET", "/api/v1/desk", "text/html"),
    ):
        response = browser(app).request(method, path, headers={"accept": accept, **OURS})
        assert response.status_code == 401
        assert "nothing was stored" in response.text
    assert browser(app).get("/api/v1/desk").json().keys() == {"error"}


def test_a_method_that_a_page_does_not_have(app, annotator):
    response = browser(app, annotator).get("/form")
    assert (response.status_code, response.headers["allow"], is_safe(response)) == (405, "POST", True)
    assert browser(app, annotator).head("/desk").status_code == 405


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (HOST, 200),
        ("labels.example.org", 200),
        ("LABELS.example.org", 200),
        ("evil.tld", 421),
        ("evil.tld:8000", 421),
        ("127.0.0.1", 421),
        ("127.0.0.1:8001", 421),
        ("labels.example.org.evil.tld", 421),
        ("labels.example.org:8000", 421),
        ("127.0.0.1:8000@evil.tld", 421),
        ("", 421),
    ],
)
def test_host(app, host, status):
    response = browser(app).get("/open", headers={"host": host})
    assert (response.status_code, is_safe(response)) == (status, True)


@pytest.mark.parametrize("hosts", [[], [b"evil.tld", HOST.encode()], [HOST.encode()] * 2])
def test_no_host_or_two(app, hosts):
    sent: list[dict[str, object]] = []

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "GET", "path": "/open", "headers": [(b"host", host) for host in hosts]}
    asyncio.run(app({**scope, "query_string": b"", "root_path": "", "scheme": "http"}, None, send))
    assert sent[0]["status"] == 421


def test_a_websocket_is_closed(app):
    sent: list[dict[str, object]] = []

    async def send(message):
        sent.append(message)

    asyncio.run(app({"type": "websocket", "path": "/open", "headers": []}, None, send))
    assert sent == [{"type": "websocket.close", "code": 1008}]


@pytest.mark.parametrize(
    ("headers", "of_session", "of_nobody"),
    [
        ({}, 200, 403),
        ({"origin": PLACE}, 200, 200),
        ({"origin": PLACE.upper()}, 200, 200),
        ({"origin": PLACE, "sec-fetch-site": "same-origin"}, 200, 200),
        ({"sec-fetch-site": "same-origin"}, 200, 200),
        ({"sec-fetch-site": "none"}, 200, 403),
        ({"origin": "null"}, 403, 403),
        ({"origin": "https://127.0.0.1:8000"}, 403, 403),
        ({"origin": "http://127.0.0.1:8001"}, 403, 403),
        ({"origin": "http://labels.example.org"}, 403, 403),
        ({"origin": "http://evil.tld"}, 403, 403),
        ({"origin": PLACE, "sec-fetch-site": "same-site"}, 403, 403),
        ({"origin": PLACE, "sec-fetch-site": "cross-site"}, 403, 403),
        ({"origin": "http://evil.tld", "sec-fetch-site": "same-origin"}, 403, 403),
        ({"content-type": "application/json"}, 200, 200),
        ({"content-type": "application/json", "origin": "http://evil.tld"}, 403, 403),
        ({"content-type": "application/json", "sec-fetch-site": "cross-site"}, 403, 403),
        ({"content-type": "text/plain"}, 200, 403),
    ],
)
def test_where_a_form_was_sent_from(app, annotator, headers, of_session, of_nobody):
    token = {"x-csrf-token": csrf_token(annotator)}
    assert browser(app, annotator).post("/desk", headers={**headers, **token}).status_code == of_session
    assert browser(app).post("/open", headers=headers).status_code == of_nobody
    assert browser(app, annotator).post("/open", headers=headers).status_code == of_nobody
    assert browser(app).get("/open", headers=headers).status_code == 200


def test_the_token_against_forged_requests(app, store, annotator, clock):
    client, other = browser(app, annotator), enter(store, "Bo", now=clock())

    def status(data=None, **headers):
        return client.post("/form", data={"word": "w", **(data or {})}, headers=headers).status_code

    right = csrf_token(annotator)
    assert status() == 403
    assert status({"csrf": right}) == 200
    assert status({"csrf": ""}) == 403
    assert status({"csrf": right[:-1]}) == 403
    assert status({"csrf": "\u20ac"}) == 403
    assert status({"csrf": annotator}) == 403
    assert status({"csrf": csrf_token(other)}) == 403
    assert status({"csrf": [right, "x"]}) == 403
    assert status(**{"x-csrf-token": right}) == 200
    assert status({"csrf": right}, **{"x-csrf-token": "x"}) == 403
    assert client.post(f"/form?csrf={right}", data={"word": "w"}).status_code == 403
    as_text = client.post("/form", content=f"word=w&csrf={right}", headers={"content-type": "text/plain"})
    assert as_text.status_code == 403
    assert client.post("/form", files={"csrf": (None, right), "word": (None, "w")}).status_code == 403


def test_what_a_form_says_reaches_its_page(app, annotator):
    client = browser(app, annotator)
    for word in ("ä & = +", "x" * 100_000):
        response = client.post("/form", data={"word": word, "csrf": csrf_token(annotator)})
        assert response.json() == {"word": word, "visitor": "Bo"}


def test_bearer_is_for_the_api_and_needs_no_token(app, annotator, owner):
    client = browser(app)
    bearer = {"authorization": f"Bearer {annotator}"}
    assert client.post("/api/v1/desk", headers=bearer).json() == {"name": "Bo"}
    assert client.post("/api/v1/desk", headers={"authorization": f"bearer {annotator}"}).status_code == 200
    assert client.get("/desk", headers=bearer).status_code == 401
    assert client.post("/desk", headers=bearer).status_code == 401
    assert client.post("/api/v1/desk", headers={"authorization": f"Basic {annotator}"}).status_code == 401
    assert client.post("/api/v1/desk", headers={**bearer, "origin": "http://evil.tld"}).status_code == 403
    with_cookie = browser(app, annotator)
    assert with_cookie.post("/api/v1/desk").status_code == 403
    assert with_cookie.post("/api/v1/desk", headers={"authorization": "Bearer wrong"}).status_code == 401
    assert with_cookie.post("/api/v1/desk", headers={"authorization": f"Bearer {owner}"}).status_code == 403


@pytest.mark.parametrize(("size", "status"), [(BODY_LIMIT, 403), (BODY_LIMIT + 1, 413), (BODY_LIMIT * 30, 413)])
def test_a_body_that_is_too_long(app, annotator, size, status):
    """403: it was read to its end and has no token."""

    def in_parts():
        for start in range(0, size, 65_536):
            yield b"x" * min(65_536, size - start)

    client = browser(app, annotator)
    for content in (b"x" * size, in_parts()):
        response = client.post("/form", content=content, headers={"content-type": "application/x-www-form-urlencoded"})
        assert (response.status_code, is_safe(response)) == (status, True)


@pytest.mark.parametrize("length", ["-1", "1e3", "", "99999999999999999999"])
def test_a_length_that_is_none(app, annotator, length):
    response = browser(app, annotator).post("/form", content=b"x", headers={"content-length": length})
    assert response.status_code == 413


def test_too_many_fields(app, annotator):
    content = "&".join(f"f{n}=" for n in range(2000))
    headers = {"content-type": "application/x-www-form-urlencoded"}
    assert browser(app, annotator).post("/form", content=content, headers=headers).status_code == 400


def test_a_body_that_never_ends(app, annotator, monkeypatch):
    monkeypatch.setattr(access, "BODY_TIMEOUT_S", 0.05)
    sent: list[dict[str, object]] = []

    async def send(message):
        sent.append(message)

    async def receive():
        await asyncio.sleep(0.01)
        return {"type": "http.request", "body": b"x", "more_body": True}

    headers = {"host": HOST, "cookie": f"labels-p={annotator}"}
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/form", "headers": raw, "query_string": b"", "root_path": ""}
    asyncio.run(app({**scope, "scheme": "http"}, receive, send))
    assert sent[0]["status"] == 408


@pytest.mark.parametrize(
    ("how", "status", "said"),
    [
        ("storage", 503, "The label was NOT stored"),
        ("usage", 503, "The label was NOT stored"),
        ("tasks", 409, "has no tasks to label; make some"),
        ("data", 422, "Nothing was stored: a skipped task needs a reason"),
        ("other", 500, "a fault of the program"),
    ],
)
def test_errors_tell_nothing_of_the_inside(app, how, status, said, caplog):
    response = browser(app).get(f"/fails/{how}")
    assert (response.status_code, is_safe(response)) == (status, True)
    assert said in response.text
    assert "secret" not in response.text
    assert ("retry-after" in response.headers) == (status == 503)
    assert ("secret" in caplog.text) == (how not in ("data", "tasks"))


def test_a_session_that_cannot_be_looked_up_is_an_error_and_not_nobody(app, store, annotator, tmp_path):
    (tmp_path / "labels.sqlite").write_bytes(b"not a database" * 100)
    response = browser(app, annotator).get("/desk")
    assert (response.status_code, is_safe(response)) == (503, True)


def test_an_error_is_a_page_for_a_browser_and_json_for_a_program(app, annotator, owner):
    for token, way in (("", 'href="/"'), (annotator, 'href="/label"'), (owner, 'href="/dashboard"')):
        page = browser(app, token).get("/own" if token == annotator else "/desk", headers={"accept": "text/html"})
        if token:
            assert (page.status_code, way in page.text, "app.css" in page.text) == (403, True, True)
        nowhere = browser(app, token).get("/nowhere")
        assert (nowhere.status_code, 'href="/"' in nowhere.text) == (404, True)
        assert "<h1>No such page</h1>" in nowhere.text
    for accept in ("application/json", "application/json;q=0.9, */*"):
        response = browser(app).get("/nowhere", headers={"accept": accept})
        assert (response.status_code, set(response.json())) == (404, {"error"})
    both = browser(app).get("/nowhere", headers={"accept": "text/html,application/json"})
    assert both.headers["content-type"].startswith("text/html")


def test_who_comes_by_another_name_learns_no_project(store, clock):
    with store.changing("secret-project"):
        pass
    client = browser(join(Site(store, "secret-project", clock), [stand_in()], [HOST]))
    assert "secret-project" in client.get("/nowhere").text
    assert "secret-project" not in client.get("/open", headers={"host": "evil.tld"}).text


def test_an_error_page_shows_markup_as_text(app):
    assert "<script>" not in browser(app).get("/<script>alert(1)</script>").text


def test_a_session_ends_for_its_browser(app, store, annotator, clock):
    client = browser(app, annotator)
    assert client.get("/desk").status_code == 200
    clock.now += IDLE_S - 1
    assert client.get("/desk").status_code == 200
    clock.now += IDLE_S - 1
    assert client.get("/desk").status_code == 200
    clock.now += IDLE_S
    assert client.get("/desk").status_code == 401


def test_who_is_disabled_is_out_at_once(app, store, annotator):
    client = browser(app, annotator)
    assert client.get("/desk").status_code == 200
    with store.changing("p") as (connection, project):
        disable(connection, project, "Bo")
    assert client.get("/desk").status_code == 401


def test_a_request_writes_a_session_at_most_once_in_ten_minutes(app, store, annotator, clock, monkeypatch):
    written: list[float] = []
    touch = sessions.touch
    monkeypatch.setattr(sessions, "touch", lambda *args: (written.append(clock()), touch(*args)))
    client = browser(app, annotator)
    start = clock()
    for minute in range(31):
        clock.now = start + 60 * minute
        client.get("/desk")
    assert written == [start + 600 * n for n in (1, 2, 3)]


def test_another_project_on_the_same_machine_has_another_cookie(app, store, annotator, clock):
    client = browser(app, annotator, cookie="labels-q")
    assert client.get("/desk").status_code == 401
    other = join(Site(store, "q", clock), [stand_in()], [HOST])
    with store.changing("q"):
        pass
    assert browser(other, annotator, cookie="labels-q").get("/desk").status_code == 401


def test_by_https_the_cookie_is_bound_to_host_and_https(store, clock, annotator):
    app = join(Site(store, "p", clock, is_https=True), [stand_in()], [HOST])
    assert browser(app, annotator).get("/desk").status_code == 401
    client = browser(app, annotator, cookie="__Host-labels-p")
    assert client.get("/desk").status_code == 200
    token = {"x-csrf-token": csrf_token(annotator)}
    assert client.post("/desk", headers={**token, "origin": f"https://{HOST}"}).status_code == 200
    assert client.post("/desk", headers={**token, "origin": f"http://{HOST}"}).status_code == 403


def test_two_that_name_the_same_route_are_a_mistake(store):
    with pytest.raises(AssertionError, match="/open"):
        join(Site(store, "p"), [stand_in(), stand_in()], [HOST])


def test_the_gate_stands_before_everything(app):
    assert [layer.cls for layer in app.user_middleware] == [Gate]
