"""The dashboard's numbers, kept for a short while: with ten thousand labels they cost a second or more."""

from dataclasses import replace
from threading import Lock
from typing import NamedTuple

from rlhf.labels.collection.monitor import Doubt, Overview, doubts, overview, progress
from rlhf.labels.collection.snapshot import Snapshot, people, snapshot
from rlhf.labels.web.site import Site

FRESH_SECONDS = 30.0
"""How old numbers may be while new answers come in; a change of people (a pause, an erasure) shows at once."""


class Seen(NamedTuple):
    """A snapshot and its numbers."""

    snapshot: Snapshot
    overview: Overview


class Watch:
    """What was last read of a site."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._lock = Lock()
        self._seen: Seen | None = None
        self._doubts: dict[str, list[Doubt]] | None = None

    def seen(self) -> Seen:
        """Return the numbers as they are, or as they were at most `FRESH_SECONDS` ago. Raises UsageError: no tasks."""
        with self._lock:
            return self._newest()

    def doubts(self) -> dict[str, list[Doubt]]:
        """Return everybody's probably wrong labels, of the numbers that `seen` returned last."""
        with self._lock:
            found = self._newest()
            if self._doubts is None:
                self._doubts = doubts(found.snapshot)
            return self._doubts

    def _newest(self) -> Seen:
        now, kept = self._site.clock(), self._seen
        with self._site.reading() as (connection, project):
            is_fresh = kept is not None and now - kept.snapshot.time < FRESH_SECONDS
            if kept is not None and is_fresh and people(connection, project) == kept.snapshot.people:
                return kept
            read = snapshot(connection, project, now, kept.snapshot if kept else None)
        if kept is not None and (read.mark, read.study) == (kept.snapshot.mark, kept.snapshot.study):
            self._seen = Seen(read, replace(kept.overview, time=now, progress=progress(read)))
        else:
            self._seen, self._doubts = Seen(read, overview(read)), None
        return self._seen
