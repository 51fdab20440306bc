"""What an annotator sees: the task to label, an earlier answer to edit, the history and the guidelines.

Blind: of a task only its prompt and two texts reach a page, never what wrote them, why it is shown or its number.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Annotated, NamedTuple

from fastapi import APIRouter, Depends, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from markupsafe import Markup
from sqlalchemy import Connection
from starlette.datastructures import FormData

from rlhf.labels.accounts.users import Role
from rlhf.labels.collection.history import Past, Progress, current, history, progress, taken_back
from rlhf.labels.collection.queue import Lease, Nothing, claim, lease
from rlhf.labels.collection.study import Guidelines, Study, guidelines, study
from rlhf.labels.collection.submissions import Receipt, Status, submit, undo
from rlhf.labels.collection.verdicts import Answer, Side
from rlhf.labels.store import Project
from rlhf.labels.web.answer_form import ATTRIBUTE, FLAGS, LONGEST_TEXT, OPTIONS, SKIPS, Fields, answer, fields_of, sent
from rlhf.labels.web.diff import difference
from rlhf.labels.web.site import Pages, Site, visitor
from rlhf.labels.web.text import as_it_stands, formatted, marked
from sft.core.errors import DataError
from sft.core.text import Message

_ANNOTATORS = frozenset({Role.ANNOTATOR})
_LARGEST_ID = 2**31 - 1
_MOST_FIELDS = 200
_FORMATTED_IN_ALL = 100_000
"""Of all texts of a task, in characters; where they are longer none is read as Markdown, which takes seconds."""
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
                return self._nothing(request, found.reason, progress(connection, annotator_id, self.site.clock()))
            seen = self._seen(connection, project, settings, found)
        return self._task(request, seen)

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
        with self.site.changing() as (connection, project):
            settings = study(connection, project)
            lease_id = undo(connection, project, settings, _annotator(request), self.site.clock(), **last)
        return RedirectResponse("/label" if lease_id is None else f"/label/{lease_id}", 303)

    def history(self, request: Request) -> Response:
        """List the visitor's own answers."""
        annotator_id = _annotator(request)
        with self.site.reading() as (connection, _):
            found = history(connection, annotator_id)
            done = progress(connection, annotator_id, self.site.clock())
        rows = [(past, marked(past.excerpt), _options(past), _time(past.closed_at)) for past in found]
        return self._page(request, "history.html", 200, rows=rows, progress=done)

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
        done = progress(connection, held.annotator_id, self.site.clock())
        stored = current(connection, held)
        was_undone = stored is None and held.revision > 0
        offered = taken_back(connection, held) if was_undone else stored
        last = next(iter(history(connection, held.annotator_id, limit=1)), None)
        return _Seen(settings, guidelines(connection, project), done, held, stored, offered, last)

    def _task(self, request: Request, seen: _Seen, typed: Fields | None = None, problem: str = "") -> Response:
        """Render a task with the answer that is stored, or with what was typed."""
        held = seen.task
        sizes = [len(text) for text in (*(turn.content for turn in held.prompt), held.left, held.right)]
        shown = formatted if sum(sizes) <= _FORMATTED_IN_ALL else as_it_stands
        offered = fields_of(seen.offered, held.revision, seen.guidelines.version)
        return self._page(
            request,
            "label.html",
            422 if problem else 200,
            lease_id=held.id,
            is_answered=seen.stored is not None,
            question=seen.study.question,
            attributes=[(f"{ATTRIBUTE}{name}", name) for name in seen.study.attributes],
            sides=_ASKED_OF_ATTRIBUTES,
            turns=[_turn(message, shown) for message in held.prompt],
            answers=[
                ("left", "Left", "First", _text(held.left, shown)),
                ("right", "Right", "Second", _text(held.right, shown)),
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
            return RedirectResponse("/label", 303)
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

    def _nothing(self, request: Request, reason: str, done: Progress) -> Response:
        return self._page(request, "nothing.html", 200, reason=reason, progress=done, fields=None)

    def _unknown(self, request: Request, fields: Fields | None = None) -> Response:
        """Say that there is no such task of the visitor's; what was typed stays readable."""
        return self._page(request, "nothing.html", 404, reason="unknown", progress=None, fields=fields)

    def _page(self, request: Request, template: str, status_code: int, **values: object) -> Response:
        choices = {"options": OPTIONS, "skips": SKIPS, "flags": FLAGS, "longest": LONGEST_TEXT}
        return self.site.page(request, template, status_code, **choices, **values)


def _number(value: object) -> int | None:
    """Return a number of a form's hidden field; None: it is not there, or was tampered with."""
    is_number = isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) < 10
    return int(str(value)) if is_number else None


def _annotator(request: Request) -> int:
    annotator_id = visitor(request).annotator_id
    assert annotator_id is not None, "only annotators have access"
    return annotator_id


def _text(text: str, shown: Callable[[str], Markup]) -> Text:
    return Text(shown(text), marked(text))


def _turn(message: Message, shown: Callable[[str], Markup]) -> Turn:
    known = message.role in _SPEAKERS
    return Turn(
        message.role if known else "other", _SPEAKERS.get(message.role, message.role), _text(message.content, shown)
    )


def _options(past: Past) -> str:
    return "skipped" if past.verdict is None else past.verdict.value


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M")
