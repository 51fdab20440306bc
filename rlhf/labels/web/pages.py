"""What an annotator sees: the task to label, an earlier answer to edit, the history and the guidelines.

Blind: of a task only its prompt and two texts reach a page, never what wrote them, why it is shown or its number.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from sqlalchemy import Connection
from starlette.datastructures import FormData

from rlhf.labels.accounts.users import Role
from rlhf.labels.collection.history import Past, Progress, current, history, progress, taken_back, tasks_in_all
from rlhf.labels.collection.pauses import stop_reason, told
from rlhf.labels.collection.queue import Lease, Nothing, claim, lease
from rlhf.labels.collection.study import Guidelines, Study, guidelines, study
from rlhf.labels.collection.submissions import Receipt, Status, closed_reason, submit, undo
from rlhf.labels.collection.verdicts import Answer, Side
from rlhf.labels.store import Project
from rlhf.labels.web.answer_form import ATTRIBUTE, FLAGS, LONGEST_TEXT, OPTIONS, SKIPS, Fields, answer, fields_of, sent
from rlhf.labels.web.diff import difference
from rlhf.labels.web.site import Pages, Site, visitor
from rlhf.labels.web.text import as_it_stands, can_be_formatted, formatted, marked
from sft.core.errors import DataError
from sft.core.text import Message

_ANNOTATORS = frozenset({Role.ANNOTATOR})
_LARGEST_ID = 2**31 - 1
_MOST_FIELDS = 200
_SAVED = "saved"
"""In the address of the page after an answer: the number of the answered task."""
_SPEAKERS = {"system": "System", "user": "User", "assistant": "Assistant"}
_ASKED_OF_ATTRIBUTES = ((Side.LEFT, "Left", "First"), (Side.EQUAL, "Equal", "Equal"), (Side.RIGHT, "Right", "Second"))

LeaseId = Annotated[int, Path(ge=1, le=_LARGEST_ID)]


async def _form(request: Request) -> FormData:
    """Return the form of a request; the gate has checked that this site's own page sent it."""
    return await request.form(max_files=0, max_fields=_MOST_FIELDS)


Form = Annotated[FormData, Depends(_form)]


class Text(NamedTuple):
    """One text of a stranger's, twice."""

    formatted: Markup
    raw: Markup


class Turn(NamedTuple):
    """One turn of a prompt."""

    role: str
    speaker: str
    text: Text


class _Seen(NamedTuple):
    """What a page with a task is made of, read in one transaction."""

    study: Study
    guidelines: Guidelines
    progress: Progress
    task: Lease
    stored: Answer | None
    offered: Answer | None
    """What the page begins with: the stored answer, or the one that was taken back."""
    last: Past | None
    """The visitor's last answer, which Undo takes back."""
    closed: str | None
    """Why the task cannot be answered now; None: it can."""


def pages(site: Site) -> Pages:
    """Return the annotator's routes and who may call them."""
    routes = _Routes(site)
    router = APIRouter(default_response_class=HTMLResponse)
    router.add_api_route("/label", routes.next_task, methods=["GET"])
    router.add_api_route("/label/{lease_id}", routes.one_task, methods=["GET"])
    router.add_api_route("/label/{lease_id}", routes.submit, methods=["POST"])
    router.add_api_route("/undo", routes.undo, methods=["POST"])
    router.add_api_route("/history", routes.history, methods=["GET"])
    router.add_api_route("/guidelines", routes.guidelines, methods=["GET"])
    access = dict.fromkeys(("/label", "/label/{lease_id}", "/undo", "/history"), _ANNOTATORS)
    return Pages(router, {**access, "/guidelines": frozenset(Role)})


