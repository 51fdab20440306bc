import math
import random
import re
from html.parser import HTMLParser

import pytest

from rlhf.report.page import STAGES, render

HOSTILE = "<script>alert(1)</script><img src=http://evil.example/x onerror=alert(2)>\"'\u202egnp.exe\u200b{{ 7*7 }}"
GROUPS = ("women", "men")
QUESTIONS = (
    "How do I keep my tomato plants alive on a windy balcony?",
    "My sister Ana starts a new job on Monday. What could she bring?",
    "Explain what a bootstrap interval is, in two sentences.",
    "Can you plan a quiet Sunday for two people?",
)


def fake_results() -> dict[str, object]:
    """A run as the pipeline would record it."""
    names = ("sft", "labels", "reward", "ppo", "evaluation", "bias")
    seconds = (23.4, 1.2, 14.8, 84.0, 21.7, 9.1)
    steps = (300, 0, 160, 960, 0, 0)
    products = ("sft:1", "comparisons:1", "reward:1", "policy:1", None, None)
    return {
        "experiment": "quickstart",
        "run_id": "2026-05-14_10-22-31",
        "seed": 0,
        "config_sha256": "9f2b6d0c7a4e1185" * 4,
        "stages": [
            {
                "name": name,
                "artifact": product,
                "fingerprint": f"{index}a7c2f94e0b{index}" * 5,
                "cached": index < 2,
                "seconds": seconds[index],
                "train_steps": 0 if index < 2 else steps[index],
                "metrics": {},
            }
            for index, (name, product) in enumerate(zip(names, products, strict=True))
        ],
        "evaluation": {
            "win_rate": {"value": 0.831, "ci": [0.79, 0.868], "n": 400},
            "kl": {"value": 8.24, "ci": [7.8, 8.7], "n": 400},
            "reward_model_accuracy": {
                "value": 0.744,
                "ci": [0.709, 0.777],
                "n": 640,
                "ceiling": 0.792,
                "longer_wins": 0.561,
                "longer_wins_ci": [0.522, 0.599],
            },
            "proxy_gain": {"value": 1.13, "ci": [1.02, 1.24], "n": 400},
            "perplexity_before": 4.31,
            "perplexity_after": 4.78,
            "repetition": {"value": 0.021, "ci": [0.012, 0.031], "n": 400},
        },
        "bias": {"passed": True, "checks": fake_checks(passed=True)},
        "registry": {"sft": "sft:1", "reward": "reward:1", "policy": "policy:1"},
        "alias": "champion",
    }


def fake_checks(*, passed: bool) -> list[dict[str, object]]:
    names = ("swap in one answer", "swap in both answers", "preference flips", "gap in the policy's answers")
    limits = (0.25, 0.25, 0.15, 0.35)
    checks: list[dict[str, object]] = []
    for index, (name, limit) in enumerate(zip(names, limits, strict=True)):
        for group in GROUPS:
            effect = (0.03 + 0.015 * index) * (1 if group == "women" else -1)
            if name == "preference flips":
                effect = abs(effect)
            failed = not passed and group == "women" and index == 0
            effect = -0.61 if failed else effect
            low, high = effect - 0.09, effect + 0.09
            checks.append(
                {"name": name, "group": group, "effect": effect, "ci": [low, high], "n": 400, "limit": limit}
                | {"passed": not failed}
            )
    checks.append(
        {"name": "reward and length", "group": "", "effect": 0.21, "ci": [0.15, 0.27], "n": 800, "limit": 0.6}
        | {"passed": True}
    )
    return checks


