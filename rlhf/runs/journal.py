"""Keeps a run's folder: run.json from the start to the end, what each stage reported, the lock of its one writer."""

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rlhf.runs.lock import only_writer
from rlhf.runs.process import this_process
from rlhf.runs.record import RUN_FILE, Asked, RunRecord, StageRecord, State, parse_record
from rlhf.runs.revision import revision
from sft.core.durable import json_digest, make_folder, write_json
from sft.core.errors import DataError, Interrupted, StorageError
from sft.core.interruption import stopped_by
from sft.core.ledger import LEDGER, read_ledger
from sft.core.redaction import redact, redact_text
from sft.core.values import Json

STAGES_FOLDER = "stages"
ERROR_LENGTH = 500
"""Characters of an error that run.json keeps; the whole stands in rlhf.log."""


@dataclass
class Journal:
    """Writes run.json whole and atomically, whenever something is known that was not known before."""

    folder: Path
    record: RunRecord
    began: float
    """Monotonic seconds at the start."""

    def stage_done(self, stage: StageRecord, report: Json) -> None:
        """Keep what a stage made and reported; a stage of the same name takes the place of the former.

        Raises:
            StorageError: the disk refuses.
        """
        write_json(self.folder / STAGES_FOLDER / f"{stage.name}.json", report)
        others = tuple(known for known in self.record.stages if known.name != stage.name)
        self.write(replace(self.record, stages=(*others, stage)))

    def end(self, state: State, error: str | None = None) -> None:
        """Say how the run ended."""
        self.write(replace(self.record, state=state, error=error, ended=_utc()))

    def write(self, record: RunRecord) -> None:
        """Write the file, with the time that has passed."""
        self.record = replace(record, seconds=time.monotonic() - self.began)
        write_json(self.folder / RUN_FILE, self.record.as_dict())


@contextmanager
def journal(
    folder: Path,
    *,
    experiment: str,
    run_id: str,
    config: Json,
    seed: int,
    registry: str,
    asked: Asked,
    processes: int = 1,
) -> Iterator[Journal]:
    """Keep the journal of the run inside the block: `running`, then how it ended, also where that is by an error.

    Args:
        folder: of the run; made where it does not exist.
        experiment: name of the experiment.
        run_id: different for every attempt.
        config: the whole configuration; it is stored without secrets.
        seed: of the run.
        registry: folder of the registry, as configured.
        asked: what the command line asked for.
        processes: that compute together.

    Raises:
        UsageError: another process writes this folder.
        StorageError: the disk refuses.
    """
    make_folder(folder)
    with only_writer(folder):
        digest = json_digest(config)
        attempt, ledger_from = _place(folder, digest)
        record = RunRecord(
            state=State.RUNNING,
            experiment=experiment,
            run_id=run_id,
            attempt=attempt,
            seed=seed,
            started=_utc(),
            config=redact(config),
            config_sha256=digest,
            asked=asked._replace(overrides=tuple(redact_text(word) for word in asked.overrides)),
            revision=revision(),
            process=this_process(),
            processes=processes,
            registry=registry,
            cwd=os.getcwd(),
            ledger_from=ledger_from,
        )
        kept = Journal(folder, record, time.monotonic())
        try:
            kept.write(record)
            yield kept
            if kept.record.state is State.RUNNING:
                kept.end(State.FINISHED)
        except BaseException as error:
            _end_quietly(kept, State.INTERRUPTED if _is_stop(error) else State.FAILED, error)
            raise


def _is_stop(error: BaseException) -> bool:
    """Tell whether somebody stopped the run, also where a library made another error of the signal.

    A full disk counts as itself. submitit ends a job that it will run again with exit code -1.
    """
    if isinstance(error, SystemExit):
        return error.code == -1
    by_signal = stopped_by() is not None and not isinstance(error, StorageError)
    return by_signal or isinstance(error, KeyboardInterrupt | Interrupted)


def _end_quietly(kept: Journal, state: State, error: BaseException) -> None:
    """Record how a run ended; a disk that refuses must not hide the error itself, and the run then counts as killed."""
    said = " ".join(redact_text(str(error)).split())[:ERROR_LENGTH]
    with suppress(StorageError):
        kept.end(state, f"{type(error).__name__}: {said}" if said else type(error).__name__)


def _place(folder: Path, config_sha256: str) -> tuple[int, int]:
    """Return the number of this attempt, and the ledger's line from which its configuration counts."""
    entries = read_ledger(folder / LEDGER).entries
    after = max((entry.seq for entry in entries), default=-1) + 1
    try:
        before = parse_record(json.loads((folder / RUN_FILE).read_text(encoding="utf-8")))
    except (OSError, ValueError, DataError):
        return 1, after
    return before.attempt + 1, before.ledger_from if before.config_sha256 == config_sha256 else after


def _utc() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds")
