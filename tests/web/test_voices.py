"""Voices and the reference clip: chosen, recorded, trimmed, used, kept, deleted."""

import base64
import io
import wave

import numpy as np
import pytest

from serve_app.errors import AudioTooLong
from tests.web.conftest import Studio
from tests.web.server import RATE_HZ, StudioServer, clip_file, noise, quieter

pytestmark = pytest.mark.asyncio(loop_scope="session")


def seconds_of(file: bytes) -> float:
    with wave.open(io.BytesIO(file)) as opened:
        return float(opened.getnframes() / opened.getframerate())


async def load_clip(studio: Studio, seconds: float, name: str = "aunt.wav") -> None:
    await studio.page.evaluate("document.querySelector('#clip').open = true")
    await studio.page.set_input_files("#clip-file", clip_file(name, noise(seconds)))
    await studio.page.wait_for_selector(f"#voices input:checked + .name:text-is('{name}')")


async def test_a_clip_is_trimmed_sent_kept_used_and_the_voice_deleted(studio: Studio, server: StudioServer) -> None:
    page = studio.page
    server.samples = noise(0.2)
    await load_clip(studio, 5)
    assert "look good" in await page.inner_text("#clip-editor")
    await page.focus("[aria-label='End of the part to use']")
    for _ in range(5):
        await page.keyboard.press("Shift+ArrowLeft")
    await page.focus("[aria-label='Start of the part to use']")
    await page.keyboard.press("ArrowRight")
    assert "Shorter than 3 s" in await page.inner_text("#clip-editor")
    await page.fill("#clip-editor textarea", "These very words.")
    await page.select_option("text=Background noise", "off")
    await studio.speak("Hello.")
    await studio.until_done()
    order = server.requests[0]
    sent = base64.b64decode(order["ref_audio"].partition(",")[2])
    assert seconds_of(sent) == pytest.approx(2.45, abs=0.001)
    assert sent[44:] == noise(5)[round(0.05 * RATE_HZ) : round(2.5 * RATE_HZ)].tobytes()
    assert (order["ref_text"], order["denoise"]) == ("These very words.", "off") and "voice" not in order
    assert await page.inner_text("#step-reading") == "Reading the reference"

    await page.click("text=Keep the voice")
    assert "Give the voice a name." in await page.inner_text(".keep")
    await page.fill(".keep input[type=text]", "Aunt Käthe")
    await page.click("text=Keep the voice")
    assert "Confirm that the speaker agrees." in await page.inner_text(".keep")
    assert server.uploads == []
    await page.check("text=The speaker agrees")
    await page.click("text=Keep the voice")
    await page.wait_for_selector("text=The voice “Aunt Käthe” is kept.")
    upload = server.uploads[0]
    assert (upload["name"], upload["ref_text"], upload["bytes"]) == ("Aunt Käthe", "These very words.", sent)
    assert (upload["consent"], upload["denoise"]) == ("true", "off")
    report = await page.inner_text(".report")
    assert "17.3 dB" in report and "0.12 %" in report and "quieter room" in report
    await page.click("text=Keep the voice")
    await page.wait_for_selector("text=A voice of that name exists already.")

    await page.wait_for_selector("#voices input:checked + .name:text-is('Aunt Käthe')")
    await studio.speak("Hello.")
    await studio.until_done()
    assert server.requests[1]["voice"] == server.voices[-1]["id"] and "ref_audio" not in server.requests[1]
    page.on("dialog", lambda dialog: dialog.accept())
    await page.click("[aria-label='Delete the voice Aunt Käthe']")
    await page.wait_for_selector("text=The voice “Aunt Käthe” is deleted.")
    assert "Aunt Käthe" not in [voice["name"] for voice in server.voices]
    assert await page.locator("#voices .name:text-is('Aunt Käthe')").count() == 0
    await page.wait_for_selector("#voices input:checked + .name:text-is('default')")
    assert len(studio.failed) == 1  # the second registration


