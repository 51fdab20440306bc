"""Registry: folders under `ROOT/NAME/VERSION` and what the database knows of them.

A folder is sealed, then renamed into place inside the transaction that lists it: a kill at any moment leaves it listed
and whole, or not listed. `ROOT/.work/FINGERPRINT` is where a stage works until then.
"""

import json
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.registry.artifact import (
    DATABASE_FILE,
    ELSEWHERE_FILE,
    WORK,
    Artifact,
    Parent,
    Ref,
    Tag,
    check_alias,
    check_fingerprint,
    check_name,
    check_word,
    parse_ref,
)
from rlhf.registry.damage import damage, remedy
from rlhf.registry.lineage import Lineage, trace
from rlhf.registry.promotion import Promotion, Verdict, latest_verdicts, objections
from rlhf.registry.reports import subjects
from rlhf.registry.resolve import check_tagged, check_there, no_such_name, resolve
from sft.core.durable import MANIFEST, seal, storage_errors
from sft.core.errors import DataError, StorageError, UsageError

if TYPE_CHECKING:
    from rlhf.registry.discard import Discarded
    from rlhf.registry.leases import Held
    from rlhf.registry.sweep import Swept


def _say(message: str) -> None:
    print(message, file=sys.stderr, flush=True)


class Registry:
    """Versions of everything that runs made, under one folder; safe for several processes at once."""

    def __init__(
        self,
        root: Path,
        *,
        url: str | None = None,
        create: bool = True,
        announce: Callable[[str], None] = _say,
    ) -> None:
        """Open the registry in `root`, making it, or bringing its tables up to date, if `create`.

        Args:
            root: Folder of the registry; without `url` on a local disk (SQLite does not work on network ones).
            url: `postgresql://USER@HOST/NAME` of its database; None: a file of SQLite in the folder.
            create: Whether a missing registry is made; else it is a UsageError.
            announce: Takes the one line said when `workspace` has to wait for another process, or takes over from one.

        Raises:
            UsageError: There is no registry and `create` is false, or folder and URL do not belong together.
            StorageError: The disk refuses, or the database is locked, damaged or of another version of the program.
        """
        from rlhf.registry.database import Database  # here, so that `rlhf --help` does not load SQLAlchemy

        self.root = root.absolute()
        self._url = url
        self._announce = announce
        self._held: dict[str, Held] = {}
        self._database = Database(self.root, url)
        if create:
            with storage_errors(self.root, "use"):
                (self.root / WORK).mkdir(parents=True, exist_ok=True)
            self._database.create()
        elif url is None and not any((self.root / name).is_file() for name in (DATABASE_FILE, ELSEWHERE_FILE)):
            raise UsageError(
                f"there is no registry in {root}: a run makes one (rlhf run experiment=quickstart), "
                "or name an existing one with --registry DIR"
            )
        self._database.check()

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, or None.

        Raises StorageError if it is registered but its folder is gone.
        """
        with self._database.read() as catalogue:
            found = catalogue.find(fingerprint)
        if found is not None and not (found.path / MANIFEST).is_file():
            gone = f"{found.ref} is registered, but {found.path} is gone or incomplete"
            raise StorageError(f"{gone}. {remedy(found, self.root, self._url)}")
        return found

    def get(self, ref: str, *, removed: bool = False) -> Artifact:
        """Return what NAME (the latest version), NAME:VERSION or NAME@ALIAS stands for.

        Raises UsageError that names what exists instead; without `removed` also for a version that was removed.
        """
        asked = parse_ref(ref)
        with self._database.read() as catalogue:
            found = resolve(catalogue, asked)
        return found if removed else check_there(found)

    def artifacts(self, name: str | None = None, *, removed: bool = False) -> list[Artifact]:
        """Return all artifacts by name and version, or the versions of one name. Raises UsageError if unknown.

        With `removed`, those that `rlhf models gc` removed are among them.
        """
        with self._database.read() as catalogue:
            if name is None:
                return catalogue.artifacts(removed=removed)
            return catalogue.named(name, removed=removed) or no_such_name(catalogue, name)

    def register(
        self,
        folder: Path,
        *,
        name: str,
        kind: str,
        fingerprint: str,
        metadata: Mapping[str, object],
        parents: Sequence[tuple[str, Artifact]],
    ) -> Artifact:
        """Seal a finished folder and move it to the next version of `name`.

        If the fingerprint is registered already (under any name), return that artifact and remove `folder`.

        Args:
            folder: On the same file system as the registry, best the one that `workspace` gave.
            name: What the versions belong to; kind and roles obey the same rule: [a-z0-9][a-z0-9._-]{0,63}.
            kind: What it is, such as "sft".
            fingerprint: Digest of everything that decided the content.
            metadata: JSON values; what a stage reports under "metrics".
            parents: (role, artifact of this registry) of everything it was made from.

        Raises:
            UsageError: A name that is not allowed, a missing folder, a parent of another registry.
            DataError: Metadata that is not JSON (NaN and infinity are not).
            StorageError: The disk or the database refuses; then nothing is listed.
            Interrupted: Another process has taken the workspace over; then nothing is listed.
        """
        from rlhf.registry.leases import lost
        from rlhf.registry.sweep import remove_path
        from rlhf.registry.workspace import place

        check_fingerprint(fingerprint)
        check_name(name)
        check_word("kind", kind)
        for role, _ in parents:
            check_word("role", role)
        content = _as_json(name, metadata)
        held = self._lease_on(folder)
        if held is not None and not held.beat():
            raise lost(held.lease)
        sha256 = seal(folder)
        with self._database.write() as catalogue:
            if held is not None and not catalogue.leases.holds(held.lease.token):
                raise lost(held.lease)
            existing = catalogue.find(fingerprint)
            if existing is None:
                version = catalogue.last_version(name) + 1
                artifact = Artifact(
                    name=name,
                    version=version,
                    kind=kind,
                    path=self.root / name / str(version),
                    sha256=sha256,
                    fingerprint=fingerprint,
                    created_at=datetime.now(UTC).isoformat(timespec="seconds"),
                    metadata=content,
                    parents=tuple(Parent(role, parent.ref) for role, parent in parents),
                )
                catalogue.add(artifact, parents)
                leftover = place(self.root, folder, artifact.path)
        if existing is None:
            if leftover is not None:
                remove_path(leftover)
            return artifact
        remove_path(folder)
        return existing

    def set_alias(self, artifact: Artifact, alias: str) -> Artifact:
        """Point `alias` at an artifact, away from any other version of its name; return the artifact as it is now.

        `promote` does so with reports, and keeps a record.
        """
        check_alias(alias)
        with self._database.write() as catalogue:
            catalogue.set_alias(artifact, alias)
            return resolve(catalogue, Ref(artifact.name, artifact.version))

    def drop_alias(self, artifact: Artifact, alias: str) -> Artifact:
        """Remove `alias` if it points at this artifact; return the artifact as it is now."""
        check_alias(alias)
        with self._database.write() as catalogue:
            catalogue.drop_alias(artifact, alias)
            return resolve(catalogue, Ref(artifact.name, artifact.version))

    def tag(self, artifact: Artifact, tags: Iterable[Tag] = (), *, drop: Iterable[str] = ()) -> Artifact:
        """Put tags on an artifact, in place of those with the same key, and drop others; return it as it is now.

        Raises UsageError, and changes nothing, where it has no tag that is to be dropped.
        """
        drop = tuple(drop)
        with self._database.write() as catalogue:
            check_tagged(resolve(catalogue, Ref(artifact.name, artifact.version)), drop)
            for tag in tags:
                catalogue.set_tag(artifact, tag)
            for key in drop:
                catalogue.drop_tag(artifact, key)
            return resolve(catalogue, Ref(artifact.name, artifact.version))

    def reports(self, artifact: Artifact) -> list[Artifact]:
        """Return the reports that speak of this very version, oldest first, but for those that were removed."""
        with self._database.read() as catalogue:
            edges = [edge for edge in catalogue.edges() if edge.parent_ref == artifact.ref]
            found = [resolve(catalogue, parse_ref(ref)) for ref in dict.fromkeys(edge.child_ref for edge in edges)]
        return [report for report in found if artifact.ref in subjects(report) and report.removed_at is None]

    def promote(
        self,
        artifact: Artifact,
        alias: str,
        *,
        asked_by: str,
        verdicts: Sequence[Verdict] | None = None,
        reason: str | None = None,
    ) -> Artifact:
        """Give a version an alias that it has earned, and record it; return the artifact as it is now.

        Asked for again on the same grounds, nothing is recorded.

        Args:
            artifact: of this registry.
            alias: such as "champion"; "candidate" promises nothing, and needs no report.
            asked_by: who or what asks, such as "ann@host" or a run's id.
            verdicts: what the reports about it say; None: what the latest of its reports say.
            reason: why it is forced, whatever the reports say; None: it is not.

        Raises:
            UsageError: it is not forced, and a report of a kind that is needed is missing or has not passed.
        """
        check_alias(alias)
        if reason is not None and not reason.strip():
            raise UsageError("a promotion is forced with a reason, which is recorded: give some words")
        grounds = latest_verdicts(self.reports(artifact)) if verdicts is None else tuple(verdicts)
        against = objections(alias, grounds) if reason is None else []
        if against:
            raise UsageError(
                f"{artifact.ref} has not earned {alias!r}: {'; '.join(against)}. An evaluation and a bias report about "
                'this very version must have passed (rlhf run makes them), or give --force "REASON", which is recorded'
            )
        now = datetime.now(UTC).isoformat(timespec="seconds")
        promotion = Promotion(artifact.ref, alias, asked_by, now, reason, grounds)
        with self._database.write() as catalogue:
            has_it = catalogue.aliases(artifact.name).get(alias) == artifact.version
            if not (has_it and promotion.repeats(catalogue.promotions())):
                catalogue.set_alias(artifact, alias)
                catalogue.add_promotion(artifact, promotion)
            return resolve(catalogue, Ref(artifact.name, artifact.version))

    def promotions(self, artifact: Artifact | None = None) -> list[Promotion]:
        """Return all promotions, or those of one version, oldest first."""
        with self._database.read() as catalogue:
            found = catalogue.promotions()
        return [promotion for promotion in found if artifact is None or promotion.ref == artifact.ref]

    def lineage(self, ref: str) -> Lineage:
        """Return everything that `ref` was made from and everything made from it, also what was removed.

        Raises UsageError if unknown.
        """
        asked = parse_ref(ref)
        with self._database.read() as catalogue:
            return trace(resolve(catalogue, asked).ref, catalogue.edges(), catalogue.kinds(), catalogue.removed())

    def verify(self, artifacts: Iterable[Artifact]) -> list[str]:
        """Return what is wrong with the database and the files of artifacts, one line each, naming the file."""
        found = self._database.problems()
        for artifact in artifacts:
            found += damage(artifact)
        return found

    def check(self, artifact: Artifact) -> None:
        """Raise StorageError, with what to do, unless each file of an artifact is the one that was registered."""
        problems = damage(artifact)
        if problems:
            raise StorageError(
                f"{artifact.ref} is damaged: {'; '.join(problems)}. {remedy(artifact, self.root, self._url)}"
            )

    def discard(self, ref: str, *, remove: bool) -> "Discarded":
        """Find what is wrong with a damaged version, and give it up if `remove`. See `rlhf.registry.discard`."""
        from rlhf.registry.discard import discard

        return discard(self.root, self._database, self.get(ref), remove=remove)

    def sweep(self, *, remove: bool) -> "Swept":
        """Find what is of no use any more, and remove it if `remove`. See `rlhf.registry.sweep`."""
        from rlhf.registry.sweep import sweep

        return sweep(self.root, self._database, remove=remove)

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Say that a run is at work, so that `rlhf models gc` removes no version that it is about to use."""
        from rlhf.registry.leases import holding

        with holding(self._database, f"run-{secrets.token_hex(8)}", self._announce, lambda: None):
            yield

    @contextmanager
    def workspace(self, fingerprint: str, *, stage: str = "") -> Iterator[Path]:
        """Give a folder to make one artifact in, to one process at a time.

        It is empty but for `checkpoints/`, which a run that was killed, interrupted or broken off leaves to the next
        one with this fingerprint. A second process that asks for the same fingerprint waits; it must then look with
        `find` whether there is anything left to do. After success nothing stays. What is announced begins with `stage`.

        Raises:
            Interrupted: this process showed no sign of life for so long that another one took over.
        """
        from rlhf.registry.workspace import open_workspace

        check_fingerprint(fingerprint)

        def announce(text: str) -> None:
            self._announce(f"{stage}: {text}" if stage else text)

        with open_workspace(self.root, self._database, fingerprint, announce) as (folder, held):
            self._held[fingerprint] = held
            try:
                yield folder
            finally:
                del self._held[fingerprint]

    def _lease_on(self, folder: Path) -> "Held | None":
        """Return the lease on a workspace, None for a folder elsewhere. Raises UsageError for what is not to go in."""
        if not folder.is_dir():
            raise UsageError(f"{folder} is not a folder; give the folder of a finished stage")
        place, root = folder.resolve(), self.root.resolve()
        if not place.is_relative_to(root):
            return None
        parts = place.relative_to(root).parts
        if parts[:1] != (WORK,) or len(parts) < 2:
            raise UsageError(f"{folder} lies in the registry already; register a copy of it")
        if parts[1] not in self._held:
            raise UsageError(f"{folder} is nobody's workspace; make it in the folder that `workspace` gives")
        return self._held[parts[1]]


def _as_json(name: str, metadata: Mapping[str, object]) -> dict[str, object]:
    """Return the metadata as the database will give it back: keys are strings, tuples are lists."""
    try:
        stored: dict[str, object] = json.loads(json.dumps(dict(metadata), allow_nan=False))
        return stored
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the metadata of {name} cannot be stored as JSON: {error}; use plain values, and null for unknown numbers"
        ) from error
