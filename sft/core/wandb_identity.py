"""wandb.json in a run's folder: which W&B runs mirror it, so that a run that carries on goes on with the same ones."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from sft.core.durable import json_digest, write_json
from sft.core.errors import DataError
from sft.core.ledger import LedgerEntry, repeated
from sft.core.values import Json, items, mapping, text

IDENTITY_FILE = "wandb.json"


@dataclass(frozen=True)
class MirroredRun:
    """One W&B run: a stage and what it makes."""

    id: str
    stage: str
    product: str
    tags: tuple[str, ...]
    config: Json
    """What W&B is told of the stage beside the whole configuration: its inputs, for example."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What all W&B runs of one run's folder share, without secrets, and these runs."""

    run_id: str
    """Of the first attempt."""
    project: str
    entity: str | None
    group: str
    label: str
    config: Json
    config_sha256: str
    """Of the configuration as it is here; another one begins new W&B runs."""
    attempts: tuple[int, ...]
    """The ledger's first line of each attempt at this configuration."""
    runs: tuple[MirroredRun, ...] = field(default=())

    def find(self, stage: str, product: str) -> MirroredRun | None:
        """Return the W&B run of a stage's product."""
        return next((run for run in self.runs if (run.stage, run.product) == (stage, product)), None)

    def new_id(self, stage: str, product: str) -> str:
        """Return the id that the W&B run of a stage's product has: always the same one."""
        return json_digest([self.run_id, self.attempts[0], stage, product])[:16]

    def mirrored(self, entries: Sequence[LedgerEntry]) -> list[LedgerEntry]:
        """Return the ledger's lines that belong into W&B: this configuration's numbers where they were said first."""
        own = [entry for entry in entries if entry.metrics and entry.seq >= self.attempts[0]]
        again = repeated(own, self.attempts)
        return [entry for entry in own if entry.seq not in again]

    def write(self, folder: Path) -> None:
        """Write wandb.json, whole and atomically."""
        write_json(folder / IDENTITY_FILE, asdict(self))


def read_identity(folder: Path) -> Identity | None:
    """Return what wandb.json says; None without one. Raises DataError where it cannot be read."""
    path = folder / IDENTITY_FILE
    if not path.exists():
        return None
    try:
        found = mapping(json.loads(path.read_text(encoding="utf-8")))
        return Identity(
            run_id=text(found["run_id"]),
            project=text(found["project"]),
            entity=None if found["entity"] is None else text(found["entity"]),
            group=text(found["group"]),
            label=text(found["label"]),
            config=mapping(found["config"]),
            config_sha256=text(found["config_sha256"]),
            attempts=_whole_numbers(found["attempts"]),
            runs=tuple(_run(run) for run in items(found["runs"])),
        )
    except (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
        raise DataError(f"{path} cannot be read ({error}); restore it, or remove it to begin new W&B runs") from None


def _whole_numbers(found: object) -> tuple[int, ...]:
    if not isinstance(found, list) or not found:
        raise ValueError("attempts holds no numbers")
    return tuple(int(number) for number in found)


def _run(found: Mapping[str, object]) -> MirroredRun:
    tags = found["tags"]
    return MirroredRun(
        text(found["id"]),
        text(found["stage"]),
        text(found["product"]),
        tuple(map(str, tags)) if isinstance(tags, list) else (),
        mapping(found["config"]),
    )
