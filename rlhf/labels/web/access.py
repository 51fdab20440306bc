"""The gate before every page: a request that nothing allows is refused.

In this order: the Host header (421), a route that exists (404, 405), the session, the route's roles (401 or the log-in
page, 403), and for methods that change something the sender's page (403), the size of the body (413) and the token
against forged requests (403). Errors become small pages, or JSON below `/api/`, that tell nothing of the inside.

A request with a cookie that changes something holds the token of `Visitor.csrf` in the form field `csrf`
(application/x-www-form-urlencoded) or in the header `X-CSRF-Token`. Below `/api/`, `Authorization: Bearer TOKEN`
stands for the cookie and needs none: no browser adds it by itself. Where nobody needs to be logged in, the browser has
to say (`Sec-Fetch-Site`, `Origin`) that the form was ours.
"""

import hmac
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qs

import anyio
from anyio import to_thread
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.routing import BaseRoute, Match, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from rlhf.labels.accounts import sessions
from rlhf.labels.accounts.sessions import Session
from rlhf.labels.accounts.users import Role
from rlhf.labels.collection.study import NoTasks
from rlhf.labels.web.site import EVERYONE, Site, Visitor
from sft.core.errors import DataError, RLHFError

BODY_LIMIT = 1024 * 1024
"""Bytes of a request's body."""
BODY_TIMEOUT_S = 30.0
"""How long a body may take to arrive."""
_MOST_FIELDS = 1000
_MOST_DIGITS = 18
"""Of a Content-Length; Python refuses to read thousands."""
_SAFE = ("GET", "HEAD", "OPTIONS")
_FORM, _JSON = "application/x-www-form-urlencoded", "application/json"
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    # not no-referrer: a form under it is sent with `Origin: null`, which tells nothing of where it came from
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
NOT_STORED = "The label was NOT stored, nor anything else of this request. Go back, wait a moment, and try again."
_LOGGED_OUT = "You are not logged in, so nothing was stored. Log in (/login) in another tab, come back and send again."
_LOG = logging.getLogger("rlhf.labels.web")


class Refusal(Exception):
    """A request that is not let through; `status` is the response's."""

    def __init__(self, status: int, message: str, **headers: str) -> None:
        self.status = status
        self.message = message
        self.headers = {name.replace("_", "-"): value for name, value in headers.items()}
        super().__init__(status, message)


class Admitted(NamedTuple):
    """A session that may go on, and the token by which it came."""

    session: Session
    token: str
    by_cookie: bool


