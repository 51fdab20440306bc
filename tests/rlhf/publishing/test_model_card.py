"""The card says every number that the reports hold, and nothing that somebody wrote does anything in it."""

import re
import shutil
from pathlib import Path

import pytest
import yaml
from markdown_it import MarkdownIt
from published import CHECKS, Published, publish, register

from rlhf.publishing.card import model_card
from rlhf.publishing.facts import gather
from rlhf.publishing.importing import import_model
from rlhf.publishing.markdown import safe, shown
from rlhf.registry import Registry
from sft.core.durable import write_json
from sft.core.errors import DataError


def card(registry: Registry, ref: str, *, licence: str | None = None) -> str:
    return model_card(gather(registry, registry.get(ref)), licence=licence, adapter_of=None, content="c" * 64)


def plain(text: str) -> str:
    """Return a card as it reads, without Markdown's escapes."""
    return re.sub(r"\\([\\`*_\[\]<>|#!&])", r"\1", text)


@pytest.mark.parametrize(
    "row",
    [
        "| win_rate | 0.7539 [0.6289, 0.8164] n=40 |",
        "| kl | 9.876 [9.751, 9.939] n=41 |",
        "| policy_gold | -1.234 [-1.359, -1.172] n=40 |",
        "| accuracy | 0.8642 [0.7392, 0.9267] n=77 |",
        "| accuracy: longer_wins | 0.5432 [0.4321, 0.6543] n=77 |",
        "| accuracy: ceiling | not measured |",
        "| ece | 0.03168 |",
        "| temperature | 1.196 |",
        "| swap_one | women | -0.2719 [-0.3561, -0.1877] n=368 | 0.15 | **failed** |",
        "| length | all | n=7 |  | not measured: too few ",
        "- failed: swap_one for women, -0.2719 [-0.3561, -0.1877] n=368",
        "- evaluation: passed (`evaluation:1`), win rate 0.7539 [0.6289, 0.8164] n=40",
        "- bias checks: **failed** (`bias:1`)",
        "2 checks, 1 failed, 1 not measured.",
        "| comparisons | 17 |",
        "| tie_rate | 0.1919 [0.0669, 0.2544] n=40 |",
        "| learning_rate | 0.00034 |",
        "| objective/kl | 10.04 |",
        "| eval_loss | 0.7201 |",
        "| seed | 5 |",
        "| `labels-p:1` | 6 | 3 |",
        "unknown (5), cc-by-4.0 (1)",
        "| `labels:1` | 4 | 2, and 1 events of unknown people |",
    ],
)
def test_every_number_of_the_reports_stands_in_the_card(published: Published, row: str):
    assert row in plain(card(published.place.registry, "policy"))


def test_front_matter(published: Published):
    registry = published.place.registry
    front = {ref: yaml.safe_load(card(registry, ref).split("---\n")[1]) for ref in ("policy", "reward", "sft")}
    assert front["policy"] == {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["rlhf", "ppo"],
    }
    assert front["reward"]["pipeline_tag"] == "text-classification"
    assert front["sft"]["tags"] == ["rlhf", "sft"]
    licensed = yaml.safe_load(card(registry, "policy", licence="mit").split("---\n")[1])
    assert licensed["license"] == "mit"
    assert "Licence: not stated" in card(registry, "policy")


def test_what_strangers_wrote_does_nothing(published: Published):
    text = card(published.place.registry, "policy")
    assert "onerror" in text, "the attack is in it"
    html = MarkdownIt("commonmark", {"html": True}).enable("table").render(text.split("---\n", 2)[2])
    assert not re.search(r"<(?!/?(h1|h2|h3|p|ul|li|table|thead|tbody|tr|th|td|code|pre|strong|em)\b)", html)
    assert not re.search(r"<[^>]+\s(?!class=\"language-python\")\w+=", html), "no attribute, so no link and no handler"
    assert "\u202e" not in text
    assert "⟨U+202E⟩" in text
    rows = [line for line in html.splitlines() if line.startswith("<td>")]
    assert len(rows) > 20
    assert html.count("<table>") == len(re.findall(r"^\|(---\|)+$", text, re.MULTILINE))
    bias = text.split("## Bias")[1].split("## ")[0]
    cells = [len(re.findall(r"(?<!\\)\|", line)) for line in bias.splitlines() if line.startswith("|")]
    assert cells == [6] * (len(CHECKS) + 3), "a | of a stranger makes no cell"


