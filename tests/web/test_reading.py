"""What will be said is shown while the text is written."""

import pytest

from serve_app.errors import GenerationFailed
from tests.web.conftest import Studio
from tests.web.server import StudioServer

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_what_is_said_otherwise_is_marked_and_only_the_text_that_rests_is_asked_for(
    studio: Studio, server: StudioServer
) -> None:
    page = studio.page
    await page.fill("#text", "He has 3")
    await page.fill("#text", "He has 3 cats.")
    await page.wait_for_selector("#reading mark")
    assert await page.text_content("#reading") == "He has three cats."
    assert await page.locator("#reading mark").all_text_contents() == ["three"]
    assert (await page.text_content("#reading-count") or "").startswith("One stretch")
    assert server.readings == ["He has 3 cats."]
    await page.fill("#text", "")
    assert await page.text_content("#reading") == await page.text_content("#reading-count") == ""
    assert studio.errors == []


async def test_the_status_view_says_in_words_why_it_has_no_figures(studio: Studio, server: StudioServer) -> None:
    server.status_error = GenerationFailed("Nothing to tell.")
    await studio.page.click("#tab-status")
    await studio.page.wait_for_selector("#status-tables caption:text-is('Stages')")
    table = studio.page.locator("#status-tables table", has_text="Stages")
    assert len(await table.locator("td").inner_text()) > 10
    server.status_error = None
    await studio.page.wait_for_selector("th:text-is('Synthesis') + td:has-text('room for 11')")
    await studio.page.wait_for_selector("th:text-is('Preprocessing') + td:text-is('does not answer')")
