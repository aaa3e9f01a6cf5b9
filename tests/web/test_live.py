"""Live mode: words leave as they are typed, and Esc interrupts."""

import asyncio

import numpy as np
import pytest

from tests.web.conftest import Studio
from tests.web.server import StudioServer, noise

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def start(studio: Studio) -> None:
    await studio.page.click("#tab-live")
    await studio.page.click("#live-start")
    await studio.page.wait_for_selector("#live-text:enabled")


async def test_words_leave_as_they_are_typed_and_each_rest_is_spoken_once(studio: Studio, server: StudioServer) -> None:
    server.samples = noise(0.3)
    await start(studio)
    await studio.page.evaluate(
        """() => {
          const stage = document.querySelector("#stage");
          window.stages = [];
          new MutationObserver(() => stages.push(stage.textContent)).observe(stage, { childList: true });
        }"""
    )
    await studio.page.type("#live-text", "Well, hello there. And 3.5 more")
    await studio.until("heard.length > 0")  # what was begun leaves when the typist rests
    await studio.until_done()
    await studio.page.click("#voices label:has-text('martin')")
    await studio.page.type("#live-text", "Bye.\n")
    await studio.until("heard.length >= 14400")
    await studio.until_done()
    await studio.page.click("#live-start")
    await studio.page.wait_for_selector("text=Not connected.")
    kinds = [message["type"] for message in server.messages]
    assert kinds == [
        "session.config",
        *6 * ["input.text"],
        "input.flush",
        "session.config",
        "input.text",
        "input.flush",
        "session.close",
    ]
    configs = [message for message in server.messages if message["type"] == "session.config"]
    assert [(config["voice"], config["response_format"]) for config in configs] == [
        ("default", "pcm"),
        ("martin", "pcm"),
    ]
    texts = [message["text"] for message in server.messages if message["type"] == "input.text"]
    assert texts == ["Well, ", "hello ", "there. ", "And ", "3.5 ", "more", "Bye.\n"]
    assert np.array_equal(await studio.heard(), np.tile(server.samples, 2))
    assert await studio.number("underruns") == 0
    assert await studio.page.locator("#takes > li").count() == 1
    assert "Speaking as you type." in await studio.page.evaluate("stages")


async def test_a_pause_of_the_typist_is_no_underrun(studio: Studio, server: StudioServer) -> None:
    server.samples, server.speaks_words = noise(0.3), True
    await start(studio)
    for count, word in enumerate(("One ", "two ", "three"), 1):
        await studio.page.type("#live-text", word)
        # all of it, though the sentence is not complete; the last word leaves when the typist rests
        await studio.until(f"heard.length >= {count * len(server.samples)}")
    await studio.until_done()
    assert np.array_equal(await studio.heard(), np.tile(server.samples, 3))
    assert int(await studio.listen("played")) == await studio.number("bytes") / 2 == 3 * len(server.samples)
    assert await studio.number("underruns") == 0
    assert await studio.page.locator("#takes > li").count() == 1


async def test_escape_interrupts_and_the_next_words_are_spoken(studio: Studio, server: StudioServer) -> None:
    server.samples, server.pause_s = noise(20), 0.05
    await start(studio)
    await studio.page.type("#live-text", "A long story. ")
    await studio.until_playing()
    await studio.page.keyboard.press("Escape")
    await studio.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert float(await studio.listen("stop-ms")) < 1000
    assert server.messages[-1] == {"type": "input.cancel"}
    heard = len(await studio.heard())
    await asyncio.sleep(0.2)
    assert len(await studio.heard()) == heard and server.closed == 1
    server.samples, server.pause_s = noise(0.3), 0
    await studio.page.keyboard.type("Sorry? ")
    await studio.until_done()
    assert np.array_equal((await studio.heard())[heard:], server.samples)


async def test_a_server_without_live_speech_says_so(studio: Studio, server: StudioServer) -> None:
    server.has_live = False
    await studio.page.click("#tab-live")
    await studio.page.click("#live-start")
    await studio.page.wait_for_selector("text=This server does not offer live speech.")
    assert await studio.page.is_disabled("#live-text")


async def test_words_are_complete_at_their_space_or_where_there_are_none_at_once(studio: Studio) -> None:
    split = await studio.page.evaluate(
        """async () => {
          const { splitWords } = await import("./studio/live.js");
          return ["It is 3.14", "你好，世界", "这是GPT", "3月5", "カタカナ", "a\\nb", "", "Wait... "].map(splitWords);
        }"""
    )
    assert split == [
        ["It is ", "3.14"],
        ["你好，世界", ""],
        ["这是", "GPT"],
        ["3月", "5"],
        ["カタカナ", ""],
        ["a\n", "b"],
        ["", ""],
        ["Wait... ", ""],
    ]
