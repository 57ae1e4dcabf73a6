"""The dashboard in a real browser, on real stores, while processes are killed."""

import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import httpx
import pytest
from playwright.async_api import Page, async_playwright, expect

from scheduler.settings import Settings
from schemas.ids import activity_id
from tests.integration.scenario import QUICK_SESSION, EngineProcess
from tests.integration.test_api import OPERATOR, VIEWER, an_event, asked, served
from tests.integration.test_client import SLOW, rows, until

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

pytestmark = [
    pytest.mark.timeout(180),
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is on this machine"),
]

WAIT_MS = 30_000
expect.set_options(timeout=WAIT_MS)


@asynccontextmanager
async def opened(address: str, token: str = OPERATOR, **context: Any) -> AsyncIterator[Page]:
    """A page of the dashboard; whatever the browser complains about fails the test."""
    complaints: list[str] = []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Chromium has no sandbox for root.
            args=["--no-sandbox"],
        )
        page = await (await browser.new_context(**context)).new_page()
        page.set_default_timeout(WAIT_MS)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on(
            "console",
            lambda said: complaints.append(said.text) if "Policy" in said.text else None,
        )
        await page.goto(f"{address}#token={token}")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible(timeout=WAIT_MS)
        assert "token" not in page.url
        yield page
        await browser.close()
    assert complaints == []


@pytest.fixture
async def engine(
    environment: dict[str, str], settings: Settings
) -> AsyncIterator[dict[str, EngineProcess]]:
    """A worker and a dispatcher."""
    # A dispatcher that is killed is to be missed soon.
    processes = {
        "worker": EngineProcess("worker", {**environment, **SLOW}),
        "dispatcher": EngineProcess("dispatcher", {**environment, **SLOW, **QUICK_SESSION}),
    }
    async with AsyncExitStack() as stack:
        for process in processes.values():
            stack.push_async_callback(process.kill)
            await process.start()
        yield processes


async def planned(api: httpx.AsyncClient, settings: Settings, post: str, count: int) -> None:
    answer = await api.post("/v1/posts", json=an_event(post, ["ann", "bob", "cyd"]))
    assert answer.status_code == 200

    async def all_there() -> bool:
        return len(await rows(settings)) == count

    await until(all_there)


async def confirmed(page: Page, button: str, reason: str) -> None:
    """Press the button, say why, and say yes; by the keyboard alone."""
    await page.get_by_role("button", name=button, exact=True).focus()
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).to_be_visible()
    await page.get_by_label("Why?").focus()
    await page.keyboard.type(reason)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("dialog")).not_to_be_visible()


async def filled(page: Page, button: str, fields: dict[str, str]) -> None:
    """Press the button, fill in what is asked for, and say yes."""
    await page.get_by_role("button", name=button).click()
    for label, value in fields.items():
        await page.get_by_label(label).fill(value)
    await page.get_by_role("button", name="Do it").click()


async def test_an_operator_finds_stops_and_undoes(
    environment: dict[str, str], settings: Settings, engine: dict[str, EngineProcess]
) -> None:
    async with served(environment) as address, asked(address) as api, opened(address) as page:
        await planned(api, settings, "x", 3)
        await expect(page.get_by_text("whole").first).to_be_visible(timeout=WAIT_MS)

        await page.get_by_role("link", name="Pods").click()
        await page.get_by_role("link", name="p", exact=True).click()
        await expect(page.get_by_role("heading", name="Pod p")).to_be_visible()
        await expect(page.get_by_role("img", name="When members engage")).to_be_visible()
        await page.get_by_role("button", name="Pause", exact=True).click()
        await page.get_by_role("button", name="Back").click()
        await expect(page.get_by_role("dialog")).not_to_be_visible()
        assert (await api.get("/v1/controls")).json() == {"controls": []}
        await confirmed(page, "Pause", "under review")
        await expect(page.get_by_text("pod p is paused")).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_role("button", name="Resume")).to_be_visible()

        # Late, since it is paused: the page says so, and who did it.
        comment = activity_id("p", "x", "ann", "comment")
        await api.post(
            "/v1/reschedule", json={"activity_id": comment, "at": "2026-01-01T00:00:00Z"}
        )
        await page.get_by_label("Activity, pod, post or member").fill(comment)
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("its pod was paused")).to_be_visible()
        await expect(page.get_by_text("api:otto: under review")).to_be_visible()
        await expect(page.get_by_text("rescheduled", exact=True)).to_be_visible()

        await page.get_by_role("link", name="ann").click()
        await expect(page.get_by_role("heading", name="Member ann")).to_be_visible()
        await confirmed(page, "Opt out", "asked by mail")
        await expect(page.get_by_text("member ann has opted out; cancelled 1")).to_be_visible(
            timeout=WAIT_MS
        )
        await expect(page.get_by_text("opted out", exact=True)).to_be_visible()

        await page.get_by_role("link", name="Controls").click()
        await expect(page.get_by_role("cell", name="under review")).to_be_visible()
        await page.get_by_role("row", name="pod p").get_by_role("button", name="Resume").click()
        await page.get_by_role("button", name="Do it").click()
        await expect(page.get_by_text("pod p goes on")).to_be_visible(timeout=WAIT_MS)

        await page.get_by_role("link", name="Audit").click()
        for words in ("opt out", "reschedule", "resume", "asked by mail"):
            await expect(page.get_by_role("cell", name=words).first).to_be_visible()


