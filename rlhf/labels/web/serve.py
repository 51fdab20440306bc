"""The label site as a process: one uvicorn server on one port, until it is told to stop."""

import ipaddress
import signal
import socket
import sys
from collections.abc import Sequence
from contextlib import suppress
from types import FrameType
from typing import NoReturn

import uvicorn

from rlhf.labels.accounts.users import Role, has_owner, invite
from rlhf.labels.store import LabelStore
from rlhf.labels.web.app import create_app, loopback_hosts
from rlhf.labels.web.connections import ImpatientProtocol
from rlhf.labels.web.heaps import share_heaps
from rlhf.labels.web.site import Site
from sft.core.errors import UsageError

_OWNER_LINK_DAYS = 1.0
_FINISH_S = 10
"""How long requests may take to end after the signal to stop."""


def serve(
    store: LabelStore,
    project: str,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    is_https: bool = False,
    allow_hosts: Sequence[str] = (),
) -> None:
    """Serve a project until SIGTERM or SIGINT, and end what was begun.

    Args:
        store: of the labels.
        project: that is there already.
        host: to listen at; another than this machine's own needs an owner's account and `allow_hosts`.
        port: to listen at; 0: any that is free.
        is_https: whether a proxy on this machine takes https and passes `Host` and `X-Forwarded-For` on.
        allow_hosts: further names by which browsers may come, such as labels.example.org.

    Raises:
        UsageError: there is no such project, others could come in unasked, or the port cannot be had.
    """
    site = Site(store, project, is_https=is_https)
    with site.reading() as (connection, known):
        is_owned = has_owner(connection, known)
    _check_exposure(host, is_owned=is_owned, allow_hosts=allow_hosts, is_https=is_https)
    with _listening(host, port) as listener:
        port = listener.getsockname()[1]
        hosts = loopback_hosts(port) | set(allow_hosts) | {f"{name}:{port}" for name in allow_hosts}
        config = uvicorn.Config(
            create_app(store, project, allowed_hosts=hosts, is_https=is_https),
            access_log=False,  # an address may hold an invitation
            log_level="warning",
            lifespan="off",
            ws="none",
            http=ImpatientProtocol,
            proxy_headers=is_https,
            forwarded_allow_ips="127.0.0.1,::1",
            server_header=False,
            timeout_graceful_shutdown=_FINISH_S,
        )
        address = f"https://{allow_hosts[0]}" if is_https and allow_hosts else f"http://{_shown(host)}:{port}"
        if not is_owned:
            _invite_owner(site, address)
        print(f"labels of project {project}: {address} (stop with Ctrl-C)", flush=True)
        # uvicorn raises the signal once more when all is done
        signal.signal(signal.SIGTERM, _stop)
        signal.signal(signal.SIGINT, _stop)
        share_heaps()
        with suppress(KeyboardInterrupt):
            uvicorn.Server(config).run(sockets=[listener])
    print("stopped", flush=True)


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def _check_exposure(host: str, *, is_owned: bool, allow_hosts: Sequence[str], is_https: bool) -> None:
    if is_loopback(host):
        return
    problems = []
    if not is_owned:
        problems.append(
            f"--host {host} would let others in before there is an owner: start once without --host, open the link "
            "that is shown, then start again"
        )
    if not allow_hosts:
        problems.append(f"--host {host} needs the name by which browsers come; give it with --allow-host NAME")
    if not is_https:
        print(
            "warning: without https, passwords and labels can be read on their way; put a proxy with a certificate in "
            "front and give --https-proxy",
            file=sys.stderr,
            flush=True,
        )
    if problems:
        raise UsageError("; ".join(problems))


def _invite_owner(site: Site, address: str) -> None:
    with site.changing() as (connection, project):
        token = invite(connection, project, Role.OWNER, site.clock(), _OWNER_LINK_DAYS)
    print(
        f"project {site.project} has no owner yet. Become it with this link; it works once, for a day:\n"
        f"  {address}/invite/{token}",
        flush=True,
    )


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise UsageError(
            f"cannot listen at {host} port {port}: {error.strerror}; stop what is there, or give another --port"
        ) from error


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _stop(signum: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt(signal.Signals(signum).name)
