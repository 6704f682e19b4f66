// What answers: the button that names it, the menu that changes it, and what a page shows of a change, also of one that
// was made elsewhere. It knows no chats.

import { ask } from "./api.js";
import { nameOf } from "./message.js";
import { dialog, h, note, openMenu, trying } from "./ui.js";
import { count, number, say } from "./words.js";

const EMBEDDED = "llamacpp:";
const LOOK_EVERY = 600; // milliseconds between two looks while it changes
const SAMPLING = ["temperature", "max_new_tokens", "top_p", "repetition_penalty", "top_k", "min_p", "seed", "stop"];

export class Engine {
  /**
   * @param {object} on What the page does: `changed(engine)` when another one answers, or the same one otherwise, with
   *   the answer of `GET /api/engine`; `announce(sentence)` for those who hear the page; `more()` shows all models.
   */
  constructor(on) {
    this.on = on;
    this.now = null;
    this.button = h("button", { type: "button", id: "model", hidden: true, "aria-haspopup": "menu", onclick: () => this.menu() });
  }

  /** Ask the server what answers, and show it. */
  async look() {
    this.take(await ask("GET", "/api/engine"));
  }

  take(said) {
    const before = this.now;
    this.now = said;
    this.draw();
    clearTimeout(this.timer);
    if (said.changing) this.timer = setTimeout(() => this.look().catch(() => {}), LOOK_EVERY); // else the page looks by itself
    if (before && same(before, said)) return;
    this.on.changed(said);
    if (before && before.model !== said.model) this.on.announce(say("engine_changed", { name: nameOf(said.model) }));
  }

  draw() {
    const { changing, model, verified } = this.now;
    const named = [nameOf(model), ...(verified ? [] : [say("template_of_file")])].join(" · ");
    this.button.textContent = changing ? inWords(changing) : named;
    this.button.classList.toggle("changing", Boolean(changing));
    this.button.hidden = false;
  }

  /**
   * Have another model or engine answer, here and in every other view. Resolves when it answers.
   *
   * @param {{model?: string, engine?: string}} wanted As `PUT /api/engine` takes it.
   * @throws {ApiError} It cannot answer: the old one does.
   */
  async use(wanted) {
    this.take({ ...this.now, changing: { to: wanted.model ?? wanted.engine, percent: null } });
    try {
      this.take(await ask("PUT", "/api/engine", wanted));
    } catch (error) {
      await this.look().catch(() => this.take({ ...this.now, changing: null }));
      throw error;
    }
  }

  async choose(wanted) {
    await trying(async () => {
      await this.use(wanted);
      note(say("engine_changed", { name: nameOf(this.now.model) }));
    });
  }

  async menu() {
    const told = await trying(() => ask("GET", "/api/models"));
    if (!told) return;
    const built = this.now.address === EMBEDDED;
    const entry = (name, used, wanted) => [used ? say("engine_in_use", { name }) : name, () => used || this.choose(wanted)];
    const entries = [
      ...told.models.filter(({ downloaded }) => downloaded)
        .map(({ name }) => entry(nameOf(name), built && name === this.now.chosen, { model: name })),
      ...this.now.addresses.filter((each) => each !== EMBEDDED)
        .map((address) => entry(address, address === this.now.address, { engine: address })),
      [say("engine_about"), () => this.about()],
      [say("engine_more"), () => this.on.more()],
    ];
    openMenu(this.button, entries);
  }

  /** Say all that is known of what answers. */
  about() {
    const { model, address, engine, template, context, slots, version, honours, details } = this.now;
    const names = (list) => list.map((name) => say(name === "stop" ? "stop_strings" : name)).join(", ");
    const ignored = SAMPLING.filter((name) => !honours.includes(name));
    const facts = [
      [say("model_now"), model], [say("engine_address"), [address || engine, version].filter(Boolean).join(" · ")],
      [say("engine_template"), template], [say("engine_window"), count("tokens", context)],
      [say("engine_slots"), number(slots)],
      [say("engine_honours"), names(SAMPLING.filter((name) => honours.includes(name)))],
      [say("engine_ignores"), names(ignored)],
      [say("engine_details"), details.map((name) => say(`detail_${name}`)).join(", ")],
    ];
    dialog(say("engine_about"), h("dl", { class: "keys" }, ...facts.filter(([, value]) => value)
      .flatMap(([name, value]) => [h("dt", {}, name), h("dd", {}, value)])));
  }
}

const same = (one, other) => JSON.stringify({ ...one, changing: null }) === JSON.stringify({ ...other, changing: null });

function inWords({ to, percent }) {
  const name = to.includes("://") ? to : nameOf(to);
  return percent === null ? say("engine_changing", { name }) : say("engine_changing_at", { name, percent });
}
