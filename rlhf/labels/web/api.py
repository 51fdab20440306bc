"""Labelling by program, as JSON: the same tasks, rules and blindness as the label page.

Log in with `POST /api/v1/session` and send `Authorization: Bearer TOKEN` with all else.
"""

from math import ceil

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, ConfigDict, Field

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.authentication import Entered, log_in
from rlhf.labels.accounts.users import Role
from rlhf.labels.collection import history, queue, submissions
from rlhf.labels.collection.study import guidelines, study
from rlhf.labels.collection.submissions import Status
from rlhf.labels.collection.verdicts import Answer, Side, Verdict
from rlhf.labels.web.login import hashing, origin, refused
from rlhf.labels.web.site import EVERYONE, Pages, Site, visitor

VERSION = "1"
PREFIX = "/api/v1"
SCHEMA_PATH = f"{PREFIX}/openapi.json"
BEARER = {"type": "http", "scheme": "bearer", "description": f"The token that POST {PREFIX}/session returns."}
"""What every route but the log-in wants, as OpenAPI says it."""
_ANNOTATORS = frozenset({Role.ANNOTATOR})
_BOTH = frozenset(Role)
_LONGEST_TEXT = 10_000
_LARGEST_ID = 2**31 - 1
ERRORS: dict[int | str, dict[str, object]] = {
    400: {"description": "The body is no JSON; nothing was stored."},
    401: {"description": "Not logged in."},
    403: {"description": "Not for this role."},
    413: {"description": "Too long; nothing was stored."},
    422: {"description": "Not accepted; nothing was stored."},
    503: {"description": "The database refused; nothing was stored. Try again."},
}


class _Body(BaseModel):
    """A request's body: a field that is not known is refused."""

    model_config = ConfigDict(extra="forbid")


class Credentials(_Body):
    """Who logs in."""

    name: str = Field(max_length=4096)
    password: str = Field(max_length=4096)


class Token(BaseModel):
    """What `Authorization: Bearer` takes."""

    token: str


class Turn(BaseModel):
    """One turn of a prompt."""

    role: str
    content: str


class Task(BaseModel):
    """A task to label, or why there is none; what wrote the answers is not told."""

    nothing: str | None = None
    """"done", "waiting", "paused" or "unqualified"; null: there is a task."""
    lease_id: int | None = None
    revision: int | None = None
    prompt: list[Turn] = []
    left: str | None = None
    right: str | None = None
    question: str
    attributes: list[str]
    guideline_version: int


class Label(_Body):
    """An answer: a verdict, or null and a reason why the task is skipped."""

    lease_id: int = Field(ge=1, le=_LARGEST_ID)
    revision: int = Field(ge=0, le=_LARGEST_ID)
    verdict: Verdict | None
    attributes: dict[str, Side] = {}
    reason: str = Field("", max_length=_LONGEST_TEXT)
    flag: str = Field("", max_length=_LONGEST_TEXT)
    guideline_version: int = Field(ge=0, le=_LARGEST_ID)


class Last(_Body):
    """The answer to take back, as its receipt named it; without it, whichever is the last."""

    lease_id: int | None = Field(None, ge=1, le=_LARGEST_ID)
    revision: int | None = Field(None, ge=0, le=_LARGEST_ID)


class Receipt(BaseModel):
    """What became of an answer; `revision` is the task's now."""

    status: Status
    revision: int


class Undone(BaseModel):
    """The task that is open again; null: there was no answer to take back."""

    lease_id: int | None


class Progress(BaseModel):
    """How much was done (see `rlhf.labels.collection.history.Progress`), and the tasks of the project."""

    labels: int
    today: int
    skipped: int
    stands: int
    tasks: int


def pages(site: Site) -> Pages:
    """Return the routes."""
    router = APIRouter(prefix=PREFIX, responses=ERRORS)
    _sessions(router, site)
    _tasks(router, site)
    of_annotators = ("/claim", "/labels", "/undo", "/progress")
    access = {f"{PREFIX}{path}": _ANNOTATORS for path in of_annotators}
    return Pages(router, {**access, f"{PREFIX}/session": EVERYONE, f"{PREFIX}/logout": _BOTH})


def _sessions(router: APIRouter, site: Site) -> None:
    too_many: dict[int | str, dict[str, object]] = {
        429: {"description": "Too many wrong tries; Retry-After says how long."}
    }

    @router.post("/session", responses=too_many, openapi_extra={"security": []})
    async def start_session(request: Request, given: Credentials) -> Token:
        """Log in."""
        found = await hashing(log_in, site.changing, given.name, given.password, origin(site, request), site.clock())
        if isinstance(found, Entered):
            return Token(token=found.token)
        if found.wait_s:
            raise HTTPException(429, refused(found), {"Retry-After": str(ceil(found.wait_s))})
        raise HTTPException(401, refused(found))

    @router.post("/logout", status_code=204)
    def end_session(request: Request) -> None:
        """Log out."""
        with site.changing() as (connection, _):
            sessions.end(connection, request.state.session.digest)


def _tasks(router: APIRouter, site: Site) -> None:
    @router.post("/claim")
    def claim(request: Request) -> Task:
        """Return the task that is open, or the next one."""
        with site.changing() as (connection, project):
            settings = study(connection, project)
            held = queue.claim(connection, project, settings, _annotator(request), site.clock())
            version = guidelines(connection, project).version
        task = Task(question=settings.question, attributes=list(settings.attributes), guideline_version=version)
        if isinstance(held, queue.Nothing):
            task.nothing = held.reason
            return task
        task.lease_id, task.revision = held.id, held.revision
        task.prompt = [Turn(role=turn.role, content=turn.content) for turn in held.prompt]
        task.left, task.right = held.left, held.right
        return task

    @router.post(
        "/labels",
        responses={
            404: {"description": "No such task of yours."},
            409: {"description": "Answered since; claim again."},
        },
    )
    def label(request: Request, given: Label) -> Receipt:
        """Store an answer; the same one again is stored once."""
        told = (given.verdict, given.attributes, given.reason, given.flag, given.guideline_version)
        mine = (_annotator(request), given.lease_id, given.revision)
        with site.changing() as (connection, project):
            settings = study(connection, project)
            found = submissions.submit(connection, project, settings, *mine, Answer(*told), site.clock())
        if found.status is Status.UNKNOWN:
            raise HTTPException(404, "There is no such task of yours; claim one.")
        if found.status is Status.CONFLICT:
            raise HTTPException(409, f"Another answer was stored; the task's revision is {found.revision}.")
        return Receipt(status=found.status, revision=found.revision)

    @router.post("/undo")
    def undo(request: Request, last: Last | None = None) -> Undone:
        """Take the last answer back; a request that names it, and is sent again, takes back one."""
        named = {} if last is None else last.model_dump()
        mine = _annotator(request)
        with site.changing() as (connection, project):
            settings = study(connection, project)
            return Undone(lease_id=submissions.undo(connection, project, settings, mine, site.clock(), **named))

    @router.get("/progress")
    def progress(request: Request) -> Progress:
        """Say how much was done."""
        with site.reading() as (connection, project):
            found = history.progress(connection, project, _annotator(request), site.clock())
            tasks = history.tasks_in_all(connection, project)
        return Progress(**found._asdict(), tasks=tasks)


def _annotator(request: Request) -> int:
    found = visitor(request).annotator_id
    assert found is not None, "the gate lets only annotators here"
    return found
