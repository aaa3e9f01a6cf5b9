"""One Chromium for all tests of the page; for each test a server of its own and a fresh profile."""

import asyncio
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, ConsoleMessage, Page, async_playwright

from tests.api.live import listening
from tests.web.server import Int16Array, StudioServer

FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # the policy that browsers have for people: no sound before a click
    "--autoplay-policy=document-user-activation-required",
    "--use-fake-ui-for-media-stream",
    "--use-fake-device-for-media-stream",
    # a name that is not localhost, so not secure without TLS
    "--host-resolver-rules=MAP studio.test 127.0.0.1",
]

WATCH = """
window.heard = [];
window.contexts = [];
const tap = "audioWorklet" in AudioContext.prototype && TAPPED;
if (tap) {
  const add = AudioWorklet.prototype.addModule;
  AudioWorklet.prototype.addModule = async function (url) {
    await add.call(this, "/tap.js");
    return add.call(this, url);
  };
  const Node = window.AudioWorkletNode;
  window.AudioWorkletNode = class extends Node {
    constructor(context, name, options) {
      super(context, name, options);
      if (name !== "ring-player") return;
      const tap = new Node(context, "tap", { numberOfOutputs: 0 });
      tap.port.onmessage = ({ data }) => window.heard.push(...data);
      this.connect(tap);
    }
  };
}
const Context = window.AudioContext;
window.AudioContext = class extends Context {
  constructor(options) {
    window.contexts.push({ inGesture: navigator.userActivation.isActive });
    super(options);
  }
};
window.shift = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) window.shift += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""
"""Before the page's own script: notes when audio contexts are made, what is played (where the server has a tap for
it), and how far the layout moves."""


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    executable = shutil.which("chromium")
    assert executable, "chromium is needed (apt-get install chromium)"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=executable, args=FLAGS)
        yield running
        await running.close()


@dataclass
class Studio:
    """A page and its server.

    foreign: requests to other hosts. errors: what the console complained of; failed: requests among them that the
    server refused or that never arrived.
    """

    page: Page
    server: StudioServer
    url: str
    foreign: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def watch(self) -> None:
        self.page.on("request", lambda request: self.note_request(request.url))
        self.page.on("websocket", lambda socket: self.note_request(socket.url))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", self.note_message)

    def note_request(self, url: str) -> None:
        here = self.url.partition("://")[2]
        if not url.startswith(f"blob:{self.url}") and url.partition("://")[2].partition("/")[0] != here:
            self.foreign.append(url)

    def note_message(self, message: ConsoleMessage) -> None:
        if message.text.startswith(("Failed to load resource", "WebSocket connection to")):
            self.failed.append(message.text)
        elif message.type in ("error", "warning"):
            self.errors.append(message.text)

    async def speak(self, text: str = "Hello there.") -> None:
        await self.page.fill("#text", text)
        await self.page.click("#speak")

    async def number(self, name: str) -> float:
        """One of the panel's numbers, exact."""
        value = await self.page.get_attribute(f"#n-{name}", "data-value")
        assert value is not None, f"{name} is not shown"
        return float(value)

    async def listen(self, name: str) -> str:
        """What the panel says of itself: state, playing, played (samples), stop-ms."""
        return await self.page.get_attribute("#listen", f"data-{name}") or ""

    async def stage(self) -> str:
        return await self.page.inner_text("#stage")

    async def heard(self) -> Int16Array:
        """Everything that went to the loudspeaker but silence."""
        samples = np.array(await self.page.evaluate("heard"))
        played: Int16Array = np.rint(samples[samples != 0] * 32768).astype(np.int16)
        return played

    async def until_done(self, state: str = "complete") -> None:
        """Until the take shown has that state and is silent."""
        await self.page.wait_for_selector(f'#listen[data-state="{state}"][data-playing="false"]')

    async def until_playing(self) -> None:
        await self.until("Number(document.querySelector('#listen').dataset.played) > 0")

    async def until(self, expression: str, timeout_s: float = 10) -> None:
        """Until that is true in the page (Playwright's own `wait_for_function` needs an eval that our CSP forbids)."""
        deadline = time.monotonic() + timeout_s
        while not await self.page.evaluate(expression):
            assert time.monotonic() < deadline, f"never true: {expression}"
            await asyncio.sleep(0.01)


@pytest.fixture
def server() -> StudioServer:
    """The server of this test, to be changed before or while the page uses it."""
    return StudioServer()


@pytest_asyncio.fixture(loop_scope="session")
async def studio(browser: Browser, server: StudioServer) -> AsyncGenerator[Studio, None]:
    """The page over `server`, in English, 1280 px wide; fails on errors in the console and requests elsewhere."""
    async with listening(server.app()) as port:
        context = await new_context(browser)
        opened = await open_studio(context, server, f"http://127.0.0.1:{port}")
        yield opened
        await context.close()
    assert opened.foreign == []
    assert opened.errors == []


async def new_context(browser: Browser, **options: Any) -> BrowserContext:
    settings: dict[str, Any] = {"locale": "en-GB", "viewport": {"width": 1280, "height": 900}, **options}
    context = await browser.new_context(**settings)
    context.set_default_timeout(10_000)
    return context


async def open_studio(context: BrowserContext, server: StudioServer, url: str, tapped: bool = True) -> Studio:
    """tapped: whether the server has the worklet that listens."""
    await context.add_init_script(WATCH.replace("TAPPED", "true" if tapped else "false"))
    studio = Studio(await context.new_page(), server, url)
    studio.watch()
    await studio.page.goto(url + "/")
    await studio.page.wait_for_selector("#voices input:checked")
    return studio
