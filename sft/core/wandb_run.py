"""One W&B run: how it is opened, and how each thing that a stage tells becomes part of it.

Only the mirror's thread calls these functions, and only they import wandb.
"""

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from sft.core.ledger import Alert
from sft.core.redaction import redact, redact_text
from sft.core.wandb_environment import base_url, check_answers

PROBE_TIMEOUT_S = 5.0
INIT_TIMEOUT_S = 20.0
FINISH_TIMEOUT_S = 30.0
BINS = 64
"""Of a histogram; W&B takes up to 512."""

STEP_METRICS: Mapping[str, str] = {"ppo": "ppo/iteration"}
"""Stage -> the metric on the x axis of its W&B panels; `<stage>/step` for a stage that is not listed."""

OWN_NAMES: Mapping[str, tuple[str, ...]] = {"ppo": ("objective", "eval"), "evaluation": ("eval",)}
"""Stage -> first parts of its metrics' names beside its own name; PPO keeps TRL's."""

BEST: Mapping[str, str] = {
    "sft/eval_loss": "min",
    "reward/eval_loss": "min",
    "reward/eval_accuracy": "max",
    "reward/accuracy": "max",
    "eval/win_rate": "max",
    "objective/scores": "max",
    "objective/gold": "max",
    "objective/kl": "max",
}
"""Metric -> which of its values a run's summary shows beside the last one."""


class MirrorSettings(NamedTuple):
    """What W&B is told about one stage's run; `config` and `tags` are redacted before they leave."""

    out_dir: Path
    mode: str
    """"online", "offline" or "disabled"."""
    run_id: str
    """W&B's id of the run; a stage that carries on goes on under the same one."""
    project: str
    entity: str | None
    group: str
    job_type: str
    """The stage, without the number of its round."""
    name: str
    config: Mapping[str, object]
    tags: tuple[str, ...]

    @property
    def step_metric(self) -> str:
        """Name of the metric on the x axis."""
        return STEP_METRICS.get(self.job_type, f"{self.job_type}/step")

    def named(self, name: str) -> str:
        """Return a metric's name with its stage before it, unless it has a first part of its own."""
        return name if "/" in name else f"{self.job_type}/{name}"


class WandbRun(Protocol):
    """What the mirror uses of a `wandb.Run`."""

    @property
    def dir(self) -> str:
        """Folder of the run's files, inside the run's own folder."""
        ...

    def define_metric(self, name: str, step_metric: str | None = None, *, summary: str | None = None) -> object:
        """Choose a metric's x axis, and what the summary shows of it."""
        ...

    def log(self, data: dict[str, object], step: int | None = None, commit: bool | None = None) -> None:
        """Add a row to the history."""
        ...

    def alert(self, title: str, text: str, level: str) -> None:
        """Tell whoever subscribed to alerts."""
        ...

    def log_artifact(self, artifact_or_path: object) -> object:
        """Add an artifact."""
        ...

    def finish(self, exit_code: int | None = None) -> None:
        """End the run."""
        ...


def open_run(settings: MirrorSettings, mode: str) -> WandbRun:
    """Start a W&B run that prints nothing, asks nothing, and knows neither the command line nor the code.

    Whatever it raises, of any type, means that there is no run; a server that does not answer is a ConnectionError.
    """
    if mode == "online":
        check_answers(base_url(os.environ), PROBE_TIMEOUT_S)
    import wandb

    settings.out_dir.mkdir(parents=True, exist_ok=True)
    run: WandbRun = wandb.init(
        id=settings.run_id,
        resume="allow" if mode == "online" else None,
        project=settings.project,
        entity=settings.entity,
        group=settings.group,
        job_type=settings.job_type,
        name=settings.name,
        config=redact(settings.config),
        tags=[redact_text(tag)[:64] for tag in settings.tags],
        dir=str(settings.out_dir.resolve()),  # wandb's service may have begun in another folder
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
            finish_timeout=FINISH_TIMEOUT_S,
            finish_timeout_raises=True,
        ),
    )
    run.define_metric(settings.step_metric)
    run.define_metric("*", step_metric=settings.step_metric)
    for name, best in BEST.items():
        if name.split("/")[0] in (settings.job_type, *OWN_NAMES.get(settings.job_type, ())):
            run.define_metric(name, step_metric=settings.step_metric, summary=f"{best},last")
    return run


class Told(Protocol):
    """Something that waits for the next row of numbers and is sent with it."""

    def payload(self, settings: MirrorSettings) -> dict[str, object]:
        """Return it as wandb takes it."""
        ...


class Row(NamedTuple):
    """Numbers at a step."""

    seq: int
    """Of the line in the ledger. It is W&B's own step, so that no row of a run that carries on has another's step."""
    step: int
    metrics: Mapping[str, float]

    def payload(self, settings: MirrorSettings) -> dict[str, object]:
        """Return the numbers under their full names, with the stage's own step."""
        named: dict[str, object] = {settings.named(name): value for name, value in self.metrics.items()}
        return named | {settings.step_metric: self.step}


class Table(NamedTuple):
    """Rows of text and numbers."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def payload(self, settings: MirrorSettings) -> dict[str, object]:
        """Return the table; cells that are no text, number or null are sent as text."""
        import wandb

        rows = [[_cell(cell) for cell in row] for row in self.rows]
        return {settings.named(self.name): wandb.Table(columns=list(self.columns), data=rows, allow_mixed_types=True)}


class Histograms(NamedTuple):
    """Distributions."""

    values: Mapping[str, npt.NDArray[np.float64]]

    def payload(self, settings: MirrorSettings) -> dict[str, object]:
        """Return histograms of the finite values; a distribution without any is left out."""
        import wandb

        finite = {name: values[np.isfinite(values)] for name, values in self.values.items()}
        return {
            settings.named(name): wandb.Histogram(np_histogram=np.histogram(values, bins=BINS))
            for name, values in finite.items()
            if len(values)
        }


Points = Sequence[tuple[float, float]]


class Lines(NamedTuple):
    """A plot of lines through points."""

    name: str
    title: str
    x: str
    lines: Mapping[str, Points]

    def payload(self, settings: MirrorSettings) -> dict[str, object]:
        """Return the plot as W&B draws it: from a table of numbers."""
        import wandb

        known = {label: points for label, points in self.lines.items() if points}
        if not known:
            return {}
        xs = [[x for x, _ in points] for points in known.values()]
        ys = [[y for _, y in points] for points in known.values()]
        plot = wandb.plot.line_series(xs, ys, keys=list(known), title=self.title, xname=self.x)
        return {settings.named(self.name): plot}


class Product(NamedTuple):
    """A version in the registry that a stage has made."""

    ref: str
    """`policy:3`."""
    kind: str
    path: Path
    sha256: str
    fingerprint: str
    parents: Mapping[str, str]
    """Role -> reference."""


def send_alert(run: WandbRun, alert: Alert) -> None:
    """Send an alert."""
    run.alert(title=alert.title[:63], text=alert.text, level=alert.level)


def send_product(run: WandbRun, product: Product) -> None:
    """Log an artifact that holds no file: a reference to the registry's folder, with the registry's own digest."""
    import wandb

    name, _, version = product.ref.partition(":")
    artifact = wandb.Artifact(
        name.replace("/", "."),
        type=product.kind,
        metadata={
            "ref": product.ref,
            "sha256": product.sha256,
            "fingerprint": product.fingerprint,
            "parents": dict(product.parents),
        },
    )
    artifact.add_reference(product.path.resolve().as_uri(), name=f"{version}-{product.sha256}", checksum=False)
    run.log_artifact(artifact)


def _cell(value: object) -> object:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