def fake_stages() -> dict[str, dict[str, object]]:
    rng = random.Random(0)
    loss = [
        {
            "step": step,
            "train": 0.9 + 3.2 * math.exp(-step / 70) + rng.gauss(0, 0.04),
            "validation": 1.0 + 3.1 * math.exp(-step / 70) if step % 50 == 0 else None,
        }
        for step in range(10, 310, 10)
    ]
    reward_loss = [
        {
            "step": step,
            "train": 0.47 + 0.24 * math.exp(-step / 40) + rng.gauss(0, 0.015),
            "validation": 0.52 + 0.18 * math.exp(-step / 40) if step % 40 == 0 else None,
        }
        for step in range(5, 165, 5)
    ]
    iterations = [
        {
            "iteration": i,
            "kl": 13 * (1 - math.exp(-i / 28)) + rng.gauss(0, 0.15),
            "reward": 1.9 + 1.2 * (1 - math.exp(-i / 18)) + rng.gauss(0, 0.04),
            "gold": 0.6 + 0.9 * math.exp(-(((i - 26) / 26) ** 2)) + rng.gauss(0, 0.03),
            "length": 24 + 6 * (1 - math.exp(-i / 20)) + rng.gauss(0, 0.5),
            "entropy": 52 - 0.4 * i + rng.gauss(0, 0.8),
        }
        for i in range(1, 61)
    ]
    samples = [
        {
            "prompt": QUESTIONS[k % 4],
            "sft": "You could try a taller pot, or tie them to a stick. It depends. It depends on the day.",
            "policy": "Put the pots against a wall, tie each plant to a stake in two places, and water in the morning.",
            "sft_reward": 0.4 + 0.1 * k,
            "policy_reward": 1.6 - 0.1 * k,
            "sft_gold": 0.35,
            "policy_gold": 1.1,
            "winner": ("policy", "policy", "tie", "sft")[k % 4],
        }
        for k in range(9)
    ]
    return {
        "sft": {"metrics": {"train_loss": 0.93, "validation_loss": 1.02, "tokens": 182340}, "loss": loss},
        "labels": {
            "metrics": {"rows_in": 2600, "comparisons": 2000, "quarantined": 12, "duplicates": 3, "ties": 41},
            "agreement": {"value": 0.512, "ci": [0.48, 0.54], "n": 600},
            "reasons": {"prompt is empty": 7, "both answers are the same": 5},
        },
        "reward": {
            "metrics": {"accuracy": 0.744, "temperature": 1.31, "offset": -0.42},
            "loss": reward_loss,
            "reliability": [
                {"confidence": 0.55 + 0.1 * k, "accuracy": 0.53 + 0.105 * k, "n": (210, 170, 130, 80, 50)[k]}
                for k in range(5)
            ],
            "ece": 0.018,
            "scores": {
                "chosen": [rng.gauss(0.6, 1.1) for _ in range(640)],
                "rejected": [rng.gauss(-0.5, 1.2) for _ in range(640)],
            },
            "baselines": {
                "longer_wins": {"value": 0.561, "ci": [0.522, 0.599], "n": 640},
                "bag_of_words": {"value": 0.662, "ci": [0.624, 0.698], "n": 640},
            },
        },
        "ppo": {"metrics": {"iterations": 60, "first_ratio_error": 3.1e-7}, "iterations": iterations},
        "evaluation": {
            "metrics": {"prompts": 200},
            "samples": samples,
            "rewards": {
                "sft": [rng.gauss(0.1, 0.9) for _ in range(400)],
                "policy": [rng.gauss(1.25, 0.8) for _ in range(400)],
            },
        },
        "bias": {"metrics": {"probes": 400}, "passed": True, "checks": fake_checks(passed=True)},
    }


