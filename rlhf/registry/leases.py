"""A lease is held while a thread beats for it, waited for while its beat moves, and taken over when it stands still."""

import _thread
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import TracebackType

from rlhf.registry.database import Database
from rlhf.registry.lease_rows import Lease, this_process
from sft.core.errors import Interrupted, StorageError

BEAT_S = 2.0
"""Between two signs of life."""
STALE_S = 30.0
"""Without a sign of life for so long, a holder is given up."""
_SHORTEST_WAIT_S = 0.02
_LOOKS = 30
"""At a silent holder, at least, before it is given up."""
_INSIST_S = 1.0


class Watch:
    """Whether a lease that others hold still moves, by this process's own clock, which no date setting moves."""

    def __init__(self) -> None:
        self._seen: tuple[int, int] | None = None
        self._since = self._last = 0.0

    def gives_up(self, lease: Lease, now: float) -> bool:
        """Look once; True: its holder is dead, or its beat has stood still for STALE_S.

        A long gap between two looks, in which this process or the database was held up, does not count as silence: the
        holder may have been held up too.
        """
        if lease.owner.is_dead():
            return True
        gap, self._last = now - self._last, now
        if (lease.token, lease.beat) != self._seen or gap > STALE_S / 3:
            self._seen, self._since = (lease.token, lease.beat), now
        return now - self._since >= STALE_S


class Held:
    """A lease of this process: kept alive by a thread inside a `with` block, ended behind it."""

    def __init__(self, database: Database, lease: Lease, on_loss: Callable[[], None]) -> None:
        """Take a lease; `on_loss` is called again and again once another process has taken it."""
        self.lease = lease
        self.is_lost = False
        self._database = database
        self._on_loss = on_loss
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name=f"lease-{lease.token}", daemon=True)

    def __enter__(self) -> "Held":
        """Start to beat."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop, and end the lease."""
        try:
            self.stop()
        except KeyboardInterrupt:
            if not self.is_lost:  # else it is the last one that the thread sent
                raise
        if not self.is_lost:
            _end_own(self._database, self.lease.fingerprint)

    def beat(self) -> bool:
        """Show a sign of life now; False: the lease is lost."""
        with self._database.beat() as catalogue:
            self.is_lost = not catalogue.leases.beat(self.lease.token)
        return not self.is_lost

    def stop(self) -> None:
        """End the thread, wherever `start` or an earlier `stop` was broken off."""
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._stopped.wait(BEAT_S):
            with suppress(StorageError):  # a database that comes back in time is none the worse for it
                if not self.beat():
                    break
        while self.is_lost and not self._stopped.is_set():
            self._on_loss()
            self._stopped.wait(_INSIST_S)


@contextmanager
def holding(
    database: Database, fingerprint: str, announce: Callable[[str], None], on_loss: Callable[[], None]
) -> Iterator[Held]:
    """Hold the lease of a fingerprint inside the block; wait first while another process holds it, and say so once.

    A signal may come between any two steps of this, but only the first one raises: what it left is looked up and ended.

    Args:
        database: of the registry.
        fingerprint: what the lease is for.
        announce: is told what is waited for or taken over.
        on_loss: called again and again once another process has taken the lease.
    """
    held = None
    try:
        held = Held(database, _acquire(database, fingerprint, announce), on_loss)
        with held:
            yield held
    except KeyboardInterrupt:
        if held is not None:
            held.stop()
        _end_own(database, fingerprint)
        raise


def _acquire(database: Database, fingerprint: str, announce: Callable[[str], None]) -> Lease:
    watch = Watch()
    announced = False
    wait_s = _SHORTEST_WAIT_S
    while True:
        taken = None
        with database.write() as catalogue:
            found = catalogue.leases.of(fingerprint)
            if found is None or watch.gives_up(found, time.monotonic()):
                taken = catalogue.leases.take(fingerprint)
        if found is None:
            assert taken is not None
            return taken
        if taken is not None:
            why = "has died" if found.owner.is_dead() else f"has shown no sign of life for {STALE_S:.0f} s"
            announce(f"{found.owner} {why}: taking over {fingerprint[:12]}")
            return taken
        if not announced:
            announce(f"{found.owner} is making {fingerprint[:12]}: waiting for it, to use its result")
        announced = True
        time.sleep(wait_s)
        wait_s = min(2 * wait_s, STALE_S / _LOOKS)


def _end_own(database: Database, fingerprint: str) -> None:
    """End the lease of a fingerprint if it is this process's; where the disk refuses, it ends as of one that died."""
    with suppress(StorageError), database.write() as catalogue:
        left = catalogue.leases.of(fingerprint)
        if left is not None and left.owner == this_process():
            catalogue.leases.end(left.token)


def given_up(database: Database) -> set[Lease]:
    """Return the leases, as they are now, of processes that are gone; those of other machines are watched first."""
    with database.read() as catalogue:
        unknown = {lease: Watch() for lease in catalogue.leases.all() if not lease.owner.is_alive()}
    gone: set[Lease] = set()
    while unknown:
        with database.read() as catalogue:
            now = set(catalogue.leases.all())
        gone |= {lease for lease, watch in unknown.items() if watch.gives_up(lease, time.monotonic())}
        unknown = {lease: watch for lease, watch in unknown.items() if lease in now - gone}
        if unknown:
            time.sleep(STALE_S / _LOOKS)
    return gone


def lost(lease: Lease) -> Interrupted:
    """Return what is raised where a lease is lost."""
    return Interrupted(
        f"another process has taken over {lease.fingerprint[:12]}, since this one had shown no sign of life for "
        f"{STALE_S:.0f} s; nothing of it was registered: the same command waits for the other one's result"
    )


def interrupter() -> Callable[[], None]:
    """Return what stops the work of this thread as Ctrl-C does; only the main thread can be stopped."""
    return _interrupt_main if threading.current_thread() is threading.main_thread() else lambda: None


def _interrupt_main() -> None:
    """Send SIGINT to the main thread; where that is ignored, SIGTERM."""
    number = signal.SIGINT if callable(signal.getsignal(signal.SIGINT)) else signal.SIGTERM
    _thread.interrupt_main(number)
