import math
import random
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from made_runs import estimate, make_run, scores, stage

from rlhf.runs.compare import Comparison, compare
from rlhf.runs.folder import find_runs
from rlhf.runs.page import render
from rlhf.runs.plots import colours, spread
from rlhf.runs.record import State
from sft.core.plots import MUTED, SERIES

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'\u202egnp.exe\u200b{{ 7*7 }}"


class Loads(HTMLParser):
    """Collects everything by which a page could load or run something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attrs if name.endswith(("src", "href", "action", "data"))]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]


def reports(rng: random.Random, strength: float, said: str) -> dict[str, dict[str, object]]:
    rows = [
        {
            "iteration": i,
            "kl": strength * i + rng.gauss(0, 0.05),
            "reward": 2 * (1 - math.exp(-strength * i / 4)) + rng.gauss(0, 0.05),
            "gold": 1 - ((strength * i - 4) / 4) ** 2 + rng.gauss(0, 0.05),
            "length": 20 + i,
            "entropy": 1 - i / 40,
        }
        for i in range(1, 21)
    ]
    samples = [
        {"prompt": f"{said}prompt {k}", "sft": f"{said}first", "policy": f"{said}{strength}", "policy_reward": 1.0}
        for k in range(5)
    ]
    kept = scores([rng.gauss(strength, 1) for _ in range(4)])
    loss = [{"step": 10 * k, "train": 1.0, "validation": 1 / k} for k in range(1, 5)]
    return {
        "sft": {"loss": loss},
        "ppo": {"iterations": rows},
        "evaluation": {"samples": samples, "scores": kept},
    }


def make_sweep(folder: Path, *, seeds: int = 3, coefs: tuple[float, ...] = (0.1, 0.2), said: str = "") -> None:
    rng = random.Random(0)
    for coef in coefs:
        for seed in range(seeds):
            numbers = {
                "win_rate": estimate(0.5 + coef + 0.01 * seed),
                "kl": estimate(1 / coef + seed),
                "policy_gold": estimate(seed + coef),
                "other": 0.5,
            }
            make_run(
                folder / f"{coef}-{seed}",
                seed=seed,
                config={"ppo": {"kl_coef": coef}, "note": said},
                numbers=numbers,
                reports=reports(rng, 0.1 / coef, said),
                stages=[stage("sft", fingerprint=f"sft {seed} {coef}"), stage("ppo"), stage("evaluation")],
                ledger=[("ppo", 1, {"time/train_s": 3.0})],
                run_id=f"{said}{coef}-{seed}",
            )


def compared(folder: Path) -> Comparison:
    return compare(find_runs([folder]))


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("sweep")
    make_sweep(folder)
    return render(compared(folder))


def test_the_page_loads_nothing_and_runs_nothing(page: str):
    found = Loads(page)
    assert found.tags.count("svg") == 3 + 2 + 5 + 1
    assert len(found.references) > 20  # markers of the plots: the check below looks at something
    assert [reference for reference in found.references if not reference.startswith("#")] == []
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(found.tags)
    assert found.handlers == []
    assert "@import" not in page
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page


def test_ids_do_not_collide_and_all_colours_are_the_pages(page: str):
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0[1-8a]0[2-9b]\w\w\b", page)  # a placeholder that was not replaced
    assert "var(--series-1)" in page
    assert "--series-7: #" in page


def test_numbers_stand_with_interval_and_n(page: str):
    assert "6 runs of 2 configurations" in page
    assert "3 seeds of each configuration" in page
    # win rates 0.60, 0.61, 0.62: Student's half width is 4.302653 * 0.01 / sqrt(3) = 0.0248
    assert re.search(
        r"61\.0 %</span><span class=\"interval\">\[58\.5, 63\.5\]</span><span class=\"over\">3 seeds", page
    )
    assert "+10.0 points" in page
    assert '<td class="clear">' in page
    assert "the gold utility of the simulated world" in page
    assert page.count("2 prompts") == 4


def test_hostile_text_is_shown_and_never_run(tmp_path: Path):
    make_sweep(tmp_path, seeds=1, said=HOSTILE)
    make_sweep(tmp_path / "more", seeds=1, coefs=(0.3,), said=HOSTILE + "2")
    page = render(compared(tmp_path))
    found = Loads(page)
    assert not {"script", "img"} & set(found.tags)
    assert found.handlers == []
    assert "\u202e" not in page
    assert page.count("&lt;script&gt;") > 20
    assert "⟨U+202E⟩gnp.exe⟨U+200B⟩{{ 7*7 }}" in page


def test_a_single_run_has_a_page(tmp_path: Path):
    make_sweep(tmp_path, seeds=1, coefs=(0.1,))
    page = render(compared(tmp_path))
    assert "1 run of one configuration" in page
    assert "1 seed; over its prompts" in page
    assert "Differences from" not in page


def test_runs_that_hold_nothing_yet_have_a_page_that_says_so(tmp_path: Path):
    make_run(tmp_path / "a", state=State.FAILED)
    make_run(tmp_path / "b", seed=1, state=State.INTERRUPTED)
    page = render(compared(tmp_path))
    for said in (
        "No run has finished",
        "No run has PPO iterations",
        "No run has kept scores",
        "No run has begun PPO",
        "No stage has ended",
        "No sample answers",
        "2 of 2 runs are not finished and have no results: made-a (failed), made-b (interrupted).",
    ):
        assert said in page
    assert "<svg" not in page


def test_remarks_name_everything_that_weakens_the_comparison(tmp_path: Path):
    make_sweep(tmp_path, seeds=1, coefs=(0.1,))
    make_sweep(tmp_path / "again", seeds=1, coefs=(0.1,))
    (tmp_path / "older").mkdir()
    (tmp_path / "older" / "results.json").write_text("{}")
    said = " ".join(compared(tmp_path).remarks)
    assert "1 runs are left out, since they repeat" in said
    assert "1 folders of an older program" in said


def test_many_groups_keep_their_colours_for_the_best(tmp_path: Path):
    letters = [chr(ord("A") + place) for place in range(10)]
    found = colours(letters, letters[::-1])
    assert [letter for letter in letters if found[letter] == MUTED] == ["A", "B"]
    assert found["C"] == SERIES[0]
    make_sweep(tmp_path, seeds=2, coefs=tuple(0.01 * k for k in range(1, 19)))
    comparison = compared(tmp_path)
    page = render(comparison)
    assert "The plots show the first 16 groups." in page
    assert "no room for 6 more groups" in page
    assert "Colours are for the eight groups" in page


def test_letters_at_the_ends_of_lines_do_not_meet():
    found = spread({"A": 0.5, "B": 0.52, "C": 0.9, "D": 0.48}, 0.1)
    assert found == pytest.approx({"D": 0.4, "A": 0.5, "B": 0.6, "C": 0.9})
    assert spread({"A": 0.1, "B": 0.3}, 0.1) == {"A": 0.1, "B": 0.3}
    chained = spread({"A": 0.50, "B": 0.56, "C": 0.68}, 0.1)
    assert chained == pytest.approx({"A": 0.48, "B": 0.58, "C": 0.68})
    assert spread({}, 0.1) == {}


def test_the_same_runs_give_the_same_bytes(tmp_path: Path):
    make_sweep(tmp_path, seeds=2)
    assert render(compared(tmp_path)) == render(compared(tmp_path))


def test_losses_are_drawn_of_stages_whose_products_differ(tmp_path: Path):
    make_sweep(tmp_path, seeds=1)
    assert list(compared(tmp_path).losses) == ["validation loss of SFT"]
    make_sweep(tmp_path / "one", seeds=1, coefs=(0.1,))
    assert compared(tmp_path / "one").losses == {}
