"""The page against the real service: Ray Serve, every deployment, the toy checkpoint (noise, not speech)."""

import re

import pytest
from playwright.async_api import Browser

from tests.conftest import Service
from tests.web.conftest import new_context, open_studio
from tests.web.server import StudioServer, clip_file, noise

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.service]


async def test_a_person_speaks_stops_and_uses_a_voice_of_their_own(browser: Browser, service: Service) -> None:
    context = await new_context(browser)
    studio = await open_studio(context, StudioServer(), service.url, tapped=False)
    page = studio.page

    await studio.speak("The train leaves the station at half past seven every morning.")
    await studio.page.wait_for_selector('#listen[data-state="complete"][data-playing="false"]', timeout=60_000)
    num_bytes = await studio.number("bytes")
    assert num_bytes > 24_000 and int(await studio.listen("played")) == num_bytes / 2
    assert await studio.number("first") > 0 and await studio.number("factor") > 0
    assert re.fullmatch(r"Done\. \d+\.\d s of sound\.", await studio.stage())

    await studio.speak("A very long story. " * 60)
    await studio.until("Number(document.querySelector('#listen').dataset.played) > 0", timeout_s=60)
    assert await studio.listen("state") == "receiving", "sound before the answer ends"
    await page.keyboard.press("Escape")
    await studio.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert float(await studio.listen("stop-ms")) < 100
    await page.wait_for_selector('#listen[data-state="stopped"]')

    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", clip_file("me.wav", noise(4)))
    await page.wait_for_selector("#voices input:checked + .name:text-is('me.wav')")
    await studio.speak("Hello.")
    await studio.page.wait_for_selector('#listen[data-state="complete"][data-playing="false"]', timeout=60_000)
    assert await studio.number("bytes") > 0

    await page.fill(".keep input[type=text]", "Studio test")
    await page.check("text=The speaker agrees")
    await page.click("text=Keep the voice")
    await page.wait_for_selector("text=The voice “Studio test” is kept.", timeout=60_000)
    await page.wait_for_selector("#voices input:checked + .name:text-is('Studio test')")
    await studio.speak("Hello.")
    await studio.page.wait_for_selector('#listen[data-state="complete"][data-playing="false"]', timeout=60_000)
    page.on("dialog", lambda dialog: dialog.accept())
    await page.click("[aria-label='Delete the voice Studio test']")
    await page.wait_for_selector("text=The voice “Studio test” is deleted.")

    assert (studio.errors, studio.failed, studio.foreign) == ([], [], [])
    await context.close()
