"""Make the runs of this study, compare them, and photograph the page.

OMP_NUM_THREADS=1 python experiments/compare/picture.py --root runs/compare --output docs/compare.png

Runs that are there already are found again, so that a second call takes seconds.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

SWEEP = [
    "experiment=quickstart",
    "seed=0,1,2",
    "ppo.kl_coef=0.02,0.2",
    "model.hidden_size=64",
    "model.intermediate_size=192",
    "model.num_hidden_layers=3",
    "simulation.prompts=500",
    "simulation.demonstrations=2000",
    "simulation.pairs=3000",
    "sft.num_train_epochs=3",
    "ppo.total_episodes=5120",
    "runtime.device=cpu",
    "runtime.threads=1",
    "wandb=disabled",
]
"""Three seeds, a loose and a tight leash, on the quickstart's world and model made smaller, with few labels."""


def rlhf(*words: str) -> None:
    """Run the command of this Python's environment; a failure ends the script."""
    subprocess.run([sys.executable, "-m", "rlhf", *words], check=True)


def sweep(root: Path, words: list[str]) -> Path:
    """Run the sweep where it is not there yet and return its folder."""
    folder = root / "sweep"
    if not folder.exists():
        rlhf("run", "-m", *SWEEP, f"registry.root={root / 'registry'}", f"hydra.sweep.dir={folder}", *words)
    return folder


def photograph(page: Path, picture: Path, chromium: str, *, width: int, height: int | None, dark: bool = False) -> None:
    """Save a picture of a page, from its top down to `height`, or whole."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        scheme = "dark" if dark else "light"
        opened = browser.new_page(viewport={"width": width, "height": height or 900}, color_scheme=scheme)
        problems: list[str] = []
        opened.on("console", lambda message: problems.append(message.text))
        opened.on("request", lambda request: problems.append(request.url) if request.url != page.as_uri() else None)
        opened.goto(page.as_uri())
        opened.screenshot(path=picture, full_page=height is None)
        wide = opened.evaluate("document.documentElement.scrollWidth")
        print(f"{picture}: page {wide} wide of {width}, messages and requests: {problems or 'none'}")
        browser.close()


def main() -> None:
    """Run, compare, photograph."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, required=True, help="folder of the runs, the registry and the page")
    parser.add_argument("--output", type=Path, required=True, help="the picture")
    parser.add_argument("--look", type=Path, help="a folder for pictures of the whole page, dark, and on a phone")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser")
    arguments, words = parser.parse_known_args()
    page = (arguments.root / "compare.html").absolute()
    rlhf("runs", "compare", str(sweep(arguments.root.absolute(), words)), "--output", str(page))
    photograph(page, arguments.output, arguments.chromium, width=1280, height=1700)
    if arguments.look:
        arguments.look.mkdir(parents=True, exist_ok=True)
        photograph(page, arguments.look / "light.png", arguments.chromium, width=1280, height=None)
        photograph(page, arguments.look / "dark.png", arguments.chromium, width=1280, height=None, dark=True)
        photograph(page, arguments.look / "phone.png", arguments.chromium, width=390, height=None)


if __name__ == "__main__":
    main()
