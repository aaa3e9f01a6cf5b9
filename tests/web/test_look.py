"""For everybody: axe-core, 360 px, two languages, light and dark, the keyboard, a lost connection, no jumps."""

from typing import Any

import pytest
from playwright.async_api import Browser

from tests.api.live import listening
from tests.web.accessible import assert_accessible, assert_fits
from tests.web.conftest import Studio, new_context, open_studio
from tests.web.server import StudioServer, clip_file, noise

pytestmark = pytest.mark.asyncio(loop_scope="session")

LOOKS: list[dict[str, Any]] = [
    {"color_scheme": "light"},
    {"color_scheme": "dark", "locale": "zh-CN", "viewport": {"width": 360, "height": 740}},
]


@pytest.mark.parametrize("look", LOOKS, ids=["light-1280-en", "dark-360-zh"])
async def test_every_view_is_accessible_and_fits(browser: Browser, server: StudioServer, look: dict[str, Any]) -> None:
    async with listening(server.app()) as port:
        context = await new_context(browser, **look)
        studio = await open_studio(context, server, f"http://127.0.0.1:{port}")
        page = studio.page
        server.samples = noise(0.2)
        for _ in range(2):
            await studio.speak("W" * 200)
            await studio.until_done()
        await page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        await page.set_input_files("#clip-file", clip_file(f"{'long-name-' * 8}.wav", noise(2)))
        await page.wait_for_selector("#clip-editor .handle")
        await page.click("#takes > li:nth-child(1) .mark:text-is('A')")
        await page.click("#takes > li:nth-child(2) .mark:text-is('B')")
        await assert_accessible(page)
        await assert_fits(page)
        await page.click("#code-open")
        await assert_accessible(page)
        await page.click("#code-close")
        for view in ("live", "status"):
            await page.click(f"#tab-{view}")
            await page.wait_for_selector("#status-tables td, #live-text", state="attached")
            await assert_accessible(page)
            await assert_fits(page)
        assert (studio.errors, studio.foreign) == ([], [])
        await context.close()


async def test_nothing_moves_by_itself_while_it_loads_and_streams(studio: Studio, server: StudioServer) -> None:
    server.pause_s = 0.05
    await studio.speak()
    await studio.until_done()
    await studio.page.click("#play")
    await studio.until_done()
    # the new row of the list of takes is below everything
    assert await studio.page.evaluate("shift") < 0.02


async def test_both_languages_have_every_text_and_the_browser_chooses(browser: Browser, server: StudioServer) -> None:
    async with listening(server.app()) as port:
        context = await new_context(browser, locale="zh-TW")
        studio = await open_studio(context, server, f"http://127.0.0.1:{port}")
        page = studio.page
        assert await page.get_attribute("html", "lang") == "zh"
        assert await page.inner_text("#tab-write") == "文本" and await page.inner_text("#server") == "就绪"
        keys, holes = await page.evaluate(
            """async () => {
              const { ENGLISH } = await import("./studio/english.js");
              const { CHINESE } = await import("./studio/chinese.js");
              const blanks = (text) => (text.match(/\\{\\w+\\}/g) ?? []).sort().join();
              const differs = (key) => blanks(ENGLISH[key]) !== blanks(CHINESE[key] ?? "");
              const keys = [ENGLISH, CHINESE].map((texts) => Object.keys(texts).sort());
              return [keys, keys[0].filter(differs)];
            }"""
        )
        assert keys[0] == keys[1] and len(keys[0]) > 100 and holes == []
        await context.close()


async def test_a_lost_connection_is_announced_and_its_return_too(studio: Studio, server: StudioServer) -> None:
    page = studio.page
    assert not await page.is_visible("#offline")
    await page.context.set_offline(True)
    await page.wait_for_selector("#offline")
    assert "No connection to the server" in await page.inner_text("#offline")
    await studio.speak()
    await studio.until_done("failed")
    assert await studio.stage() == "The server cannot be reached."
    await page.context.set_offline(False)
    await page.wait_for_selector("#offline", state="hidden")
    assert await page.inner_text("#server") == "Ready"
    await studio.speak()
    await studio.until_playing()


async def test_the_tabs_are_worked_by_arrows_and_the_status_view_refreshes(
    studio: Studio, server: StudioServer
) -> None:
    page = studio.page
    await page.focus("#tab-write")
    await page.keyboard.press("ArrowLeft")
    assert await page.evaluate("document.activeElement.id") == "tab-status"
    await page.wait_for_selector("#status-tables th:text-is('two') + td:text-is('streams: 3 · room for 5')")
    before = await page.inner_text("#status-updated")
    await studio.until(f"document.querySelector('#status-updated').textContent !== '{before}'")
    await page.keyboard.press("ArrowRight")
    assert await page.is_visible("#text") and not await page.is_visible("#status-tables")
