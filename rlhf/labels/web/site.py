"""What all pages of the label site share: the project that is served, who visits, and how a template is rendered."""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse, JSONResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from sqlalchemy import Connection

from rlhf.labels.accounts.users import Role
from rlhf.labels.store import LabelStore, Project
from sft.core.database import BUSY_TIMEOUT_S
from sft.core.errors import StorageError

FOLDER = Path(__file__).parent
EVERYONE: frozenset[Role] = frozenset()
"""Access without a login: the log-in page, an invite, style sheets. Any route that names nobody is refused."""

TITLES = {
    400: "Not understood",
    401: "Not logged in",
    403: "Not allowed",
    404: "No such page",
    405: "Not allowed",
    408: "Too slow",
    409: "Not ready yet",
    413: "Too much",
    415: "Not understood",
    421: "Not served here",
    422: "Not accepted",
    429: "Too many tries",
    500: "Something went wrong",
    503: "Try again",
}
"""Of the pages of refusals, by status."""


class Visitor(NamedTuple):
    """Who sent a request."""

    account_id: int
    name: str
    role: Role
    annotator_id: int | None
    """None: an owner, who does not label."""
    csrf: str
    """What every form of this session holds in its hidden field `csrf`."""


class Pages(NamedTuple):
    """Some routes, and who may call each; a route that is not named in `access` is refused to everybody."""

    router: APIRouter
    access: Mapping[str, frozenset[Role]]
    """Path template of the route, such as "/label/{lease_id}" -> roles, or EVERYONE."""


@dataclass(frozen=True)
class Site:
    """One served project."""

    store: LabelStore
    project: str
    clock: Callable[[], float] = time.time
    """Seconds since 1970."""
    is_https: bool = False
    """Whether browsers come by https, through a proxy in front of this server."""
    _writing: Lock = field(default_factory=Lock, repr=False)

    @property
    def cookie(self) -> str:
        """Name of the cookie with the session's token; two projects on one machine do not share it."""
        return self._cookie(f"labels-{self.project}")

    @property
    def device_cookie(self) -> str:
        """Name of the cookie by which a browser is known again at log-in (`rlhf.labels.accounts.attempts`)."""
        return self._cookie(f"labels-{self.project}-device")

    def _cookie(self, name: str) -> str:
        return f"__Host-{name}" if self.is_https else name

    @contextmanager
    def changing(self) -> Iterator[tuple[Connection, Project]]:
        """Open a write transaction of the project. Raises StorageError where others keep it locked."""
        # Threads of this process queue here, where the next one goes on at once; SQLite's own waiting polls.
        if not self._writing.acquire(timeout=BUSY_TIMEOUT_S):
            raise StorageError(f"project {self.project} was locked for {BUSY_TIMEOUT_S:.0f} s; wait and try again")
        try:
            with self.store.changing(self.project) as opened:
                yield opened
        finally:
            self._writing.release()

    @contextmanager
    def reading(self) -> Iterator[tuple[Connection, Project]]:
        """Open a snapshot of the project."""
        with self.store.reading(self.project) as labels:
            yield labels.connection, labels.project

    def page(self, request: Request, template: str, status_code: int = 200, **values: object) -> HTMLResponse:
        """Render a template with `visitor` (None: nobody is logged in), `project` and the values given."""
        visitor = request.state.visitor
        named = {"project": self.project, "visitor": visitor, **values}
        return HTMLResponse(_TEMPLATES.get_template(template).render(named), status_code)

    def refusal(
        self, request: Request, status: int, message: str, headers: Mapping[str, str] | None = None
    ) -> Response:
        """Return an error as a page, or as JSON `{"error": ...}` below `/api/` and for who accepts no page."""
        accepted = request.headers.get("accept", "")
        is_program = "application/json" in accepted and "text/html" not in accepted
        if is_program or request.scope["path"].startswith("/api/"):
            return JSONResponse({"error": message}, status, headers)
        # who comes by a name that is not ours learns no project's
        shown = {"project": "Labels"} if status == 421 else {}
        page = self.page(request, "refusal.html", status, title=TITLES.get(status, "Error"), message=message, **shown)
        page.headers.update(headers or {})
        return page


def visitor(request: Request) -> Visitor:
    """Return who sent a request to a route that is not for everyone."""
    found = request.state.visitor
    assert isinstance(found, Visitor)
    return found


class StaticFile(NamedTuple):
    """A style sheet, script or picture of ours."""

    content: bytes
    media_type: str
    digest: str


_MEDIA_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


def _static_files(folder: Path) -> dict[str, StaticFile]:
    """Return the files of a folder by name; nothing else is ever served."""
    found = {path.name: path for path in sorted(folder.iterdir()) if path.suffix in _MEDIA_TYPES}
    contents = {name: path.read_bytes() for name, path in found.items()}
    return {
        name: StaticFile(content, _MEDIA_TYPES[found[name].suffix], hashlib.sha256(content).hexdigest()[:16])
        for name, content in contents.items()
    }


STATIC = _static_files(FOLDER / "static")


def static_url(name: str) -> str:
    """Return where a browser finds one of our files, for as long as it may: another content has another address.

    Templates write `{{ static("app.css") }}`.
    """
    return f"/static/{name}?v={STATIC[name].digest}"


_TEMPLATES = Environment(
    loader=FileSystemLoader(FOLDER / "templates"),
    autoescape=select_autoescape(default=True, default_for_string=True),
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_TEMPLATES.globals["static"] = static_url
