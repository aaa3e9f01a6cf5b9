"""The page against the real service: Ray Serve, every deployment, the toy checkpoint (noise, not speech)."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Literal

import httpx
import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, WebSocket

from tests.api.live import listening
from tests.conftest import Service
from tests.preprocess.sounds import encoded
from tests.preprocess.spoiled import RATE, mixed, voice
from tests.preprocess.spoiled import noise as coloured
from tests.web.accessible import assert_accessible
from tests.web.conftest import Studio, new_context, open_studio
from tests.web.relay import Relay
from tests.web.server import Int16Array, StudioServer, clip_file, noise

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.service]

SENTENCE = "The train leaves the station at half past seven every morning."
NEVER_RESTS = """() => {
  const later = window.setTimeout;
  window.setTimeout = (act, ms, ...more) => (ms === 900 ? 0 : later(act, ms, ...more));
}"""
"""Live mode takes a rest of 900 ms for the end of a sentence."""
ESCAPE_WHILE_PLAYING = """() => {
  const plays = Number(document.querySelector('#n-ahead').dataset.value) > 0.5;
  if (plays) document.activeElement.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true }));
  return plays;
}"""
"""In one turn of the page, since the speech of an unfinished sentence may be heard to its end at any moment; and with
some ahead, since numbers are shown some frames late."""


@asynccontextmanager
async def opened(browser: Browser, url: str, tapped: bool) -> AsyncIterator[Studio]:
    """Fails on any error in the console and any request elsewhere or refused."""
    context = await new_context(browser)
    context.set_default_timeout(60_000)
    studio = await open_studio(context, StudioServer(), url, tapped)
    yield studio
    assert (studio.errors, studio.failed, studio.foreign) == ([], [], [])
    await context.close()


@pytest_asyncio.fixture(loop_scope="session")
async def real(browser: Browser, service: Service) -> AsyncIterator[Studio]:
    """The page as the real service serves it."""
    async with opened(browser, service.url, tapped=False) as studio:
        yield studio


@pytest_asyncio.fixture(loop_scope="session")
async def relay(service: Service) -> AsyncIterator[Relay]:
    async with httpx.AsyncClient(base_url=service.url, timeout=120, trust_env=False) as client:
        yield Relay(client)


@pytest_asyncio.fixture(loop_scope="session")
async def relayed(browser: Browser, relay: Relay) -> AsyncIterator[Studio]:
    """The page of the real service through `relay`, with every sample that goes to the loudspeaker."""
    async with (
        listening(relay.app()) as port,
        opened(browser, f"http://127.0.0.1:{port}", tapped=True) as studio,
    ):
        yield studio


def loud(body: bytes | bytearray) -> Int16Array:
    """int16 [S], what can be told from silence."""
    samples: Int16Array = np.frombuffer(bytes(body), np.int16)
    heard: Int16Array = samples[samples != 0]
    return heard


async def test_every_sample_is_played_exactly_once(relayed: Studio, relay: Relay) -> None:
    assert await relayed.page.evaluate("contexts") == [], "no sound before a person asked for it"
    await relayed.speak(SENTENCE)
    await relayed.until_done()
    [body] = relay.bodies
    assert await relayed.number("bytes") == len(body) > 24_000
    assert int(await relayed.listen("played")) == len(body) / 2
    assert np.array_equal(await relayed.heard(), loud(body))
    assert await relayed.number("underruns") == 0
    assert await relayed.page.evaluate("contexts") == [{"inGesture": True}]


async def test_sound_starts_before_the_answer_ends_and_a_gap_in_it_is_counted(relayed: Studio, relay: Relay) -> None:
    relay.hold_after = 24_001
    await relayed.speak(SENTENCE)
    await relayed.until("document.querySelector('#listen').dataset.played === '12000'", timeout_s=60)
    assert await relayed.listen("state") == "receiving" and await relayed.number("bytes") == 24_001
    assert await relayed.stage() == "Waiting for more sound."
    relay.released.set()
    await relayed.until_done()
    assert await relayed.number("underruns") >= 1
    assert np.array_equal(await relayed.heard(), loud(relay.bodies[0]))
    assert int(await relayed.listen("played")) == len(relay.bodies[0]) / 2


async def test_a_text_is_heard_whole_and_a_long_one_from_its_first_part_on(real: Studio) -> None:
    await real.speak(SENTENCE)
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
    assert float(await real.listen("stop-ms")) < 1000
    await real.page.wait_for_selector('#listen[data-state="stopped"]')


async def test_live_mode_speaks_a_sentence_while_it_is_typed_and_is_interrupted(real: Studio) -> None:
    sent: list[dict[str, Any]] = []

    def watch(socket: WebSocket) -> None:
        socket.on("framesent", lambda frame: sent.append(json.loads(frame)))

    real.page.on("websocket", watch)
    await real.page.evaluate(NEVER_RESTS)
    await real.page.click("#tab-live")
    await real.page.click("#live-start")
    await real.page.wait_for_selector("#live-text:enabled")
    await real.page.type("#live-text", "Hello there, this is typed, and it goes on and on and on and on and on")
    await real.until("Number(document.querySelector('#listen').dataset.played) > 0", timeout_s=60)
    words = [message["text"] for message in sent if message["type"] == "input.text"]
    assert words[:3] == ["Hello ", "there, ", "this "]
    assert {message["type"] for message in sent} == {"session.config", "input.text"}, "its end was not declared"
    for _ in range(50):
        if await real.page.evaluate(ESCAPE_WHILE_PLAYING):
            break
        await real.page.type("#live-text", " and on")
    await real.until("document.querySelector('#listen').dataset.stopMs !== ''")
    assert float(await real.listen("stop-ms")) < 1000
    await real.page.fill("#live-text", "Sorry?\n")
    await real.page.wait_for_selector("#takes > li:nth-child(2)")
    await real.until_done()
    assert int(await real.listen("played")) == await real.number("bytes") / 2 > 0
    assert [message["type"] for message in sent[-3:]] == ["input.cancel", "input.text", "input.flush"]
    await real.page.click("#live-start")
    await real.page.wait_for_selector("text=Not connected.")


async def test_a_voice_is_heard_beforehand_kept_used_and_deleted(relayed: Studio, relay: Relay) -> None:
    page = relayed.page
    speech, words = voice("clara")
    noisy = encoded(mixed(speech, coloured("white", len(speech)), 12), RATE)
    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", {"name": "me.wav", "mimeType": "audio/wav", "buffer": noisy})
    await page.wait_for_selector("#voices input:checked + .name:text-is('me.wav')")
    await page.fill("#clip-editor textarea", words)
    sounds = []
    for side, removed in (("A: as it is", "no"), ("B: noise removed", "yes")):
        before = len(await relayed.heard())
        await page.click(f"text={side}")
        await page.wait_for_selector(f"#clip-editor:has([aria-pressed=true]:has-text('{side}'))")
        report = await page.inner_text(".report")
        assert f"Noise removed\n{removed}" in report and "noise" in await page.inner_text(".report .bad")
        await page.wait_for_selector("#clip-editor:not(:has([aria-pressed=true]))")
        sounds.append((await relayed.heard())[before:])
    assert all(len(sound) > 2 * RATE for sound in sounds)
    quiet = [np.sort(np.abs(sound.astype(np.int32)))[: len(sound) // 4].mean() for sound in sounds]
    assert quiet[1] < 0.7 * quiet[0], "its quiet parts are quieter"
    await relayed.speak("Hello.")
    await relayed.until_done()
    assert len(relay.bodies[0]) > 0

    await page.fill(".keep input[type=text]", "Studio test")
    await page.check("text=The speaker agrees")
    await page.click("text=Keep the voice")
    await page.wait_for_selector("text=The voice “Studio test” is kept.")
    assert "dB" in await page.inner_text(".report")
    await page.wait_for_selector("#voices input:checked + .name:text-is('Studio test')")
    await relayed.speak("Hello.")
    await relayed.until_done()
    assert len(relay.bodies[1]) > 0 and await relayed.number("bytes") == len(relay.bodies[1])
    page.on("dialog", lambda dialog: dialog.accept())
    await page.click("[aria-label='Delete the voice Studio test']")
    await page.wait_for_selector("text=The voice “Studio test” is deleted.")
    listed = (await relay.client.get("/v1/audio/voices")).json()["voices"]
    assert "Studio test" not in [voice["name"] for voice in listed]


async def test_what_the_service_refuses_is_said_in_words(real: Studio, service: Service) -> None:
    page = real.page
    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", clip_file("short.wav", noise(0.2)))
    await real.speak("Hello.")
    await page.wait_for_selector("#stage:text-is('The clip is too short.')")
    await page.click("text=A: as it is")
    await page.wait_for_selector("#clip-editor .bad:text-is('The clip is too short.')")
    await page.set_input_files("#clip-file", clip_file("me.wav", noise(2)))
    await page.wait_for_selector("#voices .name:text-is('me.wav')")
    await page.check("text=The speaker agrees")
    for name, words in (
        ("a/b", "A voice cannot have that name."),
        ("clara", "A voice of that name exists already."),
    ):
        await page.fill(".keep input[type=text]", name)
        await page.click("text=Keep the voice")
        await page.wait_for_selector(f".keep .bad:text-is('{words}')")

    await page.fill(".keep input[type=text]", "Short-lived")
    await page.click("text=Keep the voice")
    await page.wait_for_selector("#voices input:checked + .name:text-is('Short-lived')")
    async with httpx.AsyncClient(base_url=service.url, timeout=60, trust_env=False) as somebody_else:
        assert (await somebody_else.delete("/v1/audio/voices/Short-lived")).status_code == 200
    await real.speak("Hello.")
    await page.wait_for_selector("#stage:text-is('The server does not know that voice any more.')")
    assert len(real.failed) == 5 and all("status of 4" in line for line in real.failed)
    real.failed.clear()


async def test_a_lost_connection_is_announced_and_work_goes_on_after_it(real: Studio) -> None:
    await real.page.context.set_offline(True)
    await real.page.wait_for_selector("#offline:has-text('No connection to the server')")
    await real.speak("Hello.")
    await real.page.wait_for_selector("#stage:text-is('The server cannot be reached.')")
    await real.page.context.set_offline(False)
    await real.page.wait_for_selector("#offline", state="hidden")
    await real.speak("Hello.")
    await real.until_done()
    assert await real.number("bytes") > 0
    assert real.failed and all("ERR_INTERNET_DISCONNECTED" in line for line in real.failed)
    real.failed.clear()


async def test_no_view_has_a_serious_fault_of_access(real: Studio) -> None:
    page = real.page
    await real.speak("It costs $5.")
    await real.until_done()
    await page.wait_for_selector("#reading mark")
    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", clip_file("me.wav", noise(2)))
    await page.wait_for_selector("#clip-editor .handle")
    await page.click("text=A: as it is")
    await page.wait_for_selector(".report li:has-text('No speech was found')")
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme in schemes:
        await page.emulate_media(color_scheme=scheme)
        for view, shown in (("write", "#text"), ("live", "#live-start"), ("status", "#status-tables td")):
            await page.click(f"#tab-{view}")
            await page.wait_for_selector(shown)
            await assert_accessible(page)
