// The conversation that is open: its branch as the server renders it, and its answers followed while they are written.

import { ApiError, ask, at, follow, newId } from "./api.js";
import { drawMessage, phaseLine, placeBlocks } from "./message.js";
import { arrange, h, note, signButton, trying } from "./ui.js";
import { say } from "./words.js";

const NEAR = 80; // pixels from the end within which the view follows what is written
const TICK = 200; // milliseconds between two looks at the clock

export class Transcript {
  /**
   * @param {object} page What the rest of the page does: `open(id)`, `parameters()`, `changed()` after a change,
   *   `answering(bool)` when an answer begins or ends, `announce(sentence)`.
   */
  constructor(page) {
    this.page = page;
    this.engine = { context: 0 };
    this.conversation = null;
    this.shown = [];
    this.articles = new Map(); // id of a message that is shown -> its element
    this.follows = new Map(); // id of an answer -> { leave, state }
    this.opened = 0;
    this.inside = h("div", { class: "inside" });
    this.element = h("section", { id: "transcript", "aria-label": say("transcript"), tabindex: "-1" }, this.inside);
    this.earlierButton = h("button", { type: "button", class: "earlier", onclick: () => trying(() => this.loadEarlier()) }, say("show_earlier"));
    this.toEnd = signButton("down", say("to_end"), () => this.scrollToEnd(), { id: "to-end", hidden: true });
    this.element.addEventListener("scroll", () => this.scrolled(), { passive: true });
    setInterval(() => this.tick(), TICK);
    this.on = {
      again: (message) => this.begin(at`/api/messages/${message.id}/again`),
      proceed: (message) => this.begin(at`/api/replies/${message.id}/continue`),
      fork: (message) => this.fork(message),
      edit: (message) => this.edit(message),
      select: (id) => this.select(id),
    };
  }

  /** The last message of the branch, on which the next one builds, or null. */
  get head() {
    return this.shown.at(-1)?.message ?? null;
  }

  /** The answer that is being written on this branch, or null. */
  get answering() {
    return this.shown.find(({ message }) => message.answer?.state === "writing")?.message ?? null;
  }

  /** The system prompt that holds at the end of the branch. */
  get system() {
    return this.shown.findLast(({ message }) => message.role === "system")?.message.text ?? "";
  }

  /** Show a conversation, or with null an empty one. Whatever an earlier call still waits for is dropped. */
  async open(id) {
    const turn = ++this.opened;
    this.leave();
    this.conversation = id ? { id } : null;
    this.shown = [];
    this.place([]);
    this.page.answering(false);
    if (!id) return this.drawStart();
    try {
      const branch = await ask("GET", at`/api/conversations/${id}/branch`);
      if (turn === this.opened) this.draw(branch, { toEnd: true });
    } catch (error) {
      if (turn === this.opened) this.drawRefusal(error, id);
    }
    return undefined;
  }

  /** Read the branch again and bring the view up to date: after a change here, or one that was made elsewhere. */
  async reload({ toEnd = false } = {}) {
    const turn = this.opened;
    const limit = toEnd ? 30 : Math.min(100, Math.max(30, this.shown.length + 2));
    const branch = await ask("GET", at`/api/conversations/${this.conversation.id}/branch?limit=${limit}`);
    if (turn === this.opened) this.draw(branch, { toEnd });
  }

  /** Look whether somebody else, in another tab or program, has gone on here. */
  async look() {
    if (!this.conversation?.updated) return;
    const turn = this.opened;
    const conversation = await ask("GET", at`/api/conversations/${this.conversation.id}/state`);
    if (turn === this.opened && conversation.updated !== this.conversation.updated) await this.reload();
  }

  draw({ conversation, messages, earlier }, { toEnd }) {
    const near = toEnd || this.isNearEnd();
    const known = toEnd ? [] : this.keptEarlier(messages); // whoever writes is at the end: the page stays light
    this.conversation = conversation;
    this.earlier = known.length ? this.earlier : earlier;
    this.shown = [...known, ...messages];
    const drawn = messages.map((shown) => drawMessage(shown, this.engine, this.on, this.articleOf(shown.message.id)));
    this.place([...known.map(({ message }) => this.articleOf(message.id)), ...drawn]);
    if (!this.shown.length) this.drawStart();
    this.followAll();
    if (near) this.scrollToEnd();
    this.page.shown(conversation);
  }

