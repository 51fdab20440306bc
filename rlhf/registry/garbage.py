"""Which versions nothing refers to: a mark-and-sweep over the registry's references. Touches no file."""

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence

from rlhf.registry.artifact import Artifact
from rlhf.registry.promotion import Promotion
from rlhf.registry.reports import subjects


def unreferenced(artifacts: Sequence[Artifact], promotions: Iterable[Promotion]) -> list[Artifact]:
    """Return the versions that may go, in the given order.

    What stays by itself: the latest version of each name, what has an alias or a tag, what was promoted, and the
    reports that a promotion rests on. What stays for its sake: all that it was made from, and the reports about it.

    Args:
        artifacts: all that are there, by name and version.
        promotions: all, ever.
    """
    by_ref = {artifact.ref: artifact for artifact in artifacts}
    reports = _reports(artifacts)
    latest = {artifact.name: artifact.ref for artifact in artifacts}
    named = (artifact.ref for artifact in artifacts if artifact.aliases or artifact.tags)
    waiting = deque([*latest.values(), *named, *_promoted(promotions)])
    stays: set[str] = set()
    while waiting:
        ref = waiting.popleft()
        if ref in stays or ref not in by_ref:
            continue
        stays.add(ref)
        waiting += [parent.ref for parent in by_ref[ref].parents]
        waiting += reports[ref]
    return [artifact for artifact in artifacts if artifact.ref not in stays]


def _reports(artifacts: Sequence[Artifact]) -> dict[str, list[str]]:
    """Return the reports about each version."""
    found: dict[str, list[str]] = defaultdict(list)
    for report in artifacts:
        for subject in subjects(report):
            found[subject].append(report.ref)
    return found


def _promoted(promotions: Iterable[Promotion]) -> Iterable[str]:
    for promotion in promotions:
        yield promotion.ref
        yield from (verdict.report for verdict in promotion.verdicts)
