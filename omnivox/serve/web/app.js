// The page: puts the parts together and keeps what is shown true.

import { Conversation } from "./conversation.js";
import { Examples } from "./examples.js";
import { Input } from "./input.js";
import { Player } from "./player.js";
import { CAUSES, Realtime } from "./realtime.js";
import { Settings } from "./settings.js";
import { Talk } from "./talk.js";
import { Transcript } from "./transcript.js";

const $ = (id) => document.getElementById(id);
const test = new URLSearchParams(location.search).has("test") ? { sent: [], received: [], tap: [], shown: [] } : null;
const EXAMPLES = new URL("web/examples.json", document.baseURI);
const HARMLESS = new Set(["response_cancel_not_active", "item_retrieve_invalid_item_id"]); // it had just gone

const link = new Realtime(document.baseURI);
const player = new Player({
  started: (item, when) => conversation.started(item, when),
  progress: (item, played, level) => {
    conversation.progress(item, played);
    test?.shown.push([item, played - player.delay, conversation.words(item)]);
    meter($("meter-out"), level);
  },
  ended: (item) => conversation.ended(item),
  tap: (samples) => test.tap.push(samples),
}, test !== null);
const transcript = new Transcript($("log"), $("welcome"), $("announcer"));
const conversation = new Conversation(link, player, transcript, { phase: show });
const settings = new Settings($("settings-form"), () => {
  if (settings.manual && input.listening) input.listen(false);
  link.send("session.update", { session: settings.session() });
  show();
});
const input = new Input(link, player, settings, conversation, {
  change: show,
  notice,
  level: (value) => meter($("meter-in"), value),
});
const talk = new Talk($("talk"), input, () => settings.manual);
const examples = new Examples($("example-list"), (url, words) => input.play(url, words));

// What is shown.

const STATUS = {
  hearing: "Hearing you",
  thinking: "Thinking",
  answering: "Answering",
};

function show() {
  const { open } = link;
  const phase = input.holding ? "recording" : conversation.phase;
  say($("status"), status(phase));
  const recording = input.listening || input.holding;
  $("talk").disabled = !open;
  $("talk").setAttribute("aria-pressed", String(recording));
  $("talk").classList.toggle("hold", settings.manual);
  say($("talk-label"), label(recording));
  $("send").disabled = !open;
  $("stop").disabled = !["thinking", "answering"].includes(conversation.phase);
  for (const button of $("example-list").querySelectorAll("button")) button.disabled = !open;
  examples.show(input.example);
  if (conversation.phase !== "answering") meter($("meter-out"), 0);
}

function status(phase) {
  if (link.state === "connecting") return "Connecting";
  if (!link.open) return "Not connected";
  if (phase === "recording") return talk.latched ? "Recording; press again to send" : "Recording; release to send";
  if (phase === "answering" && input.listening) return "Answering; speak to interrupt";
  if (phase !== "idle") return STATUS[phase];
  if (input.listening) return "Listening; just speak";
  return settings.manual ? "Ready; hold to talk" : "Ready";
}

function label(recording) {
  if (settings.manual) return recording ? "Send" : "Hold to talk, or press to start";
  return recording ? "Stop listening" : "Start talking";
}

/** Only what is new, so that screen readers are not told the same again. */
function say(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

function meter(node, level) {
  const shown = level > 0 ? Math.max(0, Math.min(1, (20 * Math.log10(level) + 54) / 48)) : 0;
  node.firstElementChild.style.transform = `scaleX(${shown.toFixed(3)})`;
  node.setAttribute("aria-valuenow", String(Math.round(100 * shown)));
  if (node.id === "meter-in") $("talk").style.setProperty("--level", shown.toFixed(3));
}

// Notices: one at a time, the newest.

let act = () => {};

function notice(text, { action = "", perform = () => {}, key = false, sticky = false } = {}) {
  act = perform;
  say($("notice-text"), text);
  $("notice").dataset.shown = String(Boolean(text));
  $("key-form").hidden = !key;
  $("notice-action").hidden = !action;
  $("notice-action").textContent = action;
  $("notice-close").hidden = !text || sticky;
}

$("notice-action").addEventListener("click", () => act());
$("notice-close").addEventListener("click", () => notice(""));
$("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  link.key = $("key").value.trim();
  $("key").value = "";
  link.connect();
});

// The connection.

link.addEventListener("state", ({ detail: { state, cause, reason, seconds } }) => {
  $("connection").dataset.state = state;
  say($("connection-text"), { open: `Connected to ${link.model}`, connecting: "Connecting" }[state] ?? "Not connected");
  if (state !== "open" && state !== "connecting") {
    input.lose();
    conversation.lose();
    if (state === "closed" && input.listening) input.listen(false);
  }
  if (state === "open") {
    notice("");
    transcript.divide("New conversation");
    link.send("session.update", { session: settings.session() });
    if (!$("example-list").childElementCount) examples.load(EXAMPLES).then(show);
  } else if (cause) {
    refuse(cause, reason, state === "waiting" ? seconds : 0);
  }
  show();
});

function refuse(cause, reason, seconds) {
  const key = ["key", "badKey", "oddKey"].includes(cause);
  const why = reason && !key ? ` (${reason})` : "";
  const text = CAUSES[cause].text.replace(/\.$/, `${why}.`);
  const again = seconds ? ` Trying again in ${Math.max(1, Math.round(seconds))} s.` : "";
  notice(text + again, { key, sticky: true, action: key ? "" : "Connect now", perform: () => link.connect() });
  if (key) $("key").focus();
}

link.addEventListener("event", ({ detail: event }) => {
  test?.received.push(event);
  if (event.type === "error" && !HARMLESS.has(event.error.code)) notice(event.error.message);
  conversation.handle(event);
});
if (test) {
  link.addEventListener("sent", ({ detail }) => test.sent.push(detail));
  globalThis.omnivoxTest = Object.assign(test, { link, rate: () => player.context.sampleRate });
}

// The rest of the page.

$("write").addEventListener("submit", (event) => {
  event.preventDefault();
  const text = $("text").value.trim();
  if (!text || !link.open) return;
  $("text").value = "";
  player.start().catch((error) => notice(`There is no sound (${error.message}).`)).then(() => conversation.write(text));
});
$("stop").addEventListener("click", () => conversation.stop());
$("restart").addEventListener("click", () => {
  link.close();
  transcript.clear();
  link.connect();
});

function panel(open) {
  $("settings").hidden = !open;
  $("settings-toggle").setAttribute("aria-expanded", String(open));
}
$("settings-toggle").addEventListener("click", () => panel($("settings").hidden));
$("settings-close").addEventListener("click", () => {
  panel(false);
  $("settings-toggle").focus();
});
document.addEventListener("keydown", (event) => {
  if (event.key !== "Escape") return;
  if (!$("stop").disabled) conversation.stop();
  else if (!wide.matches && !$("settings").hidden) $("settings-close").click();
});
// After a click with the pointer the keyboard goes back to the page, so that the space bar talks.
document.addEventListener("click", (event) => {
  const button = event.target.closest("button");
  if (button && event.detail > 0 && document.activeElement === button) button.blur();
});

const wide = matchMedia("(min-width: 60rem)"); // where the panel has room beside the conversation
wide.addEventListener("change", () => panel(wide.matches));
panel(wide.matches);
show();
link.connect();
