"""The label page under load: annotators by script, kills of the server, memory, leases.

    python experiments/label_page/load.py --annotators 50 --labels 5000 --kills 0 --think 1.0 --output DIR

Each annotator opens the page, parses its form as a browser would, thinks, submits, and opens the next one. What the
server has acknowledged is compared with the database in the end.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from html import unescape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlencode

import numpy as np

PROJECT, OVERLAP = "load", 2
VERDICTS = ("left_clearly", "left_slightly", "tie", "both_bad", "right_slightly", "right_clearly")
FIELD = re.compile(r'name="(csrf|revision|guideline_version)" value="([^"]*)"')
FORM = re.compile(r'action="/label/(\d+)"')
HOST = "127.0.0.1"
SAMPLE_S = 0.5


class Reply(NamedTuple):
    """An HTTP response."""

    status: int
    location: str
    body: str


class Connection:
    """One kept-alive HTTP/1.1 connection; the smallest client that will do, since it shares the cores."""

    def __init__(self, port: int, cookie: str) -> None:
        self.port, self.cookie = port, cookie
        self.reader: asyncio.StreamReader | None = None
        self.writer: asyncio.StreamWriter | None = None

    async def send(self, method: str, path: str, fields: dict[str, str] | None = None) -> Reply:
        """Send a request and read its response. Raises OSError or EOFError where the server goes away meanwhile."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection(HOST, self.port)
        body = "" if fields is None else urlencode(fields)
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {HOST}:{self.port}",
            f"Cookie: {self.cookie}",
            "Accept: text/html",
        ]
        if fields is not None:
            origin = f"Origin: http://{HOST}:{self.port}"
            lines += [origin, "Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        try:
            self.writer.write("\r\n".join([*lines, "", body]).encode())
            await self.writer.drain()
            return await self._read()
        except (OSError, EOFError):
            self.close()
            raise

    async def _read(self) -> Reply:
        assert self.reader is not None
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in head[1:])}
        body = await self.reader.readexactly(int(headers.get("content-length", "0")))
        return Reply(int(head[0].split()[1]), headers.get("location", ""), body.decode())

    def close(self) -> None:
        """Forget the connection; the next request opens another."""
        if self.writer is not None:
            self.writer.close()
        self.reader = self.writer = None


@dataclass
class Log:
    """What the annotators saw."""

    page_ms: list[float] = field(default_factory=list)
    submit_ms: list[float] = field(default_factory=list)
    acknowledged: list[tuple[int, int]] = field(default_factory=list)
    """(lease, revision)."""
    broken: int = 0
    """Requests that a kill broke; each was sent again."""
    conflicts: int = 0
    others: Counter[str] = field(default_factory=Counter)


class Server:
    """`rlhf labels serve` as a process of its own, which can be killed and started again."""

    def __init__(self, database: Path, port: int) -> None:
        self.command = [sys.executable, "-m", "rlhf", "labels", "serve", "--project", PROJECT, "--port", str(port)]
        self.command += ["--database", f"sqlite:///{database}"]
        self.port = port
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until the port answers."""
        self.process = subprocess.Popen(self.command, stdout=subprocess.DEVNULL)
        for _ in range(600):
            with suppress(OSError), socket.create_connection((HOST, self.port), timeout=1):
                return
            time.sleep(0.05)
        raise RuntimeError("the server did not start")

    def kill(self) -> None:
        """Send SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def resident_mib(self) -> float:
        """Return the resident set."""
        assert self.process is not None
        try:
            pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        except (OSError, IndexError):
            return float("nan")
        return pages * os.sysconf("SC_PAGE_SIZE") / (1 << 20)


