"""The model card: Markdown made of what the registry knows, and of nothing else.

Every text that came from data, people or settings passes `safe`; references, digests and kinds are of letters that need
no escape. What was not measured is said to be so.
"""

import json
import re
from collections.abc import Iterator, Sequence

from rlhf.publishing.facts import SCORERS, Facts, Report, Training
from rlhf.publishing.label_sources import LabelSource, told
from rlhf.publishing.markdown import metrics_table, safe, shown, table
from rlhf.registry import Artifact
from sft.core.errors import UsageError
from sft.core.values import Json, items, mapping, text

_LICENCE = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}")
_TAGS = {"policy": ["rlhf", "ppo"], "reward": ["rlhf", "reward-model"], "judge": ["rlhf", "reward-model"]}
_WHAT = {
    "policy": "A language model trained by reinforcement learning (PPO) on the scores of a reward model",
    "reward": "A reward model: it scores an answer to a conversation with one number",
    "judge": "A reward model that was kept out of PPO, to judge its results",
    "critic": "A value model of PPO: it estimates the score that an answer will get",
    "sft": "A language model fine-tuned on demonstrations",
    "base": "A language model that training starts from",
}
_NEVER_MEASURED = "factual accuracy, harmful or illegal content, languages, robustness to attacks, memorised texts"


def check_licence(licence: str | None) -> None:
    """Raise UsageError unless a licence may stand in a card."""
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise UsageError(f"licence {licence!r} is not allowed: give its identifier in lower case, such as apache-2.0")


def model_card(facts: Facts, *, licence: str | None, adapter_of: str | None, content: str) -> str:
    """Return README.md.

    Args:
        facts: of the version.
        licence: that its owner gives it, such as "apache-2.0"; None: the card says that none is stated.
        adapter_of: the version that an adapter stands on; None: the model is whole.
        content: digest of the model's files.
    """
    sections = (
        _head(facts, adapter_of, content),
        _use(facts, adapter_of),
        _limits(facts, licence),
        _data(facts),
        _evaluation(facts),
        _bias(facts),
        _calibration(facts),
        _training(facts),
        _lineage(facts),
    )
    body = "\n\n".join("\n".join(section) for section in sections)
    return f"{_front_matter(facts, licence, adapter_of)}\n{body}\n"


def _front_matter(facts: Facts, licence: str | None, adapter_of: str | None) -> str:
    kind = facts.artifact.kind
    fields: dict[str, object] = {
        "library_name": "transformers" if adapter_of is None else "peft",
        "pipeline_tag": "text-classification" if kind in SCORERS else "text-generation",
        "tags": [kind] if _is_imported(facts.artifact) else _TAGS.get(kind, ["rlhf", kind]),
    }
    if facts.base is not None and facts.base.hub_id is not None and adapter_of is None:
        fields["base_model"] = facts.base.hub_id
    if licence is not None:
        fields["license"] = licence
    lines = (f"{name}: {json.dumps(value)}" for name, value in fields.items())  # JSON is YAML
    return "\n".join(["---", *lines, "---"])


def _head(facts: Facts, adapter_of: str | None, content: str) -> Iterator[str]:
    artifact = facts.artifact
    yield f"# {artifact.ref}"
    yield ""
    what = f"A model that was imported as {artifact.kind}" if _is_imported(artifact) else _WHAT[artifact.kind]
    made = ", ".join(f"`{parent.ref}` ({parent.role})" for parent in artifact.parents)
    yield f"{what}.{f' Made from {made}.' if made else ''} Registered {artifact.created_at}."
    if adapter_of is not None:
        yield f"These are LoRA adapters and a head on `{adapter_of}`; they work with exactly that model."
    if _is_imported(artifact):
        said = mapping(mapping(artifact.metadata["imported"]).get("said"))
        told_of = ", ".join(f"{safe(name)} {safe(value)}" for name, value in said.items()) or "nothing"
        yield f"Imported from a folder. What the folder said of it, unchecked: {told_of}."
    yield ""
    yield f"Digest of the model's files: `{content}`. Digest in the registry: `{artifact.sha256}`."
    yield "Everything below is generated from the registry's records; `rlhf-lineage.json` holds them for programs."


