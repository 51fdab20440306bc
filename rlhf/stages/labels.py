"""Stage `labels`: a file of judgements in, registered labels and comparisons out."""

from pathlib import Path

from rlhf import schema
from rlhf.labels.quality import Preference, aggregate, judgements_per_annotator, krippendorff_alpha, label_rates
from rlhf.registry import Artifact
from rlhf.run import Built, Done, Run
from sft.core.durable import file_digest, json_digest, write_jsonl
from sft.core.text import as_dicts
from sft.core.tracking import Tracker


def run_labels(run: Run) -> tuple[Done, list[Preference]]:
    """Ingest the label file, join the judgements of each pair, and register both labels and comparisons."""
    source = run.sources
    settings = {"labels": schema.to_tree(run.config.labels), "format": run.config.data.format}
    label_digest = file_digest(source.label_file)
    fingerprint = run.fingerprint("comparisons", settings, {"file": label_digest})

    def build(folder: Path, tracker: Tracker) -> Built:
        tracker.start(3, "step")
        ingested = source.ingested
        tracker.log(1, {"rows_in": ingested.rows_in, "quarantined": ingested.quarantined})
        aggregated = aggregate(ingested.judgements)
        alpha = krippendorff_alpha(ingested.judgements, seed=run.config.seed)
        rates = label_rates(ingested.judgements)
        metrics: dict[str, object] = {
            "rows_in": ingested.rows_in,
            "comparisons": len(aggregated.preferences),
            "judgements": len(ingested.judgements),
            "quarantined": ingested.quarantined,
            "duplicates": ingested.duplicates,
            "ties": aggregated.ties,
            "undecided": aggregated.undecided,
            "contradictions": aggregated.contradictions,
            "annotators": len(judgements_per_annotator(ingested.judgements)),
            "tie_rate": rates.tie.as_dict(),
            "left_rate": rates.left.as_dict() if rates.left else None,
            "longer_rate": rates.longer.as_dict() if rates.longer else None,
            "krippendorff_alpha": alpha.as_dict() if alpha else None,
        }
        stage: dict[str, object] = {
            "metrics": metrics,
            "format": ingested.format,
            "agreement": metrics["krippendorff_alpha"],
            "reasons": ingested.reasons,
        }
        labels = _register_labels(run, folder / "labels", fingerprint, stage)
        run_parents.append(("labels", labels))
        write_jsonl(folder / "made" / "comparisons.jsonl", [preference_row(p) for p in aggregated.preferences])
        tracker.log(3, {"comparisons": len(aggregated.preferences)})
        return Built(folder / "made", stage, 0)

    run_parents: list[tuple[str, Artifact]] = []
    done = run.produce("labels", "comparisons", fingerprint, run_parents, build)
    run.finish("labels", done)
    return done, aggregate(source.ingested.judgements).preferences


def _register_labels(run: Run, folder: Path, fingerprint: str, stage: dict[str, object]) -> Artifact:
    """Register the judgements themselves, with the rows that could not be used."""
    rows: list[dict[str, object]] = [
        {
            "prompt": as_dicts(judgement.prompt),
            "response_a": judgement.response_a,
            "response_b": judgement.response_b,
            "label": judgement.choice,
            "annotator": judgement.annotator,
            "strength": judgement.strength,
            "model_a": judgement.model_a,
            "model_b": judgement.model_b,
            "line": judgement.line,
            "sha256": judgement.digest,
        }
        for judgement in run.sources.ingested.judgements
    ]
    write_jsonl(folder / "labels.jsonl", rows)
    if run.sources.quarantine.is_file():
        (folder / "quarantine.jsonl").write_bytes(run.sources.quarantine.read_bytes())
    return run.register("labels", json_digest({"labels of": fingerprint}), [], Built(folder, stage, 0))


def preference_row(preference: Preference) -> dict[str, object]:
    """Return a preference as a row of TRL's preference format, with its votes."""
    return {
        "prompt": as_dicts(preference.prompt),
        "chosen": [{"role": "assistant", "content": preference.chosen}],
        "rejected": [{"role": "assistant", "content": preference.rejected}],
        "votes_chosen": preference.votes_chosen,
        "votes_rejected": preference.votes_rejected,
        "ties": preference.ties,
        "annotators": list(preference.annotators),
    }