class Gate:
    """The middleware. It leaves in `request.state` the `visitor` and the `session`, each None for nobody."""

    def __init__(
        self,
        app: ASGIApp,
        site: Site,
        routes: Sequence[BaseRoute],
        access: Mapping[str, frozenset[Role]],
        allowed_hosts: Collection[str],
    ) -> None:
        """Stand before an application.

        Args:
            app: what is called with the requests that may pass.
            site: whose sessions count.
            routes: of the application; one that is added later is refused.
            access: path template of a route -> who may call it; any other is refused.
            allowed_hosts: what the Host header may be, with the port where the browser sends it.
        """
        self._app = app
        self._site = site
        self._routes = routes
        self._access = access
        self._hosts = {host.lower() for host in allowed_hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        has_begun = False

        async def sending(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                _add_headers(message)
            await send(message)

        try:
            await self._app(scope, await self._admit(scope, receive), sending)
        except Exception as error:
            if has_begun:
                raise
            await self._answer(Request(scope), error)(scope, receive, sending)

    async def _admit(self, scope: Scope, receive: Receive) -> Receive:
        """Return what the application reads the body from, or raise Refusal."""
        headers = Headers(scope=scope)
        scope.setdefault("state", {}).update(visitor=None, session=None)
        self._check_host(headers)
        roles = self._roles(scope)
        admitted = await self._find(scope, headers)
        if admitted is not None:
            scope["state"].update(visitor=_visitor(admitted), session=admitted.session)
        _check_role(scope, headers, roles, None if admitted is None else admitted.session.role)
        if scope["method"] in _SAFE:
            return receive
        self._check_origin(scope, headers, is_open=roles == EVERYONE)
        body = await _body(headers, receive)
        if roles != EVERYONE and admitted is not None and admitted.by_cookie:
            _check_csrf(headers, body, admitted.token)
        return _replayed(body, receive)

    def _check_host(self, headers: Headers) -> None:
        found = headers.getlist("host")
        if len(found) != 1 or found[0].lower() not in self._hosts:
            raise Refusal(421, "This server does not answer to that name; start it with --allow-host NAME to allow it.")

    def _roles(self, scope: Scope) -> frozenset[Role]:
        """Return who may call the route that the request goes to."""
        methods: set[str] = set()
        for route in self._routes:
            match, _ = route.matches(scope)
            if match is Match.NONE:
                continue
            template = route.path if isinstance(route, Route) else None
            roles = self._access.get(template) if template is not None else None
            if match is Match.PARTIAL and isinstance(route, Route):
                methods |= route.methods or set()
                continue
            if roles is None:
                raise Refusal(403, "Nobody may open this page.")
            return roles
        if methods:
            raise Refusal(
                405,
                "This address is for what a page sends, not to be opened; go on from here.",
                Allow=", ".join(sorted(methods)),
            )
        raise Refusal(404, "There is no page at this address; check it, or go on from here.")

    async def _find(self, scope: Scope, headers: Headers) -> Admitted | None:
        """Return the session that a request names, if it holds."""
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        by_cookie = not (scope["path"].startswith("/api/") and kind.lower() == "bearer")
        cookies = cookie_parser("; ".join(headers.getlist("cookie")))
        token = cookies.get(self._site.cookie, "") if by_cookie else bearer.strip()
        if not token:
            return None
        session = await to_thread.run_sync(self._session, token)
        return None if session is None else Admitted(session, token, by_cookie)

    def _session(self, token: str) -> Session | None:
        now = self._site.clock()
        with self._site.reading() as (connection, project):
            found = sessions.find(connection, project, token, now)
        if found is not None and sessions.is_stale(found, now):
            with self._site.changing() as (connection, _):
                sessions.touch(connection, found, now)
        return found

    def _check_origin(self, scope: Scope, headers: Headers, *, is_open: bool) -> None:
        """Refuse what another site's page sent; where anybody may send, somebody has to say that the page was ours."""
        site, origin = headers.get("sec-fetch-site"), headers.get("origin", "").lower()
        own = f"{'https' if self._site.is_https else 'http'}://{headers['host']}".lower()
        is_ours = site == "same-origin" or (site is None and origin == own)
        is_foreign = site not in (None, "same-origin", "none") or origin not in ("", own)
        is_script = headers.get("content-type", "").partition(";")[0].strip().lower() == _JSON
        if is_foreign or (is_open and not is_ours and not is_script):
            raise Refusal(403, "This was not sent from a page of this site; open the page here and send it again.")

    def _answer(self, request: Request, error: Exception) -> Response:
        """Return what the one who asked is told about an error; the rest goes to the log."""
        if isinstance(error, Refusal):
            if error.status == 303:
                return RedirectResponse(error.headers["Location"], error.status)
            return self._site.refusal(request, error.status, error.message, error.headers)
        if isinstance(error, DataError):
            return self._site.refusal(request, 422, f"Nothing was stored: {error}.")
        if isinstance(error, NoTasks):
            return self._site.refusal(request, 409, f"Nothing was stored: {error}")
        # an address may hold an invitation
        path = "/invite/..." if request.scope["path"].startswith("/invite/") else request.scope["path"]
        if isinstance(error, RLHFError):
            _LOG.error("%s %s: %s", request.method, path, error)
            return self._site.refusal(request, 503, NOT_STORED, {"Retry-After": "5"})
        _LOG.error("%s %s", request.method, path, exc_info=error)
        fault = "This is a fault of the program. Go back and try again; if it stays, tell the owner."
        return self._site.refusal(request, 500, fault)


def _visitor(admitted: Admitted) -> Visitor:
    found = admitted.session
    return Visitor(
        account_id=found.account_id,
        name=found.name,
        role=found.role,
        annotator_id=found.annotator_id,
        csrf=sessions.csrf_token(admitted.token),
    )


def _check_role(scope: Scope, headers: Headers, roles: frozenset[Role], role: Role | None) -> None:
    if roles == EVERYONE or role in roles:
        return
    if role is not None:
        raise Refusal(403, "This page is not for you; log in with another account, or ask an owner of the project.")
    is_page = scope["method"] == "GET" and not scope["path"].startswith("/api/")
    if is_page and "text/html" in headers.get("accept", ""):
        raise Refusal(303, "", Location="/login")
    raise Refusal(401, _LOGGED_OUT, WWW_Authenticate="Bearer")


async def _body(headers: Headers, receive: Receive) -> bytes:
    """Read a body that is not too long and not too slow."""
    length = headers.get("content-length", "0")
    if not length.isdecimal() or len(length) > _MOST_DIGITS or int(length) > BODY_LIMIT:
        raise _too_much()
    body = bytearray()
    with anyio.move_on_after(BODY_TIMEOUT_S) as timer:
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise Refusal(400, "The request ended before its end.")
            body += message.get("body", b"")
            if len(body) > BODY_LIMIT:
                raise _too_much()
            if not message.get("more_body", False):
                break
    if timer.cancelled_caught:
        raise Refusal(408, f"The request took longer than {BODY_TIMEOUT_S:.0f} s; send it again.", Connection="close")
    return bytes(body)


def _too_much() -> Refusal:
    return Refusal(413, f"This is more than {BODY_LIMIT} bytes; send less.", Connection="close")


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Return a channel that gives the body that was read, then what else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _check_csrf(headers: Headers, body: bytes, token: str) -> None:
    given = headers.getlist("x-csrf-token")
    if not given and headers.get("content-type", "").partition(";")[0].strip().lower() == _FORM:
        given = _fields(body).get("csrf", [])
    wanted = sessions.csrf_token(token)
    if len(given) != 1 or not hmac.compare_digest(given[0].encode(), wanted.encode()):
        raise Refusal(403, "This form is of an earlier log-in, and nothing was stored; reload the page and send again.")


def _fields(body: bytes) -> dict[str, list[str]]:
    try:
        return parse_qs(body.decode("latin-1"), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise Refusal(400, f"This form has more than {_MOST_FIELDS} fields.") from None


def _add_headers(message: Message) -> None:
    headers = MutableHeaders(scope=message)
    for name, value in _HEADERS.items():
        headers[name] = value
    headers.setdefault("Cache-Control", "no-store")
