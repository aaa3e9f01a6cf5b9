"""The ring buffer alone, block by block: no audio thread, no clock."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from playwright.async_api import Browser, Page

from tests.api.live import listening
from tests.web.server import StudioServer

pytestmark = pytest.mark.asyncio(loop_scope="session")

SETUP = """async () => {
  const { Ring } = await import("/studio/ring.js");
  const reports = [];
  const ring = new Ring({ ringSamples: 4800, prebufferSamples: 2400 }, (report) => reports.push(report));
  const block = () => { const output = new Float32Array(128); ring.render(output, 0); return output; };
  const push = (...samples) => ring.receive({ type: "push", samples: Float32Array.from(samples) });
  const ones = (count) => push(...Array(count).fill(1));
  const end = () => ring.receive({ type: "end", ending: true });
  const sound = (output) => output.reduce((total, sample) => total + (sample !== 0), 0);
  const types = () => reports.map(({ type }) => type).filter((type) => type !== "report");
  ring.receive({ type: "begin", epoch: 3 });
  BODY
}"""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def bare(browser: Browser) -> AsyncIterator[Page]:
    """A page of the server without the studio in it."""
    async with listening(StudioServer().app()) as port:
        page = await browser.new_page()
        await page.goto(f"http://127.0.0.1:{port}/ready")
        yield page
        await page.close()


async def run(bare: Page, body: str) -> Any:
    return await bare.evaluate(SETUP.replace("BODY", body))


async def test_it_wraps_many_times_without_losing_or_repeating_a_sample(bare: Page) -> None:
    result = await run(
        bare,
        """
        const total = 48000, heard = [];
        for (let sent = 0; heard.length < total;) {
          const piece = Math.min(1777, total - sent);
          if (piece && sent - heard.length + piece <= 4800) {
            push(...Array.from({ length: piece }, (_, i) => sent + i + 1));
            sent += piece;
            if (sent === total) end();
          }
          heard.push(...block().filter((sample) => sample !== 0));
        }
        const wrong = heard.filter((sample, i) => sample !== i + 1).length;
        return [heard.length, wrong, types(), reports.at(-1).played, reports.at(-1).underruns, sound(block())];
        """,
    )
    assert result == [48000, 0, ["started", "ended"], 48000, 0, 0]


async def test_it_waits_for_the_prebuffer_or_the_end(bare: Page) -> None:
    result = await run(bare, "ones(2399); const before = sound(block()); ones(1); return [before, sound(block())];")
    assert result == [0, 128]
    assert await run(bare, "ones(100); end(); return [sound(block()), types()];") == [100, ["started", "ended"]]
    assert await run(bare, "end(); return [sound(block()), types()];") == [0, ["ended"]]


async def test_a_pause_is_an_underrun_only_if_more_sound_follows(bare: Page) -> None:
    starved = "ones(2400); for (let i = 0; i < 30; i++) block();"
    assert await run(bare, starved + "end(); block(); return [reports.at(-1).underruns, types()];") == [
        0,
        ["started", "ended"],
    ]
    more = starved + "ones(100); const early = sound(block()); ones(2300); block(); ring.report('report');"
    assert await run(bare, more + "return [early, reports.at(-1).underruns, reports.at(-1).played];") == [0, 1, 2528]


async def test_a_halt_fades_within_one_block_and_forgets_the_rest(bare: Page) -> None:
    result = await run(
        bare,
        """
        ones(4800);
        block();
        ring.receive({ type: "halt" });
        const fade = block();
        const falling = fade.every((sample, i) => i === 0 || sample < fade[i - 1]);
        return [falling, fade[0] < 1, fade.at(-1), sound(block()), types(), reports.at(-1).epoch];
        """,
    )
    assert result == [True, True, 0, 0, ["started", "halted"], 3]