async def test_a_clip_is_heard_with_and_without_its_noise_before_it_is_kept(
    studio: Studio, server: StudioServer
) -> None:
    page = studio.page
    clip, clean = noise(3), quieter(noise(3))
    await load_clip(studio, 3)
    await page.fill("#clip-editor textarea", "These very words.")
    a, b = page.locator("text=A: as it is"), page.locator("text=B: noise removed")
    silent = "#clip-editor:not(:has([aria-pressed=true]))"
    for side, which in ((b, "B: noise"), (a, "A: as it")):
        await side.click()
        await page.wait_for_selector(f"button[aria-pressed=true]:has-text('{which}')")
        await page.keyboard.press("Escape")
        await page.wait_for_selector(silent)
        report = await page.inner_text(".report")
        assert "17.3 dB" in report and "quieter room" in report
        assert ("Noise removed\nyes" in report) == (side is b)
    sent = [(preview["denoise"], preview["ref_text"]) for preview in server.previews]
    assert sent == [("on", "These very words."), ("off", "These very words.")]
    assert all(preview["bytes"][44:] == clip.tobytes() for preview in server.previews)

    before = len(await studio.heard())
    await b.click()
    await studio.until(f"heard.length > {before + 12000}")
    await a.click()  # goes on where the other one is
    await page.wait_for_selector("button[aria-pressed=true]:has-text('A: as it')")
    await page.wait_for_selector(silent)
    heard = (await studio.heard())[before:]
    assert abs(len(heard) - len(clip)) < 3000
    assert np.array_equal(heard[:12000], clean[:12000]) and np.array_equal(heard[-12000:], clip[-12000:])
    assert len(server.previews) == 2

    await b.click()
    await page.focus("[aria-label='End of the part to use']")
    await page.keyboard.press("Shift+ArrowLeft")  # another part: silence, and nothing of the old one is left
    await page.wait_for_selector(silent)
    assert await page.inner_text(".report") == ""
    await a.click()
    await page.wait_for_selector("button[aria-pressed=true]:has-text('A: as it')")
    assert len(server.previews) == 3 and seconds_of(server.previews[2]["bytes"]) == pytest.approx(2.5, abs=0.001)
    assert server.uploads == server.requests == []


async def test_what_cannot_be_heard_beforehand_is_said_in_words(studio: Studio, server: StudioServer) -> None:
    page = studio.page
    await load_clip(studio, 3)
    server.preview_error = AudioTooLong("Too long.")
    await page.click("text=A: as it is")
    await page.wait_for_selector("text=The clip is too long.")
    server.keeps_voices = False
    await page.click("text=B: noise removed")
    await page.wait_for_selector("text=This server cannot play it beforehand.")
    assert len(studio.failed) == 2 and await page.evaluate("heard.length") == 0


async def test_a_server_that_keeps_no_voices_says_so_and_the_clip_still_speaks(
    studio: Studio, server: StudioServer
) -> None:
    server.keeps_voices, server.samples = False, noise(0.2)
    await load_clip(studio, 4)
    await studio.page.fill(".keep input[type=text]", "Aunt")
    await studio.page.check("text=The speaker agrees")
    await studio.page.click("text=Keep the voice")
    await studio.page.wait_for_selector("text=This server cannot keep voices.")
    await studio.speak()
    await studio.until_done()
    assert "ref_audio" in server.requests[0]


async def test_the_microphone_gives_a_clip_and_what_is_no_sound_is_refused(
    studio: Studio, server: StudioServer
) -> None:
    page = studio.page
    await page.click("#clip summary")
    await page.set_input_files("#clip-file", {"name": "notes.txt", "mimeType": "text/plain", "buffer": b"not sound"})
    await page.wait_for_selector("text=The browser cannot read that file as sound.")
    await page.click("#clip-record")
    await page.wait_for_selector("#clip-record:has-text('(1 s)')")
    await page.click("#clip-record")
    await page.wait_for_selector("#voices input:checked + .name:text-is('My recording')")
    assert await page.inner_text("#clip-state") == ""
    server.samples = noise(0.2)
    await studio.speak()
    await studio.until_done()
    recorded = base64.b64decode(server.requests[0]["ref_audio"].partition(",")[2])
    # Chromium's test microphone beeps
    assert 0.4 < seconds_of(recorded) < 3 and any(recorded[44:])
    await page.click("#clip-editor button:has-text('Remove')")
    await page.wait_for_selector("#voices input:checked + .name:text-is('default')")
