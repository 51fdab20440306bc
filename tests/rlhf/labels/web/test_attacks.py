"""What an attacker of the label page tried, and what once worked."""

import asyncio
import json
import socket
import threading

import pytest
from entrants import GOOD, hash_cheaply, invited, joined, new_store
from queued import fill
from visits import OURS, Clock, browser

pytest.importorskip("fastapi")

import uvicorn
from starlette.datastructures import Headers

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.users import Role
from rlhf.labels.store import LabelStore
from rlhf.labels.tables import TASK
from rlhf.labels.web import access, connections
from rlhf.labels.web.app import create_app
from rlhf.labels.web.connections import ImpatientProtocol
from rlhf.labels.web.text import formatted


@pytest.fixture(autouse=True)
def cheap(monkeypatch):
    hash_cheaply(monkeypatch)


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


@pytest.fixture
def app(store):
    return create_app(store, "p", clock=Clock())


@pytest.mark.parametrize("text", ["FFFFFFx1", "0041x9", "0041x" + "9" * 5000, "202Ex1"])
@pytest.mark.parametrize("form", ["{}", "[a]({})", "![{}](a)", "`{}`", "# {}"])
def test_a_placeholder_of_entities_is_shown_and_breaks_no_page(text, form):
    """An answer with one made its task a fault of the program, and whoever held it got no other."""
    html = formatted(form.format(f"&#xe000;{text}&#xe001;"))
    assert text in html
    assert "only seen in the raw view" not in html
    assert "U+0041" not in html
    assert 'title="right-to-left override"' not in html


def test_a_small_table_that_would_fill_with_cells_stays_text():
    text = "|".join("a" * 1000) + "\n" + "|".join("-" * 1000) + "\n" + "a\n" * 60
    html = formatted(text)
    assert "<td" not in html
    assert "a table in it, is too long to be formatted" in html
    assert "<td" in formatted("| a | b |\n|---|---|\n" + "| 1 | 2 |\n" * 1000)


class Counted(bytes):
    """One piece of a body, which counts how often it is measured."""

    measured = 0

    def __len__(self) -> int:
        Counted.measured += 1
        return super().__len__()


def test_a_body_of_many_pieces_costs_each_piece_once(monkeypatch):
    """20 000 pieces of one byte held up everybody for 8 seconds, without a log-in."""
    pieces = [{"type": "http.request", "body": Counted(b"a"), "more_body": left > 0} for left in range(1000)]

    async def receive():
        return pieces.pop()

    assert asyncio.run(access._body(Headers({}), receive)) == b"a" * 1000
    assert Counted.measured <= 2000


def test_a_length_of_thousands_of_digits(app):
    response = browser(app).post("/login", content=b"a", headers={**OURS, "content-length": "9" * 5000})
    assert response.status_code == 413


def test_a_request_full_of_unknown_fields_is_answered_shortly(app):
    """Else a megabyte becomes four."""
    body = json.dumps({str(number): 1 for number in range(50_000)})
    response = browser(app).post("/api/v1/session", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert "; and 49992 more. " in response.json()["error"]
    assert len(response.content) < 2000


@pytest.mark.parametrize("name", ["\u3164", "Ada\u3164", "\u2800"])
def test_a_name_that_nobody_can_tell_from_another(app, store, name):
    joined(store, "Ada", now=1_000_000.0)
    form = {"name": name, "password": GOOD, "again": GOOD}
    link = f"/invite/{invited(store, now=1_000_000.0)}"
    response = browser(app).post(link, data=form, headers=OURS)
    assert response.status_code == 422
    assert "choose another one" in response.text


def test_a_task_of_many_long_texts_is_shown_as_it_stands(app, store):
    """Each turn alone may cost seconds."""
    token = joined(store, "Bo", now=1_000_000.0)
    fill(store, 1)
    with store.changing("p") as (connection, _):
        turns = [{"role": "user", "content": "**a** " + "b" * 10_000}] * 11
        connection.execute(TASK.update().values(prompt=json.dumps(turns)))
    response = browser(app, token).get("/label")
    assert response.status_code == 200
    assert "<strong>a</strong>" not in response.text
    assert response.text.count("is too long to be formatted") == 13


@pytest.mark.parametrize("sign", ["\0", "a\0b"])
def test_what_no_database_holds_is_refused_in_every_input(any_url, sign):
    """On PostgreSQL it was a fault of the database, 503, whoever wrote it."""
    store, clock = LabelStore(any_url, create=True), Clock()
    with store.changing("p"):
        pass
    fill(store, 1)
    app = create_app(store, "p", clock=clock)
    people = {name: joined(store, name, role, clock()) for name, role in (("Bo", Role.ANNOTATOR), ("Ada", Role.OWNER))}
    link = f"/invite/{invited(store, now=clock())}"
    bo, ada = (browser(app, people[name]) for name in ("Bo", "Ada"))
    assert bo.get("/label").status_code == 200
    told = {"revision": "0", "guideline_version": "0", "verdict": "tie"}
    forms = [
        (browser(app), "/login", {"name": sign, "password": GOOD}),
        (browser(app), link, {"name": sign, "password": GOOD, "again": GOOD}),
        (ada, "/dashboard/annotators/1/pause", {"reason": sign}),
        (ada, "/dashboard/guidelines", {"text": sign}),
        (ada, "/dashboard/invite", {"role": sign}),
        *((bo, "/label/1", {**told, name: sign}) for name in ("reason", "flag", "flag_note", "skip", "verdict")),
        (bo, "/label/1", {**told, f"attribute:{sign}": "left"}),
    ]
    for client, path, form in forms:
        csrf = sessions.csrf_token(client.cookies.get("labels-p", ""))
        response = client.post(path, data={"csrf": csrf, **form}, headers=OURS)
        assert response.status_code == 422, (path, form, response.text)
    label = {"lease_id": 1, "revision": 0, "guideline_version": 0, "verdict": "tie"}
    bodies = [
        ("session", {"name": sign, "password": GOOD}),
        *(("labels", {**label, name: sign}) for name in ("reason", "flag", "verdict")),
        ("labels", {**label, "attributes": {sign: "left"}}),
    ]
    for path, body in bodies:
        for written in (json.dumps(body), json.dumps(body).replace("\\u0000", "\\ud800")):
            headers = {"authorization": f"Bearer {people['Bo']}", "content-type": "application/json"}
            response = browser(app).post(f"/api/v1/{path}", content=written, headers=headers)
            assert response.status_code == 422, (path, written, response.text)


@pytest.mark.parametrize("whole", [b"", b"GET /login HTTP/1.1\r\nHost: h\r\n\r\n"])
@pytest.mark.parametrize("part", [b"", b"GET /login HTTP/1.1\r\nHost: h\r\n"])
def test_a_connection_that_sends_no_whole_head_is_closed(app, monkeypatch, whole, part):
    """Else as many as the server may open keep everybody out, for ever."""
    monkeypatch.setattr(connections, "HEAD_TIMEOUT_S", 0.2)
    config = uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off", http=ImpatientProtocol)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with socket.create_connection(listener.getsockname()) as client:
                client.settimeout(4)
                if whole:
                    client.sendall(whole)
                    assert client.recv(4096).startswith(b"HTTP/1.1 421")
                client.sendall(part)
                while client.recv(4096):
                    pass
        finally:
            server.should_exit = True
            thread.join()
