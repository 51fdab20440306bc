"""Which runs belong together: those that differ in nothing but the seed are one group."""

import json
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from rlhf.runs.folder import RunFolder
from rlhf.runs.record import RunRecord, State
from sft.core.values import Json

NOT_COMPARED = ("seed", "registry", "wandb", "resume", "search")
"""Parts of a configuration that say which run it is and where it is kept, not what it does."""
MEASURED_ON = "measured on"
"""A field of its own: a trial of a search sees validation data alone, so it never stands for another run."""
_SHOWN_VALUE = 60


class Group(NamedTuple):
    """Runs of one configuration, one a seed."""

    letter: str
    """A, B, C ...: its name on the page and in plots."""
    settings: Mapping[str, str]
    """The fields in which the groups differ -> this one's value."""
    runs: tuple[RunFolder, ...]
    """In the order of their seeds."""

    @property
    def label(self) -> str:
        """The settings in one line; nothing where there is but one group."""
        return ", ".join(f"{name}={value}" for name, value in self.settings.items())


class Groups(NamedTuple):
    """All groups, in the order in which their first runs were named or started."""

    fields: tuple[str, ...]
    """Dotted fields in which they differ."""
    groups: tuple[Group, ...]
    repeats: tuple[RunFolder, ...]
    """Left out: runs of a configuration and a seed that another run stands for."""


def group_runs(runs: Sequence[RunFolder]) -> Groups:
    """Sort runs into groups. Of several with one configuration and seed a finished one stands for all, or the newest:
    a repeated run gives the same numbers, and counted twice it would make intervals too narrow."""
    flat = {run.path: _compared(run.record) for run in runs}
    seeds: dict[str, dict[int, RunFolder]] = {}
    repeats: list[RunFolder] = []
    for run in runs:
        of_group = seeds.setdefault(json.dumps(flat[run.path], sort_keys=True), {})
        known = of_group.get(run.record.seed)
        if known is not None:
            repeats.append(min(known, run, key=_worth))
        of_group[run.record.seed] = run if known is None else max(known, run, key=_worth)
    members = [tuple(run for _, run in sorted(of_group.items())) for of_group in seeds.values()]
    firsts = [flat[group[0].path] for group in members]
    names = dict.fromkeys(name for first in firsts for name in first)
    fields = tuple(name for name in names if len({json.dumps(first.get(name)) for first in firsts}) > 1)
    groups = (
        Group(_letter(place), {name: _shown(first.get(name)) for name in fields}, group)
        for place, (group, first) in enumerate(zip(members, firsts, strict=True))
    )
    return Groups(fields, tuple(groups), tuple(repeats))


def _worth(run: RunFolder) -> tuple[bool, str]:
    return run.record.state is State.FINISHED, run.record.started


def _compared(record: RunRecord) -> dict[str, object]:
    settings = {name: value for name, value in flatten(record.config).items() if name.split(".")[0] not in NOT_COMPARED}
    return settings | {MEASURED_ON: "test data" if record.trial is None else "validation data"}


def flatten(config: Json, prefix: str = "") -> dict[str, object]:
    """Return a configuration as dotted name -> value; an empty section is a value."""
    found: dict[str, object] = {}
    for name, value in config.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found


def _shown(value: object) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_VALUE else f"{text[: _SHOWN_VALUE - 1]}…"


def _letter(place: int) -> str:
    """Return A to Z, then AA, AB and so on."""
    last = chr(ord("A") + place % 26)
    return last if place < 26 else _letter(place // 26 - 1) + last
