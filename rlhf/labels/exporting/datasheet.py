"""The page that an exported dataset carries: what it holds, where that comes from, and what it must not be used for.

Source of its sections: Gebru et al. 2021, arXiv 1803.09010, "Datasheets for Datasets".
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from rlhf.labels.events import Event
from rlhf.labels.records import Choice
from sft.core.markdown import one_line


@dataclass
class Facts:
    """What the rows that went through an export said, for its datasheet."""

    event_ids: list[int] = field(default_factory=list)
    tasks: set[int] = field(default_factory=set)
    undecided: int = 0
    choices: Counter[str] = field(default_factory=Counter)
    people: Counter[str] = field(default_factory=Counter)
    """Pseudonyms, with their events."""
    sources: Counter[str] = field(default_factory=Counter)
    licences: Counter[str] = field(default_factory=Counter)
    guidelines: Counter[str] = field(default_factory=Counter)
    splits: Counter[str] = field(default_factory=Counter)

    def see(self, event: Event) -> Event:
        """Count an event and return it."""
        self.event_ids.append(event.id)
        self.tasks.add(event.task_id)
        self.sources[event.source or "unknown"] += 1
        self.licences[event.licence or "unknown"] += 1
        self.guidelines[event.guideline_version or "none"] += 1
        if event.pseudonym is not None:
            self.people[event.pseudonym] += 1
        if event.judgement is not None:
            self.choices["tie" if event.judgement.choice is Choice.TIE else "decided"] += 1
            self.splits[event.judgement.split or "none"] += 1
        return event


_ROWS = {
    "trl": "`train.jsonl`: one decided pair a row, in TRL's explicit conversational preference format",
    "kto": "`train.jsonl`: one answer a row, in TRL's unpaired preference format",
    "events": "`events.jsonl`: one event a row, history, skips and flags among them",
    "csv": "`labels.csv`: one label a row (RFC 4180); a text that a spreadsheet would run as a formula begins with `'`",
    "dataset": "`dataset/`: the pairs as `datasets.load_from_disk` reads them, in TRL's preference format",
}
_COLUMNS = {
    "trl": (
        "`margin` is the mean signed strength of the votes (a tie counts 0), absent where a decided vote has none; "
        "`agreement` is the share of votes for the chosen answer, ties counted."
    ),
    "kto": "`label` is true for the preferred answer; both are alike where every vote says both good, or both bad.",
    "events": "The label of an annotator for a task and attribute that holds is the last event.",
    "csv": "`rlhf labels import labels.csv` reads the file again.",
}


def datasheet(project: str, format: str, attribute: str | None, counts: Mapping[str, int], facts: Facts) -> str:
    """Return the datasheet as markdown; the same labels give the same text."""
    asked = (
        "which answer is better as a whole"
        if attribute is None
        else f"which answer is better in: {one_line(attribute)}"
    )
    return f"""# Preferences of project {project}

## Composition
- {_ROWS[format]}. {_COLUMNS["trl" if format == "dataset" else format]}
- rows: {counts["rows"]}; label events used: {counts["labels"]}; pairs: {counts["tasks"]}; pairs without a majority,
  left out: {counts["undecided"]}
- judgements: {_counted(facts.choices)}
- splits: {_counted(facts.splits)}

## Collection
- asked: {asked}
- annotators known by pseudonym: {len(facts.people)}; the key of the pseudonyms never leaves the database
- sources: {_counted(facts.sources)}
- guideline versions: {_counted(facts.guidelines)}

## Uses and limits
- licences: {_counted(facts.licences)}; check each before you publish a model or the data
- Preferences are opinions of these annotators under these guidelines, not facts. `rlhf labels report` says how far
  they agree.
- Prompts and answers are as they were imported and may hold personal or offensive text.

## Maintenance
- `MANIFEST.json` pins every file (sha256); `export.json` names the label events, by id. An edited label changes nothing
  here: the next export is a new version. `rlhf labels erase` lists this dataset, and what was trained on it, where it
  holds labels of the person: by its version, and by the digest (sha256) of the manifest, for copies.
"""


def _counted(counts: Counter[str]) -> str:
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{one_line(name)} ({count})" for name, count in ordered) or "none"
