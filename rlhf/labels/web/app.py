"""The label site as one application: all pages, the JSON API and our own files behind one gate."""

import time
from collections.abc import Callable, Collection, Mapping, Sequence

from fastapi import APIRouter, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi.responses import JSONResponse, Response
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException

from rlhf.labels.accounts.users import Role
from rlhf.labels.store import LabelStore
from rlhf.labels.web import api, login, owner, pages
from rlhf.labels.web.access import Gate
from rlhf.labels.web.site import EVERYONE, STATIC, Pages, Site

DEFAULT_PORT = 8000
_A_YEAR_S = 31_536_000
_MOST_PROBLEMS = 10
"""Of one request that are told; a megabyte of unknown fields is answered in a few lines."""


def loopback_hosts(port: int) -> frozenset[str]:
    """Return what the Host header of a browser on the same machine says."""
    return frozenset(f"{name}:{port}" for name in ("127.0.0.1", "localhost", "[::1]"))


def create_app(
    store: LabelStore,
    project: str,
    *,
    clock: Callable[[], float] = time.time,
    allowed_hosts: Collection[str] = loopback_hosts(DEFAULT_PORT),
    is_https: bool = False,
) -> FastAPI:
    """Return the site of one project.

    Args:
        store: of the labels.
        project: that is served.
        clock: seconds since 1970.
        allowed_hosts: what the Host header may be, with the port where the browser sends it.
        is_https: whether browsers come by https, through a proxy in front of this server.
    """
    site = Site(store, project, clock, is_https)
    joined = [login.pages(site), pages.pages(site), owner.pages(site), api.pages(site), _static()]
    return join(site, [*joined, _schema(joined)], allowed_hosts)


def join(site: Site, joined: Sequence[Pages], allowed_hosts: Collection[str]) -> FastAPI:
    """Return an application of these pages; what none of them names in `access` is refused."""
    app = FastAPI(title="Labels", openapi_url=None, docs_url=None, redoc_url=None, redirect_slashes=False)
    access: dict[str, frozenset[Role]] = {}
    for some in joined:
        assert not access.keys() & some.access.keys(), f"two name {access.keys() & some.access.keys()}"
        access |= some.access
        # not include_router: it hides the routes of a router behind one that has no path
        app.router.routes.extend(some.router.routes)
    _handle_errors(app, site)
    app.add_middleware(Gate, site=site, routes=app.router.routes, access=access, allowed_hosts=frozenset(allowed_hosts))
    return app


def _handle_errors(app: FastAPI, site: Site) -> None:
    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return site.refusal(request, error.status_code, str(error.detail), error.headers)

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        problems = error.errors()
        if any(problem["loc"][0] == "path" for problem in problems):
            return site.refusal(request, 404, "There is nothing at this address; check its number, or go on from here.")
        return site.refusal(request, 422, f"Nothing was stored: {_told(problems)}. Go back, mend it and send it again.")

    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, invalid)


def _told(problems: Sequence[Mapping[str, object]]) -> str:
    found = "; ".join(f"{_place(problem['loc'])}: {problem['msg']}" for problem in problems[:_MOST_PROBLEMS])
    more = len(problems) - _MOST_PROBLEMS
    return f"{found}; and {more} more" if more > 0 else found


def _place(where: object) -> str:
    return ".".join(map(str, where)) if isinstance(where, tuple) else str(where)


def _static() -> Pages:
    """Return the route of our own files."""
    router = APIRouter(include_in_schema=False)

    @router.get("/static/{name}")
    def static(request: Request, name: str) -> Response:
        found = STATIC.get(name)
        if found is None:
            raise HTTPException(404, "There is no such file; go on from here.")
        tag = f'"{found.digest}"'
        is_named = request.query_params.get("v") == found.digest
        caching = f"public, max-age={_A_YEAR_S}, immutable" if is_named else "no-cache"
        headers = {"ETag": tag, "Cache-Control": caching}
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(found.content, media_type=found.media_type, headers=headers)

    return Pages(router, {"/static/{name}": EVERYONE})


def _schema(joined: Sequence[Pages]) -> Pages:
    """Return the route of the JSON API's description."""
    router = APIRouter(include_in_schema=False)
    routes = [route for some in joined for route in some.router.routes if isinstance(route, APIRoute)]
    of_api = [route for route in routes if route.path.startswith("/api/")]
    document = get_openapi(title="Labels", version=api.VERSION, routes=of_api)
    document.setdefault("components", {})["securitySchemes"] = {"session": api.BEARER}
    document["security"] = [{"session": []}]

    @router.get(api.SCHEMA_PATH)
    def schema() -> JSONResponse:
        return JSONResponse(document)

    return Pages(router, {api.SCHEMA_PATH: frozenset(Role)})
