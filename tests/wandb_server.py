"""A small server that stands for W&B's: it takes runs as wandb-core sends them, and keeps their lines.

As measured with wandb 0.31: lines of a run that is known are appended (`historyLineCount`), whoever sends them.
"""

import gzip
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest


@dataclass
class Server:
    """What has arrived."""

    url: str
    lines: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    """W&B's id of a run -> its history."""
    runs: dict[str, dict[str, Any]] = field(default_factory=dict)
    """W&B's id of a run -> what it was told first."""
    artifacts: list[dict[str, Any]] = field(default_factory=list)
    content: list[bytes] = field(default_factory=list)
    """Everything that was ever sent."""

    def steps(self, run_id: str) -> list[int]:
        """Return W&B's steps of a run in the order of its lines."""
        return [row["_step"] for row in self.lines.get(run_id, [])]

    def answer(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """Answer a question in GraphQL."""
        name, asked = query.get("operationName") or "", query.get("variables") or {}
        if name == "UpsertBucket":
            return {"upsertBucket": self._upserted(asked)}
        if name == "CreateRunFiles":
            files = [{"name": file, "uploadUrl": f"{self.url}/upload/{file}"} for file in asked["files"]]
            return {"createRunFiles": {"runID": "R", "uploadHeaders": [], "files": files}}
        if name == "CreateArtifact":
            self.artifacts.append(dict(asked))
            sequence = {"id": "S", "latestArtifact": {"id": "A", "versionIndex": 0}}
            return {"createArtifact": {"artifact": {"id": "A", "state": "COMMITTED", "artifactSequence": sequence}}}
        if name == "RunResumeStatus":
            return {"model": {"bucket": self._status(asked["name"])}}
        return {}

    def _upserted(self, asked: Mapping[str, Any]) -> dict[str, Any]:
        run_id = asked["name"]
        new = run_id not in self.runs
        self.runs.setdefault(run_id, dict(asked))
        project = {"id": "P", "name": asked["project"], "entity": {"id": "E", "name": asked.get("entity") or "me"}}
        bucket = {"id": "B", "name": run_id, "displayName": asked.get("displayName"), "config": asked.get("config")}
        bucket |= {"historyLineCount": len(self.lines.get(run_id, [])), "project": project}
        return {"inserted": new, "bucket": bucket}

    def _status(self, run_id: str) -> dict[str, Any] | None:
        if run_id not in self.runs:
            return None
        lines = [json.dumps(row) for row in self.lines.get(run_id, [])]
        empty = {"summaryMetrics": "{}", "eventsLineCount": 0, "logLineCount": 0, "eventsTail": "[]", "config": "{}"}
        tail = {"historyLineCount": len(lines), "historyTail": json.dumps(lines[-1:]), "wandbConfig": '{"t": 1}'}
        return {"id": "B", "name": run_id, "displayName": "x", "tags": [], **empty, **tail}

    def stream(self, run_id: str, sent: Mapping[str, Any]) -> None:
        """Take lines at the offset where the sender puts them."""
        history = (sent.get("files") or {}).get("wandb-history.jsonl")
        if history is not None:
            kept, offset = self.lines.setdefault(run_id, []), history["offset"]
            kept[offset : offset + len(history["content"])] = [json.loads(line) for line in history["content"]]


@contextmanager
def wandb_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serve on a free port, and point this process and its children there, with a key."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *args: object) -> None:
            pass

        def do_POST(self) -> None:
            body = self._body()
            if self.path == "/graphql":
                self._reply({"data": server.answer(json.loads(body))})
                return
            if self.path.endswith("file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body))
            self._reply({})

        def do_PUT(self) -> None:
            self._body()
            self._reply({})

        def do_GET(self) -> None:
            self._reply({})

        def _body(self) -> bytes:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            body = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
            server.content.append(body)
            return body

        def _reply(self, value: object) -> None:
            content = json.dumps(value).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            """A client that hangs up is none of ours."""

    with Quiet(("127.0.0.1", 0), Handler) as http:
        server = Server(f"http://127.0.0.1:{http.server_address[1]}")
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        monkeypatch.setenv("WANDB_API_KEY", "0" * 40)
        monkeypatch.delenv("WANDB_MODE", raising=False)
        Thread(target=http.serve_forever, daemon=True).start()
        yield server
        http.shutdown()
