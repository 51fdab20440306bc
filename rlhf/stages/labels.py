"""Stage `labels`: judgements from a file or a registered export in, registered labels and comparisons out."""

from pathlib import Path
from typing import NamedTuple

from rlhf.labels.trust.agreement import agreement
from rlhf.labels.trust.quality import Preference, aggregate, judgements_per_annotator, label_rates
from rlhf.labels.trust.votes import tabulate
from rlhf.registry import Artifact, Registry
from rlhf.run import Built, Done, Run
from sft.core.durable import file_digest, json_digest, write_jsonl
from sft.core.statistics import Estimate
from sft.core.text import as_dicts
from sft.core.tracking import Tracker
from sft.core.values import mapping, number, numbers


def run_labels(run: Run) -> tuple[Done, list[Preference]]:
    """Read the labels, join the judgements of each pair, and register the comparisons, and the labels of a file."""
    source = run.sources
    reading = {"max_quarantine_fraction": run.config.labels.max_quarantine_fraction}
    settings = {"labels": reading, "format": run.config.data.format}
    fingerprint = run.fingerprint("comparisons", settings, _inputs(run))

    def build(folder: Path, tracker: Tracker) -> Built:
        tracker.start(3, "step")
        ingested = source.ingested
        tracker.log(1, {"rows_in": ingested.rows_in, "quarantined": ingested.quarantined})
        aggregated = aggregate(ingested.judgements)
        alpha = agreement(tabulate(ingested.judgements), seed=run.config.seed).krippendorff_nominal
        dropped = agreement_drop(alpha, latest_agreement(run.registry, f"{run.config.registry.prefix}comparisons"))
        if dropped is not None:
            tracker.alert("labels: agreement drop", dropped)
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
        labels = source.dataset or _register_labels(run, folder / "labels", fingerprint, stage)
        run_parents.append(("labels", labels))
        write_jsonl(folder / "made" / "comparisons.jsonl", [preference_row(p) for p in aggregated.preferences])
        tracker.log(3, {"comparisons": len(aggregated.preferences)})
        return Built(folder / "made", stage, 0)

    run_parents: list[tuple[str, Artifact]] = []
    done = run.produce("labels", "comparisons", fingerprint, run_parents, build)
    run.finish("labels", done)
    return done, aggregate(source.ingested.judgements).preferences


class Agreement(NamedTuple):
    """Krippendorff's nominal alpha of registered comparisons, with its 95 % interval."""

    ref: str
    value: float
    low: float


def latest_agreement(registry: Registry, name: str) -> Agreement | None:
    """Return the agreement of the newest registered comparisons; None where nothing or no agreement is registered."""
    versions = [artifact for artifact in registry.artifacts() if artifact.name == name]
    alpha = mapping(mapping(versions[-1].metadata.get("metrics")).get("krippendorff_alpha")) if versions else {}
    value, interval = number(alpha.get("value")), numbers(alpha.get("ci"))
    return None if value is None or len(interval) != 2 else Agreement(versions[-1].ref, value, interval[0])


def agreement_drop(alpha: Estimate | None, before: Agreement | None) -> str | None:
    """Return what to say where the whole interval of the annotators' agreement lies below that of the labels before."""
    if alpha is None or before is None or not alpha.ci[1] < before.low:
        return None
    return (
        f"Krippendorff's alpha is {alpha.value:.2f} (at most {alpha.ci[1]:.2f}), below that of {before.ref}, "
        f"{before.value:.2f} (at least {before.low:.2f}); look at the annotators with `rlhf labels report`, or ignore "
        "this if these are other tasks"
    )


def _inputs(run: Run) -> dict[str, str]:
    dataset = run.sources.dataset
    return {"file": file_digest(run.sources.label_file)} if dataset is None else {"dataset": dataset.sha256}


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