@pytest.mark.usefixtures("engine")
async def test_rules_for_a_pod_and_a_member(
    environment: dict[str, str], settings: Settings
) -> None:
    async with served(environment) as address, asked(address) as api, opened(address) as page:
        await planned(api, settings, "x", 3)
        await page.goto(f"{address}#/pod/%")
        await expect(page.get_by_role("heading", name="Pod %")).to_be_visible(timeout=WAIT_MS)
        await page.goto(f"{address}#/pod/p")
        await filled(page, "Quiet hours", {"From": "21:30", "Time zone": "Nowhere/Atall"})
        await expect(page.get_by_text("Nowhere/Atall")).to_be_visible(timeout=WAIT_MS)
        await filled(page, "Quiet hours", {"From": "21:30", "Time zone": "Europe/Berlin"})
        await expect(page.get_by_text("pod p has quiet hours")).to_be_visible(timeout=WAIT_MS)
        likes = {"Likes: no sooner": "2.5", "Likes: no later": "90", "Likes of a post": "2"}
        await filled(page, "Pace", likes)
        await expect(page.get_by_text("at its own pace")).to_be_visible(timeout=WAIT_MS)

        await page.goto(f"{address}#/member/ann")
        await filled(page, "Daily cap", {"Engagements in 24 hours": "7"})
        await expect(page.get_by_text("member ann has a daily cap")).to_be_visible(timeout=WAIT_MS)

        held = {
            one["kind"]: one["value"] for one in (await api.get("/v1/controls")).json()["controls"]
        }
        assert held["quiet_hours"] == {"from": "21:30", "until": "07:00", "zone": "Europe/Berlin"}
        assert held["policy"]["like_min_delay_ms"] == 150_000
        assert held["policy"]["like_max_delay_ms"] == 5_400_000
        assert held["policy"]["like_cap"] == 2
        assert held["daily_cap"]["cap"] == 7
        # And taken back, where they are listed.
        await page.goto(f"{address}#/controls")
        await page.get_by_role("row", name="at most 7").get_by_role("button", name="Remove").click()
        await page.get_by_role("button", name="Do it").click()
        await expect(page.get_by_text("member ann has no daily cap")).to_be_visible(timeout=WAIT_MS)


@pytest.mark.usefixtures("engine")
async def test_a_dispatcher_is_drained_and_a_member_forgotten(
    environment: dict[str, str], settings: Settings
) -> None:
    async with served(environment) as address, asked(address) as api, opened(address) as page:
        await planned(api, settings, "x", 3)
        await page.goto(f"{address}#/controls")
        which = {"Its POD_AUTOMATION_INSTANCE_ID": "host-7", "Why?": "new kernel"}
        await filled(page, "Drain a dispatcher", which)
        row = page.get_by_role("row", name="dispatcher host-7")
        await expect(row.get_by_role("cell", name="new kernel")).to_be_visible(timeout=WAIT_MS)
        await row.get_by_role("button", name="Take part again").click()
        await page.get_by_role("button", name="Do it").click()
        await expect(page.get_by_text("may have shards again")).to_be_visible(timeout=WAIT_MS)
        await expect(row).to_have_count(0)

        await page.goto(f"{address}#/member/ann")
        again = page.get_by_label("The id of the member, once more")
        await filled(page, "Forget", {"The id of the member, once more": "bob"})
        # Not with another one's.
        await expect(page.get_by_role("dialog")).to_be_visible()
        assert await again.evaluate("input => input.validity.patternMismatch")
        await again.fill("ann")
        await page.get_by_label("Erase the opt-out as well").check()
        await page.get_by_role("button", name="Do it").click()
        await expect(page.get_by_text("The member is forgotten: 1 activity goes")).to_be_visible(
            timeout=WAIT_MS
        )
        assert (await api.get("/v1/controls")).json() == {"controls": []}
        await page.get_by_role("link", name="Audit").click()
        row = page.get_by_role("row", name="forget member")
        await expect(row.get_by_role("cell", name="1 erased")).to_be_visible()
        assert {row["member_id"] for row in (await rows(settings)).values()} > {"bob", "cyd"}


