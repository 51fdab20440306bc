"""The real label site on a free port, in a thread, for tests of the page and for the scripts that take its pictures."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn

from rlhf.labels.store import LabelStore
from rlhf.labels.web.app import create_app, loopback_hosts


@contextmanager
def serving(store: LabelStore, project: str, clock: Callable[[], float] = time.time) -> Iterator[str]:
    """Serve a project on a free port of this machine, and yield the page's address."""
    config = uvicorn.Config(app=None, host="127.0.0.1", port=0, log_level="warning", lifespan="off")
    listener = config.bind_socket()
    port = listener.getsockname()[1]
    config.app = create_app(store, project, clock=clock, allowed_hosts=loopback_hosts(port))
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
