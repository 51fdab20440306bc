"""The alert when annotators agree less than those of the comparisons that were registered before."""

import json
from pathlib import Path

from test_labels_stage import run_in

from rlhf.registry import Registry
from rlhf.stages.labels import Agreement, agreement_drop, latest_agreement, run_labels
from sft.core.ledger import read_ledger
from sft.core.statistics import Estimate


def write_labels(path: Path, *, disagree_every: int) -> Path:
    """Sixty pairs by three annotators, of whom one says the opposite in every n-th pair."""
    rows = [
        {
            "prompt": f"question {pair}",
            "response_a": "good",
            "response_b": "bad",
            "label": ("a", "b")[(pair + (annotator == 2 and pair % disagree_every == 0)) % 2],
            "annotator": f"annotator {annotator}",
        }
        for pair in range(60)
        for annotator in range(3)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def alerts(folder: Path, labels: Path) -> list[str]:
    run = run_in(folder, f"data.path={labels}")
    with run.tracker:
        run_labels(run)
    entries = read_ledger(folder / "run" / "metrics.jsonl").entries
    return [entry.alert.text for entry in entries if entry.alert is not None]


def test_a_drop_is_told_against_the_version_before(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    assert alerts(tmp_path, write_labels(tmp_path / "first.jsonl", disagree_every=20)) == []
    assert alerts(tmp_path, write_labels(tmp_path / "alike.jsonl", disagree_every=15)) == []
    (told,) = alerts(tmp_path, write_labels(tmp_path / "worse.jsonl", disagree_every=2))
    assert "below that of comparisons:2" in told
    assert "rlhf labels report" in told
    registry = Registry(tmp_path / "registry", create=False)
    latest = latest_agreement(registry, "comparisons")
    assert latest is not None
    assert latest.ref == "comparisons:3"
    assert latest_agreement(registry, "other") is None


def test_only_intervals_that_lie_apart_are_a_drop() -> None:
    before = Agreement("comparisons:1", 0.8, 0.7)
    assert agreement_drop(Estimate(0.5, (0.4, 0.71), 60), before) is None
    assert agreement_drop(Estimate(0.9, (0.85, 0.95), 60), before) is None
    assert agreement_drop(None, before) is None
    assert agreement_drop(Estimate(0.5, (0.4, 0.6), 60), None) is None
    told = agreement_drop(Estimate(0.5, (0.4, 0.6), 60), before)
    assert told is not None
    assert told.startswith(
        "Krippendorff's alpha is 0.50 (at most 0.60), below that of comparisons:1, 0.80 (at least 0.70)"
    )
