"""What an owner sees: how the work goes, how everybody works, which tasks make trouble; pauses, invites, guidelines.

None of it is for annotators: every route is the owner's alone.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Path, Request
from fastapi.responses import HTMLResponse, RedirectResponse
from sqlalchemy import Connection

from rlhf.labels.accounts.users import INVITE_DAYS, Role, accounts, invite, pause, resume
from rlhf.labels.collection.monitor import contested, reported
from rlhf.labels.collection.people import Standing
from rlhf.labels.collection.snapshot import TaskText, texts, versions
from rlhf.labels.collection.study import set_guidelines
from rlhf.labels.events import EventKind
from rlhf.labels.storable import check_storable
from rlhf.labels.store import Project
from rlhf.labels.web import owner_views as views
from rlhf.labels.web.api import ERRORS
from rlhf.labels.web.owner_models import DashboardModel
from rlhf.labels.web.site import Pages, Site
from rlhf.labels.web.text import formatted, marked
from rlhf.labels.web.watch import FRESH_SECONDS, Watch

OWNERS = frozenset({Role.OWNER})
ROWS_SHOWN = 25
LONGEST_REASON = 500
LONGEST_GUIDELINES = 100_000
Field = Annotated[str, Form()]
AnnotatorId = Annotated[int, Path(ge=1, le=2**31 - 1)]


def pages(site: Site) -> Pages:
    """Return the owner's routes."""
    router, watch = APIRouter(), Watch(site)

    @router.get("/dashboard")
    def dashboard(request: Request) -> HTMLResponse:
        found = watch.seen()
        return site.page(
            request,
            "dashboard.html",
            overview=found.overview,
            study=found.snapshot.study,
            plots=views.plots(found),
            time=_clock_time(found.snapshot.time),
            fresh_seconds=FRESH_SECONDS,
            number=views.number,
            counted=views.counted,
            remaining=views.remaining,
            coefficients=views.coefficients(found.overview.agreement),
            cells=views.cells,
            columns=views.COLUMNS,
        )

    @router.get("/dashboard/annotators/{annotator_id}")
    def annotator(request: Request, annotator_id: AnnotatorId) -> HTMLResponse:
        found = watch.seen()
        person = next((one for one in found.overview.annotators if one.id == annotator_id), None)
        if person is None:
            raise HTTPException(404, "There is no such annotator, or they were erased: go back to the dashboard.")
        doubtful = watch.doubts().get(person.name, [])
        return site.page(
            request,
            "dashboard_annotator.html",
            person=person,
            is_paused=person.standing is Standing.PAUSED,
            has_account=person.standing is not Standing.FILE,
            work=views.work(found.snapshot, annotator_id),
            doubts=[views.doubt(one, marked) for one in doubtful[:ROWS_SHOWN]],
            doubts_in_all=len(doubtful),
            cells=views.cells,
            columns=views.COLUMNS,
        )

    @router.post("/dashboard/annotators/{annotator_id}/pause")
    def pause_annotator(annotator_id: AnnotatorId, reason: Field = "") -> RedirectResponse:
        why = _checked(reason, "reason", LONGEST_REASON)
        if not why:
            raise HTTPException(422, "Say why: the annotator reads it. Go back and write a reason.")
        with site.changing() as (connection, project):
            pause(connection, project, _account_of(connection, project, annotator_id), why, site.clock())
        return RedirectResponse(f"/dashboard/annotators/{annotator_id}", 303)

    @router.post("/dashboard/annotators/{annotator_id}/resume")
    def resume_annotator(annotator_id: AnnotatorId) -> RedirectResponse:
        with site.changing() as (connection, project):
            resume(connection, project, _account_of(connection, project, annotator_id))
        return RedirectResponse(f"/dashboard/annotators/{annotator_id}", 303)

    @router.post("/dashboard/invite")
    def invite_annotator(request: Request, role: Annotated[Role, Form()] = Role.ANNOTATOR) -> HTMLResponse:
        with site.changing() as (connection, project):
            token = invite(connection, project, role, site.clock())
        link = f"{request.base_url}invite/{token}"
        return site.page(request, "dashboard_invite.html", link=link, role=role.value, days=f"{INVITE_DAYS:g}")

    @router.get("/dashboard/guidelines")
    def guidelines(request: Request) -> HTMLResponse:
        with site.reading() as (connection, project):
            known = versions(connection, project)
        answers = Counter(answer.guideline_version for answer in watch.seen().snapshot.labels)
        rows = [(one, _day(one.created_at), answers[str(one.version)], formatted(one.text)) for one in known]
        others = sum(answers.values()) - sum(row[2] for row in rows)
        text = known[0].text if known else ""
        return site.page(request, "dashboard_guidelines.html", rows=rows, text=text, without_version=others)

    @router.post("/dashboard/guidelines")
    def change_guidelines(text: Field = "") -> RedirectResponse:
        wanted = _checked(text, "text", LONGEST_GUIDELINES)
        if not wanted:
            raise HTTPException(422, "The guidelines would be empty: go back and write some.")
        with site.changing() as (connection, project):
            set_guidelines(connection, project, wanted)
        return RedirectResponse("/dashboard/guidelines", 303)

    @router.get("/dashboard/tasks")
    def tasks(request: Request) -> HTMLResponse:
        found = watch.seen().snapshot
        troubled, split = reported(found), contested(found)
        shown = [row.task_id for row in troubled[:ROWS_SHOWN]] + [row.task_id for row in split[:ROWS_SHOWN]]
        with site.reading() as (connection, project):
            said = texts(connection, project, shown)
        names = {person.id: person.name for person in found.people}
        return site.page(
            request,
            "dashboard_tasks.html",
            reported=[
                (
                    row.kind == EventKind.FLAG,
                    row.reason,
                    names.get(row.annotator_id or 0, ""),
                    _shown(said, row.task_id),
                )
                for row in troubled[:ROWS_SHOWN]
            ],
            reported_in_all=len(troubled),
            contested=[(row.votes, _shown(said, row.task_id)) for row in split[:ROWS_SHOWN]],
            contested_in_all=len(split),
        )

    @router.get("/api/v1/dashboard", responses=ERRORS)
    def numbers() -> DashboardModel:
        """The numbers of the dashboard."""
        return DashboardModel.model_validate(watch.seen().overview.as_dict())

    paths = [
        "/dashboard",
        "/dashboard/annotators/{annotator_id}",
        "/dashboard/annotators/{annotator_id}/pause",
        "/dashboard/annotators/{annotator_id}/resume",
        "/dashboard/invite",
        "/dashboard/guidelines",
        "/dashboard/tasks",
        "/api/v1/dashboard",
    ]
    return Pages(router, dict.fromkeys(paths, OWNERS))


def _checked(given: str, name: str, longest: int) -> str:
    """Return a field's text, with lines as a file has them.

    Raises:
        HTTPException: 422, it is too long.
        DataError: it holds what cannot be stored.
    """
    text = given.replace("\r\n", "\n").strip()
    check_storable(text)
    if len(text) > longest:
        raise HTTPException(422, f"The {name} is too long: {len(text)} characters; go back and use at most {longest}.")
    return text


def _account_of(connection: Connection, project: Project, annotator_id: int) -> str:
    for account in accounts(connection, project):
        if account.annotator_id == annotator_id:
            return account.name
    raise HTTPException(404, "There is no such annotator with an account: go back to the dashboard.")


def _shown(said: dict[int, TaskText], task_id: int) -> views.ShownTask:
    return views.shown_task(task_id, said[task_id], marked)


def _clock_time(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%H:%M:%S")


def _day(created_at: str) -> str:
    return created_at[:16].replace("T", " ")
