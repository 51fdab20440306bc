"""The server as a process of its own."""

import os
import platform
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import pytest

pytest.importorskip("fastapi")

import httpx2 as httpx
from entrants import GOOD, joined, new_store

from rlhf.labels.accounts.users import Role
from rlhf.labels.web.heaps import HEAPS
from rlhf.labels.web.serve import is_loopback, serve
from sft.core.errors import UsageError

ROOT = Path(__file__).parents[4]
_HEAP = 64 << 20


class Running(NamedTuple):
    process: subprocess.Popen[str]
    said: str
    url: str


@contextmanager
def running(folder: Path, *words: str) -> Iterator[Running]:
    """Start the command and wait until it says where it listens."""
    place = ["--database", f"sqlite:///{folder}/labels.sqlite", "--project", "p", "--port", "0"]
    command = [sys.executable, "-c", "from rlhf.cli import main; main()", "labels", "serve", *place, *words]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        said = ""
        for line in process.stdout:
            said += line
            found = re.match(r"labels of project p: (\S+) ", line)
            if found:
                break
        else:
            raise AssertionError(process.stderr.read())
        yield Running(process, said, found.group(1))
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def folder(tmp_path) -> Path:
    new_store(tmp_path)
    return tmp_path


def test_the_first_start_shows_the_owner_s_link_and_the_next_does_not(folder):
    with running(folder) as server:
        link = re.search(r"it works once, for a day:\n  (\S+)\n", server.said).group(1)
        assert link.startswith(f"{server.url}/invite/")
        form = {"name": "Ada", "password": GOOD, "again": GOOD}
        with httpx.Client() as browser:
            assert browser.get(link).status_code == 200
            entered = browser.post(link, data=form, headers={"origin": server.url})
            assert (entered.status_code, entered.headers["location"]) == (303, "/")
            assert browser.get(f"{server.url}/").headers["location"] == "/dashboard"
            assert browser.get(link).status_code == 404
            assert "server" not in entered.headers
        token = link.rpartition("/")[2]
        server.process.send_signal(signal.SIGTERM)
        out, err = server.process.communicate(timeout=20)
        assert (server.process.returncode, out) == (0, "stopped\n")
        assert token not in err
    with running(folder) as server:
        assert "invite" not in server.said
        assert httpx.get(f"{server.url}/login").status_code == 200
        assert httpx.get(f"{server.url}/login", headers={"host": "evil.tld"}).status_code == 421
        port = server.url.rpartition(":")[2]
        assert httpx.get(f"{server.url}/login", headers={"host": f"localhost:{port}"}).status_code == 200


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_request_that_began_is_ended_before_the_stop(folder, number):
    joined(new_store(folder), "Ada", Role.OWNER)
    with running(folder) as server, ThreadPoolExecutor(1) as pool:
        port = int(server.url.rpartition(":")[2])
        connection = socket.create_connection(("127.0.0.1", port))
        body = b"name=nobody&password=wrong"
        head = f"POST /login HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nOrigin: {server.url}\r\n"
        head += f"Content-Type: application/x-www-form-urlencoded\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode() + body[:5])
        assert httpx.get(f"{server.url}/login").status_code == 200
        stopping = pool.submit(server.process.wait, 20)
        server.process.send_signal(number)
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                break
        connection.sendall(body[5:])
        assert connection.recv(100).startswith(b"HTTP/1.1 401 ")
        assert stopping.result() == 0


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator than glibc's")
def test_the_threads_share_few_heaps(folder, monkeypatch):
    monkeypatch.delenv("MALLOC_ARENA_MAX", raising=False)
    joined(new_store(folder), "Ada", Role.OWNER)
    with running(folder) as server, httpx.Client(limits=httpx.Limits(max_connections=30)) as browser:
        with ThreadPoolExecutor(30) as pool:
            answers = list(pool.map(lambda _: browser.get(f"{server.url}/login").status_code, range(300)))
        assert answers == [200] * 300
        assert 1 <= _heaps_of_threads(server.process) < HEAPS


