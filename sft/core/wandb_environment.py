"""What the environment says to W&B, and what W&B may do to the environment."""

import logging
import netrc
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from ssl import SSLError
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from sft.core.errors import UsageError


def resolve_mode(mode: str, environment: Mapping[str, str]) -> str:
    """Return "online", "offline" or "disabled"; reads files, never the network, never asks.

    `auto` follows `WANDB_MODE` where it is set, else it is `online`. Online needs a key (`WANDB_API_KEY` or a netrc
    login for the server); without one it is offline, since wandb would ask for it.

    Raises:
        UsageError: `WANDB_MODE` counts and names no mode of wandb's.
    """
    wanted = environment.get("WANDB_MODE", "").lower() if mode == "auto" else mode
    if wanted in ("offline", "dryrun"):
        return "offline"
    if wanted == "disabled":
        return "disabled"
    if wanted not in ("", "online", "run", "shared"):
        raise UsageError(f"WANDB_MODE={wanted} is not known; use online, offline or disabled, or unset it")
    return "online" if has_key(environment) else "offline"


def has_key(environment: Mapping[str, str]) -> bool:
    """Return whether wandb finds a key without asking."""
    return bool(environment.get("WANDB_API_KEY")) or _has_netrc_login(environment)


def base_url(environment: Mapping[str, str]) -> str:
    """Return the address of the server."""
    return environment.get("WANDB_BASE_URL") or "https://api.wandb.ai"


def check_answers(url: str, timeout_s: float) -> None:
    """Ask a server for anything; what it answers does not matter, nor whether its certificate is known here.

    wandb itself notices late: it tries for minutes, and then keeps the process from ending.

    Raises:
        ConnectionError: there is no answer in time.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ConnectionError(f"{url} is no address of a W&B server; give WANDB_BASE_URL=https://...")
    try:
        urlopen(url, timeout=timeout_s).close()
    except HTTPError:
        return
    except OSError as error:
        reason = error.reason if isinstance(error, URLError) else error
        if not isinstance(reason, SSLError):
            raise ConnectionError(f"{url}: {reason}") from None


def _has_netrc_login(environment: Mapping[str, str]) -> bool:
    host = urlsplit(base_url(environment)).hostname
    named = environment.get("NETRC")
    for name in [named] if named else ["~/.netrc", "~/_netrc"]:
        try:
            if host and netrc.netrc(Path(name).expanduser()).hosts.get(host):
                return True
        except (OSError, RuntimeError, UnicodeDecodeError, netrc.NetrcParseError):
            continue
    return False


@contextmanager
def contained(out_dir: Path) -> Iterator[None]:
    """Keep wandb to itself: its staged table files go to `out_dir/wandb`, where a later `wandb sync` finds them, not
    to the home folder, and neither its messages nor its log records reach the terminal. Its logger stays quiet for
    good, since its service speaks once more when the process ends."""
    ours = {"WANDB_DATA_DIR": str((out_dir / "wandb").resolve()), "WANDB_SILENT": "true"}
    added = {name: value for name, value in ours.items() if name not in os.environ}
    os.environ.update(added)
    logging.getLogger("wandb").propagate = False
    try:
        yield
    finally:
        for name in added:
            os.environ.pop(name, None)