  /** Make these what is shown. Articles that came in one part stay in it. */
  place(articles) {
    this.articles = new Map(articles.map((article) => [article.dataset.id, article]));
    const parts = new Map(); // a part, or an article that is in none -> what it holds
    for (const article of articles) {
      const part = article.closest(".part");
      if (part) parts.set(part, [...(parts.get(part) ?? []), article]);
      else parts.set(article, null);
    }
    for (const [part, held] of parts) if (held) arrange(part, held);
    arrange(this.inside, [...(articles.length && this.earlier ? [this.earlierButton] : []), ...parts.keys()]);
    this.inside.classList.toggle("bare", !articles.length);
  }

  /** Earlier messages that were loaded before and still stand before the first of these. */
  keptEarlier(messages) {
    const place = this.shown.findIndex(({ message }) => message.id === messages[0]?.message.id);
    return place > 0 ? this.shown.slice(0, place) : [];
  }

  /** A new chat, or a conversation in which somebody has gone back before its first message. */
  drawStart() {
    const back = this.conversation?.messages > 0 && h("p", { class: "before-first" }, say("compose_first"), " ",
      h("button", { type: "button", class: "text-button", onclick: () => this.toNewest() }, say("to_end")));
    this.place([]);
    this.inside.append(back || this.page.start());
    this.page.shown(this.conversation);
  }

  async toNewest() {
    await trying(async () => {
      const { messages } = await ask("GET", at`/api/conversations/${this.conversation.id}`);
      await this.select(messages.at(-1).id);
    });
  }

  drawRefusal(error, id) {
    if (!(error instanceof ApiError)) throw error;
    const words = error.status === 404 ? say("no_such_conversation") : error.message;
    const again = error.status === 404 ? [say("new_chat"), () => this.page.open(null)] : [say("retry"), () => this.open(id)];
    this.place([]);
    this.inside.append(h("div", { class: "refusal", role: "alert" }, h("p", {}, words),
      h("button", { type: "button", class: "button", onclick: again[1] }, again[0])));
    this.page.shown(null);
  }

  /** Load some of what stands before: once at a time, whoever asks. */
  async loadEarlier() {
    if (this.earlier) await (this.loading ??= this.readEarlier().finally(() => (this.loading = null)));
  }

  async readEarlier() {
    const turn = this.opened;
    const first = this.shown[0].message.id;
    const through = this.head.id;
    const path = at`/api/conversations/${this.conversation.id}/branch?through=${through}&before=${first}&limit=50`;
    const { messages, earlier } = await ask("GET", path);
    if (turn !== this.opened || this.shown[0].message.id !== first) return;
    const fromEnd = this.element.scrollHeight - this.element.scrollTop;
    this.earlier = earlier;
    this.shown.unshift(...messages);
    const articles = messages.map((shown) => drawMessage(shown, this.engine, this.on));
    const part = h("div", { class: "part" }, ...articles);
    this.place([...articles, ...this.articles.values()]);
    this.element.scrollTop = this.element.scrollHeight - fromEnd;
    part.style.containIntrinsicBlockSize = `auto ${part.getBoundingClientRect().height}px`;
    part.classList.add("measured");
  }

  /** Go to a message that was found, and mark it: far back, or in a version that was not in use. */
  async goTo(id) {
    const turn = this.opened;
    const there = async () => {
      while (!this.articles.has(id) && this.earlier && turn === this.opened) await this.loadEarlier();
      return turn !== this.opened || this.articles.has(id);
    };
    if (!(await there())) {
      await ask("PATCH", at`/api/conversations/${this.conversation.id}`, { head: id });
      await this.reload();
      await there();
    }
    const article = turn === this.opened && this.articleOf(id);
    if (!article) return;
    article.classList.add("found");
    article.setAttribute("tabindex", "-1");
    article.focus({ preventScroll: true });
    article.scrollIntoView({ block: "center" });
  }

  /** Follow the answers of the branch that are being written, and leave those that are not shown any more. */
  followAll() {
    const writing = this.shown.filter(({ message }) => message.answer?.state === "writing").map(({ message }) => message);
    const wanted = new Set(writing.map(({ id }) => id));
    for (const [id, { leave }] of this.follows) if (!wanted.has(id)) (leave(), this.follows.delete(id));
    for (const message of writing) if (!this.follows.has(message.id)) this.followOne(message);
    this.page.answering(writing.length > 0);
    this.element.setAttribute("aria-busy", String(writing.length > 0));
  }