def make_project(database: Path, tasks: int, annotators: int) -> list[str]:
    """Make tasks and accounts, and return a session's token for each annotator."""
    from rlhf.labels.accounts.authentication import accept_invite
    from rlhf.labels.accounts.users import Role, invite
    from rlhf.labels.collection.study import Study, set_study
    from rlhf.labels.collection.tasks import Pair, enqueue
    from rlhf.labels.store import LabelStore
    from sft.core.text import user

    store = LabelStore(f"sqlite:///{database}", create=True)
    words = ("answer", "says", "what", "to", "do", "first", "and", "why", "it", "helps", "when", "time", "is", "short")
    rng = random.Random(0)

    def text(number: int) -> str:
        paragraphs = (" ".join(rng.choices(words, k=45)) for _ in range(4))
        return f"**Answer {number}**\n\n" + "\n\n".join(paragraphs) + "\n\n- one\n- two\n\n`code`"

    pairs = [
        Pair(user(f"Question {n}: " + " ".join(rng.choices(words, k=30))), text(n), text(-n)) for n in range(tasks)
    ]
    with store.changing(PROJECT) as (connection, project):
        set_study(connection, project, Study(overlap=OVERLAP, gold_share=0.0, probe_share=0.0))
        enqueue(connection, project, pairs, overlap=OVERLAP, seed=0)
    tokens = []
    for number in range(annotators):
        with store.changing(PROJECT) as (connection, project):
            link = invite(connection, project, Role.ANNOTATOR, time.time())
        entered = accept_invite(
            lambda: store.changing(PROJECT), link, f"person {number}", f"a long enough password {number}", time.time()
        )
        tokens.append(entered.token)
    return tokens


async def annotate(connection: Connection, log: Log, wanted: int, think_s: float, rng: random.Random) -> None:
    """Label until enough labels were acknowledged by all, or no task is left."""
    pending: tuple[str, dict[str, str]] | None = None
    while len(log.acknowledged) < wanted:
        try:
            if pending is None:
                start = time.perf_counter()
                page = await connection.send("GET", "/label")
                log.page_ms.append(1000 * (time.perf_counter() - start))
                form = FORM.search(page.body)
                if page.status != 200 or form is None:
                    log.others[f"page {page.status}"] += 1
                    if page.status == 200:
                        return
                    await asyncio.sleep(0.1)
                    continue
                own = page.body[form.start() : page.body.index("</form>", form.start())]
                fields = {name: unescape(value) for name, value in FIELD.findall(own)}
                pending = f"/label/{form[1]}", {**fields, "verdict": rng.choice(VERDICTS), "reason": ""}
                await asyncio.sleep(rng.uniform(0.5, 1.5) * think_s)
            path, fields = pending
            start = time.perf_counter()
            reply = await connection.send("POST", path, fields)
            log.submit_ms.append(1000 * (time.perf_counter() - start))
            if reply.status == 303 and reply.location.partition("?")[0].endswith("/label"):
                log.acknowledged.append((int(path.rpartition("/")[2]), int(fields["revision"])))
                pending = None
            elif reply.status == 409:
                log.conflicts += 1
                pending = None
            else:
                log.others[f"submit {reply.status}"] += 1
                await asyncio.sleep(0.1)
        except (OSError, EOFError):
            log.broken += 1
            await asyncio.sleep(0.05)


async def kill_at_random(server: Server, kills: int, pause_s: float, rng: random.Random) -> None:
    """Kill the server and start it again, so many times."""
    for _ in range(kills):
        await asyncio.sleep(rng.uniform(0.3, 1.7) * pause_s)
        server.kill()
        await asyncio.to_thread(server.start)


def most_holders(database: Path) -> int:
    """Return the largest number of leases open or done that any task has."""
    with connected(database) as connection:
        query = "select count(*) from lease where state in ('open', 'done') group by task_id order by 1 desc limit 1"
        row = connection.execute(query).fetchone()
    return 0 if row is None else int(row[0])


