"""What can be done with takes: compare, download, repeat from a program."""

import ast
import asyncio
import base64
import json
import subprocess
from pathlib import Path

import numpy as np
import pytest

from tests.web.conftest import Studio
from tests.web.server import StudioServer, clip_file, noise

pytestmark = pytest.mark.asyncio(loop_scope="session")

TRICKY = 'It\'s "quoted", costs $5 `here` \\ 100%\n换行 END'


async def run_bash(command: str, directory: Path) -> None:
    """The command of the page, in a shell, while the server goes on in this loop."""
    process = await asyncio.create_subprocess_exec("bash", "-ec", command, cwd=directory, stderr=subprocess.PIPE)
    _, complaints = await process.communicate()
    assert process.returncode == 0, complaints.decode()


async def test_two_takes_stand_side_by_side_and_switch_at_the_same_place(studio: Studio, server: StudioServer) -> None:
    page = studio.page
    await page.fill("#seed", "1")
    await studio.speak("First.")
    await studio.until("document.querySelector('#listen').dataset.state === 'complete'")
    await page.fill("#seed", "2")
    await studio.speak("Second.")
    await studio.until_done()
    await page.click("[aria-label='Compare take 1 as A']")
    assert not await page.is_visible("#compare")
    await page.click("[aria-label='Compare take 2 as B']")
    facts = await page.locator("#compare dd.differs").all_inner_texts()
    assert {"1", "2", "First.", "Second."} <= set(facts)
    before = len(await studio.heard())
    await page.click("text=Play A")
    await studio.until("Number(document.querySelector('#listen').dataset.played) > 6000")
    await page.click("text=Switch at the same place")
    await studio.until("document.querySelector('#listen-about').textContent.endsWith('seed 2')")
    await studio.until("Number(document.querySelector('#listen').dataset.played) > 6000")
    await studio.until_done()
    # the beginning of one and the rest of the other make one whole, give or take what was in the loudspeaker's buffer
    heard = (await studio.heard())[before:]
    assert abs(len(heard) - len(server.samples)) < 3000
    assert np.array_equal(heard[:6000], server.samples[:6000])
    assert np.array_equal(heard[-6000:], server.samples[-6000:])
    await page.click("[aria-label='Remove take 1']")
    assert not await page.is_visible("#compare")
    assert await page.locator("#takes > li").count() == 1


async def test_a_download_is_the_take_itself_or_made_again_with_its_seed(studio: Studio, server: StudioServer) -> None:
    server.samples = noise(0.2)
    await studio.speak()
    await studio.until_done()
    async with studio.page.expect_download() as saving:
        await studio.page.click("#download")
    saved = await (await saving.value).path()
    assert saved.read_bytes()[44:] == server.samples.tobytes() and len(server.requests) == 1
    await studio.page.select_option("#format", "mp3")
    async with studio.page.expect_download() as saving:
        await studio.page.click("#download")
    assert (await saving.value).suggested_filename == f"take-{server.requests[0]['seed']}.mp3"
    assert server.requests[1] == {**server.requests[0], "response_format": "mp3"}


async def test_the_programs_shown_make_the_same_request(studio: Studio, server: StudioServer, tmp_path: Path) -> None:
    page = studio.page
    await page.fill("#text", TRICKY)
    await page.fill("#instructions", "Don't hurry")
    await page.fill("#seed", "9")
    await page.click("#code-open")
    await run_bash(await page.inner_text("#code-text"), tmp_path)
    assert server.requests[0] == {
        "input": TRICKY,
        "voice": "default",
        "instructions": "Don't hurry",
        "speed": 1,
        "seed": 9,
        "response_format": "wav",
        "sample_rate": 24000,
    }
    assert (tmp_path / "speech.wav").read_bytes() == server.samples.tobytes()
    await page.click("text=Python")
    call = next(node for node in ast.walk(ast.parse(await page.inner_text("#code-text"))) if isinstance(node, ast.With))
    create = call.items[0].context_expr
    assert isinstance(create, ast.Call)
    sent = {word.arg: ast.literal_eval(word.value) for word in create.keywords}
    assert {**sent.pop("extra_body"), **sent, "model": None} == {**server.requests[0], "model": None}
    await page.click("#code-copy")
    await page.wait_for_selector("#code-state:text-matches('Copied|by hand')")


async def test_a_program_with_a_clip_sends_the_clip(studio: Studio, server: StudioServer, tmp_path: Path) -> None:
    page = studio.page
    clip = b"RIFF" + bytes(range(256)) * 600
    (tmp_path / "clip.wav").write_bytes(clip)
    await page.evaluate("document.querySelector('#clip').open = true")
    await page.set_input_files("#clip-file", clip_file("me.wav", noise(2)))
    await page.wait_for_selector("#voices input:checked + .name:text-is('me.wav')")
    await page.fill("#text", "Hello, it's me.")
    await page.click("#code-open")
    await run_bash(await page.inner_text("#code-text"), tmp_path)
    assert server.requests[0]["ref_audio"] == "data:audio/wav;base64," + base64.b64encode(clip).decode()
    assert server.requests[0]["input"] == "Hello, it's me." and "voice" not in server.requests[0]
    await page.click("text=Python")
    source = await page.inner_text("#code-text")
    ast.parse(source)
    assert '"ref_audio": clip' in source and json.dumps("Hello, it's me.") in source
