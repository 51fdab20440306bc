"""The pages by which somebody comes and goes: log-in, log-out, an invitation, another password."""

from collections.abc import Callable
from math import ceil
from typing import Annotated, TypeVar, TypeVarTuple

import anyio
from anyio import to_thread
from fastapi import APIRouter, Form, Request
from fastapi.responses import RedirectResponse, Response

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.attempts import KNOWN_FOR_S, Origin
from rlhf.labels.accounts.authentication import Entered, Refused, accept_invite, change_password, log_in
from rlhf.labels.accounts.passwords import SHORTEST
from rlhf.labels.accounts.users import Invite, Role, open_invite
from rlhf.labels.web.access import Refusal
from rlhf.labels.web.site import EVERYONE, Pages, Site, visitor
from sft.core.errors import DataError, UsageError

HOMES = {Role.OWNER: "/dashboard", Role.ANNOTATOR: "/label"}
"""Where each role begins."""
WRONG = "Name or password is wrong."
_BOTH = frozenset(Role)
_HASHING = anyio.CapacityLimiter(2)
"""Who logs in waits here for a core and 46 MiB, not in the threads that answer everybody else."""
_MOST_WAITING = 100
_Result = TypeVar("_Result")
_Arguments = TypeVarTuple("_Arguments")
_Text = Annotated[str, Form(max_length=4096)]


def pages(site: Site) -> Pages:
    """Return the routes."""
    router = APIRouter(include_in_schema=False)
    _home(router)
    _log_in(router, site)
    _invitation(router, site)
    _password(router, site)
    open_to_all = dict.fromkeys(("/", "/login", "/invite/{token}"), EVERYONE)
    return Pages(router, {**open_to_all, "/logout": _BOTH, "/password": _BOTH})


async def hashing(function: Callable[[*_Arguments], _Result], *args: *_Arguments) -> _Result:
    """Run a function that hashes a password, when its turn comes. Raises Refusal where too many wait already."""
    if _HASHING.statistics().tasks_waiting >= _MOST_WAITING:
        raise Refusal(503, "Too many people are logging in at this moment; try again in a minute.")
    return await to_thread.run_sync(function, *args, limiter=_HASHING)


def origin(site: Site, request: Request) -> Origin:
    """Return where a request came from."""
    address = "unknown" if request.client is None else request.client.host
    return Origin(address, request.cookies.get(site.device_cookie, ""))


def refused(found: Refused) -> str:
    """Return what somebody is told who was not let in."""
    if not found.wait_s:
        return WRONG
    return f"There were too many wrong tries. Wait {_duration(found.wait_s)} before the next one."


def _duration(seconds: float) -> str:
    return f"{ceil(seconds)} seconds" if seconds < 120 else f"{ceil(seconds / 60)} minutes"


def _home(router: APIRouter) -> None:
    @router.get("/")
    def home(request: Request) -> Response:
        who = request.state.visitor
        return _to("/login" if who is None else HOMES[who.role])


def _log_in(router: APIRouter, site: Site) -> None:
    @router.get("/login")
    def login_page(request: Request) -> Response:
        if request.state.visitor is not None:
            return _to("/")
        return site.page(request, "login.html", name="", problem="")

    @router.post("/login")
    async def login(request: Request, name: _Text = "", password: _Text = "") -> Response:
        try:
            found = await hashing(log_in, site.changing, name, password, origin(site, request), site.clock())
        except DataError as error:
            return site.page(request, "login.html", 422, name="", problem=_sentence(error))
        if isinstance(found, Entered):
            return await to_thread.run_sync(_enter, site, request, found)
        status = 429 if found.wait_s else 401
        return site.page(request, "login.html", status, name=name, problem=refused(found))

    @router.post("/logout")
    def logout(request: Request) -> Response:
        with site.changing() as (connection, _):
            sessions.end(connection, request.state.session.digest)
        return _without_cookie(site, _to("/login"))


def _invitation(router: APIRouter, site: Site) -> None:
    def show(request: Request, found: Invite | None, name: str, problem: str, status: int) -> Response:
        if found is None:
            raise Refusal(404, "This link was used already or is too old; ask an owner of the project for a new one.")
        person = found.account
        given = {"role": found.role, "account": None if person is None else person.name, "shortest": SHORTEST}
        return site.page(request, "invite.html", status, name=name, problem=problem, **given)

    def look_up(token: str) -> Invite | None:
        with site.reading() as (connection, project):
            return open_invite(connection, project, token, site.clock())

    @router.get("/invite/{token}")
    def invite_page(request: Request, token: str) -> Response:
        return show(request, look_up(token), "", "", 200)

    @router.post("/invite/{token}")
    async def invite(
        request: Request, token: str, name: _Text = "", password: _Text = "", again: _Text = ""
    ) -> Response:
        try:
            if password != again:
                raise DataError("the two passwords differ; write the same one twice")
            given = (token, name, password, site.clock(), origin(site, request))
            found = await hashing(accept_invite, site.changing, *given)
        except (DataError, UsageError) as error:
            held = await to_thread.run_sync(look_up, token)
            return show(request, held, name, _sentence(error), 422)
        return await to_thread.run_sync(_enter, site, request, found)


def _password(router: APIRouter, site: Site) -> None:
    def show(request: Request, problem: str, status: int) -> Response:
        return site.page(request, "password.html", status, problem=problem, shortest=SHORTEST)

    @router.get("/password")
    def password_page(request: Request) -> Response:
        return show(request, "", 200)

    @router.post("/password")
    async def password(request: Request, current: _Text = "", password: _Text = "", again: _Text = "") -> Response:
        who = visitor(request)
        try:
            if password != again:
                raise DataError("the two new passwords differ; write the same one twice")
            given = (who.account_id, current, password, origin(site, request), site.clock())
            found = await hashing(change_password, site.changing, *given)
        except DataError as error:
            return show(request, _sentence(error), 422)
        if found is not None:
            problem = refused(found) if found.wait_s else "The current password is wrong."
            return show(request, problem, 429 if found.wait_s else 403)
        return _without_cookie(site, _to("/login"))


def _enter(site: Site, request: Request, found: Entered) -> Response:
    """Give the browser its new session, and by what it is known later; the session that it had before ends."""
    before = request.state.session
    if before is not None:
        with site.changing() as (connection, _):
            sessions.end(connection, before.digest)
    response = _to("/")
    response.set_cookie(site.cookie, found.token, path="/", httponly=True, samesite="strict", secure=site.is_https)
    response.set_cookie(
        site.device_cookie,
        found.device,
        max_age=int(KNOWN_FOR_S),
        path="/",
        httponly=True,
        samesite="strict",
        secure=site.is_https,
    )
    return response


def _without_cookie(site: Site, response: Response) -> Response:
    response.delete_cookie(site.cookie, path="/", httponly=True, samesite="strict", secure=site.is_https)
    return response


def _to(path: str) -> Response:
    return RedirectResponse(path, 303)


def _sentence(error: Exception) -> str:
    text = str(error)
    return f"{text[0].upper()}{text[1:]}."
