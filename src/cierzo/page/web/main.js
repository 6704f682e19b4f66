// Puts the page together: Gradio has drawn two bars around an empty middle, and this fills all three.

import { ApiError, ask, at, newId } from "./api.js";
import { Composer } from "./composer.js";
import { Engine } from "./engine.js";
import { mountList } from "./list.js";
import { nameOf } from "./message.js";
import { closeBars, markEngine, parameters, setSystem } from "./settings.js";
import { Models } from "./models.js";
import { showKeys } from "./start.js";
import { Transcript } from "./transcript.js";
import { h, note, signButton, trying } from "./ui.js";
import { say, Told } from "./words.js";

const LOOK_EVERY = 4000; // milliseconds between two looks at what other tabs and programs have changed

class Page {
  constructor(talk, list) {
    this.engine = null;
    this.pending = null; // a message of which nobody knows yet whether it was stored
    this.transcript = new Transcript(this);
    this.composer = new Composer({
      send: (text) => this.submit(text),
      stop: () => this.transcript.stop(),
      editLast: () => this.transcript.editLast(),
    });
    this.title = h("h1", { id: "title" });
    this.models = new Models((sentence) => this.announce(sentence), (model) => this.chooser.use({ model }));
    this.chooser = new Engine({
      changed: (engine) => this.answeredBy(engine),
      announce: (sentence) => this.announce(sentence),
      more: () => this.models.show(),
    });
    this.offline = h("p", { id: "offline", role: "alert", hidden: true }, say("offline"));
    this.announcer = h("p", { id: "announcer", class: "unseen", role: "status" });
    this.bar = h("header", { id: "bar" }, this.title, this.chooser.button, signButton("keys", say("keys"), showKeys, { id: "keys" }));
    talk.replaceChildren(this.bar,
      this.transcript.element, this.transcript.toEnd, this.offline, this.composer.element, this.announcer);
    this.list = mountList(list, { open: (id, found) => this.open(id, { found }) });
    addEventListener("popstate", () => this.open(idInAddress(), { remember: false }));
    addEventListener("keydown", (event) => this.pressed(event));
    setInterval(() => this.look(), LOOK_EVERY);
    document.addEventListener("visibilitychange", () => this.look());
    addEventListener("online", () => this.look());
  }

  async begin() {
    const opening = this.open(idInAddress(), { remember: false });
    await this.chooser.look().catch(() => {}); // it is looked for again in a few seconds
    this.models.mount(await drawn("#model-now"));
    await opening;
    if (!this.transcript.shown.length && !this.transcript.conversation) this.transcript.drawStart();
    document.documentElement.dataset.ready = "";
  }

  /** Show a conversation, or with null a new chat, and put it into the address. `found` is a message to go to. */
  async open(id, { remember = true, found = null } = {}) {
    if (remember && id !== idInAddress()) history.pushState(null, "", id ? `/?c=${encodeURIComponent(id)}` : "/");
    this.composer.turnTo(id);
    this.list.select(id);
    closeBars();
    const focused = document.activeElement;
    await this.transcript.open(id);
    if (found) await trying(() => this.transcript.goTo(found));
    setSystem(id ? this.transcript.system : null);
    if ([focused, document.body].includes(document.activeElement)) this.composer.focus(); // else somebody types elsewhere
  }

  /** The transcript calls it when it shows another conversation, or another state of this one. */
  shown(conversation) {
    const title = conversation?.title || "";
    this.title.textContent = title || say("new_chat");
    document.title = title ? `${title} · Cierzo` : "Cierzo";
    this.bar.classList.toggle("talking", this.transcript.shown.length > 0);
  }

  /** Another engine answers, or one is known for the first time: what depends on it follows. */
  answeredBy(engine) {
    this.engine = engine;
    this.transcript.engine = engine;
    markEngine(engine);
    this.models.answeredBy(nameOf(engine.model));
    const begun = "ready" in document.documentElement.dataset;
    if (begun && !this.transcript.shown.length) this.transcript.drawStart();
  }

  start() {
    const notice = this.noticeWords();
    const examples = [1, 2, 3, 4].map((place) => say(`example_${place}`));
    const offers = this.engine?.model === "cierzo-demo";
    return h("div", { class: "start" },
      h("img", { src: "/cierzo/icon.svg", alt: "", width: "56", height: "56" }),
      h("h2", {}, say("greeting")),
      h("div", { class: "examples" }, ...examples.map((text) =>
        h("button", { type: "button", class: "example", onclick: () => this.submit(text) }, text))),
      notice && h("p", { class: "notice" }, notice, " ",
        offers && h("button", { type: "button", class: "text-button", onclick: () => this.models.show() }, say("offer"))));
  }

