"""Photograph the page of a search.

python experiments/search/picture.py --page runs/search/calm/study.html --output docs/search.png
"""

import argparse
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTH, HEIGHT = 1200, 1650


def main() -> None:
    """Save the picture and say whether the page asked for anything."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--page", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--chromium", default="/usr/bin/chromium")
    given = parser.parse_args()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=given.chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        problems: list[str] = []
        address = given.page.absolute().as_uri()
        page.on("console", lambda message: problems.append(message.text))
        page.on("request", lambda request: problems.append(request.url) if request.url != address else None)
        page.goto(address)
        page.screenshot(path=given.output)
        print(f"{given.output}: messages and requests: {problems or 'none'}")
        browser.close()


if __name__ == "__main__":
    main()
