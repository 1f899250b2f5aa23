"""A server of this process, for the tests of its API and of its page."""

import threading
import time
from contextlib import contextmanager

import uvicorn

from interp_toolkit.serve import create_app
from interp_toolkit.serve.connection import Connection

# What is waited for comes or does not; the machine may be busy. In seconds.
PATIENCE = 60


@contextmanager
def running(service, **settings):
    """The address of a server of this process."""
    app = create_app(service, **settings)
    config = uvicorn.Config(app, port=0, http=Connection, log_level="error", timeout_graceful_shutdown=5)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    end = time.monotonic() + PATIENCE
    while not server.started and time.monotonic() < end:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        assert not thread.is_alive()