@dataclass(frozen=True)
class _Routes:
    """The routes of one site."""

    site: Site

    def next_task(self, request: Request) -> Response:
        """Show the task that the visitor has open, or the next one, or why there is none."""
        annotator_id = _annotator(request)
        with self.site.changing() as (connection, project):
            settings = study(connection, project)
            found = claim(connection, project, settings, annotator_id, self.site.clock())
            if isinstance(found, Nothing):
                done = progress(connection, project, annotator_id, self.site.clock())
                last = _last(connection, project, annotator_id)
                tasks = tasks_in_all(connection, project)
                return self._nothing(request, found, done, tasks, _saved(request, last))
            seen = self._seen(connection, project, settings, found)
        return self._task(request, seen, saved=_saved(request, seen.last))

    def one_task(self, request: Request, lease_id: LeaseId) -> Response:
        """Show a task of the visitor's own, with the answer that is stored."""
        seen = self._own(request, lease_id)
        return self._unknown(request) if seen is None else self._task(request, seen)

    def submit(self, request: Request, lease_id: LeaseId, form: Form) -> Response:
        """Store an answer and go on, or show what was sent again and say what is wrong."""
        annotator_id = _annotator(request)
        fields = None
        try:
            fields = sent(form)
            given = answer(fields)
            with self.site.changing() as (connection, project):
                settings, now = study(connection, project), self.site.clock()
                receipt = submit(connection, project, settings, annotator_id, lease_id, fields.revision, given, now)
        except DataError as error:
            seen = self._own(request, lease_id)
            return self._unknown(request, fields) if seen is None else self._task(request, seen, fields, str(error))
        return self._after(request, lease_id, receipt, fields)

    def undo(self, request: Request, form: Form) -> Response:
        """Take back the answer that was the visitor's last when the page was made, and show its task."""
        last = {name: _number(form.get(name)) for name in ("lease_id", "revision")}
        try:
            with self.site.changing() as (connection, project):
                settings = study(connection, project)
                lease_id = undo(connection, project, settings, _annotator(request), self.site.clock(), **last)
        except DataError:  # paused: /label says so, and that nothing changes
            lease_id = None
        return RedirectResponse("/label" if lease_id is None else f"/label/{lease_id}", 303)

    def history(self, request: Request) -> Response:
        """List the visitor's own answers."""
        annotator_id = _annotator(request)
        with self.site.reading() as (connection, project):
            found = history(connection, project, annotator_id)
            done = progress(connection, project, annotator_id, self.site.clock())
            tasks = tasks_in_all(connection, project)
            paused = stop_reason(connection, project, annotator_id)
        rows = [(past, marked(past.excerpt), _options(past), _time(past.closed_at)) for past in found]
        counts = {"progress": done, "tasks": tasks}
        return self._page(request, "history.html", 200, rows=rows, is_paused=paused is not None, **counts)

    def guidelines(self, request: Request) -> Response:
        """Show the guidelines that hold."""
        with self.site.reading() as (connection, project):
            found = guidelines(connection, project)
        return self._page(request, "guidelines.html", 200, version=found.version, text=formatted(found.text))

    def _own(self, request: Request, lease_id: int) -> _Seen | None:
        with self.site.reading() as (connection, project):
            held = lease(connection, _annotator(request), lease_id)
            return None if held is None else self._seen(connection, project, study(connection, project), held)

    def _seen(self, connection: Connection, project: Project, settings: Study, held: Lease) -> _Seen:
        done = progress(connection, project, held.annotator_id, self.site.clock())
        stored = current(connection, held)
        was_undone = stored is None and held.revision > 0
        offered = taken_back(connection, held) if was_undone else stored
        last = _last(connection, project, held.annotator_id)
        closed = closed_reason(connection, project, held)
        return _Seen(settings, guidelines(connection, project), done, held, stored, offered, last, closed)

    def _task(
        self, request: Request, seen: _Seen, typed: Fields | None = None, problem: str = "", saved: Past | None = None
    ) -> Response:
        """Render a task with the answer that is stored, or with what was typed."""
        held = seen.task
        texts = (*(turn.content for turn in held.prompt), held.left, held.right)
        is_formatted = can_be_formatted(texts)
        offered = fields_of(seen.offered, held.revision, seen.guidelines.version)
        return self._page(
            request,
            "label.html",
            422 if problem else 200,
            lease_id=held.id,
            is_answered=seen.stored is not None,
            closed=seen.closed,
            saved=_saved_as(saved),
            question=seen.study.question,
            attributes=[(f"{ATTRIBUTE}{name}", name) for name in seen.study.attributes],
            sides=_ASKED_OF_ATTRIBUTES,
            turns=[_turn(message, is_formatted) for message in held.prompt],
            answers=[
                ("left", "Left", "First", _text(held.left, is_formatted)),
                ("right", "Right", "Second", _text(held.right, is_formatted)),
            ],
            difference=difference(held.left, held.right),
            is_same=held.left == held.right,
            fields=typed or offered,
            last=seen.last,
            problem=problem,
            guidelines=formatted(seen.guidelines.text),
            guideline_version=seen.guidelines.version,
            progress=seen.progress,
        )

    def _after(self, request: Request, lease_id: int, receipt: Receipt, fields: Fields) -> Response:
        if receipt.status is Status.UNKNOWN:
            return self._unknown(request, fields)
        if receipt.status is not Status.CONFLICT:
            return RedirectResponse(f"/label?{_SAVED}={lease_id}", 303)
        seen = self._own(request, lease_id)
        assert seen is not None
        stored = fields_of(seen.stored, seen.task.revision, seen.guidelines.version)
        return self._page(
            request,
            "conflict.html",
            409,
            lease_id=lease_id,
            revision=seen.task.revision,
            excerpt=marked(seen.task.prompt[-1].content),
            stored=None if seen.stored is None else stored,
            fields=fields,
            attribute=ATTRIBUTE,
        )

    def _nothing(self, request: Request, found: Nothing, done: Progress, tasks: int, saved: Past | None) -> Response:
        why = told(found.detail) if found.reason == "paused" else ""
        shown = {"progress": done, "tasks": tasks, "saved": _saved_as(saved), "fields": None}
        return self._page(request, "nothing.html", 200, reason=found.reason, why=why, **shown)

    def _unknown(self, request: Request, fields: Fields | None = None) -> Response:
        """Say that there is no such task of the visitor's; what was typed stays readable."""
        shown = {"progress": None, "saved": None, "fields": fields}
        return self._page(request, "nothing.html", 404, reason="unknown", why="", **shown)

    def _page(self, request: Request, template: str, status_code: int, **values: object) -> Response:
        choices = {"options": OPTIONS, "skips": SKIPS, "flags": FLAGS, "longest": LONGEST_TEXT}
        return self.site.page(request, template, status_code, **choices, **values)


