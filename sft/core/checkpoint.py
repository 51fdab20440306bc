"""Training checkpoints: a folder per step that is whole and intact, or is not used.

`step-00000012/` holds one safetensors file per group of tensors, `state.json`, and a manifest that is written last. It
comes into being under a name that is never read and moves into place with one rename; older ones go only after that.
Steps are ordered by the number in the name: clocks jump.
"""

import json
import logging
import platform
import re
import shutil
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from sft.core.durable import (
    broken_files,
    make_folder,
    publish,
    read_about,
    seal,
    storage_errors,
    write_json,
)
from sft.core.errors import ConfigError, ConfigProblem, DataError, StorageError, UsageError

_LOG = logging.getLogger(__name__)

_UNFINISHED = ".tmp-"
_STATE_FILE = "state.json"
_NAME = re.compile(r"step-(\d{8,})")
_GROUP = re.compile(r"[a-z0-9][a-z0-9_-]*")

Tensors = Mapping[str, Mapping[str, torch.Tensor]]
"""Group -> name -> tensor."""


class Checkpoint(NamedTuple):
    """A checkpoint that was verified: `step` of the training loop and its `folder`."""

    step: int
    folder: Path


class LoadedCheckpoint(NamedTuple):
    """What was saved: `tensors` by group and name, in CPU memory of their own, and the JSON `state`."""

    step: int
    tensors: dict[str, dict[str, torch.Tensor]]
    state: dict[str, object]


class Saving(NamedTuple):
    """Where the checkpoints of a run lie, and what they belong to."""

    folder: Path
    fingerprint: str
    allow: Sequence[str] = ()
    """Differences of the environment that a resumed run accepts, see `CheckpointStore`."""


def environment(device: torch.device | None = None, libraries: Collection[str] = ()) -> dict[str, str | int]:
    """Return what decides the bits of a result beside the configuration.

    Args:
        device: Where models run; None: on the CPU.
        libraries: Installed packages beside torch whose version counts.
    """
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    on_gpu = device is not None and device.type == "cuda"
    return {
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "device": torch.cuda.get_device_name(device) if on_gpu else _cpu_name(),
        "world_size": torch.distributed.get_world_size() if distributed else 1,
        **{name: version(name) for name in libraries},
    }


def _cpu_name() -> str:
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()


