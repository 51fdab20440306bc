import re

import pytest
from entrants import GOOD, OTHER, enter, hash_cheaply, invited, joined, new_store, session
from visits import HOST, OURS, Clock, browser

from rlhf.labels.accounts.attempts import Origin, begin
from rlhf.labels.accounts.sessions import csrf_token
from rlhf.labels.accounts.users import Role, invite_reset
from rlhf.labels.store import LabelStore
from rlhf.labels.web import login
from rlhf.labels.web.app import join
from rlhf.labels.web.site import Site

NAME = "labels-p"


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
def app(store, clock):
    site = Site(store, "p", clock)
    return join(site, [login.pages(site)], [HOST])


def send(client, path, **fields):
    return client.post(path, data=fields, headers=OURS)


def log_in(client, name="Bo", password=GOOD):
    return send(client, "/login", name=name, password=password)


def token_of(response) -> str:
    return re.match(rf"{NAME}=([\w-]{{43}});", response.headers["set-cookie"]).group(1)


def device_of(response) -> str:
    return re.search(rf"{NAME}-device=([\w-]{{43}});", response.headers["set-cookie"]).group(1)


def problem(response) -> str:
    return re.search(r'role="alert">([^<]*)<', response.text).group(1)


def test_log_in_gives_a_cookie_that_scripts_and_other_sites_do_not_get(app, store, clock):
    joined(store, "Bo", now=clock())
    response = log_in(browser(app))
    assert (response.status_code, response.headers["location"]) == (303, "/")
    rules = "HttpOnly; {}Path=/; SameSite=strict"
    device = f"{NAME}-device={device_of(response)}; {rules.format('Max-Age=7776000; ')}"
    assert response.headers["set-cookie"] == f"{NAME}={token_of(response)}; {rules.format('')}, {device}"
    assert session(store, token_of(response), clock()).name == "Bo"


def test_by_https_the_cookie_is_secure(store, clock):
    joined(store, "Bo", now=clock())
    site = Site(store, "p", clock, is_https=True)
    response = browser(join(site, [login.pages(site)], [HOST])).post(
        "/login", data={"name": "Bo", "password": GOOD}, headers={"origin": f"https://{HOST}"}
    )
    cookies = response.headers["set-cookie"]
    rules = r"=[\w-]{43}; HttpOnly; (Max-Age=\d+; )?Path=/; SameSite=strict; Secure"
    assert re.fullmatch(f"__Host-{NAME}{rules}, __Host-{NAME}-device{rules}", cookies)


def test_a_session_from_before_the_log_in_is_not_the_one_after(app, store, clock):
    planted = joined(store, "Bo", now=clock())
    response = log_in(browser(app, planted))
    assert token_of(response) != planted
    assert session(store, planted, clock()) is None
    chosen = "A" * 43
    assert token_of(log_in(browser(app, chosen))) != chosen
    assert session(store, chosen, clock()) is None


def test_each_role_begins_at_its_place(app, store, clock):
    for role, home in ((Role.ANNOTATOR, "/label"), (Role.OWNER, "/dashboard")):
        client = browser(app, joined(store, role.value, role, clock()))
        assert client.get("/").headers["location"] == home
        assert client.get("/login").headers["location"] == "/"
    assert browser(app).get("/").headers["location"] == "/login"
    assert browser(app).get("/login").status_code == 200


def test_unknown_and_wrong_look_the_same(app, store, clock):
    joined(store, "Bo", now=clock())
    answers = {}
    for name in ("Bo", "nobody"):
        responses = [log_in(browser(app, address=name), name, OTHER) for _ in range(8)]
        assert [response.status_code for response in responses] == [401] * 5 + [429] * 3
        assert {problem(response) for response in responses[:5]} == {"Name or password is wrong."}
        answers[name] = [response.text.replace(f'value="{name}"', "") for response in responses]
        assert problem(responses[5]) == "There were too many wrong tries. Wait 1 seconds before the next one."
        assert "set-cookie" not in responses[0].headers
    assert answers["Bo"] == answers["nobody"]


