"""A mirror of the metric ledger in W&B, one run per product of a stage, which can fail without anybody having to care.

Everything that touches wandb happens on a thread of its own, fed by a queue: a slow or dead server costs training
nothing. The ledger is the truth; `rlhf runs sync` sends later what stayed here.
"""

import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sft.core.durable import append_line
from sft.core.ledger import Alert
from sft.core.redaction import redact_text
from sft.core.wandb_run import MirrorSettings, Product, Row, Told, WandbRun, open_run, send_alert, send_product

CLOSE_TIMEOUT_S = 30.0
SENT = Path("wandb") / "sent.jsonl"
"""In a run's folder: the names of W&B's folders that are wholly with the server, one JSON text a line."""


class _End(NamedTuple):
    exit_code: int


class WandbMirror:
    """One W&B run. No method waits for wandb, and none raises because of it."""

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
        self._queue: queue.SimpleQueue[Told | Alert | Product | _End] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        if settings.mode != "disabled":
            self._thread = threading.Thread(target=self._work, name=f"wandb-{settings.job_type}", daemon=True)
            self._thread.start()

    def tell(self, item: Told | Alert | Product) -> None:
        """Queue something; what is no row, alert or product waits for the next row, which it belongs to."""
        if self._thread is not None:
            self._queue.put(item)

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
            self._mirror(*self._open())
        except Exception as error:
            self._note(
                f"W&B mirror stopped ({_reason(error)}); training goes on, `rlhf runs sync` sends the rest later"
            )

    def _open(self) -> tuple[WandbRun, str]:
        if self._settings.mode == "offline":
            return self._opener(self._settings, "offline"), "offline"
        try:
            return self._opener(self._settings, "online"), "online"
        except Exception as error:
            self._note(f"W&B cannot be reached ({_reason(error)}); this run is kept offline, `rlhf runs sync` sends it")
            return self._opener(self._settings, "offline"), "offline"

    def _mirror(self, run: WandbRun, mode: str) -> None:
        waiting: dict[str, object] = {}
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if waiting and item.exit_code == 0:  # a stage that carries on needs the step that this row would take
                    run.log(waiting)
                run.finish(exit_code=item.exit_code)
                if mode == "online":
                    mark_sent(self._settings.out_dir, Path(run.dir).parent.name)
                return
            if isinstance(item, Alert):
                send_alert(run, item)
            elif isinstance(item, Product):
                send_product(run, item)
            elif isinstance(item, Row):
                run.log(waiting | item.payload(self._settings), step=item.seq, commit=True)
                waiting = {}
            else:
                waiting |= item.payload(self._settings)


def mark_sent(out_dir: Path, folder: str) -> None:
    """Remember for good that the server has all of one of W&B's folders."""
    append_line(out_dir / SENT, f'"{folder}"')


def _reason(error: Exception) -> str:
    lines = redact_text(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