class CheckpointStore:
    """The checkpoints of one run in one folder. Only one process may save; the others may look and read."""

    refused: list[str]
    """Why `latest` passed over checkpoints, one message each, the newest first."""

    def __init__(
        self,
        root: Path,
        *,
        fingerprint: str,
        keep: int = 2,
        device: torch.device | None = None,
        allow: Collection[str] = (),
        libraries: Collection[str] = (),
    ) -> None:
        """Open the store, making its folder; what a killed save left is removed.

        Open it once the threads are set and the processes have met: the environment is taken down here.

        Args:
            root: Folder of the checkpoints of this run alone. It takes `keep` + 1 checkpoints for a moment.
            fingerprint: Digest of everything that decides the run; checkpoints of another one are not used.
            keep: How many of the newest stay, at least 1.
            device: Where the models run; None: on the CPU.
            allow: Names in `environment` that may differ from the checkpoint's: the run then goes on with other bits.
            libraries: Packages beside torch that compute, for `environment`.

        Raises:
            StorageError: The disk refuses.
        """
        assert keep >= 1
        self.refused = []
        self._root = root
        self._fingerprint = fingerprint
        self._keep = keep
        self._environment = environment(device, libraries)
        self._allow = frozenset(allow)
        self._verified: set[int] = set()
        make_folder(root)
        for leftover in root.glob(f"{_UNFINISHED}*"):
            shutil.rmtree(leftover, ignore_errors=True)  # every process of a distributed run may be at it

    def save(self, step: int, tensors: Tensors, state: Mapping[str, object]) -> Path:
        """Write the checkpoint of a step, then remove those beyond `keep`; return its folder.

        A step that is there already is replaced. When this raises, the checkpoints before it are as they were.

        Args:
            step: Number of finished steps.
            tensors: Of any layout, also overlapping; each is stored bit by bit with its dtype. Group names are
                lower case.
            state: JSON values with string keys, and lists for sequences; numbers come back exactly.

        Raises:
            DataError: `state` is not JSON that gives back what it was given (NaN, tuples, keys that are no strings).
            StorageError: The disk refuses.
            UsageError: The step's place is taken by another run's checkpoint.
        """
        _check_state(state)
        folder = self._root / f"step-{step:08d}"
        if self._is_foreign(folder):
            raise UsageError(self._foreign(folder))
        with _unfinished(folder) as unfinished:
            for group, named in tensors.items():
                assert _GROUP.fullmatch(group), group
                _write_tensors(named, unfinished / f"{group}.safetensors")
            write_json(unfinished / _STATE_FILE, dict(state))
            seal(unfinished, {"fingerprint": self._fingerprint, "step": step, "environment": self._environment})
            _remove(folder)
            publish(unfinished, folder)
        self._verified.add(step)
        self._remove_older_than_kept(step)
        return folder

    def latest(self) -> Checkpoint | None:
        """Return the newest intact checkpoint of this run, or None; those passed over are in `refused` and logged.

        Raises:
            ConfigError: It was made in another environment, in something that `allow` does not name.
        """
        self.refused = []
        for checkpoint in self._newest_first():
            reason = self._reason_to_refuse(checkpoint)
            if reason is None:
                self._check_environment(checkpoint)
                self._verified.add(checkpoint.step)
                return checkpoint
            self.refused.append(reason)
            _LOG.warning("%s", reason)
        return None

    def read(self, checkpoint: Checkpoint) -> LoadedCheckpoint:
        """Return what a checkpoint holds, after verifying it once more.

        Raises:
            StorageError: It has changed since `latest` returned it.
        """
        reason = self._reason_to_refuse(checkpoint)
        if reason is not None:
            raise StorageError(f"{reason}; run the same command again")
        with storage_errors(checkpoint.folder, "read"):
            tensors = {path.stem: _read_tensors(path) for path in sorted(checkpoint.folder.glob("*.safetensors"))}
            state = json.loads((checkpoint.folder / _STATE_FILE).read_text(encoding="utf-8"))
        return LoadedCheckpoint(checkpoint.step, tensors, state)

    def _newest_first(self) -> list[Checkpoint]:
        names = ((_NAME.fullmatch(folder.name), folder) for folder in self._root.iterdir())
        found = [Checkpoint(int(match[1]), folder) for match, folder in names if match]
        return sorted(found, reverse=True)

    def _reason_to_refuse(self, checkpoint: Checkpoint) -> str | None:
        folder = checkpoint.folder
        try:
            problems = broken_files(folder)
        except OSError as error:
            problems = [f"{error.filename}: {error.strerror}"]
        if not problems and read_about(folder).get("step") != checkpoint.step:
            problems = [f"{folder}: renamed, it holds step {read_about(folder).get('step')}"]
        if problems:
            found = "; ".join(problems)
            return f"checkpoint {folder.name} is damaged and not used ({found}); an older one takes its place"
        return self._foreign(folder) if self._is_foreign(folder) else None

    def _is_foreign(self, folder: Path) -> bool:
        try:
            return read_about(folder).get("fingerprint") != self._fingerprint
        except DataError:  # damaged or not there: nobody's
            return False

    def _foreign(self, folder: Path) -> str:
        theirs = str(read_about(folder).get("fingerprint"))
        return (
            f"checkpoint {folder} is of another run (fingerprint {theirs[:12]}, this run has {self._fingerprint[:12]}) "
            "and not used; move it away, or restore the settings and inputs that it was made with"
        )

    def _check_environment(self, checkpoint: Checkpoint) -> None:
        recorded = read_about(checkpoint.folder)["environment"]
        assert isinstance(recorded, dict)
        here = self._environment
        different = [name for name in sorted(recorded.keys() | here.keys()) if recorded.get(name) != here.get(name)]
        allowed = [name for name in different if name in self._allow]
        if allowed:
            _LOG.warning("%s was made elsewhere; bits will differ: %s", checkpoint.folder, ", ".join(allowed))
        if len(allowed) == len(different):
            return
        value = sorted(self._allow)
        remedy = f"restore it, or accept other bits with resume.allow=[{','.join(sorted({*value, *different}))}]"
        problems = [
            ConfigProblem(
                "resume.allow",
                value,
                f"lacks {name}, in which checkpoint {checkpoint.folder} ({recorded.get(name)}) differs from this "
                f"process ({here.get(name)}), so that results would differ in their last bits",
                remedy,
            )
            for name in different
            if name not in self._allow
        ]
        raise ConfigError(problems)

    def _remove_older_than_kept(self, saved: int) -> None:
        kept = 0
        for checkpoint in self._newest_first():
            if checkpoint.step > saved or self._is_foreign(checkpoint.folder):
                continue
            if kept == self._keep:
                _remove(checkpoint.folder)
            elif checkpoint.step in self._verified or self._reason_to_refuse(checkpoint) is None:
                self._verified.add(checkpoint.step)
                kept += 1