def _number(value: object) -> int | None:
    """Return a number of a form's hidden field; None: it is not there, or was tampered with."""
    is_number = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(str(value)) if is_number else None


def _last(connection: Connection, project: Project, annotator_id: int) -> Past | None:
    return next(iter(history(connection, project, annotator_id, limit=1)), None)


def _saved(request: Request, last: Past | None) -> Past | None:
    """Return the answer that the request came from, where it is stored and is the last one."""
    named = _number(request.query_params.get(_SAVED))
    return last if last is not None and last.lease_id == named else None


def _saved_as(past: Past | None) -> str | None:
    return None if past is None else _options(past)


def _annotator(request: Request) -> int:
    annotator_id = visitor(request).annotator_id
    assert annotator_id is not None, "only annotators have access"
    return annotator_id


def _text(text: str, is_formatted: bool) -> Text:
    raw = marked(text)
    return Text(formatted(text) if is_formatted else as_it_stands(raw), raw)


def _turn(message: Message, is_formatted: bool) -> Turn:
    role = message.role if message.role in _SPEAKERS else "other"
    return Turn(role, _SPEAKERS.get(message.role, message.role), _text(message.content, is_formatted))


def _options(past: Past) -> str:
    return "skipped" if past.verdict is None else past.verdict.value


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