def test_wrong_tries_are_counted_over_a_kill(folder):
    joined(new_store(folder), "Bo")
    statuses = []
    for _ in range(2):
        with running(folder) as server:
            for _ in range(4):
                data = {"name": "Bo", "password": "a wrong password"}
                statuses.append(
                    httpx.post(f"{server.url}/login", data=data, headers={"origin": server.url}).status_code
                )
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
    assert statuses[:5] == [401] * 5
    assert 429 in statuses[5:]


def test_behind_a_proxy(folder):
    joined(new_store(folder), "Bo")
    proxied = {"host": "labels.example.org", "origin": "https://labels.example.org"}
    with running(folder, "--https-proxy", "--allow-host", "labels.example.org") as server:
        assert server.url == "https://labels.example.org"
        assert "https://labels.example.org/invite/" in server.said
        port = _port_of(server.process)
        url = f"http://127.0.0.1:{port}/login"

        def log_in(password: str, address: str) -> httpx.Response:
            headers = {**proxied, "x-forwarded-for": address, "x-forwarded-proto": "https"}
            return httpx.post(url, data={"name": "Bo", "password": password}, headers=headers)

        statuses = [log_in("a wrong password", "203.0.113.9").status_code for _ in range(6)]
        assert statuses[:5] == [401] * 5
        found = log_in(GOOD, "203.0.113.10")
        assert found.status_code == 303
        assert found.headers["set-cookie"].startswith("__Host-labels-p=")
        assert found.headers["set-cookie"].endswith("; Secure")


def test_what_a_client_says_of_its_address_counts_only_behind_a_proxy(folder):
    joined(new_store(folder), "Bo")
    with running(folder) as server:
        statuses = []
        for n in range(7):
            headers = {"origin": server.url, "x-forwarded-for": f"203.0.113.{n}"}
            data = {"name": "Bo", "password": "a wrong password"}
            statuses.append(httpx.post(f"{server.url}/login", data=data, headers=headers).status_code)
        assert 429 in statuses[5:]


def test_others_come_in_only_after_the_owner(folder, capsys):
    store = new_store(folder)
    with pytest.raises(UsageError, match="would let others in before there is an owner: start once without --host"):
        serve(store, "p", host="0.0.0.0", allow_hosts=["labels.lan"])
    capsys.readouterr()
    with pytest.raises(UsageError, match=r"before there is an owner.*; --host 0\.0\.0\.0 needs the name"):
        serve(store, "p", host="0.0.0.0")
    assert "give --https-proxy" in capsys.readouterr().err
    joined(store, "Ada", Role.OWNER)
    with pytest.raises(UsageError, match="needs the name by which browsers come; give it with --allow-host NAME"):
        serve(store, "p", host="0.0.0.0")


def test_a_project_that_is_not_there_and_a_port_that_is_taken(folder):
    store = new_store(folder)
    with pytest.raises(UsageError, match="there is no project 'q'"):
        serve(store, "q")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UsageError, match=f"cannot listen at 127.0.0.1 port {port}: .*give another --port"):
            serve(store, "p", port=port)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("labels.lan", False),
        ("", False),
    ],
)
def test_what_only_this_machine_reaches(host, expected):
    assert is_loopback(host) is expected


def _heaps_of_threads(process: subprocess.Popen[str]) -> int:
    """Return how many heaps glibc has made for threads: each is 64 MiB of addresses at a multiple of 64 MiB."""
    lines = Path(f"/proc/{process.pid}/maps").read_text().splitlines()
    ranges = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in lines]
    used = [line.split()[1] == "rw-p" and line.split()[4] == "0" for line in lines]
    pairs = zip(ranges, ranges[1:], used, strict=False)
    return sum(is_used and one[0] % _HEAP == 0 and one[0] + _HEAP == rest[1] for one, rest, is_used in pairs)


def _port_of(process: subprocess.Popen[str]) -> int:
    """Return the port that a process listens at, as the kernel has it."""
    folder = Path(f"/proc/{process.pid}/fd")
    sockets = set()
    for link in folder.iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            target = os.readlink(link)
            if target.startswith("socket:"):
                sockets.add(target[8:-1])
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return next(int(row[1].split(":")[1], 16) for row in rows if row[9] in sockets and row[3] == "0A")