def test_who_guesses_locks_out_only_the_own_address(app, store, clock):
    joined(store, "Bo", now=clock())
    for _ in range(30):
        log_in(browser(app, address="203.0.113.9"), "Bo", OTHER)
        clock.now += 1
    assert log_in(browser(app, address="203.0.113.9")).status_code == 429
    assert log_in(browser(app, address="10.0.0.1")).status_code == 303


def test_a_browser_that_was_in_before_gets_in_while_others_guess(app, store, clock):
    invitation = f"/invite/{invited(store, now=clock())}"
    joined_with = browser(app, address="203.0.113.1")
    assert send(joined_with, invitation, name="Bo", password=GOOD, again=GOOD).status_code == 303
    came_back = browser(app)
    device = device_of(log_in(came_back))
    assert came_back.cookies[f"{NAME}-device"] == device
    token = came_back.cookies[NAME]
    assert "-device" not in send(came_back, "/logout", csrf=csrf_token(token)).headers["set-cookie"]
    with Site(store, "p").changing() as (connection, project):
        for n in range(6000):
            begin(connection, project, "Bo", 1, Origin(f"10.3.{n % 250}.1"), clock() + n / 10)
    clock.now += 600
    assert log_in(browser(app, address="203.0.113.99")).status_code == 429
    elsewhere = browser(app, device, "203.0.113.98", cookie=f"{NAME}-device")
    for client in (came_back, elsewhere, joined_with):
        again = log_in(client)
        assert (again.status_code, token_of(again) != token) == (303, True)
    assert device_of(again) == joined_with.cookies[f"{NAME}-device"] != device


def test_a_planted_token_of_a_browser_is_not_taken_over(app, store, clock):
    joined(store, "Bo", now=clock())
    assert device_of(log_in(browser(app, "A" * 43, cookie=f"{NAME}-device"))) != "A" * 43


@pytest.mark.parametrize("name", ["\0", "Bo\0"])
def test_a_name_that_cannot_be_stored(app, store, name):
    response = log_in(browser(app), name)
    assert (response.status_code, "U+0000" in problem(response)) == (422, True)
    assert response.headers.get("set-cookie") is None


def test_the_name_stays_in_the_form_as_text(app):
    response = log_in(browser(app), '"><script>', OTHER)
    assert 'value="&#34;&gt;&lt;script&gt;"' in response.text
    assert OTHER not in response.text


@pytest.mark.parametrize("fields", [{}, {"name": "Bo"}, {"password": GOOD}])
def test_an_empty_form(app, fields):
    assert send(browser(app), "/login", **fields).status_code == 401


def test_a_field_that_is_too_long(app):
    response = log_in(browser(app), "x" * 5000)
    assert (response.status_code, "x" * 100 in response.text) == (422, False)


def test_too_many_at_once_are_sent_away(app, store, clock, monkeypatch):
    joined(store, "Bo", now=clock())
    monkeypatch.setattr(login, "_MOST_WAITING", 0)
    assert log_in(browser(app)).status_code == 503


def test_log_out_ends_the_session(app, store, clock):
    token, other = joined(store, "Bo", now=clock()), enter(store, "Bo", now=clock())
    client = browser(app, token)
    assert send(client, "/logout").status_code == 403
    assert session(store, token, clock()) is not None
    response = send(client, "/logout", csrf=csrf_token(token))
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert re.match(rf'{NAME}=""; .*Max-Age=0', response.headers["set-cookie"])
    assert session(store, token, clock()) is None
    assert browser(app, token).get("/password").status_code == 401
    assert session(store, other, clock()) is not None


