"""Text in, sound out: what reaches the loudspeaker, when, and what the panel says of it."""

import asyncio

import numpy as np
import pytest
from playwright.async_api import Browser

from serve_app.errors import EmptyInput, InvalidRequest, NotReady, Overloaded
from tests.api.live import listening
from tests.web.conftest import Studio, new_context, open_studio
from tests.web.server import RATE_HZ, StudioServer, noise

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_every_sample_plays_exactly_once(studio: Studio, server: StudioServer) -> None:
    server.part_bytes, server.pause_s = 2401, 0.01
    await studio.speak()
    await studio.until_done()
    assert np.array_equal(await studio.heard(), server.samples)
    assert await studio.number("bytes") == 2 * len(server.samples)
    assert int(await studio.listen("played")) == len(server.samples)
    assert await studio.number("underruns") == 0
    assert await studio.stage() == "Done. 0.8 s of sound."


async def test_sound_starts_while_the_rest_is_made(studio: Studio, server: StudioServer) -> None:
    server.part_bytes, server.hold_after, server.first_pause_s = 9601, 2, 0.2
    await studio.speak()
    await studio.until_playing()
    assert (await studio.listen("state"), server.finished) == ("receiving", 0)
    assert 0 <= await studio.number("ahead") < 0.4
    assert await studio.page.inner_text("#steps [aria-current]") == "Speaking\n188 ms"
    server.released.set()
    await studio.until_done()
    assert server.finished == 1
    first_ms, factor = await studio.number("first"), await studio.number("factor")
    assert 200 < first_ms < 5000 and factor > 0.25
    assert np.array_equal(await studio.heard(), server.samples)


async def test_a_slow_server_is_counted_and_loses_nothing(studio: Studio, server: StudioServer) -> None:
    server.samples, server.part_bytes, server.pause_s = noise(0.6), 5281, 0.3
    await studio.speak()
    await studio.until_done()
    assert await studio.number("underruns") >= 2
    assert np.array_equal(await studio.heard(), server.samples)


async def test_stop_is_silence_at_once_and_frees_the_server(studio: Studio, server: StudioServer) -> None:
    server.samples, server.pause_s = noise(30), 0.05
    await studio.speak()
    await studio.until_playing()
    await studio.page.click("#stop")
    await studio.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert 0 < float(await studio.listen("stop-ms")) < 1000
    played = len(await studio.heard())
    await asyncio.sleep(0.3)
    assert len(await studio.heard()) == played
    assert await studio.listen("state") == "stopped" and "Silent after" in await studio.stage()
    assert (server.closed, server.finished) == (1, 0)


async def test_no_audio_context_before_the_click_and_the_keyboard_counts_as_one(studio: Studio) -> None:
    assert await studio.page.evaluate("contexts") == []
    await studio.page.fill("#text", "Hello.")
    await studio.page.press("#text", "Control+Enter")
    await studio.until_done()
    await studio.page.press("#text", "Control+Enter")
    await studio.until_playing()
    assert await studio.page.evaluate("contexts") == [{"inGesture": True}]
    await studio.page.keyboard.press("Escape")
    await studio.page.wait_for_selector('#listen[data-playing="false"]')


async def test_sound_that_the_browser_holds_back_is_explained_and_played_on_demand(
    browser: Browser, server: StudioServer
) -> None:
    async with listening(server.app()) as port:
        context = await new_context(browser)
        # a click that no person made gives no right to sound; Playwright's own calls would count as a person's
        await context.add_init_script(
            """addEventListener("load", () => setTimeout(() => {
              document.querySelector("#text").value = "Hello.";
              document.querySelector("#speak").click();
            }, 300));"""
        )
        page = await context.new_page()
        await page.goto(f"http://127.0.0.1:{port}/")
        await asyncio.sleep(2)
        studio = Studio(page, server, "")
        assert await studio.stage() == "The browser holds the sound back. Press Play to hear it."
        assert await studio.listen("played") == "0"
        await page.click("#play")
        await studio.until_done()
        assert int(await studio.listen("played")) == len(server.samples)
        assert await studio.stage() == "Done. 0.8 s of sound."
        await context.close()


async def test_where_there_are_no_worklets_the_page_plays_all_the_same(browser: Browser, server: StudioServer) -> None:
    async with listening(server.app()) as port:
        context = await new_context(browser)
        studio = await open_studio(context, server, f"http://studio.test:{port}", tapped=False)
        assert not await studio.page.evaluate("isSecureContext")
        await studio.speak()
        await studio.until_done()
        assert int(await studio.listen("played")) == len(server.samples)
        assert await studio.number("underruns") == 0
        await context.close()


