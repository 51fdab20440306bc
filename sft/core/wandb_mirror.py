"""A mirror of the metric ledger in W&B, one run per stage, which can fail without anybody having to care.

Everything that touches wandb happens on a thread of its own, fed by a queue: a slow or dead server costs training
nothing. The ledger is the truth; `wandb sync FOLDER/wandb/offline-run-*` sends an offline run later.
"""

import logging
import math
import netrc
import os
import queue
import re
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

INIT_TIMEOUT_S = 20.0
CLOSE_TIMEOUT_S = 30.0
REDACTED = "[redacted]"

STEP_METRICS: Mapping[str, str] = {"ppo": "ppo/iteration"}
"""Stage -> the metric on the x axis of its W&B panels; `<stage>/step` for a stage that is not listed."""

_SECRET_WORDS = {"password", "passwd", "secret", "secrets", "token", "credential", "credentials", "apikey"}
_SECRET_PHRASES = ("api_key", "private_key", "access_key", "auth_header")
_VOCABULARY_TOKEN = re.compile(r"(^|_)(pad|eos|bos|unk|cls|sep|mask|image|stop)_token(_id)?$")
_URL_LOGIN = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/\s]*@")
_URL_QUERY = re.compile(r"(?i)([?&][a-z_.-]*(?:password|token|key|secret|sig|signature)=)[^&#\s]+")
_ASSIGNMENT = re.compile(r"^([+~]*[\w.@/-]+)=(.*)$", re.DOTALL)


def looks_secret(key: str) -> bool:
    """Return whether a configuration key names a secret: `hub.token` does, `max_tokens` and `pad_token` do not."""
    name = key.rsplit(".", 1)[-1].lower().replace("-", "_")
    if _VOCABULARY_TOKEN.search(name):
        return False
    return not _SECRET_WORDS.isdisjoint(name.split("_")) or any(phrase in name for phrase in _SECRET_PHRASES)


def redact_text(text: str) -> str:
    """Return the text without logins and keys in URLs, and without the value of a `secret_key=value` override."""
    assignment = _ASSIGNMENT.match(text)
    if assignment and looks_secret(assignment[1]):
        return f"{assignment[1]}={REDACTED}"
    return _URL_QUERY.sub(rf"\1{REDACTED}", _URL_LOGIN.sub(rf"\1{REDACTED}@", text))


def redact(config: Mapping[str, object]) -> dict[str, object]:
    """Return a copy of a configuration, made of plain JSON types, without its secrets."""
    return {
        str(key): REDACTED if looks_secret(str(key)) and value is not None else _redact_value(value)
        for key, value in config.items()
    }


def _redact_value(value: object) -> object:
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, list | tuple | set):
        return [_redact_value(inner) for inner in value]
    if value is None or isinstance(value, bool | int | float):
        return value
    return redact_text(str(value))


def resolve_mode(mode: str, environment: Mapping[str, str]) -> str:
    """Return "online", "offline" or "disabled"; reads files, never the network, never asks.

    `auto` follows `WANDB_MODE` where it is set, else is online with a key (`WANDB_API_KEY` or a netrc login for the
    server) and offline without one.
    """
    if mode != "auto":
        return mode
    wanted = environment.get("WANDB_MODE", "").lower()
    if wanted in ("offline", "dryrun"):
        return "offline"
    if wanted == "disabled":
        return "disabled"
    return "online" if environment.get("WANDB_API_KEY") or _has_netrc_login(environment) else "offline"


def _has_netrc_login(environment: Mapping[str, str]) -> bool:
    host = urlsplit(environment.get("WANDB_BASE_URL", "https://api.wandb.ai")).hostname
    named = environment.get("NETRC")
    files = [Path(named)] if named else [Path.home() / ".netrc", Path.home() / "_netrc"]
    for file in files:
        try:
            if host and netrc.netrc(file).hosts.get(host):
                return True
        except (OSError, netrc.NetrcParseError):
            continue
    return False


@contextmanager
def contained(out_dir: Path) -> Iterator[None]:
    """Keep wandb to itself: its staged table files go to `out_dir/wandb`, where a later `wandb sync` finds them, not
    to the home folder, and neither its messages nor its log records reach the terminal."""
    ours = {"WANDB_DATA_DIR": str(out_dir / "wandb"), "WANDB_SILENT": "true"}
    added = {name: value for name, value in ours.items() if name not in os.environ}
    logger = logging.getLogger("wandb")
    propagated = logger.propagate
    os.environ.update(added)
    logger.propagate = False
    try:
        yield
    finally:
        logger.propagate = propagated
        for name in added:
            os.environ.pop(name, None)


