"""The page against the real service: Ray Serve, every deployment, the toy checkpoint (noise, not speech)."""

import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Browser

from tests.conftest import Service
from tests.web.conftest import Studio, new_context, open_studio
from tests.web.server import StudioServer, clip_file, noise

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.service]


@pytest_asyncio.fixture(loop_scope="session")
async def real(browser: Browser, service: Service) -> AsyncIterator[Studio]:
    """The page as the real service serves it; fails on any error in the console and any request refused."""
    context = await new_context(browser)
    context.set_default_timeout(60_000)
    studio = await open_studio(context, StudioServer(), service.url, tapped=False)
    yield studio
    assert (studio.errors, studio.failed, studio.foreign) == ([], [], [])
    await context.close()


async def test_a_text_is_heard_whole_and_a_long_one_from_its_first_part_on(real: Studio) -> None:
    await real.speak("The train leaves the station at half past seven every morning.")
    await real.until_done()
    num_bytes = await real.number("bytes")
    assert num_bytes > 24_000 and int(await real.listen("played")) == num_bytes / 2
    assert await real.number("first") > 0 and await real.number("factor") > 0
    assert re.fullmatch(r"Done\. \d+\.\d s of sound\.", await real.stage())
    assert re.search(r"Reading the text\n\d+ ms", await real.page.inner_text("#steps"))

    await real.speak("A very long story. " * 60)
    await real.until("Number(document.querySelector('#listen').dataset.played) > 0", timeout_s=60)
    assert await real.listen("state") == "receiving", "sound before the answer ends"
    await real.page.keyboard.press("Escape")
    await real.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert float(await real.listen("stop-ms")) < 100
    await real.page.wait_for_selector('#listen[data-state="stopped"]')


async def test_live_mode_speaks_what_is_typed_and_is_interrupted(real: Studio) -> None:
    await real.page.click("#tab-live")
    await real.page.click("#live-start")
    await real.page.wait_for_selector("#live-text:enabled")
    await real.page.type("#live-text", "Hello there, this is typed. And it goes on and on and on and on and on. ")
    await real.until("Number(document.querySelector('#listen').dataset.played) > 0", timeout_s=60)
    await real.page.keyboard.press("Escape")
    await real.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert float(await real.listen("stop-ms")) < 100
    await real.page.type("#live-text", "Sorry?\n")
    await real.page.wait_for_selector("#takes > li:nth-child(2)")
    await real.until_done()
    assert int(await real.listen("played")) == await real.number("bytes") / 2 > 0
    await real.page.click("#live-start")
    await real.page.wait_for_selector("text=Not connected.")


async def test_a_voice_is_kept_used_and_deleted(real: Studio) -> None:
    page = real.page
    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", clip_file("me.wav", noise(4)))
    await page.wait_for_selector("#voices input:checked + .name:text-is('me.wav')")
    await real.speak("Hello.")
    await real.until_done()
    assert await real.number("bytes") > 0

    await page.fill(".keep input[type=text]", "Studio test")
    await page.check("text=The speaker agrees")
    await page.click("text=Keep the voice")
    await page.wait_for_selector("text=The voice “Studio test” is kept.")
    assert "dB" in await page.inner_text(".report")
    await page.wait_for_selector("#voices input:checked + .name:text-is('Studio test')")
    await real.speak("Hello.")
    await real.until_done()
    assert await real.number("bytes") > 0
    page.on("dialog", lambda dialog: dialog.accept())
    await page.click("[aria-label='Delete the voice Studio test']")
    await page.wait_for_selector("text=The voice “Studio test” is deleted.")