@contextmanager
def _unfinished(folder: Path) -> Iterator[Path]:
    """Give an empty folder beside `folder` to fill; it is removed when the block fails."""
    unfinished = folder.with_name(f"{_UNFINISHED}{folder.name}")
    with storage_errors(folder):
        shutil.rmtree(unfinished, ignore_errors=True)
        unfinished.mkdir()
        try:
            yield unfinished
        except BaseException:
            shutil.rmtree(unfinished, ignore_errors=True)
            raise


def _remove(folder: Path) -> None:
    """Remove a checkpoint so that a kill cannot leave a half of it in view."""
    with storage_errors(folder):
        if folder.exists():
            hidden = folder.with_name(f"{_UNFINISHED}removed-{folder.name}")
            shutil.rmtree(hidden, ignore_errors=True)
            folder.rename(hidden)
            shutil.rmtree(hidden)


def _check_state(state: Mapping[str, object]) -> None:
    remedy = "store finite numbers, texts, lists, and mappings with text keys"
    try:
        given_back = json.loads(json.dumps(dict(state), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise DataError(f"the state of a checkpoint cannot be stored as JSON: {error}; {remedy}") from error
    changed = [name for name, value in state.items() if given_back.get(name) != value]
    if changed:
        raise DataError(f"the state of a checkpoint would come back changed from JSON: {', '.join(changed)}; {remedy}")


def _write_tensors(named: Mapping[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file; the format has no shared memory, so what overlaps is copied."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in named.items():
        plain = tensor.detach().cpu().contiguous()
        storage = plain.untyped_storage().data_ptr()
        separate[name] = plain.clone() if storage in seen else plain
        seen.add(storage)
    try:
        save_file(separate, path)
    except SafetensorError as error:
        message = f"cannot write {path}: {error}; free space or fix permissions, then run the same command again"
        raise StorageError(message) from error


def _read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Return a file's tensors in memory of their own: mapped ones lie at odd addresses, and change with the file."""
    with safe_open(path, framework="pt") as file:
        return {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)


def check_alike(name: str, here: Mapping[str, torch.Tensor], there: Mapping[str, torch.Tensor]) -> None:
    """Refuse weights of a checkpoint that copying would spread or round; `name` says what they are of.

    Raises:
        DataError: They are not those of this run: other names, shapes or number formats.
    """
    ours, theirs = ({key: (tuple(t.shape), t.dtype) for key, t in tensors.items()} for tensors in (here, there))
    different = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
    if different:
        raise DataError(
            f"the {name} of the checkpoint is not that of this run: it differs in {', '.join(different[:5])}"
            f"{' and more' if len(different) > 5 else ''}; restore the model's settings, or start the run anew in "
            "another folder"
        )


class OptimizerState(NamedTuple):
    """An optimiser's state: `tensors` named KEY.PARAMETER (`exp_avg.model.norm.weight`), and the JSON `state`."""

    tensors: dict[str, torch.Tensor]
    state: dict[str, object]


def optimizer_tensors(optimizer: torch.optim.Optimizer, names: Sequence[str]) -> OptimizerState:
    """Divide an optimiser's state into tensors for `CheckpointStore.save` and JSON for its state.

    The tensors are the optimiser's own, not copies. Its state must consist of tensors, as that of Adam and AdamW does.

    Args:
        optimizer: With or without steps taken.
        names: One per parameter, in the order of the optimiser's groups.
    """
    packed = optimizer.state_dict()
    tensors: dict[str, torch.Tensor] = {}
    for index, name in zip(_indices(packed["param_groups"]), names, strict=True):
        for key, value in packed["state"].get(index, {}).items():
            assert isinstance(value, torch.Tensor), f"{key} of {name}"
            tensors[f"{key}.{name}"] = value
    assert len(set(names)) == len(names), "names repeat"
    groups = [
        {key: list(value) if isinstance(value, tuple) else value for key, value in group.items()}
        | {"params": [names[index] for index in group["params"]]}
        for group in packed["param_groups"]
    ]
    return OptimizerState(tensors, {"param_groups": groups})


def restore_optimizer(
    optimizer: torch.optim.Optimizer,
    names: Sequence[str],
    tensors: Mapping[str, torch.Tensor],
    state: Mapping[str, object],
) -> None:
    """Give a new optimiser over the same parameters what `optimizer_tensors` took from an old one; copies the tensors.

    Raises:
        DataError: The parameters are not those of the checkpoint, or are grouped otherwise.
    """
    fresh = optimizer.state_dict()["param_groups"]
    saved = state["param_groups"]
    assert isinstance(saved, list)
    here = [[names[index] for index in group["params"]] for group in fresh]
    there = [group["params"] for group in saved]
    if here != there:
        raise DataError(
            f"the optimiser of the checkpoint is not that of this run: {_difference(here, there)}; "
            "restore the model's settings, or start the run anew in another folder"
        )
    index_of = dict(zip(names, _indices(fresh), strict=True))
    values: dict[int, dict[str, torch.Tensor]] = {}
    for full_name, tensor in tensors.items():
        key, name = full_name.split(".", 1)
        values.setdefault(index_of[name], {})[key] = tensor.clone()
    groups = [_like(new, old) for new, old in zip(fresh, saved, strict=True)]
    optimizer.load_state_dict({"state": values, "param_groups": groups})


def _indices(groups: list[dict[str, list[int]]]) -> list[int]:
    return [index for group in groups for index in group["params"]]


def _like(fresh: Mapping[str, object], saved: Mapping[str, object]) -> dict[str, object]:
    """Return a saved group as the optimiser wants it: its own parameters, and tuples where JSON made lists."""
    lists = {key: tuple(v) for key, v in saved.items() if isinstance(v, list) and isinstance(fresh.get(key), tuple)}
    return {**saved, **lists, "params": fresh["params"]}


def _difference(here: list[list[str]], there: list[list[str]]) -> str:
    ours, theirs = ({name for group in groups for name in group} for groups in (here, there))
    parts = {"only in this run": ours - theirs, "only in the checkpoint": theirs - ours}
    shown = [f"{label}: {', '.join(sorted(found)[:5])}" for label, found in parts.items() if found]
    return "; ".join(shown) or "the same parameters in another order or other groups"
