"""Sites and browsers that the tests of the label page share."""

import re

import pytest

pytest.importorskip("fastapi")

from fastapi import FastAPI
from starlette.testclient import TestClient

HOST = "127.0.0.1:8000"
PLACE = f"http://{HOST}"
OURS = {"origin": PLACE}
"""What a browser says of a form on our own page."""
NOT_A_NUMBER = re.compile(r"\{[^}]*\}")


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def browser(app: FastAPI, token: str = "", address: str = "10.0.0.1", cookie: str = "labels-p") -> TestClient:
    """Return a browser that follows no redirects; `token`: of the session that it has."""
    cookies = {cookie: token} if token else {}
    return TestClient(app, base_url=PLACE, follow_redirects=False, cookies=cookies, client=(address, 1))


def all_routes(app: FastAPI) -> list[tuple[str, str]]:
    """Return (method, path template) of everything an application has."""
    return [(method, route.path) for route in app.routes for method in sorted(route.methods)]


def filled(path: str, value: object = 1) -> str:
    return NOT_A_NUMBER.sub(str(value), path)
