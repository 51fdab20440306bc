"""The database of a study: opened with signs of life for its trials, its errors as StorageError."""

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import optuna
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial
from sqlalchemy.exc import SQLAlchemyError

from sft.core.errors import StorageError
from sft.core.urls import without_password

HEARTBEAT_S = 10
"""Seconds between two signs of life of a process that holds trials."""
GRACE_S = 60
"""Seconds without a sign of life after which another process takes a trial over."""
DATABASE_ERRORS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)
_OPENINGS, _PAUSE_S = 5, 0.3
"""Processes that open a new database at once make its tables in each other's way."""

Retry = Callable[[optuna.Study, FrozenTrial], None]
"""Has the settings of a trial that was taken over tried again."""


def opened(url: str, retry: Retry) -> RDBStorage:
    """Return the database of a study, with its tables, which other processes may be making right now."""
    for _ in range(_OPENINGS - 1):
        with suppress(*DATABASE_ERRORS):
            return _storage(url, retry)
        time.sleep(_PAUSE_S)
    return _storage(url, retry)


@contextmanager
def opened_for_a_look(url: str, retry: Retry) -> Iterator[RDBStorage]:
    """Give a database that is there; no connection is left behind."""
    storage = _storage(url, retry)
    try:
        yield storage
    finally:
        storage.remove_session()
        storage.engine.dispose()


def _storage(url: str, retry: Retry) -> RDBStorage:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage is supposed to be used with Study.optimize")
    return RDBStorage(
        url.replace("postgresql://", "postgresql+psycopg://", 1),
        engine_kwargs={"pool_pre_ping": True},
        heartbeat_interval=HEARTBEAT_S,
        grace_period=GRACE_S,
        heartbeat_stale_trial_callback=retry,
    )


@contextmanager
def storage_errors(shown: str) -> Iterator[None]:
    """Raise StorageError for what a database raises."""
    try:
        yield
    except DATABASE_ERRORS as error:
        found = " ".join(str(error.__cause__ or error).split())[:300]
        remedy = "check search.storage and the disk, then run the same command again"
        raise StorageError(f"{without_password(shown)}: {found}; {remedy}") from error