class MirrorSettings(NamedTuple):
    """What W&B is told about one stage's run; `config` and `tags` are redacted before they leave."""

    out_dir: Path
    mode: str
    """"online", "offline" or "disabled"."""
    project: str
    entity: str | None
    group: str
    job_type: str
    name: str
    config: Mapping[str, object]
    tags: tuple[str, ...]

    @property
    def step_metric(self) -> str:
        """Name of the metric on the x axis."""
        return STEP_METRICS.get(self.job_type, f"{self.job_type}/step")


class WandbRun(Protocol):
    """What the mirror uses of a `wandb.Run`."""

    def define_metric(self, name: str, step_metric: str | None = None) -> object:
        """Choose a metric's x axis."""
        ...

    def log(self, data: dict[str, object]) -> None:
        """Add a row to the history."""
        ...

    def finish(self, exit_code: int | None = None) -> None:
        """End the run."""
        ...


def open_run(settings: MirrorSettings, mode: str) -> WandbRun:
    """Start a W&B run that prints nothing, asks nothing, and knows neither the command line nor the code."""
    import wandb

    settings.out_dir.mkdir(parents=True, exist_ok=True)
    run: WandbRun = wandb.init(
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        job_type=settings.job_type,
        name=settings.name,
        config=redact(settings.config),
        tags=[redact_text(tag)[:64] for tag in settings.tags],
        dir=str(settings.out_dir),
        reinit="create_new",
        # A Settings object is changed by init, and used twice it leaks ids into the next run: always a fresh one.
        settings=wandb.Settings(
            mode=mode,
            silent=True,
            console="off",
            x_disable_meta=True,
            save_code=False,
            disable_git=True,
            init_timeout=INIT_TIMEOUT_S,
            finish_timeout=CLOSE_TIMEOUT_S,
        ),
    )
    run.define_metric(settings.step_metric)
    run.define_metric("*", step_metric=settings.step_metric)
    return run


class _Row(NamedTuple):
    step: int
    metrics: dict[str, float]


class _Table(NamedTuple):
    name: str
    columns: list[str]
    rows: list[list[object]]


class _End(NamedTuple):
    exit_code: int


class WandbMirror:
    """One stage's W&B run. No method waits for wandb, and none raises because of it."""

    def __init__(
        self,
        settings: MirrorSettings,
        note: Callable[[str], None],
        *,
        opener: Callable[[MirrorSettings, str], WandbRun] = open_run,
    ) -> None:
        """Begin to open the run on a thread of its own; `note` gets a line when W&B fails."""
        self._settings = settings
        self._note = note
        self._opener = opener
        self._queue: queue.SimpleQueue[_Row | _Table | _End] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if settings.mode != "disabled":
            self._thread = threading.Thread(target=self._work, name=f"wandb-{settings.job_type}", daemon=True)
            self._thread.start()

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Queue a row; a metric without a `/` in its name gets the stage as its prefix."""
        if self._thread is not None:
            self._queue.put(_Row(step, dict(metrics)))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Queue a table; cells that are no text, number or null are sent as text."""
        if self._thread is not None:
            self._queue.put(_Table(name, list(columns), [[_cell(cell) for cell in row] for row in rows]))

    def end(self, exit_code: int) -> None:
        """Queue the end of the run and return at once."""
        if self._thread is not None:
            self._queue.put(_End(exit_code))

    def wait(self, timeout_s: float) -> bool:
        """Wait until everything queued is with wandb; return False when that took longer than the timeout."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _work(self) -> None:
        # Whatever wandb raises, of any type, is no reason to lose a training run.
        try:
            self._mirror(self._open())
        except Exception as error:
            self._note(f"W&B mirror stopped ({_reason(error)}); training goes on, metrics.jsonl has every number")

    def _open(self) -> WandbRun:
        if self._settings.mode == "offline":
            return self._opener(self._settings, "offline")
        try:
            return self._opener(self._settings, "online")
        except Exception as error:
            self._note(f"W&B cannot be reached ({_reason(error)}); this run is kept offline, send it with `wandb sync`")
            return self._opener(self._settings, "offline")

    def _mirror(self, run: WandbRun) -> None:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                run.finish(exit_code=item.exit_code)
                return
            run.log(self._payload(item))

    def _payload(self, item: _Row | _Table) -> dict[str, object]:
        stage = self._settings.job_type
        if isinstance(item, _Table):
            import wandb

            table = wandb.Table(columns=item.columns, data=item.rows, allow_mixed_types=True)
            return {item.name if "/" in item.name else f"{stage}/{item.name}": table}
        named: dict[str, object] = {
            name if "/" in name else f"{stage}/{name}": value for name, value in item.metrics.items()
        }
        return named | {self._settings.step_metric: item.step}


def _cell(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _reason(error: Exception) -> str:
    lines = redact_text(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
