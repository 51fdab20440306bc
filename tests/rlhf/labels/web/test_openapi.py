"""The JSON routes against their own description: what it allows, what it forbids, and a session of labelling.

Whatever is sent, nothing fails inside, each status is one that the description names, and each body has its schema.
"""

import json
from collections.abc import Iterator

import pytest
from entrants import hash_cheaply, joined, new_store
from queued import fill
from visits import PLACE, Clock, browser

pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.config import SchemathesisConfig
from schemathesis.core.parameters import ParameterLocation
from schemathesis.core.result import Ok
from schemathesis.openapi import from_dict
from schemathesis.schemas import APIOperation

from rlhf.labels.accounts.users import Role
from rlhf.labels.collection.study import Study
from rlhf.labels.collection.verdicts import Side, Verdict
from rlhf.labels.web.api import PREFIX, SCHEMA_PATH
from rlhf.labels.web.app import create_app

PEOPLE = ("Bo", "Ada", "nobody")
"""An annotator, an owner, and who is not logged in."""
SETTINGS = Study(overlap=2, gold_share=0.0, probe_share=0.0, attributes=("helpful",))
ROUTES = {
    "POST /session": {"Bo": {401, 429}, "Ada": {401, 429}, "nobody": {401, 429}},
    "POST /claim": {"Bo": {200}, "Ada": {403}, "nobody": {401}},
    "POST /labels": {"Bo": {200, 404, 409, 422}, "Ada": {403}, "nobody": {401}},
    "POST /undo": {"Bo": {200}, "Ada": {403}, "nobody": {401}},
    "GET /progress": {"Bo": {200}, "Ada": {403}, "nobody": {401}},
    "GET /dashboard": {"Bo": {403}, "Ada": {200}, "nobody": {401}},
    "POST /logout": {"Bo": {204}, "Ada": {204}, "nobody": {401}},
}
"""What each answers to requests that the description allows."""
WITH_BODY = ("POST /session", "POST /labels")
seeded = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class Served:
    """A site, its description, and who is logged in to it."""

    def __init__(self, folder: object) -> None:
        self.store, self.clock = new_store(folder), Clock()
        fill(self.store, 30, settings=SETTINGS)
        self.app = create_app(self.store, "p", clock=self.clock)
        roles = {"Bo": Role.ANNOTATOR, "Ada": Role.OWNER}
        self.tokens = {name: joined(self.store, name, role, self.clock()) for name, role in roles.items()}
        document = browser(self.app).get(SCHEMA_PATH, headers=self._who("Ada")).json()
        described = from_dict(document, config=SchemathesisConfig(seed=0)).get_all_operations()
        found = [result.ok() for result in described if isinstance(result, Ok)]
        self.operations: dict[str, APIOperation] = {
            f"{one.method.upper()} {one.path.removeprefix(PREFIX)}": one for one in found
        }

    def send(self, route: str, name: str, body: object = None, media_type: str | None = "application/json"):
        """Return what is answered to somebody, once it is as the description says."""
        operation = self.operations[route]
        typed = {} if media_type is None else {"content-type": media_type}
        content = body if body is None or isinstance(body, bytes) else json.dumps(body)
        response = browser(self.app).request(
            operation.method, f"{PLACE}{operation.path}", content=content, headers={**typed, **self._who(name)}
        )
        assert response.status_code < 500, response.text
        assert str(response.status_code) in operation.definition.raw["responses"], response.text
        operation.validate_response(response)
        return response

    def _who(self, name: str) -> dict[str, str]:
        return {"authorization": f"Bearer {self.tokens[name]}"} if name in self.tokens else {}


@pytest.fixture(scope="module")
def served(tmp_path_factory) -> Iterator[Served]:
    with pytest.MonkeyPatch.context() as patch:
        hash_cheaply(patch)
        yield Served(tmp_path_factory.mktemp("site"))


def test_all_routes_are_described(served):
    assert served.operations.keys() == ROUTES.keys()


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("route", WITH_BODY)
def test_bodies_that_the_description_allows(served, route, name):
    @seeded
    @given(served.operations[route].as_strategy(generation_mode=GenerationMode.POSITIVE))
    def check(case):
        assert served.send(route, name, case.body).status_code in ROUTES[route][name]

    check()


@pytest.mark.parametrize("name", PEOPLE)
@pytest.mark.parametrize("route", WITH_BODY)
def test_bodies_that_the_description_forbids(served, route, name):
    """Not those where only the log-in is forbidden: who sends is chosen here."""

    def is_of_body(case):
        return case.meta.components[ParameterLocation.BODY].mode is GenerationMode.NEGATIVE

    @seeded
    @given(served.operations[route].as_strategy(generation_mode=GenerationMode.NEGATIVE).filter(is_of_body))
    def check(case):
        status = served.send(route, name, case.body, case.media_type).status_code
        assert status in ({400, 422} if route == "POST /session" or name == "Bo" else ROUTES[route][name])

    check()


@pytest.mark.parametrize(
    "content", ["", "{", "[" * 100_000, '{"name": ' + "9" * 5000, '{"\\ud800": 1}', "null", "\x00"]
)
@pytest.mark.parametrize("route", WITH_BODY)
def test_bodies_that_are_no_json_of_a_kind(served, route, content):
    operation = served.operations[route]
    headers = {"content-type": "application/json", **served._who("Bo")}
    response = browser(served.app).post(operation.path, content=content, headers=headers)
    assert response.status_code in (400, 422)
    assert str(response.status_code) in operation.definition.raw["responses"]
    operation.validate_response(response)


STEPS = st.sampled_from([*(route for route in ROUTES if route not in (*WITH_BODY, "POST /logout")), "label", "again"])
LABELS = st.fixed_dictionaries(
    {"verdict": st.sampled_from(Verdict), "reason": st.text(max_size=20), "flag": st.sampled_from(["", "broken"])},
    optional={"attributes": st.dictionaries(st.just("helpful"), st.sampled_from(Side))},
)


@seeded
@given(data=st.data())
def test_a_session_of_labelling(served, data):
    """Tasks are claimed, answered, answered again and taken back, and what is counted is what was stored."""

    def answered_so_far() -> int:
        progress = served.send("GET /progress", "Bo").json()
        return progress["labels"] + progress["skipped"]

    done = answered_so_far()
    stored = None
    for route in data.draw(st.lists(STEPS, max_size=15)):
        if route == "label":
            task = served.send("POST /claim", "Bo").json()
            if task["nothing"] is not None:
                continue
            body = data.draw(LABELS) | {key: task[key] for key in ("lease_id", "revision", "guideline_version")}
            answered = served.send("POST /labels", "Bo", body)
            assert answered.status_code == (422 if "\0" in body["reason"] else 200), answered.text
            if answered.status_code == 200:
                done, stored = done + 1, body
        elif route == "again":
            if stored is not None:
                assert served.send("POST /labels", "Bo", stored).json()["status"] == "repeated"
        else:
            response = served.send(route, "Bo", {} if route.startswith("POST") else None)
            assert response.status_code in ROUTES[route]["Bo"]
            if route == "POST /undo" and response.json()["lease_id"] is not None:
                done, stored = done - 1, None
        assert answered_so_far() == done


@pytest.mark.parametrize("name", PEOPLE)
def test_who_is_answered_what(served, name):
    """Log-out comes last, and ends the session."""
    for route in sorted(ROUTES.keys() - set(WITH_BODY), key=lambda route: route == "POST /logout"):
        assert served.send(route, name).status_code in ROUTES[route][name]
    assert served.send("POST /claim", name).status_code == 401