@contextmanager
def connected(database: Path) -> Iterator[sqlite3.Connection]:
    """Open the database to read."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=60)
    try:
        yield connection
    finally:
        connection.close()


@asynccontextmanager
async def watched(server: Server, database: Path, log: Log) -> AsyncIterator[tuple[list[tuple[int, float]], list[int]]]:
    """Yield (labels so far, MiB of the server) and the most holders of a task, both sampled meanwhile."""
    memory: list[tuple[int, float]] = []
    holders: list[int] = []

    async def watch() -> None:
        while True:
            memory.append((len(log.acknowledged), server.resident_mib()))
            holders.append(await asyncio.to_thread(most_holders, database))
            await asyncio.sleep(SAMPLE_S)

    task = asyncio.create_task(watch())
    try:
        yield memory, holders
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


def audit(database: Path, acknowledged: list[tuple[int, int]]) -> dict[str, int]:
    """Compare what was acknowledged with the labels that are stored."""
    with connected(database) as connection:
        stored = Counter(row[0] for row in connection.execute("select lease_id from label_event where kind = 'label'"))
    told = Counter(lease for lease, _ in acknowledged)
    return {
        "acknowledged": len(acknowledged),
        "stored": sum(stored.values()),
        "acknowledged_lost": sum((told - stored).values()),
        "stored_twice": sum(count - 1 for count in stored.values()),
        "acknowledged_twice": sum(count - 1 for count in told.values()),
        "stored_not_acknowledged": sum((stored - told).values()),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Return the quantiles that matter, in ms."""
    found = np.percentile(values, [50, 95, 99, 100])
    return {
        "n": len(values),
        **dict(zip(("p50", "p95", "p99", "max"), (round(float(x), 1) for x in found), strict=True)),
    }


def at_steps(memory: list[tuple[int, float]], step: int) -> list[tuple[int, float]]:
    """Return the first sample (labels so far, MiB) at or after each `step` labels."""
    first = {labels // step: (labels, round(mib, 1)) for labels, mib in reversed(memory)}
    return [first[number] for number in sorted(first)]


def slope_of_last_half(memory: list[tuple[int, float]]) -> float | None:
    """Return by how many MiB the server grew per 1,000 labels, by least squares; None: too few samples."""
    half = [(labels, mib) for labels, mib in memory if labels >= memory[-1][0] / 2]
    return round(1000 * float(np.polyfit(*zip(*half, strict=True), 1)[0]), 3) if len(half) > 2 else None


async def measure(given: argparse.Namespace, database: Path) -> dict[str, object]:
    """Run the load and return the figures."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        port = free.getsockname()[1]
    tokens = make_project(database, given.labels // OVERLAP + given.annotators, given.annotators)
    server, log = Server(database, port), Log()
    server.start()
    cookie = f"labels-{PROJECT}"
    rngs = [random.Random(number) for number in range(given.annotators)]
    started = time.perf_counter()
    async with watched(server, database, log) as (memory, holders):
        killing = asyncio.create_task(kill_at_random(server, given.kills, given.pause, random.Random(0)))
        people = [
            annotate(Connection(port, f"{cookie}={token}"), log, given.labels, given.think, rng)
            for token, rng in zip(tokens, rngs, strict=True)
        ]
        await asyncio.gather(*people)
        killed = given.kills if killing.done() else 0
        killing.cancel()
        with suppress(asyncio.CancelledError):
            await killing
    seconds = time.perf_counter() - started
    server.kill()
    known = [(labels, mib) for labels, mib in memory if mib == mib]
    return {
        "annotators": given.annotators,
        "think_s": given.think,
        "kills": killed,
        "seconds": round(seconds, 1),
        "labels_per_s": round(len(log.acknowledged) / seconds, 1),
        "page_ms": spread(log.page_ms),
        "submit_ms": spread(log.submit_ms),
        **audit(database, log.acknowledged),
        "requests_broken_by_kills": log.broken,
        "conflicts": log.conflicts,
        "other_responses": dict(log.others),
        "overlap": OVERLAP,
        "most_holders_of_a_task": max([*holders, most_holders(database)]),
        "samples_of_holders": len(holders),
        "server_mib": at_steps(known, min(1000, given.labels // 10)),
        "server_mib_per_1000_labels_of_the_last_half": slope_of_last_half(known),
    }


def main() -> None:
    """Measure, print the figures, and write them to a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--annotators", type=int, default=50)
    parser.add_argument("--labels", type=int, default=5000)
    parser.add_argument("--think", type=float, default=0.0, help="mean seconds between page and answer")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--pause", type=float, default=3.0, help="mean seconds between kills")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--name", default="load")
    given = parser.parse_args()
    given.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(measure(given, Path(folder) / "labels.sqlite"))
    print(json.dumps(found, indent=2))
    (given.output / f"{given.name}.json").write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
