"""The engine with no more rights than the runbook grants, over encrypted connections."""

import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import asyncpg
import pytest
import trustme
from redis.asyncio import Redis

from pod_automation.cli.exit_codes import ExitCode
from pod_automation.executor.done import RedisDone
from pod_automation.stack.ports import HOST
from tests.fixtures.tls_front import TlsFront
from tests.integration.scenario import EngineProcess, executed
from tests.integration.test_cli import pod_automation
from tests.integration.test_secured_kafka import SOON

pytestmark = pytest.mark.timeout(240)

RUNBOOK = Path(__file__).parents[2] / "docs" / "runbook.md"
PASSWORD = "not-to-be-shown"
DSN, URL = "POD_AUTOMATION_POSTGRES_DSN", "POD_AUTOMATION_REDIS_URL"


def granted() -> tuple[str, str]:
    """What the runbook has an operator type: SQL, and a command of Redis."""
    text = RUNBOOK.read_text("utf-8")
    section = text[text.index("### Least privilege") :]
    sql = re.search(r"^```sql\n(.*?)^```", section, re.M | re.S)
    acl = re.search(r"^```\n(ACL SETUSER .*?)\n```", section, re.M | re.S)
    assert sql is not None
    assert acl is not None
    return sql[1], acl[1]


@pytest.fixture
async def restricted(environment: dict[str, str]) -> AsyncIterator[dict[str, str]]:
    """The variables of one who has no other rights, with names of this test alone."""
    name = f"pods{uuid4().hex[:12]}"
    sql, acl = granted()
    prefix = environment["POD_AUTOMATION_TOPIC_PREFIX"]
    for key in ("wheel:", "executor:done:"):
        acl = acl.replace(key, f"{prefix}{key}")
    words = acl.replace(">password", f">{PASSWORD}").split()
    ca = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(HOST).configure_cert(context)
    dsn, url = urlsplit(environment[DSN]), urlsplit(environment[URL])
    admin = await asyncpg.connect(environment[DSN])
    redis = Redis.from_url(environment[URL])
    with TemporaryDirectory(prefix="pod-automation-") as folder:
        trusted = Path(folder) / "ca.pem"
        ca.cert_pem.write_to_path(trusted)
        await admin.execute(re.sub(r"\bpods\b", name, sql).replace("…", PASSWORD))
        await redis.execute_command(*words[:2], name, *words[3:])  # type: ignore[no-untyped-call]
        try:
            async with (
                TlsFront(dsn.port or 5432, context, postgres=True) as postgres_front,
                TlsFront(url.port or 6379, context) as redis_front,
            ):
                own_dsn = dsn._replace(
                    netloc=f"{name}:{PASSWORD}@{HOST}:{postgres_front.port}",
                    query=f"sslmode=verify-full&sslrootcert={trusted}",
                )
                own_url = url._replace(
                    scheme="rediss",
                    netloc=f"{name}:{PASSWORD}@{HOST}:{redis_front.port}",
                    query=f"ssl_ca_certs={trusted}",
                )
                yield environment | {DSN: urlunsplit(own_dsn), URL: urlunsplit(own_url)}
        finally:
            await redis.execute_command("ACL", "DELUSER", name)  # type: ignore[no-untyped-call]
            await admin.execute(f"drop owned by {name}; drop role {name}")
            await redis.aclose()
            await admin.close()


async def test_all_that_runs_for_long_needs_no_more(
    environment: dict[str, str], restricted: dict[str, str]
) -> None:
    outcome = await pod_automation(environment, "init")
    assert outcome.code == 0, outcome.err
    processes = [
        EngineProcess(each, restricted | SOON) for each in ("worker", "dispatcher", "executor")
    ]
    try:
        for process in processes:
            await process.start()
        await pod_automation(restricted, "publish", "--pod", "p", "--post", "x", "--members", "a,b")
        await executed(environment[DSN], 4)
        for command in (
            ("status", "--json"),
            ("stats", "--pod", "p"),
            ("reconcile", "--json"),
            ("rebuild", "--all"),
            ("clear", "--yes"),
            ("prune", "--json"),
            ("dead-letters", "list"),
            ("drain", "one"),
            ("forget-member", "a", "--yes"),
            ("audit", "--ndjson"),
        ):
            outcome = await pod_automation(restricted, *command)
            assert outcome.code == 0, (command, outcome.err)
            assert PASSWORD not in outcome.out + outcome.err
        done = RedisDone(restricted[URL], prefix=restricted["POD_AUTOMATION_TOPIC_PREFIX"])
        await done.mark_done("key")
        assert await done.is_done("key")
        await done.close()
        assert [await process.stop() for process in processes] == [0, 0, 0]
    finally:
        for process in processes:
            await process.kill()


async def test_more_is_refused(restricted: dict[str, str]) -> None:
    connection = await asyncpg.connect(restricted[DSN])
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("create table mine (id integer)")
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await connection.execute("alter table pod_activities add mine integer")
    finally:
        await connection.close()


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("store", "command"), [(DSN, ("stats", "--pod", "p")), (URL, ("rebuild", "--all"))]
)
async def test_a_certificate_that_is_not_trusted_is_told(
    restricted: dict[str, str], tmp_path: Path, store: str, command: tuple[str, ...]
) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    address = re.sub(r"(sslrootcert|ssl_ca_certs)=[^&]*", rf"\1={other}", restricted[store])
    outcome = await pod_automation(restricted | {store: address}, *command)
    assert outcome.code == ExitCode.STORE_AWAY, outcome.err
    assert outcome.shows_no_traceback(), outcome.err
    assert "certificate" in outcome.err.lower()
    assert PASSWORD not in outcome.out + outcome.err
