"""`pod-automation api`: the HTTP API and the dashboard."""

import secrets
from typing import Annotated

import typer


def api(
    dev: Annotated[
        bool,
        typer.Option(
            "--dev",
            help="For this run only, make an operator's token and print the address with it.",
        ),
    ] = False,
) -> None:
    """Serve the HTTP API, and the dashboard at its root, until SIGTERM or Ctrl-C.

    Listens on 127.0.0.1:8600 unless POD_AUTOMATION_API_HOST and POD_AUTOMATION_API_PORT say
    otherwise. Who may use it stands in POD_AUTOMATION_API_TOKENS, or in the file that
    POD_AUTOMATION_API_TOKENS_FILE names: role:name:token, the role being viewer or operator. It
    speaks HTTP: beyond this host, put a proxy with TLS before it.

    \b
    Examples:
      pod-automation api --dev
      POD_AUTOMATION_API_TOKENS=operator:ann:$(openssl rand -hex 32) pod-automation api
    """
    from importlib.util import find_spec

    if missing := [name for name in ("fastapi", "limits", "uvicorn") if find_spec(name) is None]:
        raise typer.BadParameter(
            f"the API needs {', '.join(missing)}: pip install 'pod-automation-engine[api]'"
        )
    import asyncio

    import structlog

    from pod_automation import logs
    from pod_automation.api.access import Caller, Tokens
    from pod_automation.api.serving import serve as serve_api
    from pod_automation.cli.terminal import result
    from pod_automation.processes import serve
    from scheduler.settings import load_settings
    from streams.quiet import quiet_libraries

    settings = load_settings()
    logs.configure(settings.log_level)
    log = structlog.get_logger("pod_automation")
    tokens = Tokens.parsed(settings.api_tokens)
    if dev:
        token = secrets.token_urlsafe(24)
        tokens = Tokens([(Caller("dev", "operator"), token)])
    elif not tokens:
        raise typer.BadParameter(
            "nobody could use it: set POD_AUTOMATION_API_TOKENS, as in"
            " operator:ann:$(openssl rand -hex 32), or use --dev to try it"
        )

    def listening(address: str) -> None:
        log.info("api", address=address)
        if dev:
            result(f"{address}#token={token}")

    async def main(stop: asyncio.Event) -> None:
        with quiet_libraries():
            await serve_api(settings, tokens, stop, listening)
        log.info("stopped", process="api")

    serve(main)