def test_an_invitation_becomes_an_account(app, store, clock):
    token = invited(store, now=clock())
    client = browser(app)
    page = client.get(f"/invite/{token}")
    assert (page.status_code, "invited as an annotator" in page.text) == (200, True)
    response = send(client, f"/invite/{token}", name="Bo", password=GOOD, again=GOOD)
    assert (response.status_code, response.headers["location"]) == (303, "/")
    assert session(store, token_of(response), clock()).name == "Bo"
    assert browser(app).get(f"/invite/{token}").status_code == 404
    assert send(browser(app), f"/invite/{token}", name="Cy", password=GOOD, again=GOOD).status_code == 404


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"name": "Bo", "password": GOOD, "again": OTHER}, "The two passwords differ; write the same one twice."),
        ({"name": "", "password": GOOD, "again": GOOD}, "A name has 1 to 64 letters"),
        ({"name": "Cy", "password": GOOD, "again": GOOD}, "The name &#39;Cy&#39; is taken"),
        ({"name": "Bo", "password": "short", "again": "short"}, "This password has 5 characters; take 12"),
    ],
)
def test_an_invitation_that_is_not_filled_in_well_still_works(app, store, clock, fields, said):
    joined(store, "Cy", now=clock())
    token = invited(store, now=clock())
    response = send(browser(app), f"/invite/{token}", **fields)
    assert (response.status_code, problem(response).startswith(said)) == (422, True)
    assert fields["password"] not in response.text
    assert send(browser(app), f"/invite/{token}", name="Bo", password=GOOD, again=GOOD).status_code == 303


@pytest.mark.parametrize("token", ["x", "x" * 5000, "%00", "\u20ac", "..%2f..%2fetc"])
def test_an_invitation_that_never_was(app, token):
    assert browser(app).get(f"/invite/{token}").status_code == 404
    assert send(browser(app), f"/invite/{token}", name="Bo", password=GOOD, again=GOOD).status_code == 404


def test_an_invitation_ends_the_session_that_the_browser_had(app, store, clock):
    before = joined(store, "Ada", Role.OWNER, clock())
    token = invited(store, now=clock())
    response = send(browser(app, before), f"/invite/{token}", name="Bo", password=GOOD, again=GOOD)
    assert session(store, token_of(response), clock()).name == "Bo"
    assert session(store, before, clock()) is None


def test_a_link_for_a_new_password(app, store, clock):
    before = joined(store, "Bo", now=clock())
    with store.changing("p") as (connection, project):
        token = invite_reset(connection, project, "Bo", clock())
    page = browser(app).get(f"/invite/{token}")
    assert "Choose a new password for <bdi><b>Bo</b></bdi>" in page.text
    assert 'name="name"' not in page.text
    response = send(browser(app), f"/invite/{token}", password=OTHER, again=OTHER)
    assert session(store, token_of(response), clock()).name == "Bo"
    assert session(store, before, clock()) is None
    assert log_in(browser(app), "Bo", OTHER).status_code == 303


def test_another_password(app, store, clock):
    token, other = joined(store, "Bo", now=clock()), enter(store, "Bo", now=clock())
    client = browser(app, token)
    assert client.get("/password").status_code == 200
    right = {"csrf": csrf_token(token), "current": GOOD, "password": OTHER, "again": OTHER}
    assert send(client, "/password", **{**right, "csrf": ""}).status_code == 403
    assert problem(send(client, "/password", **{**right, "again": GOOD})).startswith("The two new passwords differ")
    assert problem(send(client, "/password", **{**right, "password": "x", "again": "x"})).startswith(
        "This password has"
    )
    wrong = send(client, "/password", **{**right, "current": OTHER})
    assert (wrong.status_code, problem(wrong)) == (403, "The current password is wrong.")
    assert session(store, token, clock()) is not None
    response = send(client, "/password", **right)
    assert (response.status_code, response.headers["location"]) == (303, "/login")
    assert [session(store, one, clock()) for one in (token, other)] == [None, None]
    assert client.get("/password").status_code == 401
    assert log_in(browser(app), "Bo", GOOD).status_code == 401
    assert log_in(browser(app), "Bo", OTHER).status_code == 303


def test_the_current_password_cannot_be_guessed(app, store, clock):
    token = joined(store, "Bo", now=clock())
    form = {"csrf": csrf_token(token), "password": OTHER, "again": OTHER}
    client = browser(app, token)
    statuses = [send(client, "/password", current=f"guess {n}", **form).status_code for n in range(8)]
    assert statuses == [403] * 5 + [429] * 3


def test_no_log_holds_an_invitation(app, store, clock, caplog, tmp_path):
    token = invited(store, now=clock())
    (tmp_path / "labels.sqlite").write_bytes(b"not a database" * 100)
    assert browser(app).get(f"/invite/{token}").status_code == 503
    assert "GET /invite/...: " in caplog.text
    assert token not in caplog.text
