// Puts the page together.

import { ClipPanel } from "./clip.js";
import { CodeDialog } from "./code.js";
import { ServerWatch } from "./connection.js";
import { byId } from "./dom.js";
import { language, say, translate } from "./language.js";
import { ListenPanel } from "./listen.js";
import { LiveView } from "./live.js";
import { Options } from "./options.js";
import { Player } from "./player.js";
import { StatusView } from "./status.js";
import { Studio } from "./studio.js";
import { Tabs } from "./tabs.js";
import { TakeList } from "./takes.js";
import { VoiceList } from "./voices.js";
import { WriteView } from "./write.js";

document.documentElement.lang = language;
document.title = say("title");
translate(document);
// hidden until it has its texts, so that nothing moves
for (const part of document.querySelectorAll("body > [hidden]:not(#offline)")) part.hidden = false;

const player = new Player();
const listen = new ListenPanel(player);
const voices = new VoiceList();
const options = new Options();
options.addEventListener("key", () => voices.load());
const clip = new ClipPanel(voices, player);
const studio = new Studio({ player, listen, voices, options, clip });
const write = new WriteView(studio);
const live = new LiveView(studio);
const status = new StatusView(studio);
new TakeList(studio);
new CodeDialog(() => listen.take ?? studio.newTake(byId("text").value, 0));
const tabs = new Tabs(["write", "live", "status"], (name) => status.show(name === "status"));
new ServerWatch().start();

document.addEventListener("keydown", (event) => {
  // an input method's own Enter and Esc are not for us
  if (event.isComposing || byId("code").open) return;
  if (event.key === "Escape") {
    if (tabs.current === "live" && live.isOpen) live.interrupt();
    else studio.stop();
  } else if (event.key === "Enter" && (event.ctrlKey || event.metaKey) && tabs.current === "write") {
    event.preventDefault();
    write.speak(event.timeStamp);
  }
});
