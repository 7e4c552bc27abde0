"""A reader with a browser, and a real service: what happens is seen, what is clicked is done, data stays text."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.console.browser import Browser, Page, chromium
from tests.examples.dev_process import DevProcess
from tests.kafka_broker.broker import free_port

APP = Path(__file__).parent / "apps" / "desk.py"
HOSTILE = "<img src=x onerror=alert(1)>\"'&<b>bold</b>"
UNKNOWN = "0.ffffffffffffffffffff"
TOO_EXACT = 12345678901234567890  # for a JavaScript number


class Desk:
    """The service, with letters to post."""

    def __init__(self, dev: DevProcess, address: str) -> None:
        self.dev = dev
        self.address = address

    def write(self, *letters: dict[str, object]) -> None:
        self.dev.publish("letters", "letter.written", letters, key="id")

    def run_of(self, key: str) -> str:
        """The newest run with this key."""
        found = json.loads(self.dev.cli("run", "list", "--key", key, "-o", "json"))
        return str(found[0]["id"])


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    chromium()  # without one, no service is started
    folder = tmp_path_factory.mktemp("desk")
    port = free_port()
    with DevProcess(APP, folder=folder, api_port=port) as dev:
        yield Desk(dev, f"http://127.0.0.1:{port}")


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("browser")) as made:
        yield made


async def test_a_run_appears_while_one_looks_and_its_page_tells_what_it_did(desk: Desk, browser: Browser) -> None:
    async with browser.tab() as page:
        await page.open(f"{desk.address}/runs?workflow=post")
        await page.until("document.querySelector('.light')?.dataset.state === 'live'")
        await page.until("!!document.querySelector('main .content > *') && !document.querySelector('.loading')")
        desk.write({"id": "A-1", "text": HOSTILE, "number": TOO_EXACT})
        await page.shows("A-1", "succeeded")
        await page.click("td a.id")
        said = await page.shows("attempt.succeeded", "attempt.failed", "run.ended", "1 of them again")
        assert HOSTILE in said  # of the error, as it is
        assert str(TOO_EXACT) in said  # of the input
        strips = await page.ask("[...document.querySelectorAll('.strip')].map(e => e.getAttribute('aria-label'))")
        assert len(strips) == 1
        assert "attempt 1 failed" in strips[0]
        assert "attempt 2 succeeded" in strips[0]
        await no_markup_came_of_data(page)
        await page.back()
        await page.shows("A-1")
        assert await page.ask("location.pathname + location.search") == "/runs?workflow=post"
        assert page.complaints == []


async def test_a_waiting_run_is_cancelled_by_clicks(desk: Desk, browser: Browser) -> None:
    desk.write({"id": "B-1", "text": "slow", "then": "wait"})
    async with browser.tab() as page:
        await page.open(f"{desk.address}/runs?key=B-1")
        await page.click("td a.id")
        await page.shows("running", "Waits for", "timer")
        await page.click("main button", "Cancel run")
        await page.write("dialog input[name=reason]", f"enough {HOSTILE}")
        await page.click("dialog button[type=submit]")
        await page.until("![...document.querySelectorAll('main button')].some(e => e.innerText === 'Cancel run')")
        said = await page.shows("cancelled", "run.ended")
        assert f"enough {HOSTILE}" in said
        await no_markup_came_of_data(page)
        assert page.complaints == []


async def test_a_failed_run_is_retried_and_dismissed(desk: Desk, browser: Browser) -> None:
    desk.write({"id": "C-1", "text": HOSTILE, "then": "fail"})
    async with browser.tab() as page:
        await page.open(f"{desk.address}/runs?key=C-1&status=failed")
        await page.click("td a.id")
        await page.shows("failed", "refused:", "Retry", "Dismiss")
        await page.click("main button", "Retry")
        await page.click("dialog button[type=submit]")
        await page.click("#said a")
        await page.shows("Retry of", "copied")
        await page.click("main button", "Dismiss")
        await page.press("Escape", 27)  # thought better of it
        await page.until("!document.querySelector('dialog')")
        await page.click("main button", "Dismiss")
        await page.click("dialog button[type=submit]")
        await page.until("![...document.querySelectorAll('main button')].some(e => e.innerText === 'Dismiss')")
        assert page.complaints == []


async def test_a_run_is_started_from_its_workflows_page(desk: Desk, browser: Browser) -> None:
    async with browser.tab() as page:
        await page.open(f"{desk.address}/")
        await page.click("header nav a", "Overview")
        await page.open(f"{desk.address}/workflows/post")
        await page.shows("Stamp a letter", "letter.written")
        await page.click("main button", "Start a run")
        await page.write("dialog textarea", "{")
        await page.click("dialog button[type=submit]")
        await page.until("document.querySelector('dialog .problem')?.innerText.includes('not JSON')")
        await page.write("dialog textarea", json.dumps({"id": "D-1", "text": "by hand", "number": TOO_EXACT}))
        await page.click("dialog button[type=submit]")
        said = await page.shows("succeeded", "stamped by hand", "http")
        assert str(TOO_EXACT) in said
        assert page.complaints == []


async def test_an_approval_is_given_by_clicks(desk: Desk, browser: Browser) -> None:
    desk.write({"id": "F-1", "text": HOSTILE, "then": "ask"})
    async with browser.tab() as page:
        await page.open(f"{desk.address}/approvals")
        said = await page.shows("Send ", "postmaster", "never")
        assert HOSTILE in said
        await page.click("main button", "Approve")
        await page.write("dialog input[name=note]", f"fine {HOSTILE}")
        await page.write("dialog input[name=by]", "Ada")
        await page.click("dialog button[type=submit]")
        await page.shows("Nothing waits for a decision")
        await page.click("#said a")
        said = await page.shows("succeeded", "approved by Ada: fine ")
        assert f"fine {HOSTILE}" in said
        await no_markup_came_of_data(page)
        assert page.complaints == []


async def test_a_schedule_is_paused_resumed_and_hastened(desk: Desk, browser: Browser) -> None:
    async with browser.tab() as page:
        await page.open(f"{desk.address}/schedules")
        await page.shows("empty_the_box", "active")
        await page.click("main button", "Pause")
        await page.click("dialog button[type=submit]")
        await page.shows("paused")
        await page.click("main button", "Resume")
        await page.click("dialog button[type=submit]")
        await page.shows("active")
        await page.click("main button", "Start now")
        await page.click("dialog button[type=submit]")
        await page.until("[...document.querySelectorAll('#said p')].some(e => e.innerText.startsWith('Started'))")
        await page.click("#said p:last-child a")
        await page.shows("empty_the_box", "succeeded", "emptied")
        assert page.complaints == []


async def test_a_dead_letter_is_read_redriven_and_resolved(desk: Desk, browser: Browser) -> None:
    desk.write({"id": "G-1", "text": {"not": HOSTILE}})
    async with browser.tab() as page:
        await page.open(f"{desk.address}/dead-letters")
        await page.shows("letters.dlq/", "open", "G-1")
        await page.click("main summary", "The record")
        said = await page.shows("ce_type")
        assert json.dumps(HOSTILE)[1:-1] in said
        await page.click("main button", "Redrive")
        await page.click("dialog button[type=submit]")
        await page.until("!document.querySelector('dialog')")
        await page.open(f"{desk.address}/dead-letters?state=redriven")
        await page.shows("letters.dlq/", "Redrive again")
        await page.open(f"{desk.address}/dead-letters")  # where the copy went, for it is no better
        await page.click("main button", "Resolve")
        await page.write("dialog input[name=note]", f"thrown away {HOSTILE}")
        await page.click("dialog button[type=submit]")
        await page.shows("No open dead letter")
        await no_markup_came_of_data(page)
        assert page.complaints == []


async def test_addresses_lead_to_pages_also_on_a_small_screen_and_by_the_keyboard(desk: Desk, browser: Browser) -> None:
    desk.write({"id": "E-1", "text": "x" * 3_000})
    async with browser.tab() as page:
        await page.is_as_wide_as(360)
        run = ""
        for path, words in (
            ("/", "Workflows"),
            ("/runs?key=E-1", "succeeded"),
            ("/workflows/post", "Newest runs"),
            ("/runs/{run}", "History"),
            ("/nowhere", "No such page"),
            (f"/runs/{UNKNOWN}", "HR4101"),
        ):
            if "{run}" in path:
                run = desk.run_of("E-1")
            await page.open(desk.address + path.format(run=run))
            await page.until(f"location.pathname === {json.dumps(path.format(run=run).partition('?')[0])}")
            await page.shows(words)
            assert await page.ask("document.documentElement.scrollWidth") <= 360, path
        await page.open(f"{desk.address}/runs")
        await page.shows("E-1")
        await page.press("Tab", 9)
        assert await page.ask("document.activeElement.innerText") == "To the content"
        await page.press("Enter", 13)
        assert await page.ask("document.activeElement.id") == "main"
        assert [said for said in page.complaints if UNKNOWN not in said] == []  # the browser tells of the 404


async def test_a_service_that_is_away_is_told_and_found_again(desk: Desk, browser: Browser) -> None:
    async with browser.tab() as page:
        await page.open(f"{desk.address}/")
        await page.shows("Workflows")
        desk.dev.kill()
        await page.until("document.querySelector('.banner')?.innerText.includes('Trying again')")
        await page.until("document.querySelector('.light')?.dataset.state === 'lost'")
        desk.dev.start()
        await page.until("document.querySelector('.banner')?.innerText === ''")
        await page.until("document.querySelector('.light')?.dataset.state === 'live'")


async def test_a_token_is_asked_for_and_pages_lie_below_the_base_path(tmp_path: Path, browser: Browser) -> None:
    port, token = free_port(), "sesame"
    settings = ("api.base_path=/headrace", "api.auth=token", f"api.token={token}")
    with DevProcess(APP, *(f"--set={each}" for each in settings), folder=tmp_path, api_port=port):
        async with browser.tab() as page:
            await page.open(f"http://127.0.0.1:{port}/headrace/workflows/post")
            await page.write("dialog input[name=token]", "wrong")
            await page.press("Enter", 13)
            await page.until("document.querySelector('dialog')?.innerText.includes('refused')")
            await page.write("dialog input[name=token]", token)
            await page.press("Enter", 13)
            await page.shows("Stamp a letter")
            await page.click("header nav a", "Runs")
            await page.shows("No run yet")
            assert await page.ask("location.pathname") == "/headrace/runs"
            await page.until("document.querySelector('.light')?.dataset.state === 'live'")
            await page.send("Page.reload")  # the token stays with the tab
            await page.shows("No run yet")


async def no_markup_came_of_data(page: Page) -> None:
    assert await page.ask("document.querySelectorAll('main img, main b').length") == 0
