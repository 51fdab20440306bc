"""Pictures of the owner's pages with twelve simulated annotators and about 1,500 labels, taken by a real browser.

Usage: python experiments/label_page/dashboard_screenshot.py --output DIR

Four of the twelve work badly, each in their own way (careless, always left, drifting, fast): the dashboard should show
which. Writes label-dashboard.png and, for a look, the same in the dark and narrow, one annotator's page, and the tasks.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright
from sqlalchemy import select

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from label_people import START, Worker, open_study, pairs, work
from label_server import serving

from rlhf.labels.accounts import sessions
from rlhf.labels.collection.study import Study, set_guidelines
from rlhf.labels.store import LabelStore, now
from rlhf.labels.tables import ACCOUNT, ANNOTATOR

PROJECT = "assistant-answers"
STUDY = Study(overlap=3, gold_share=0.12, probe_share=0.08, probe_after=8, pause_window=20, pause_below=0.45, seed=1)
GOOD_PEOPLE = ("Amara", "Björn", "Chen", "Dilnoza", "Eero", "Fatima", "Goran", "Hana")
WORKERS = (
    *(Worker(name, skill=0.93, tie=0.06, skip=0.01, flag=0.005, seconds=35) for name in GOOD_PEOPLE),
    Worker("Ivo", skill=0.5, tie=0.05, seconds=25),
    Worker("Jun", skill=0.9, left=0.8, seconds=30),
    Worker("Kofi", skill=0.96, later_skill=0.4, turning_point=70, seconds=35),
    Worker("Lena", skill=0.75, seconds=3),
)
HOURS_OF_WORK = ((0, 4), (5, 9), (24, 28), (29, 31))
"""From and to, in hours from the start: two days with a break for lunch."""
ANSWERS = 1850


def label(store: LabelStore) -> float:
    """Make the project and let everybody work; return the time at the end."""
    gold = pairs(80, prefix="known ", gold=True, words=90)
    open_study(store, PROJECT, STUDY, label=pairs(620, prefix="task ", words=90), gold=gold)
    with store.changing(PROJECT) as (connection, project):
        set_guidelines(connection, project, "Prefer the answer that helps more.\n\n- Read both to the end.")
    hours = sum(end - start for start, end in HOURS_OF_WORK)
    end_time = START
    for number, (start, end) in enumerate(HOURS_OF_WORK):
        answers = round(ANSWERS * (end - start) / hours)
        settings = {"answers": answers, "seed": number, "break_seconds": 3600 * (end - start) / answers}
        end_time = work(store, PROJECT, STUDY, WORKERS, start=START + 3600 * start, **settings)
    return end_time


def log_in(store: LabelStore, time_now: float) -> str:
    """Make an owner and return the token of a session."""
    with store.changing(PROJECT) as (connection, project):
        owner = {"project_id": project.id, "name": "owner", "role": "owner", "password_hash": "-", "created_at": now()}
        account_id = connection.execute(ACCOUNT.insert().values(**owner).returning(ACCOUNT.c.id)).scalar_one()
        return sessions.start(connection, account_id, time_now)


def take(browser: Browser, address: str, token: str, path: Path, page: str, *, width: int, dark: bool = False) -> None:
    """Photograph one page from top to bottom."""
    scheme = "dark" if dark else "light"
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    context.add_cookies([{"name": f"labels-{PROJECT}", "value": token, "url": address}])
    opened = context.new_page()
    problems: list[str] = []
    opened.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    opened.goto(address + page, wait_until="networkidle")
    opened.screenshot(path=path, full_page=True)
    wide = opened.evaluate("document.documentElement.scrollWidth")
    print(f"{path.name}: {path.stat().st_size / 1e3:.0f} KB, page {wide} wide, browser's errors: {problems or 'none'}")
    context.close()


def main() -> None:
    """Make the labels, serve them, and photograph."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="a folder")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    output, chromium = (arguments := parser.parse_args()).output, arguments.chromium
    output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        store = LabelStore(f"sqlite:///{folder}/labels.sqlite", create=True)
        end = label(store)
        token = log_in(store, end)
        with store.reading(PROJECT) as labels:
            kofi = labels.connection.scalar(select(ANNOTATOR.c.id).where(ANNOTATOR.c.name == "Kofi"))
        with serving(store, PROJECT, clock=lambda: end) as address, sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            site = (browser, address, token)
            take(*site, output / "label-dashboard.png", "/dashboard", width=1440)
            take(*site, output / "dark.png", "/dashboard", width=1440, dark=True)
            take(*site, output / "narrow.png", "/dashboard", width=390)
            take(*site, output / "annotator.png", f"/dashboard/annotators/{kofi}", width=1440)
            take(*site, output / "tasks.png", "/dashboard/tasks", width=1440)
            take(*site, output / "guidelines.png", "/dashboard/guidelines", width=1440)
            browser.close()


if __name__ == "__main__":
    main()