  followOne({ id, created }) {
    const age = Math.min(Math.max(0, Date.now() - Date.parse(created)), 86_400_000);
    const state = { began: performance.now() - age, tokens: 0, phase: null, lost: "" };
    const now = (change) => (Object.assign(state, { lost: "" }, change), this.tick());
    const leave = follow(id, {
      phase: (phase) => now({ phase }),
      html: ({ first, blocks, tokens }) => {
        const near = this.isNearEnd();
        if (!state.tokens) this.page.announce(say("announce_writing"));
        placeBlocks(this.articleOf(id).querySelector(".body"), first, blocks);
        now({ tokens });
        if (near) this.scrollToEnd();
      },
      end: (end) => this.ended(id, end),
      lost: (lost) => now({ lost }),
    });
    this.follows.set(id, { leave, state });
    this.tick();
  }

  async ended(id, end) {
    this.follows.get(id)?.leave();
    const words = { stopped: "announce_stopped", failed: "announce_failed", interrupted: "announce_failed" };
    this.page.announce(say(words[end.reason] ?? "announce_ended"));
    await trying(() => this.reload());
    this.page.changed();
  }

  tick() {
    for (const [id, { state }] of this.follows) {
      const line = this.articleOf(id)?.querySelector(".line");
      if (line) line.textContent = phaseLine(state);
    }
  }

  leave() {
    for (const { leave } of this.follows.values()) leave();
    this.follows.clear();
  }

  articleOf(id) {
    return this.articles.get(id);
  }

  /** Begin another answer, or go on with one: the same click again begins it once. */
  async begin(path) {
    const asked = { client_id: newId() };
    await trying(async () => {
      await ask("POST", path, { ...asked, sampling: this.page.parameters().sampling });
      await this.reload({ toEnd: true });
      this.page.changed();
    });
  }

  /** Stop what is being written here, wherever it is written. */
  async stop() {
    const { answering } = this;
    if (answering) await trying(() => ask("POST", at`/api/replies/${answering.id}/stop`));
  }

  async select(id) {
    await trying(async () => {
      await ask("PATCH", at`/api/conversations/${this.conversation.id}`, { head: id });
      await this.reload();
      this.articleOf(id)?.querySelector(".siblings button:not(:disabled)")?.focus();
    });
  }

  async fork(message) {
    const id = newId();
    await trying(async () => {
      const conversation = await ask("POST", at`/api/messages/${message.id}/fork`, { id });
      this.page.open(conversation.id);
      this.page.changed();
      note(say("forked"));
    });
  }

  /** Turn a question into a box. What is sent stands beside it, and the old one stays. */
  edit(message) {
    const article = this.articleOf(message.id);
    const box = h("textarea", { "aria-label": say("edit"), rows: Math.min(12, message.text.split("\n").length + 1) });
    box.value = message.text;
    const asked = newId();
    const end = () => {
      form.replaceWith(...children);
      article.querySelector(".actions button")?.focus();
    };
    const send = async (event) => {
      event?.preventDefault();
      if (!box.value.trim()) return;
      const done = await trying(() => this.page.send(box.value, { parent: message.parent, clientId: asked }).then(() => true));
      if (done && form.isConnected) end();
    };
    const form = h("form", { class: "editing", onsubmit: send }, box,
      h("div", {}, h("button", { type: "button", class: "button", onclick: end }, say("cancel")),
        h("button", { type: "submit", class: "button strong" }, say("save_edit"))));
    form.addEventListener("keydown", (event) => {
      if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) send(event);
      if (event.key === "Escape") (event.stopPropagation(), end());
    });
    const children = [...article.childNodes];
    article.replaceChildren(form);
    box.focus();
  }

  /** Edit the last question of the branch. */
  editLast() {
    const last = this.shown.findLast(({ message }) => message.role === "user");
    if (last && !this.answering) this.edit(last.message);
  }

  isNearEnd() {
    return this.element.scrollHeight - this.element.scrollTop - this.element.clientHeight < NEAR;
  }

  scrollToEnd() {
    this.element.scrollTop = this.element.scrollHeight;
  }

  scrolled() {
    this.toEnd.hidden = this.isNearEnd();
    if (this.element.scrollTop < 200 && this.earlier) trying(() => this.loadEarlier());
  }
}