def _is_imported(artifact: Artifact) -> bool:
    return "imported" in artifact.metadata


def _use(facts: Facts, adapter_of: str | None) -> Iterator[str]:
    yield "## Use"
    yield ""
    yield "```python"
    if adapter_of is not None:
        yield "from peft import PeftModel"
        yield "from transformers import AutoModelForSequenceClassification"
        yield ""
        yield f"base = AutoModelForSequenceClassification.from_pretrained(BASE, num_labels=1)  # {adapter_of}"
        yield "model = PeftModel.from_pretrained(base, FOLDER)"
    elif facts.artifact.kind in SCORERS:
        yield "from transformers import AutoModelForSequenceClassification, AutoTokenizer"
        yield ""
        yield "tokenizer = AutoTokenizer.from_pretrained(FOLDER)"
        yield "model = AutoModelForSequenceClassification.from_pretrained(FOLDER)  # one number: the raw score"
    else:
        yield "from transformers import AutoModelForCausalLM, AutoTokenizer"
        yield ""
        yield "tokenizer = AutoTokenizer.from_pretrained(FOLDER)"
        yield "model = AutoModelForCausalLM.from_pretrained(FOLDER)"
    yield "```"
    if facts.artifact.kind in SCORERS:
        yield "The score is read at the answer's last token (its end of text). Where there is a `calibration.json`, the"
        yield "calibrated score is (raw - offset) / temperature, and differences of it are log-odds."
    else:
        yield "vLLM: `vllm serve FOLDER`. Prompts take the tokenizer's chat template."


def _limits(facts: Facts, licence: str | None) -> Iterator[str]:
    yield "## Intended use and limits"
    yield ""
    if facts.labels:
        yield "- It follows preferences of the people counted under *Data*, which are opinions under their guidelines."
    yield f"- Licence: {licence or 'not stated'}. Licences of the data: see *Data*."
    for report, title in (("evaluation", "evaluation"), ("bias", "bias checks")):
        yield f"- {title}: {_verdict(facts, report)}"
    for check in _failed(facts.reports.get("bias")):
        yield f"- failed: {safe(check.get('name'))} for {safe(check.get('group'))}, {_effect(check)}"
    for ref in facts.unknown_origin:
        yield f"- `{ref}` came from a folder: what it was trained on is not known here"
    for ref in facts.erased:
        yield f"- `{ref}` holds labels of a person who has been erased since; train again without them"
    yield f"- never measured by this framework: {_NEVER_MEASURED}"


def _verdict(facts: Facts, kind: str) -> str:
    report = facts.reports.get(kind)
    if report is None:
        return "not measured: no report about this very version is registered"
    said = {True: "passed", False: "**failed**", None: "no verdict"}[report.passed]
    rate = mapping(report.stage.get("metrics")).get("win_rate")
    return f"{said} (`{report.artifact.ref}`){'' if rate is None else f', win rate {shown(rate)}'}"


def _data(facts: Facts) -> Iterator[str]:
    yield "## Data"
    yield ""
    if not facts.labels:
        yield "No labels are registered behind this version."
    else:
        yield from table(
            ("dataset", "label events", "people", "sources", "licences", "guideline versions"),
            [_label_row(source) for source in facts.labels],
        )
    for comparisons in facts.comparisons:
        yield ""
        yield f"Comparisons `{comparisons.ref}`, joined from labels:"
        yield ""
        yield from metrics_table(mapping(comparisons.metadata.get("metrics")))
    if facts.base is not None:
        yield ""
        name = "a folder" if facts.base.hub_id is None else f"{safe(facts.base.hub_id)} (Hugging Face hub)"
        yield f"Pretrained model: {name}, sha256 of its files `{safe(facts.base.sha256)}`."


def _label_row(source: LabelSource) -> Sequence[str]:
    people = "not recorded" if source.people is None else str(len(source.people))
    if source.unknown:
        people += f", and {source.unknown} events of unknown people"
    known = (told(counts, safe) for counts in (source.sources, source.licences, source.guidelines))
    return f"`{source.ref}`", "not recorded" if source.labels is None else str(source.labels), people, *known


