"""Folders of runs with chosen numbers, written by the code that real runs write theirs with."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from rlhf.runs.folder import RunFolder, read_run
from rlhf.runs.groups import Group
from rlhf.runs.journal import journal
from rlhf.runs.process import this_process
from rlhf.runs.record import Asked, StageRecord, State
from sft.core.durable import write_json
from sft.core.ledger import Ledger

SFT_SCORES = (0.0, 0.0, 0.0, 0.0)


def estimate(value: float, half: float = 0.1, n: int = 40) -> dict[str, object]:
    return {"value": value, "ci": [value - half, value + half], "n": n}


def stage(name: str, **changes: object) -> StageRecord:
    return StageRecord(name, f"{name}:1", f"{name}-print", False, 10.0, 100)._replace(**changes)  # type: ignore[arg-type]


def scores(policy: Sequence[float], sft: Sequence[float] = SFT_SCORES, **changes: object) -> dict[str, object]:
    """Two prompts with two answers each."""
    kept = {"judge": "gold", "judge_sha256": None, "prompts": ["p", "p", "q", "q"]}
    return {**kept, "policy": list(policy), "sft": list(sft), **changes}


def make_run(
    folder: Path,
    *,
    seed: int = 0,
    config: Mapping[str, object] | None = None,
    numbers: Mapping[str, object] | None = None,
    reports: Mapping[str, Mapping[str, object]] | None = None,
    stages: Sequence[StageRecord] = (),
    started: str = "2026-11-21T10:00:00.000+00:00",
    overrides: Sequence[str] = (),
    processes: int = 1,
    ledger: Sequence[tuple[str, int, Mapping[str, float]]] = (),
    state: State = State.FINISHED,
    run_id: str | None = None,
) -> Path:
    """Write a run; numbers are those of results.json, reports those of its stages."""
    name = run_id or f"made-{folder.name}"
    asked = Asked(tuple(overrides), {"model": "tiny"})
    given = {"seed": seed, "registry": {"root": str(folder)}, **(config or {"ppo": {"kl_coef": 0.1}})}
    about = {"experiment": "made", "run_id": name, "seed": seed, "registry": "registry", "processes": processes}
    with journal(folder, config=given, asked=asked, **about) as kept:  # type: ignore[arg-type]
        written = Ledger(folder / "metrics.jsonl")
        for of_stage, step, metrics in ledger:
            written.append(of_stage, step, metrics)
        by_name = {done.name: done for done in stages}
        for of_stage in dict.fromkeys([*by_name, *(reports or {})]):
            kept.stage_done(by_name.get(of_stage, stage(of_stage)), (reports or {}).get(of_stage, {}))
        if numbers is not None:
            bias = {"passed": True, "checks": []}
            write_json(folder / "results.json", {"run_id": name, "evaluation": dict(numbers), "bias": bias})
        kept.write(replace(kept.record, started=started))
        if state is not State.FINISHED:
            kept.end(state)
    return folder


def read(folder: Path) -> RunFolder:
    return read_run(folder, this_process())


def group(folders: Sequence[Path], letter: str = "A") -> Group:
    return Group(letter, {}, tuple(read(folder) for folder in folders))


def change(path: Path, **fields: object) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))
