import threading

import pytest
from entrants import joined, new_store

pytest.importorskip("fastapi")

from sqlalchemy import func, select

from rlhf.labels.store import LabelStore
from rlhf.labels.tables import ACCOUNT
from rlhf.labels.web import site
from rlhf.labels.web.site import STATIC, Site, static_url
from sft.core.errors import StorageError


@pytest.fixture
def store(tmp_path) -> LabelStore:
    return new_store(tmp_path)


def rename(place: Site, *, fails: bool = False) -> None:
    with place.changing() as (connection, _):
        connection.execute(ACCOUNT.update().values(name="Cy"))
        if fails:
            raise ZeroDivisionError


def test_a_writer_that_waits_too_long_is_told(store, monkeypatch):
    """Else each of fifty that queue waits for the database's whole time after the one before it."""
    monkeypatch.setattr(site, "BUSY_TIMEOUT_S", 0.05)
    place = Site(store, "p")
    with place.changing(), pytest.raises(StorageError, match="was locked for 0 s; wait and try again"):
        rename(place)
    with place.changing() as (_, project):
        assert project.name == "p"


def test_a_failed_change_leaves_nothing_and_lets_the_next_one_in(store):
    joined(store, "Bo")
    place = Site(store, "p")
    with pytest.raises(ZeroDivisionError):
        rename(place, fails=True)
    with place.changing() as (connection, _):
        assert connection.scalars(select(ACCOUNT.c.name)).all() == ["Bo"]


def test_readers_do_not_wait_for_a_writer(store):
    joined(store, "Bo")
    place = Site(store, "p")
    found: list[int] = []

    def read() -> None:
        with place.reading() as (connection, project):
            mine = select(func.count()).where(ACCOUNT.c.project_id == project.id)
            found.append(connection.scalar(mine))

    with place.changing() as (connection, _):
        connection.execute(ACCOUNT.update().values(name="Cy"))
        thread = threading.Thread(target=read)
        thread.start()
        thread.join(10)
        assert found == [1]


def test_another_content_has_another_address(tmp_path):
    (tmp_path / "a.css").write_text("a")
    (tmp_path / "b.css").write_text("b")
    (tmp_path / "c.txt").write_text("c")
    found = site._static_files(tmp_path)
    assert found.keys() == {"a.css", "b.css"}
    assert found["a.css"].digest != found["b.css"].digest
    assert static_url("app.css") == f"/static/app.css?v={STATIC['app.css'].digest}"


def test_projects_have_cookies_of_their_own(store):
    assert Site(store, "p").cookie == "labels-p"
    assert Site(store, "q", is_https=True).cookie == "__Host-labels-q"
