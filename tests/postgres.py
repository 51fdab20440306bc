"""A real PostgreSQL server for tests: on a socket of its own, in a folder that goes with it, without fsync."""

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
"""Where Debian puts the server, one folder a version."""


def missing() -> str | None:
    """Return what is not installed, and how it would be; None: all is there."""
    if find_spec("psycopg") is None:
        return "the driver of PostgreSQL is not installed: pip install 'psycopg[binary]'"
    if not PROGRAMS:
        return "PostgreSQL is not installed: apt-get install postgresql"
    return None


@contextmanager
def running() -> Iterator[str]:
    """Start a server, give the URL of its first database, stop it.

    The server refuses to run as root, so root steps down to `postgres`. The folder is not pytest's, which is closed to
    other users, and whose path may be too long for a socket.
    """
    folder = Path(tempfile.mkdtemp(prefix="rlhf-pg-"))
    user = "postgres" if os.geteuid() == 0 else None
    if user is not None:
        shutil.chown(folder, user)
    try:
        _run("initdb", folder, user, "-D", "data", "-U", "rlhf", "-A", "trust", "-E", "UTF8", "--locale=C", "-N")
        options = f"-c listen_addresses='' -c unix_socket_directories='{folder}' -c fsync=off -c max_connections=40"
        _run("pg_ctl", folder, user, "-D", "data", "-w", "-l", "log", "-o", options, "start")
        try:
            yield f"postgresql://rlhf@/postgres?host={folder}"
        finally:
            _run("pg_ctl", folder, user, "-D", "data", "-m", "immediate", "stop")
    finally:
        shutil.rmtree(folder)


def _run(program: str, folder: Path, user: str | None, *words: str) -> None:
    # No pipes: the server would inherit them, and the reader would wait for its end.
    with (folder.parent / f"{folder.name}.out").open("wb+") as output:
        done = subprocess.run(
            [str(PROGRAMS[-1] / program), *words],
            cwd=folder,
            user=user,
            group=user,
            extra_groups=None if user is None else [],
            stdout=output,
            stderr=output,
            check=False,
        )
        output.seek(0)
        said = output.read().decode()
    Path(output.name).unlink()
    assert done.returncode == 0, f"{program}: {said}"


@contextmanager
def new_database(server: str, name: str) -> Iterator[str]:
    """Make a database on the server and give its URL; drop it at the end."""
    import psycopg

    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
        try:
            yield server.replace("/postgres?", f"/{name}?")
        finally:
            connection.execute(f"DROP DATABASE {name} WITH (FORCE)")
