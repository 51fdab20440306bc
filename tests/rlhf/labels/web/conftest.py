"""What the tests of the label page share: an empty database, and the page in Debian's Chromium, where that is there."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rlhf.labels.store import LabelStore

if TYPE_CHECKING:
    from label_site import Opening, Person
    from playwright.sync_api import Browser, Page

CHROMIUM = Path("/usr/bin/chromium")


@pytest.fixture
def store(tmp_path: Path) -> LabelStore:
    """Return an empty database."""
    return LabelStore(f"sqlite:///{tmp_path / 'labels.sqlite'}", create=True)


@pytest.fixture(scope="session")
def browser() -> "Iterator[Browser]":
    """Start a browser, or skip where there is none."""
    api = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip(f"no {CHROMIUM}; install it with: apt-get install chromium")
    with api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def opened(browser: "Browser", store: LabelStore, person: "Person") -> "Iterator[Opening]":
    """Return what opens a page in a new browser, or with `beside` in another tab of the same one."""
    from label_server import serving
    from label_site import COOKIE, PROJECT

    contexts = []
    with serving(store, PROJECT) as url:

        def new_page(beside: "Page | None" = None, path: str = "/label", **settings: object) -> "Page":
            if beside is None:
                contexts.append(browser.new_context(base_url=url, reduced_motion="reduce", **settings))
                contexts[-1].set_default_timeout(5000)
                contexts[-1].add_cookies([{"name": COOKIE, "value": person.token, "url": url}])
            page = contexts[-1].new_page()
            page.goto(path)
            return page

        yield new_page
        for context in contexts:
            context.close()
