"""What gives a version a name such as `champion`: the verdicts of the reports about it, or a reason of somebody's.

The verdict of a report stands as "passed" in its sealed `stage.json`.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from rlhf.registry.artifact import STAGE_FILE, Artifact

CHAMPION, CANDIDATE = "champion", "candidate"
"""What a policy is called that passed, and one that did not: `candidate` promises nothing and needs no report."""

NEEDED = ("evaluation", "bias")
"""Kinds of reports that a promotion asks for."""


class Verdict(NamedTuple):
    """What a report says of a version; `passed` is None where it holds no verdict."""

    report: str
    kind: str
    passed: bool | None


@dataclass(frozen=True)
class Promotion:
    """That a version got an alias, and why; it never changes."""

    ref: str
    alias: str
    asked_by: str
    """Who or what asked, such as "ann@host" or a run's id."""
    created_at: str
    """UTC, ISO 8601; for people: order is by row."""
    reason: str | None
    """Why it was forced; None: it was not."""
    verdicts: tuple[Verdict, ...]
    """What the reports said then."""

    def as_dict(self) -> dict[str, object]:
        """Return the fields as JSON values."""
        return {**vars(self), "verdicts": [verdict._asdict() for verdict in self.verdicts]}

    def repeats(self, before: Sequence["Promotion"]) -> bool:
        """Tell whether the last promotion of the version to this alias, of those before, had the same grounds."""
        last = next((old for old in reversed(before) if (old.ref, old.alias) == (self.ref, self.alias)), None)
        return last is not None and (last.reason, last.verdicts) == (self.reason, self.verdicts)


def read_verdict(report: Artifact) -> Verdict:
    """Return what a report says; the files are not verified."""
    path = report.path / STAGE_FILE
    try:
        stage = json.loads(path.read_text(encoding="utf-8"))
        passed = stage.get("passed")
    except (OSError, ValueError, AttributeError):
        passed = None
    return Verdict(report.ref, report.kind, passed if isinstance(passed, bool) else None)


def latest_verdicts(reports: Iterable[Artifact]) -> tuple[Verdict, ...]:
    """Return the verdict of the latest report of each needed kind; `reports` come oldest first."""
    latest = {report.kind: report for report in reports if report.kind in NEEDED}
    return tuple(read_verdict(latest[kind]) for kind in NEEDED if kind in latest)


def objections(alias: str, verdicts: Sequence[Verdict]) -> list[str]:
    """Return why the verdicts do not earn an alias, one line each; an empty list means they do."""
    if alias == CANDIDATE:
        return []
    by_kind = {verdict.kind: verdict for verdict in verdicts}
    return [
        _objection(kind, by_kind.get(kind))
        for kind in NEEDED
        if kind not in by_kind or by_kind[kind].passed is not True
    ]


def _objection(kind: str, verdict: Verdict | None) -> str:
    if verdict is None:
        return f"it has no report of kind {kind!r}"
    if verdict.passed is None:
        return f"{verdict.report} holds no verdict (an older program made it): the same run again decides by itself"
    return f"{verdict.report} did not pass"
