"""run.json: what a run says of itself while it runs and afterwards."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from rlhf.runs.process import Process
from rlhf.runs.revision import Revision
from sft.core.errors import DataError
from sft.core.values import Json, items, mapping, number, text

RUN_FILE = "run.json"


class State(StrEnum):
    """How far a run is."""

    RUNNING = "running"
    FINISHED = "finished"
    WAITING = "waiting"
    """For people's labels; the same command carries on."""
    INTERRUPTED = "interrupted"
    """Stopped from outside; the same command carries on."""
    PRUNED = "pruned"
    """A trial that its search ended early."""
    FAILED = "failed"
    KILLED = "killed"
    """Never written: the file says `running`, and its process is gone."""


class Asked(NamedTuple):
    """What a command line asked for beside the resolved configuration; empty for a run from plain Python."""

    overrides: tuple[str, ...] = ()
    """As they were written."""
    choices: Mapping[str, str] = {}
    """Configuration group -> the chosen file."""
    sweep: str | None = None
    """Folder of the sweep that the run belongs to."""
    config_dir: str | None = None
    """Folder with the user's YAML files (`--config-dir`)."""
    config_name: str = "config"
    """Name of the root configuration (`--config-name`)."""


class StageRecord(NamedTuple):
    """A finished stage, without its numbers, which stand in `stages/NAME.json`."""

    name: str
    artifact: str | None
    """Reference in the registry."""
    fingerprint: str
    cached: bool
    seconds: float
    """Wall time of this run; next to nothing where the product was found."""
    train_steps: int


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything that run.json holds."""

    state: State
    experiment: str
    run_id: str
    attempt: int = 1
    """1 for a folder's first process, 2 for the one that carried on."""
    seed: int
    error: str | None = None
    """What made the run stop, in one line."""
    started: str
    """UTC, ISO."""
    ended: str | None = None
    seconds: float = 0.0
    """From the start of this attempt to this writing, by a clock that never jumps."""
    config: Json
    """Resolved; secrets are redacted."""
    config_sha256: str
    """Of the configuration before redaction, as in results.json."""
    asked: Asked
    revision: Revision
    process: Process
    processes: int = 1
    """That compute together (torchrun)."""
    registry: str
    """Folder of the registry, as configured."""
    cwd: str | None = None
    """Where relative paths of the configuration begin; None in a file of an older program."""
    stages: tuple[StageRecord, ...] = ()
    ledger_from: int = 0
    """The ledger's first line (`seq`) of this configuration; those before belong to another one of the same folder."""

    @property
    def trial(self) -> int | None:
        """Its number in the study's database; None for a run that is no trial."""
        found = number(mapping(self.config.get("search")).get("trial"))
        return None if found is None else int(found)

    @property
    def study(self) -> str:
        """Name of the search that it is a trial of; nothing for a run that is no trial."""
        return "" if self.trial is None else text(mapping(self.config.get("search")).get("study"))

    def as_dict(self) -> dict[str, object]:
        """Return the record as plain JSON."""
        return {
            "state": self.state.value,
            "experiment": self.experiment,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "seed": self.seed,
            "error": self.error,
            "started": self.started,
            "ended": self.ended,
            "seconds": round(self.seconds, 3),
            "overrides": list(self.asked.overrides),
            "choices": dict(self.asked.choices),
            "sweep": self.asked.sweep,
            "config_dir": self.asked.config_dir,
            "config_name": self.asked.config_name,
            "cwd": self.cwd,
            "revision": self.revision._asdict(),
            "process": self.process._asdict(),
            "processes": self.processes,
            "registry": self.registry,
            "stages": [stage._asdict() for stage in self.stages],
            "ledger_from": self.ledger_from,
            "config_sha256": self.config_sha256,
            "config": self.config,
        }


def parse_record(value: object) -> RunRecord:
    """Return the record that `as_dict` made. Raises DataError naming what is missing or of another kind."""
    fields = mapping(value)
    try:
        return RunRecord(
            state=State(text(fields["state"])),
            experiment=text(fields["experiment"]),
            run_id=text(fields["run_id"]),
            attempt=_whole(fields["attempt"]),
            seed=_whole(fields["seed"]),
            error=_optional(fields["error"]),
            started=text(fields["started"]),
            ended=_optional(fields["ended"]),
            seconds=_real(fields["seconds"]),
            config=mapping(fields["config"]),
            config_sha256=text(fields["config_sha256"]),
            asked=Asked(
                _texts(fields["overrides"]),
                {str(group): text(chosen) for group, chosen in mapping(fields["choices"]).items()},
                _optional(fields["sweep"]),
                _optional(fields.get("config_dir")),
                text(fields.get("config_name", "config")),
            ),
            revision=_revision(mapping(fields["revision"])),
            process=_process(mapping(fields["process"])),
            processes=_whole(fields["processes"]),
            registry=text(fields["registry"]),
            cwd=_optional(fields.get("cwd")),
            stages=tuple(_stage(item) for item in items(fields["stages"])),
            ledger_from=_whole(fields["ledger_from"]),
        )
    except KeyError as error:
        raise DataError(f"has no {error.args[0]!r}") from None
    except ValueError as error:
        raise DataError(str(error)) from None


def _stage(fields: Json) -> StageRecord:
    return StageRecord(
        text(fields["name"]),
        _optional(fields["artifact"]),
        text(fields["fingerprint"]),
        fields["cached"] is True,
        _real(fields["seconds"]),
        _whole(fields["train_steps"]),
    )


def _process(fields: Json) -> Process:
    return Process(text(fields["host"]), text(fields["boot_id"]), _whole(fields["pid"]), _whole(fields["started"]))


def _revision(fields: Json) -> Revision:
    dirty = fields["dirty"]
    return Revision(_optional(fields["commit"]), dirty if isinstance(dirty, bool) else None)


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


def _real(value: object) -> float:
    found = number(value)
    if found is None:
        raise ValueError(f"holds {value!r} where a number belongs")
    return found


def _whole(value: object) -> int:
    return int(_real(value))