class Loads(HTMLParser):
    """Collects everything by which a page could load or run something."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.references: list[str] = []
        self.handlers: list[str] = []
        self.policy = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name in ("src", "href", "xlink:href", "srcset", "action", "data", "poster", "background"):
                self.references.append(value or "")
            if name.startswith("on"):
                self.handlers.append(name)
            if tag == "meta" and value == "Content-Security-Policy":
                self.policy = dict(attrs)["content"] or ""


def loads(page: str) -> Loads:
    parser = Loads()
    parser.feed(page)
    return parser


def test_page_loads_nothing_and_runs_nothing():
    page = render(fake_results(), fake_stages())
    found = loads(page)
    assert found.tags.count("svg") == 8
    assert len(found.references) > 20  # markers of the plots: the check below looks at something
    assert [reference for reference in found.references if not reference.startswith("#")] == []
    assert [target for target in re.findall(r"url\(([^)]*)\)", page) if not target.startswith("#")] == []
    assert not {"script", "link", "iframe", "object", "embed", "img", "base", "form"} & set(found.tags)
    assert found.handlers == []
    assert "@import" not in page
    assert found.policy.startswith("default-src 'none'; style-src 'unsafe-inline'; img-src data:")


def hostile(value: object) -> object:
    """Put the hostile text into every text of a JSON value, and into its keys where they are data."""
    if isinstance(value, dict):
        return {key: hostile(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [hostile(inner) for inner in value]
    return HOSTILE if isinstance(value, str) else value


def test_hostile_text_in_every_field_is_shown_and_never_run():
    results, stages = hostile(fake_results()), hostile(fake_stages())
    assert isinstance(results, dict)
    assert isinstance(stages, dict)
    stages["labels"]["reasons"] = {HOSTILE: 3}
    stages["sft"]["metrics"] = {HOSTILE: 1.0}
    stages["reward"]["baselines"] = {HOSTILE: {"value": 0.5, "ci": [0.4, 0.6], "n": 3}}
    results["registry"][HOSTILE] = HOSTILE
    page = render(results, stages)
    found = loads(page)
    assert not {"script", "img"} & set(found.tags)
    assert found.handlers == []
    assert "\u202e" not in page
    assert "\u200b" not in page
    assert page.count("&lt;script&gt;") > 30
    assert "⟨U+202E⟩gnp.exe⟨U+200B⟩{{ 7*7 }}" in page


@pytest.mark.parametrize("absent", STAGES)
def test_a_missing_stage_is_named_as_missing(absent: str):
    stages = fake_stages()
    del stages[absent]
    results = fake_results()
    if absent in ("evaluation", "bias"):
        del results[absent]
    page = render(results, stages)
    section = page[page.index(f'<section id="{absent}"') :]
    assert "left no record in this run" in section[: section.index("</section>")]
    assert page.count("left no record in this run") == 1


@pytest.mark.parametrize("value", [None, "nonsense", 7, [], {}])
def test_any_missing_part_leaves_a_page(value: object):
    stages = fake_stages()
    parts = max(len(record) for record in stages.values())
    for place in range(parts):  # one part of every stage at a time; the others are left out, which saves drawing
        broken = {name: dict.fromkeys([*record][place : place + 1], value) for name, record in stages.items()}
        assert "</html>" in render(fake_results(), broken)
    for part in fake_results():
        assert "</html>" in render(fake_results() | {part: value}, {})


def test_an_empty_run_claims_nothing():
    page = render({}, {})
    assert page.count("not measured") == 5
    assert "not shown to be better" in page
    assert "<svg" not in page


def test_page_says_when_over_optimisation_cannot_be_seen():
    stages = fake_stages()
    for row in stages["ppo"]["iterations"]:  # type: ignore[attr-defined]
        row["gold"] = None
    assert "over-optimisation cannot be seen" in render(fake_results(), stages)
    for row in stages["ppo"]["iterations"]:  # type: ignore[attr-defined]
        row["judge"] = 0.5
    assert "a judge that PPO never saw" in render(fake_results(), stages)


def test_page_shows_numbers_with_interval_and_n_and_no_safety_claim():
    page = render(fake_results(), fake_stages())
    assert "95 % interval [79.0, 86.8] · n&nbsp;400" in page
    assert "0.512 (95 % interval [0.48, 0.54], n 600)" in page
    assert "12 of 2\u202f600 rows" in page
    assert "not a safety certificate" in page
    assert "<code>policy:1</code>" in page


def test_same_input_gives_the_same_bytes():
    assert render(fake_results(), fake_stages()) == render(fake_results(), fake_stages())


def test_ids_of_different_plots_do_not_collide():
    page = render(fake_results(), fake_stages())
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) > 20
    assert len(ids) == len(set(ids))
    assert not re.search(r"#0[1-8]0[2-9]\d\d", page)  # a placeholder colour that was not replaced