def _evaluation(facts: Facts) -> Iterator[str]:
    yield "## Evaluation"
    yield ""
    report = facts.reports.get("evaluation")
    if report is None:
        yield "Not measured: no evaluation of this very version is registered."
        return
    metrics = mapping(report.stage.get("metrics"))
    judge = safe(text(metrics.get("judge")))
    yield f"`{report.artifact.ref}`, against the SFT model on held-out prompts. Judge: {judge}."
    yield ""
    yield from metrics_table({name: value for name, value in metrics.items() if name != "judge"})


def _bias(facts: Facts) -> Iterator[str]:
    yield "## Bias"
    yield ""
    report = facts.reports.get("bias")
    if report is None:
        yield "Not measured: no bias report about this very version is registered."
        return
    checks, skipped = items(report.stage.get("checks")), items(report.stage.get("skipped"))
    suite, failed = safe(text(report.stage.get("suite"))), len(_failed(report))
    yield f"`{report.artifact.ref}`, suite {suite}: {len(checks)} checks, {failed} failed, {len(skipped)} not measured."
    yield "Intervals are 95 % for all checks together (Holm)."
    yield ""
    rows = [
        (safe(check.get("name")), safe(check.get("group")), _effect(check), shown(check.get("limit")), _outcome(check))
        for check in checks
    ]
    rows += [
        (
            safe(row.get("name")),
            safe(row.get("group")),
            f"n={safe(row.get('n'))}",
            "",
            f"not measured: {safe(row.get('reason'))}",
        )
        for row in skipped
    ]
    yield from table(("check", "group", "effect", "limit", "verdict"), rows)


def _effect(check: Json) -> str:
    return shown({"value": check.get("effect"), "ci": check.get("ci"), "n": check.get("n")})


def _outcome(check: Json) -> str:
    said = "passed" if check.get("passed") is True else "**failed**"
    return f"{said}; {safe(check['note'])}" if check.get("note") else said


def _failed(report: Report | None) -> list[Json]:
    return [] if report is None else [c for c in items(report.stage.get("checks")) if c.get("passed") is not True]


def _calibration(facts: Facts) -> Iterator[str]:
    yield "## Reward model"
    yield ""
    own = facts.reports.get("reward-report")
    every = {facts.artifact.ref: own} if own is not None else facts.assessments
    if not every:
        yield "Not measured: no report about a reward model behind this version is registered."
    for report in {found.artifact.ref: found for found in every.values()}.values():
        about = ", ".join(f"`{ref}`" for ref, found in every.items() if found.artifact.ref == report.artifact.ref)
        yield f"`{report.artifact.ref}`, about {about}; `ece` is the calibration error (0: as sure as it is right):"
        yield ""
        yield from metrics_table(mapping(report.stage.get("metrics")))
        yield ""


def _training(facts: Facts) -> Iterator[str]:
    yield "## Training"
    for training in facts.trainings:
        yield ""
        yield f"### {training.artifact.ref}"
        yield ""
        yield from _trained(training)


def _trained(training: Training) -> Iterator[str]:
    if training.environment:
        yield ", ".join(f"{safe(name)} {safe(value)}" for name, value in training.environment.items()) + "."
        yield ""
    if not (training.settings or training.metrics):
        yield "Nothing is recorded."
    if training.metrics:
        yield from metrics_table(training.metrics)
        yield ""
    if training.settings:
        yield from table(("setting", "value"), [(safe(name), safe(value)) for name, value in training.settings.items()])


def _lineage(facts: Facts) -> Iterator[str]:
    yield "## Lineage"
    yield ""
    yield f"Made from {len(facts.ancestors)} versions, nearest first:"
    yield ""
    edges = facts.lineage.ancestors
    yield from table(
        ("version", "kind", "used for"),
        [
            (
                f"`{ref}`",
                facts.lineage.kinds[ref],
                ", ".join(f"`{e.child_ref}` ({e.role})" for e in edges if e.parent_ref == ref),
            )
            for ref in facts.ancestors
        ],
    )