async def test_the_order_says_what_the_form_says_and_a_seed_is_never_missing(
    studio: Studio, server: StudioServer
) -> None:
    server.samples = noise(0.2)
    await studio.page.click("#voices label:has-text('martin')")
    await studio.page.fill("#instructions", "Softly")
    await studio.page.focus("#speed")
    await studio.page.keyboard.press("ArrowRight")
    await studio.page.fill("#seed", "42")
    await studio.speak("Good evening.")
    await studio.until_done()
    assert server.requests == [
        {
            "input": "Good evening.",
            "voice": "martin",
            "instructions": "Softly",
            "speed": 1.07,
            "seed": 42,
            "response_format": "pcm",
            "sample_rate": RATE_HZ,
        }
    ]
    await studio.page.fill("#seed", "")
    for _ in range(2):
        await studio.page.click("#speak")
        await studio.until("document.querySelector('#listen').dataset.state === 'complete'")
    seeds = [request["seed"] for request in server.requests[1:]]
    assert len(set(seeds)) == 2 and all(0 <= seed < 2**31 for seed in seeds)


async def test_refusals_are_said_in_words(studio: Studio, server: StudioServer) -> None:
    for error, words in (
        (Overloaded("busy"), "The server is busy with other listeners. Try again in 2 s."),
        (NotReady("starting"), "The server is still starting. Try again in 5 s."),
        (EmptyInput("nothing"), "There is no letter or digit to speak."),
        (InvalidRequest("Invalid 'speed': only 1.0 here."), "Invalid 'speed': only 1.0 here."),
        (ZeroDivisionError(), "The server failed. Its log says why."),
    ):
        server.error = error
        await studio.speak()
        await studio.page.wait_for_selector(f'#stage:text-is("{words}")')
        assert await studio.listen("state") == "failed"
    server.error, server.samples = None, noise(0.2)
    await studio.speak()
    await studio.until_done()
    assert await studio.stage() == "Done. 0.2 s of sound."
    assert len(studio.failed) == 5


async def test_sound_that_breaks_off_is_not_passed_off_as_whole(studio: Studio, server: StudioServer) -> None:
    server.part_bytes, server.break_after, server.pause_s = 4800, 7, 0.02
    await studio.speak()
    await studio.until_done("failed")
    # the browser drops what it had not yet handed over when the connection broke
    heard = await studio.heard()
    assert 3 * 2400 < len(heard) <= 7 * 2400
    assert np.array_equal(heard, server.samples[: len(heard)])
    arrived = f"{len(heard) / RATE_HZ:.1f} s of sound arrived and can be played."
    assert await studio.stage() == f"The server broke off before the end. {arrived}"


async def test_text_without_a_letter_is_not_sent_and_long_text_is_advised(studio: Studio, server: StudioServer) -> None:
    await studio.speak(" ... ")
    assert await studio.page.inner_text("#advice") == "Write something first."
    await studio.page.fill("#text", "é" * 151)
    assert await studio.page.inner_text("#count") == "151 characters"
    assert "150" in await studio.page.inner_text("#advice")
    await studio.page.fill("#text", "Wait for it")
    await studio.page.evaluate("document.querySelector('#text').setSelectionRange(4, 4)")
    await studio.page.click("#pause")
    await studio.page.keyboard.type("!")
    assert await studio.page.input_value("#text") == "Wait[pause 0.5s]! for it"
    await studio.speak("a" * 4097)
    assert "4096" in await studio.page.inner_text("#advice")
    assert server.requests == []


async def test_a_take_can_be_heard_again_from_any_place(studio: Studio, server: StudioServer) -> None:
    await studio.speak()
    await studio.until_done()
    box = await studio.page.locator("#seek").bounding_box()
    assert box is not None
    # the axis is 3 s long, so this is the middle of 0.8 s
    await studio.page.mouse.click(box["x"] + box["width"] * 0.4 / 3, box["y"] + 20)
    await studio.until_done()
    again = (await studio.heard())[len(server.samples) :]
    assert 0.35 < len(again) / RATE_HZ < 0.45
    assert np.array_equal(again, server.samples[-len(again) :])
    assert len(server.requests) == 1
