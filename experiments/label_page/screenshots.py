"""Make the pictures of the label page that docs/ shows: the real server, a real browser, texts of our own invention.

python experiments/label_page/screenshots.py --output docs
"""

import argparse
import sys
import time
from pathlib import Path
from tempfile import TemporaryDirectory

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parents[2] / "tests"))

from label_server import serving

from rlhf.labels.accounts.authentication import accept_invite
from rlhf.labels.accounts.users import Role, invite
from rlhf.labels.collection.study import Study, set_guidelines, set_study
from rlhf.labels.collection.tasks import Pair, enqueue
from rlhf.labels.store import LabelStore
from rlhf.labels.web.site import Site
from sft.core.text import Message

CHROMIUM = "/usr/bin/chromium"
PROJECT = "assistant-helpfulness"
GUIDELINES = """\
Choose the answer that would help the person more **if they acted on it**.

1. A wrong fact or code that does not run outweighs everything else.
2. Of two correct answers, the one that answers *this* question wins, not the longer one.
3. If you could toss a coin, choose *Equally good*.
"""
PROMPT = (
    Message("user", "I log the temperature of our greenhouse every ten minutes. How can I smooth the curve?"),
    Message(
        "assistant",
        "A **moving average** is a good start: each point becomes the mean of the last few. "
        "Six readings are one hour, which hides single outliers but keeps the course of a day.",
    ),
    Message(
        "user",
        "Nice. Please write it in Python without libraries, and tell me what happens with a gap "
        "when the sensor was offline. Which window should I take?",
    ),
)
LEFT = """\
Here is a version that treats a gap as what it is, **unknown**, and not as zero:

```python
def smooth(readings, window=6):
    \"\"\"Mean of the last readings; None where all are missing.\"\"\"
    smoothed = []
    for end in range(1, len(readings) + 1):
        part = readings[max(0, end - window):end]
        known = [value for value in part if value is not None]
        smoothed.append(sum(known) / len(known) if known else None)
    return smoothed
```

Store `None` for every reading that the sensor missed. A short gap is bridged by the readings around it; in a gap \
longer than the window the result is `None`, so your plot shows a hole instead of an invented line.

| Window | Covers | Good for |
|-------:|:-------|:---------|
| 3 | 30 minutes | seeing a door that was left open |
| 6 | 1 hour | everyday use |
| 18 | 3 hours | comparing whole days |

Start with **6**. Note that the curve lags about half a window (30 minutes) behind.
"""
RIGHT = """\
Sure! You can use the following function:

```python
def smooth(readings, window=6):
    result = []
    for i in range(len(readings)):
        part = readings[i - window:i]
        result.append(sum(part) / window)
    return result
```

This computes the moving average of your temperature readings. If the sensor was offline, simply store `0` for the \
missing values, so that the list keeps its length and nothing breaks.

As for the window, it depends on what you want to see:

- a **small** window follows the data closely,
- a **large** window is smoother but reacts more slowly.

In general, I would recommend to experiment with several values and look at the result. Many people find that a \
window between 5 and 20 works well for them in practice. Let me know if you have any further questions!
"""


def fill(store: LabelStore) -> str:
    """Store tasks, settings and one annotator; return the token of their session."""
    with store.changing(PROJECT) as (connection, project):
        asked = Study(question="Which answer helps more?", attributes=("correct", "clear"), gold_share=0, probe_share=0)
        set_study(connection, project, asked)
        set_guidelines(connection, project, GUIDELINES)
        enqueue(connection, project, [Pair(PROMPT, LEFT, RIGHT)], overlap=2, seed=0)
        token = invite(connection, project, Role.ANNOTATOR, time.time())
    entered = accept_invite(Site(store, PROJECT).changing, token, "Noor", "seven quiet herons", time.time())
    return entered.token


def picture(browser: Browser, url: str, token: str, path: Path, **context: object) -> None:
    """Save a picture of the task with an answer half given."""
    opened = browser.new_context(reduced_motion="reduce", **context)  # type: ignore[arg-type]
    opened.add_cookies([{"name": f"labels-{PROJECT}", "value": token, "url": url}])
    page = opened.new_page()
    page.goto(f"{url}/label")
    page.wait_for_selector("#submit")
    page.keyboard.press("1")
    page.evaluate("document.activeElement.blur()")
    page.screenshot(path=path)
    opened.close()


def main() -> None:
    """Write label-page.png, label-page-dark.png and label-page-phone.png."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, required=True, help="folder for the pictures")
    output = parser.parse_args().output
    output.mkdir(parents=True, exist_ok=True)
    desktop = {"viewport": {"width": 1440, "height": 900}}
    phone = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
    with TemporaryDirectory() as folder, sync_playwright() as playwright:
        store = LabelStore(f"sqlite:///{folder}/labels.sqlite", create=True)
        token = fill(store)
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox"], ignore_default_args=["--hide-scrollbars"]
        )
        with serving(store, PROJECT) as url:
            picture(browser, url, token, output / "label-page.png", **desktop)
            picture(browser, url, token, output / "label-page-dark.png", color_scheme="dark", **desktop)
            picture(browser, url, token, output / "label-page-phone.png", **phone)
        browser.close()


if __name__ == "__main__":
    main()
