"""What the registry knows, inside one open transaction: the SQL of artifacts, parents, aliases, tags and promotions."""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, func, select

from rlhf.registry.artifact import Artifact, Parent, Tag
from rlhf.registry.lease_rows import LeaseRows
from rlhf.registry.lineage import Edge
from rlhf.registry.promotion import Promotion, Verdict
from rlhf.registry.tables import ALIASES, ARTIFACTS, PARENTS, PROMOTIONS, TAGS
from sft.core.errors import UsageError

_IS_THERE = ARTIFACTS.c.removed_at.is_(None)


@dataclass(frozen=True)
class Catalogue:
    """What the registry knows, inside one open transaction."""

    _connection: Connection
    _root: Path

    @property
    def leases(self) -> LeaseRows:
        """Return who makes what."""
        return LeaseRows(self._connection)

    def names(self) -> list[str]:
        """Return all names, sorted."""
        statement = select(ARTIFACTS.c.name).distinct().order_by(ARTIFACTS.c.name)
        return list(self._connection.scalars(statement))

    def artifacts(self, *, removed: bool = False) -> list[Artifact]:
        """Return everything, by name and version; with `removed`, also what is not there any more."""
        return self._load() if removed else self._load(_IS_THERE)

    def named(self, name: str, *, removed: bool = False) -> list[Artifact]:
        """Return all versions of a name, oldest first; none is an empty list."""
        conditions = [ARTIFACTS.c.name == name, *([] if removed else [_IS_THERE])]
        return self._load(*conditions)

    def version(self, name: str, version: int) -> Artifact | None:
        """Return one version, removed or not, or None."""
        return next(iter(self._load(ARTIFACTS.c.name == name, ARTIFACTS.c.version == version)), None)

    def find(self, fingerprint: str) -> Artifact | None:
        """Return the artifact with this fingerprint, or None; one that was removed does not count."""
        return next(iter(self._load(ARTIFACTS.c.fingerprint == fingerprint, _IS_THERE)), None)

    def last_version(self, name: str) -> int:
        """Return the highest version of a name, 0 where it has none."""
        statement = select(func.max(ARTIFACTS.c.version)).where(ARTIFACTS.c.name == name)
        return self._connection.scalar(statement) or 0

    def aliases(self, name: str) -> dict[str, int]:
        """Return the version that each alias of a name points at."""
        statement = select(ALIASES.c.alias, ALIASES.c.version).where(ALIASES.c.name == name)
        return {row.alias: row.version for row in self._connection.execute(statement.order_by(ALIASES.c.alias))}

    def edges(self) -> list[Edge]:
        """Return all parents of all artifacts, oldest child first."""
        child, parent = ARTIFACTS.alias(), ARTIFACTS.alias()
        columns = (child.c.name, child.c.version, PARENTS.c.role, parent.c.name, parent.c.version)
        joined = PARENTS.join(child, child.c.id == PARENTS.c.child_id)
        joined = joined.join(parent, parent.c.id == PARENTS.c.parent_id)
        statement = select(*columns).select_from(joined).order_by(PARENTS.c.child_id, PARENTS.c.position)
        rows = self._connection.execute(statement).tuples()
        return [Edge(f"{name}:{version}", role, f"{other}:{number}") for name, version, role, other, number in rows]

    def kinds(self) -> dict[str, str]:
        """Return the kind of each artifact by its reference, oldest first."""
        columns = (ARTIFACTS.c.name, ARTIFACTS.c.version, ARTIFACTS.c.kind)
        rows = self._connection.execute(select(*columns).order_by(ARTIFACTS.c.id))
        return {f"{row.name}:{row.version}": row.kind for row in rows}

    def removed(self) -> frozenset[str]:
        """Return the references of all that is not there any more."""
        rows = self._connection.execute(select(ARTIFACTS.c.name, ARTIFACTS.c.version).where(~_IS_THERE))
        return frozenset(f"{row.name}:{row.version}" for row in rows)

    def add(self, artifact: Artifact, parents: Sequence[tuple[str, Artifact]]) -> None:
        """Insert an artifact and its parents. Raises UsageError for a parent of another registry."""
        statement = ARTIFACTS.insert().values(
            name=artifact.name,
            version=artifact.version,
            kind=artifact.kind,
            fingerprint=artifact.fingerprint,
            sha256=artifact.sha256,
            created_at=artifact.created_at,
            metadata=json.dumps(artifact.metadata, ensure_ascii=False, allow_nan=False),
        )
        self._connection.execute(statement)
        child_id = self._id(artifact)
        for position, (role, parent) in enumerate(parents):
            values = {"child_id": child_id, "position": position, "role": role, "parent_id": self._id(parent)}
            self._connection.execute(PARENTS.insert().values(values))

    def mark_removed(self, artifact: Artifact, at: str) -> None:
        """Say that an artifact's folder goes: its row stays, its fingerprint may be made again."""
        self._connection.execute(ARTIFACTS.update().where(ARTIFACTS.c.id == self._id(artifact)).values(removed_at=at))

    def set_alias(self, artifact: Artifact, alias: str) -> None:
        """Point an alias at an artifact, away from any other version of its name."""
        self._id(artifact)
        same_alias = (ALIASES.c.name == artifact.name, ALIASES.c.alias == alias)
        self._connection.execute(ALIASES.delete().where(*same_alias))
        values = {"name": artifact.name, "alias": alias, "version": artifact.version}
        self._connection.execute(ALIASES.insert().values(values))

    def drop_alias(self, artifact: Artifact, alias: str) -> None:
        """Remove an alias if it points at this artifact."""
        here = (ALIASES.c.name == artifact.name, ALIASES.c.version == artifact.version, ALIASES.c.alias == alias)
        self._connection.execute(ALIASES.delete().where(*here))

    def set_tag(self, artifact: Artifact, tag: Tag) -> None:
        """Put a tag on an artifact, in place of one with the same key."""
        artifact_id = self._id(artifact)
        self.drop_tag(artifact, tag.key)
        self._connection.execute(TAGS.insert().values(artifact_id=artifact_id, key=tag.key, value=tag.value))

    def drop_tag(self, artifact: Artifact, key: str) -> None:
        """Remove a tag if the artifact has it."""
        self._connection.execute(TAGS.delete().where(TAGS.c.artifact_id == self._id(artifact), TAGS.c.key == key))

    def add_promotion(self, artifact: Artifact, promotion: Promotion) -> None:
        """Record a promotion; nothing changes or removes it later."""
        statement = PROMOTIONS.insert().values(
            artifact_id=self._id(artifact),
            alias=promotion.alias,
            asked_by=promotion.asked_by,
            created_at=promotion.created_at,
            reason=promotion.reason,
            verdicts=json.dumps([verdict._asdict() for verdict in promotion.verdicts], ensure_ascii=False),
        )
        self._connection.execute(statement)

    def promotions(self) -> list[Promotion]:
        """Return all promotions, oldest first."""
        joined = PROMOTIONS.join(ARTIFACTS, ARTIFACTS.c.id == PROMOTIONS.c.artifact_id)
        columns = (PROMOTIONS, ARTIFACTS.c.name, ARTIFACTS.c.version)
        rows = self._connection.execute(select(*columns).select_from(joined).order_by(PROMOTIONS.c.id))
        return [
            Promotion(
                ref=f"{row.name}:{row.version}",
                alias=row.alias,
                asked_by=row.asked_by,
                created_at=row.created_at,
                reason=row.reason,
                verdicts=tuple(Verdict(**verdict) for verdict in json.loads(row.verdicts)),
            )
            for row in rows
        ]

    def _id(self, artifact: Artifact) -> int:
        same = (
            ARTIFACTS.c.name == artifact.name,
            ARTIFACTS.c.version == artifact.version,
            ARTIFACTS.c.fingerprint == artifact.fingerprint,
        )
        row = self._connection.execute(select(ARTIFACTS.c.id, ARTIFACTS.c.removed_at).where(*same)).one_or_none()
        if row is None:
            raise UsageError(f"{artifact.ref} is not in the registry {self._root}; register it there first")
        if row.removed_at is not None:
            raise UsageError(f"{artifact.ref} was removed at {row.removed_at}; make it again first")
        return int(row.id)

    def _load(self, *conditions: ColumnElement[bool]) -> list[Artifact]:
        chosen = select(ARTIFACTS).where(*conditions).order_by(ARTIFACTS.c.name, ARTIFACTS.c.version)
        rows = self._connection.execute(chosen).all()
        parents = self._parents(*conditions)
        aliases = self._aliases(*conditions)
        tags = self._tags(*conditions)
        return [
            Artifact(
                name=row.name,
                version=row.version,
                kind=row.kind,
                path=self._root / row.name / str(row.version),
                sha256=row.sha256,
                fingerprint=row.fingerprint,
                created_at=row.created_at,
                metadata=json.loads(row.metadata),
                aliases=tuple(aliases[row.id]),
                parents=tuple(parents[row.id]),
                tags=tuple(tags[row.id]),
                removed_at=row.removed_at,
            )
            for row in rows
        ]

    def _parents(self, *conditions: ColumnElement[bool]) -> dict[int, list[Parent]]:
        chosen = select(ARTIFACTS.c.id).where(*conditions)
        parent = ARTIFACTS.alias()
        statement = (
            select(PARENTS.c.child_id, PARENTS.c.role, parent.c.name, parent.c.version)
            .join(parent, parent.c.id == PARENTS.c.parent_id)
            .where(PARENTS.c.child_id.in_(chosen))
            .order_by(PARENTS.c.child_id, PARENTS.c.position)
        )
        found: dict[int, list[Parent]] = defaultdict(list)
        for row in self._connection.execute(statement):
            found[row.child_id].append(Parent(row.role, f"{row.name}:{row.version}"))
        return found

    def _aliases(self, *conditions: ColumnElement[bool]) -> dict[int, list[str]]:
        same = (ALIASES.c.name == ARTIFACTS.c.name) & (ALIASES.c.version == ARTIFACTS.c.version)
        statement = (
            select(ARTIFACTS.c.id, ALIASES.c.alias)
            .join(ALIASES, same)
            .where(*conditions)
            .order_by(ARTIFACTS.c.id, ALIASES.c.alias)
        )
        found: dict[int, list[str]] = defaultdict(list)
        for row in self._connection.execute(statement):
            found[row.id].append(row.alias)
        return found

    def _tags(self, *conditions: ColumnElement[bool]) -> dict[int, list[Tag]]:
        statement = (
            select(ARTIFACTS.c.id, TAGS.c.key, TAGS.c.value)
            .join(TAGS, TAGS.c.artifact_id == ARTIFACTS.c.id)
            .where(*conditions)
            .order_by(ARTIFACTS.c.id, TAGS.c.key)
        )
        found: dict[int, list[Tag]] = defaultdict(list)
        for row in self._connection.execute(statement):
            found[row.id].append(Tag(row.key, row.value))
        return found
