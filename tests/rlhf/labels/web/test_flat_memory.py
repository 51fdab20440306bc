"""The site keeps nothing of a label, a log-in or a refusal: after the same again, as many Python objects as before."""

import gc
import re
import sys
from collections.abc import Callable
from statistics import median_low

import pytest

pytest.importorskip("fastapi")

import visits
from entrants import hash_cheaply
from label_site import PASSWORD, PROJECT, add_person, add_tasks
from starlette.testclient import TestClient

from rlhf.labels.accounts.users import Role
from rlhf.labels.collection.tasks import Pair
from rlhf.labels.store import LabelStore
from rlhf.labels.web.app import create_app
from rlhf.labels.web.diff import difference
from rlhf.labels.web.text import formatted
from sft.core.text import user

TIMES, ROUNDS = 5, 40
MOST_KEPT = 60
"""Blocks: an object with its place in a container is two or three for every act."""
_HIDDEN = re.compile(r'<input type="hidden" name="(\w+)" value="([^"]*)">')


def blocks_kept(act: Callable[[int], None], warm: int) -> int:
    """Return how many more blocks Python has after `ROUNDS` acts, the median of several times.

    A leak is there every time; what a library keeps once, and what other threads of the tests do, is not. The first
    `warm` acts may fill what is kept once.
    """
    for number in range(warm):
        act(number)
    kept = []
    for time in range(TIMES):
        gc.collect()
        before = sys.getallocatedblocks()
        for number in range(ROUNDS):
            act(warm + time * ROUNDS + number)
        gc.collect()
        kept.append(sys.getallocatedblocks() - before)
    return median_low(kept)


def label(client: TestClient) -> None:
    page = client.get("/label").text
    form = page[page.index('<form method="post" action="/label/') :]
    address = re.search(r'action="(/label/\d+)"', form)[1]
    fields = dict(_HIDDEN.findall(form[: form.index("</form>")]))
    assert client.post(address, data={**fields, "verdict": "tie"}, headers=visits.OURS).status_code == 303


def test_nothing_is_kept_of_a_label(store: LabelStore):
    add_tasks(store, [Pair(user(f"q{n}"), f"x {n}", f"y {n}") for n in range(300)])
    for number in range(300):  # what is remembered of texts has a bound, which is reached here
        formatted(f"text {number}")
        difference(f"left {number}", f"right {number}")
    app = create_app(store, PROJECT, clock=visits.Clock())
    person = add_person(store, now=visits.Clock().now)
    with visits.browser(app, person.token) as client:
        assert blocks_kept(lambda _: label(client), warm=50) < MOST_KEPT


def test_nothing_is_kept_of_who_comes_and_of_who_is_refused(store: LabelStore, monkeypatch: pytest.MonkeyPatch):
    hash_cheaply(monkeypatch)
    add_tasks(store, [])
    clock = visits.Clock()
    app = create_app(store, PROJECT, clock=clock)
    add_person(store, "Ada", Role.OWNER, now=clock.now)

    with visits.browser(app) as client:

        def come(number: int) -> None:
            clock.now += 3600
            for name, status in (("Ada", 303), (f"nobody {number}", 401)):
                given = {"name": name, "password": PASSWORD}
                client.cookies.clear()
                assert client.post("/login", data=given, headers=visits.OURS).status_code == status
            assert client.get("/dashboard").status_code == 401
            assert client.get(f"/nowhere/{number}").status_code == 404

        assert blocks_kept(come, warm=50) < MOST_KEPT