async def test_a_dispatcher_dies_while_somebody_looks(
    environment: dict[str, str], engine: dict[str, EngineProcess]
) -> None:
    async with served(environment) as address, opened(address) as page:
        alarm = page.get_by_text("No dispatcher runs: nothing is sent.")
        await expect(page.get_by_text("nobody")).to_have_count(0, timeout=WAIT_MS)
        await expect(alarm).not_to_be_visible()
        await engine["dispatcher"].kill()
        await expect(alarm).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_text("nobody").first).to_be_visible()
        await engine["dispatcher"].start()
        await expect(alarm).not_to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_text("nobody")).to_have_count(0, timeout=WAIT_MS)


async def test_a_dead_letter_is_replayed(
    environment: dict[str, str], settings: Settings, engine: dict[str, EngineProcess]
) -> None:
    from aiokafka import AIOKafkaProducer

    from tests.integration.worker_bench import send_raw

    async with served(environment) as address, asked(address) as api, opened(address) as page:
        async with AIOKafkaProducer(bootstrap_servers=settings.kafka_bootstrap) as producer:
            await send_raw(producer, settings.topics.post_detected, 1, (b"k", b"<b>no</b>", []))

        async def buried() -> bool:
            return int((await api.get("/v1/dead-letters")).json()["total"]) == 1

        await until(buried)
        await page.get_by_role("link", name="Dead letters").click()
        await expect(page.get_by_role("heading", name="Dead letters (1)")).to_be_visible()
        await page.get_by_role("checkbox").check()
        await confirmed(page, "Replay what is chosen", "mended")
        await expect(page.get_by_text("/1/0: replayed")).to_be_visible(timeout=WAIT_MS)
        await expect(page.get_by_text("yes, 1")).to_be_visible(timeout=WAIT_MS)
        await page.get_by_role("link", name="Audit").click()
        row = page.get_by_role("row", name="replay")
        for words in ("dead letter", "api:otto", "mended", "1 replayed"):
            await expect(row.get_by_role("cell", name=words)).to_be_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone_by_day_and_by_night(
    environment: dict[str, str], engine: dict[str, EngineProcess], scheme: str
) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "color_scheme": scheme}
    async with served(environment) as address, opened(address, VIEWER, **phone) as page:
        await expect(page.get_by_text("whole").first).to_be_visible(timeout=WAIT_MS)
        for name in ("Overview", "Pods", "Controls", "Dead letters", "Audit"):
            await page.get_by_role("link", name=name, exact=True).first.click()
            await expect(page.get_by_role("heading", name=name).first).to_be_visible()
            # Tables scroll by themselves; the page does not.
            wide = await page.evaluate("document.documentElement.scrollWidth - innerWidth")
            assert wide <= 0, name
        colour = await page.evaluate("getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, colour.removeprefix("rgb(").removesuffix(")").split(","))) > 384
        assert light == (scheme == "light")


@pytest.mark.usefixtures("settings")
async def test_who_has_no_token_sees_nothing(environment: dict[str, str]) -> None:
    async with served(environment) as address, opened(address) as page:
        await page.get_by_role("button", name="Leave").click()
        await expect(page.get_by_role("heading", name="Who are you?")).to_be_visible()
        await page.get_by_label("Token").fill("nobody's")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("This token is not known.")).to_be_visible()
        await page.get_by_label("Token").fill(VIEWER)
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        await page.get_by_role("link", name="Controls").click()
        await page.get_by_role("button", name="Pause everything").click()
        await page.get_by_role("button", name="Do it").click()
        await expect(page.get_by_text("this is for the role operator")).to_be_visible()