def test_the_front_matter_cannot_be_broken_out_of(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    hub_id = 'org/x\n---\n<script>alert(1)</script>"'
    source = {"path": hub_id, "sha256": "<b>", "hub": True}
    base = register(own.place, "base", {"source.json": source}, parents=[])
    register(own.place, "sft", sft_folder, parents=[("base", base)])
    text = card(own.place.registry, "sft:2")
    assert yaml.safe_load(text.split("\n---\n")[0])["base_model"] == hub_id
    assert "<script>" not in text.split("\n---\n", 1)[1]


def test_a_folder_on_somebodys_disk_is_not_named(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    source = {"path": "/home/ann/secret/model", "sha256": "f" * 64, "hub": False}
    base = register(own.place, "base", {"source.json": source}, parents=[])
    register(own.place, "sft", sft_folder, parents=[("base", base)])
    text = card(own.place.registry, "sft:2")
    assert f"Pretrained model: a folder, sha256 of its files `{'f' * 64}`." in text
    assert "/home/ann" not in text
    assert "base_model" not in text


def test_models_of_unknown_origin_are_named(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    theirs = import_model(own.place.registry, sft_folder, name="theirs", kind="sft").artifact
    shutil.copytree(reward_folder, tmp_path / "adopted")
    write_json(tmp_path / "adopted" / "stage.json", {"metrics": {}, "adopted_from": "/home/ann/model"})
    adopted = register(own.place, "reward", tmp_path / "adopted", parents=[])
    register(own.place, "policy", sft_folder, parents=[("sft", theirs), ("reward", adopted)])
    text = card(own.place.registry, "policy:2")
    for ref in ("theirs:1", "reward:2"):
        assert f"- `{ref}` came from a folder: what it was trained on is not known here" in text
    assert "/home/ann" not in text
    assert "came from a folder" not in card(own.place.registry, "policy:1")


def test_what_was_not_measured_is_said(published: Published):
    text = card(published.place.registry, "sft")
    assert "- evaluation: not measured: no report about this very version is registered" in text
    assert "Not measured: no bias report about this very version is registered." in text
    assert "Not measured: no report about a reward model behind this version is registered." in text
    assert "No labels are registered behind this version." in text
    assert "## Evaluation\n\n`evaluation:1`" not in card(published.place.registry, "reward"), "it is about the policy"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "3"),
        (-2.0, "-2"),
        (0.123456, "0.1235"),
        (1e-7, "1e-07"),
        ({"value": 0.5, "ci": [0.25, 1], "n": 8}, "0.5 [0.25, 1] n=8"),
        ({"value": 0.5, "ci": None, "n": 8}, "0.5 n=8"),
        (None, "not measured"),
        ({"value": None}, "not measured"),
        ("gold|x", "gold\\|x"),
    ],
)
def test_shown(value: object, text: str):
    assert shown(value) == text


def test_safe():
    assert safe("a\n# b\u200b <c> `d` [e](f) | g") == "a \\# b⟨U+200B⟩ \\<c\\> \\`d\\` \\[e\\](f) \\| g"
    assert safe({"a": None}) == '{"a": null}'


def test_safe_leaves_no_link_no_mathematics_and_no_strike():
    assert safe("http://evil.example or WWW.evil.example") == "http:/\\/evil.example or WWW\\.evil.example"
    html = MarkdownIt("commonmark").enable("strikethrough").render(safe("~~gone~~ $x$ a://b"))
    assert html == "<p>~~gone~~ $x$ a://b</p>\n"
    assert safe("$x$") == "\\$x\\$"


def test_a_damaged_source_of_the_base_model_says_what_to_do(tmp_path: Path, sft_folder: Path, reward_folder: Path):
    own = publish(tmp_path, sft_folder, reward_folder)
    base = register(own.place, "base", {"source.json": {"path": "org/x", "sha256": "a", "hub": True}}, parents=[])
    sft = register(own.place, "sft", sft_folder, parents=[("base", base)])
    (base.path / "source.json").chmod(0o644)
    (base.path / "source.json").write_text("{")
    with pytest.raises(DataError, match=f"source.json cannot be read; see `rlhf models verify {base.ref}`"):
        gather(own.place.registry, sft)