  noticeWords() {
    if (this.engine?.engine === "scripted") return say("notice_scripted");
    return this.engine?.model === "cierzo-demo" ? say("notice_demo", { model: nameOf(this.engine.model) }) : "";
  }

  parameters() {
    return parameters();
  }

  /** Send what was typed at the end of the branch. Gives whether it was stored; a refusal is told, and nothing is lost. */
  async submit(text) {
    const conversation = this.transcript.conversation?.id ?? null;
    const again = this.pending?.text === text && this.pending.conversation === conversation;
    this.pending = again ? this.pending : { text, conversation, clientId: newId(), newConversation: newId() };
    try {
      await this.send(text, { parent: this.transcript.head?.id ?? null, clientId: this.pending.clientId });
      this.pending = null;
      return true;
    } catch (error) {
      if (!(error instanceof Told)) throw error;
      const unsure = error instanceof ApiError && error.status === 0;
      if (!unsure) await this.forgetPending(conversation);
      this.composer.giveBack(text);
      note(unsure ? say("offline_send") : error.message, [say("retry"), () => this.composer.submit()], { failed: true });
      return false;
    }
  }

  /** A question was refused: the conversation that was made for it is not to stay behind, empty. */
  async forgetPending(conversation) {
    const { newConversation, made } = this.pending;
    this.pending = null;
    if (!conversation && made) await ask("DELETE", at`/api/conversations/${newConversation}`).catch(() => {});
  }

  /** Store a question after `parent` and begin its answer. */
  async send(text, { parent, clientId }) {
    const { sampling, system } = parameters();
    let { conversation } = this.transcript;
    if (!conversation) {
      this.pending.made = true;
      conversation = await ask("POST", "/api/conversations", { id: this.pending.newConversation });
    }
    const body = { text, parent, client_id: clientId, sampling };
    if (system !== this.transcript.system) body.system = system;
    await ask("POST", at`/api/conversations/${conversation.id}/messages`, body);
    if (this.transcript.conversation) await this.transcript.reload({ toEnd: true });
    else await this.open(conversation.id);
    this.changed();
  }

  answering(is) {
    this.composer.answering(is);
  }

  /** Say it to those who hear the page. */
  announce(sentence) {
    this.announcer.textContent = sentence;
  }

  changed() {
    this.list.refresh().catch(() => {}); // it is read again in a few seconds anyway
  }

  async look() {
    if (document.hidden) return;
    try {
      await Promise.all([this.transcript.look(), this.list.refresh(), this.chooser.look()]);
      this.offline.hidden = true;
    } catch (error) {
      if (!(error instanceof ApiError)) throw error;
      this.offline.hidden = error.status !== 0;
    }
  }

  pressed(event) {
    const command = event.ctrlKey || event.metaKey;
    const key = event.key.toLowerCase();
    const typing = event.target.matches?.("input, textarea, select, [contenteditable]");
    const open = document.querySelector("dialog[open], .menu:popover-open");
    let act = null;
    if (command && key === "k") act = () => this.list.focusSearch();
    else if (command && event.shiftKey && key === "o") act = () => this.open(null);
    else if (key === "escape" && !open && this.transcript.answering) act = () => this.transcript.stop();
    else if (key === "?" && !typing && !open) act = showKeys;
    if (!act) return;
    event.preventDefault();
    act();
  }
}

function idInAddress() {
  return new URLSearchParams(location.search).get("c");
}

/** Gradio draws in its own time: wait for a part of its page. */
function drawn(selector) {
  return new Promise((resolve) => {
    const look = () => document.querySelector(selector);
    if (look()) return resolve(look());
    const watch = new MutationObserver(() => look() && (watch.disconnect(), resolve(look())));
    watch.observe(document.body, { childList: true, subtree: true });
    return undefined;
  });
}

/** Say on the frame around everything which bars are open, in place of Gradio's own rule: see page.css. */
function frameBars() {
  const bars = { "list-open": document.getElementById("side"), "settings-open": document.getElementById("settings") };
  const frame = bars["list-open"].closest(".wrap");
  const tell = () => {
    if (frame.classList.contains("sidebar-parent")) frame.classList.replace("sidebar-parent", "frame"); // each bar sets it
    for (const [name, bar] of Object.entries(bars)) frame.classList.toggle(name, bar.classList.contains("open"));
  };
  for (const part of [frame, ...Object.values(bars)]) new MutationObserver(tell).observe(part, { attributeFilter: ["class"] });
  tell();
}

const page = new Page(await drawn("#talk"), await drawn("#conversations"));
frameBars();
await page.begin();
