"""Serves the API until it is told to stop."""

import asyncio
import logging
import socket
from collections.abc import Callable

import uvicorn

from pod_automation.api.access import Tokens
from pod_automation.api.app import an_app
from scheduler.errors import SettingsError
from scheduler.settings import Settings

CLOSE_S = 3
ANSWER_S = 2
"""How long requests may go on behind a stop; what waits for workers longer is told that it ends."""


class _Server(uvicorn.Server):
    """Signals are the caller's."""

    def install_signal_handlers(self) -> None: ...

    def capture_signals(self):  # type: ignore[no-untyped-def]
        from contextlib import nullcontext

        return nullcontext()


async def serve(
    settings: Settings,
    tokens: Tokens,
    stop: asyncio.Event,
    listening: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve at the address of `settings` until `stop` is set. `listening` is told the address.

    Raises `SettingsError` for an address that cannot be used.
    """
    # What it tells of its start and end is told by the process.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    app = an_app(settings, tokens)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=CLOSE_S,
        lifespan="on",
    )
    server = _Server(config)
    try:
        found = socket.getaddrinfo(
            settings.api_host, settings.api_port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        # Before anybody is told where.
        listener.listen(config.backlog)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(
            f"POD_AUTOMATION_API_HOST and POD_AUTOMATION_API_PORT name {settings.api_host}:"
            f"{settings.api_port}, which cannot be used: {reason}"
        ) from None
    with listener:
        port = listener.getsockname()[1]
        host = f"[{settings.api_host}]" if ":" in settings.api_host else settings.api_host
        serving = asyncio.create_task(server.serve([listener]), name="api")
        stopping = asyncio.create_task(stop.wait(), name="stop")
        listening(f"http://{host}:{port}/")
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        await asyncio.wait({serving}, timeout=ANSWER_S)
        app.state.ending.set()
        await serving
