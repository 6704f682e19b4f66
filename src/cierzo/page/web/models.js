// Which models there are: what each one takes and whether it fits, downloading one, following that, removing one.
//
// Downloads are the server's: they go on when the page is left, and are found again when it comes back.

import { ask, at } from "./api.js";
import { arrange, copy, dialog, h, sign, signButton, trying } from "./ui.js";
import { language, number, say, Told } from "./words.js";

const LOOK_EVERY = 1000; // milliseconds between two looks at downloads that go on
const OVER = new Set(["done", "failed", "cancelled"]);
const UNITS = [["gigabyte", 1e9, 1], ["megabyte", 1e6, 0], ["kilobyte", 1e3, 0]];

/** Bytes as people read them: 4.4 GB, 619 MB; in French, 4,4 Go. */
function size(bytes) {
  const [unit, one, digits] = UNITS.find(([, each]) => bytes >= each) ?? UNITS.at(-1);
  const form = { style: "unit", unit, unitDisplay: "short", minimumFractionDigits: digits, maximumFractionDigits: digits };
  return new Intl.NumberFormat(language, form).format(bytes / one);
}

const share = ({ bytes_done: done, bytes }) => (bytes ? Math.floor((100 * done) / bytes) : 0);

/** The models, in a dialog and in one line of the settings. */
export class Models {
  /**
   * @param {(sentence: string) => void} announce Says something to those who hear the page.
   * @param {((name: string) => Promise<void>) | null} use Makes a model the one that answers; null where nothing can.
   */
  constructor(announce, use = null) {
    this.announceOutside = announce;
    this.use = use;
    this.cards = new Map(); // by name
    this.going = new Map(); // downloads that go on, by id
    this.box = null;
    this.chosen = h("span", {});
    this.line = h("div", { id: "model-line" });
  }

  /** Put the line into the settings, and look for downloads that go on since an earlier visit. */
  async mount(column) {
    const label = h("span", { class: "label", id: "model-label" }, say("model_now"));
    const button = h("button", {
      type: "button", class: "chosen", id: "model-chosen", "aria-labelledby": "model-label model-chosen", onclick: () => this.show(),
    }, this.chosen, sign("after"));
    column.replaceChildren(label, button, this.line);
    await this.look();
  }

  /** Say in the settings which model answers; call it whenever another one does. */
  answeredBy(model) {
    if (this.chosen.textContent === model) return;
    this.chosen.textContent = model;
    this.refresh();
  }

  /** Show them all. */
  async show() {
    const told = await trying(() => ask("GET", "/api/models"));
    if (!told) return;
    this.list = h("ul", { class: "models" });
    this.status = h("p", { class: "unseen", role: "status" });
    this.machine = h("p", { class: "machine" });
    this.cards.clear();
    this.box = dialog(say("models"), this.machine, this.list, this.anyOther(), this.status);
    this.box.classList.add("wide");
    this.box.addEventListener("close", () => (this.box = null));
    this.draw(told);
    this.soon();
  }

  async refresh() {
    const told = this.box && (await this.tried(() => ask("GET", "/api/models")));
    if (told && this.box) this.draw(told);
  }

  draw({ models, machine }) {
    this.machine.textContent = say("models_machine", {
      free: size(machine.free_memory), memory: size(machine.memory), disk: size(machine.free_disk),
    });
    for (const model of models) {
      if (!this.cards.has(model.name)) this.cards.set(model.name, new Card(this));
      this.cards.get(model.name).draw(model, machine);
      if (model.download && !OVER.has(model.download.state)) this.going.set(model.download.id, model.download);
    }
    const names = new Set(models.map(({ name }) => name));
    for (const [name, card] of this.cards) if (!names.has(name) && !this.other.contains(card.element)) this.cards.delete(name);
    arrange(this.list, models.map(({ name }) => this.cards.get(name).element));
  }

  /** A form for a file of the hub that is not in the list. */
  anyOther() {
    const input = h("input", {
      type: "text", required: true, maxlength: "400", spellcheck: "false", autocomplete: "off", autocapitalize: "off",
      placeholder: say("hub_file_form"), id: "hub-file", pattern: "\\s*hf:.*",
    });
    const send = async (event) => {
      event.preventDefault();
      if (await this.download(input.value.trim())) input.value = "";
    };
    return h("form", { class: "hub-file", onsubmit: send },
      h("label", { for: "hub-file" }, say("hub_file")),
      h("div", {}, input, h("button", { type: "submit" }, say("model_download"))),
      this.other = h("ul", { class: "models" }));
  }

  /** Begin a download; gives it, or undefined where it was refused and that was told. */
  async download(name, title = name) {
    const begun = await this.tried(() => ask("POST", "/api/downloads", { model: name }));
    if (!begun) return undefined;
    this.going.set(begun.id, begun);
    this.announce(say("announce_download", { name: title }));
    this.progress(begun);
    this.soon();
    return begun;
  }

  async cancel(id) {
    const ended = await this.tried(() => ask("DELETE", at`/api/downloads/${id}`));
    if (ended) await this.ended(ended);
  }

  async remove(name) {
    if (await this.tried(() => ask("DELETE", at`/api/models/${name}`))) await this.refresh();
  }

  /** As `trying`, but what went wrong is said in the dialog: a note would lie behind it. */
  async tried(act) {
    this.complain("");
    try {
      return await act();
    } catch (error) {
      if (!(error instanceof Told)) throw error;
      this.complain(error.message);
      return undefined;
    }
  }

  complain(words) {
    this.wrong?.remove();
    if (words) this.list?.before(this.wrong = h("p", { class: "wrong", role: "alert" }, ...linked(words)));
  }

  /** Look at what goes on, as long as something does. */
  soon() {
    clearTimeout(this.timer);
    if (this.going.size) this.timer = setTimeout(() => this.look(), LOOK_EVERY);
  }

  async look() {
    const told = await ask("GET", "/api/downloads").catch(() => null); // the page says by itself when the server is away
    for (const download of told?.downloads ?? []) {
      if (!OVER.has(download.state)) this.going.set(download.id, download);
      else if (this.going.has(download.id)) await this.ended(download);
      if (this.going.has(download.id)) this.progress(download);
    }
    if (told) this.forget(new Set(told.downloads.map(({ id }) => id)));
    this.soon();
  }

  /** A server that was started anew knows nothing of what the one before it did. */
  forget(known) {
    for (const id of [...this.going.keys()].filter((each) => !known.has(each))) this.going.delete(id);
    if (!this.going.size) this.line.replaceChildren();
  }

  progress(download) {
    const name = this.titleOf(download);
    this.cards.get(download.model)?.progress(download);
    if (!this.cards.has(download.model) && this.box) {
      this.cards.set(download.model, new Card(this));
      this.cards.get(download.model).drawUnknown(download);
      this.other.append(this.cards.get(download.model).element);
      this.other.scrollIntoView({ block: "nearest" });
    }
    if (download.id !== this.going.keys().next().value) return; // the line shows one, the oldest
    const [bar] = this.line.getElementsByTagName("progress");
    if (bar) fill(bar, download);
    else this.line.append(fill(h("progress", {}), download));
    this.line.querySelector("progress").setAttribute("aria-label", say("download_of", { name }));
  }

  async ended(download) {
    if (!this.going.delete(download.id)) return;
    const name = this.titleOf(download);
    this.line.replaceChildren();
    if (download.state === "done") this.announce(say("announce_downloaded", { name }));
    else if (download.state === "failed") this.announce(say("announce_download_failed", { name }));
    else this.announce(say("announce_download_cancelled", { name }));
    const card = this.cards.get(download.model);
    card?.progress(download);
    if (card && download.state !== "failed" && this.other.contains(card.element)) {
      card.element.remove();
      this.cards.delete(download.model); // if it is here now, it is in the list
    }
    await this.refresh();
  }

  titleOf({ model }) {
    return this.cards.get(model)?.model?.title ?? model;
  }

  /** While the dialog is open nothing outside it is heard. */
  announce(sentence) {
    if (this.box) this.status.textContent = sentence;
    else this.announceOutside(sentence);
  }
}

/** One model in the list. */
class Card {
  constructor(models) {
    this.models = models;
    this.name = h("h3", {});
    this.facts = h("div", { class: "facts" });
    this.going = h("div", { class: "going" });
    this.acts = h("div", { class: "acts" });
    this.element = h("li", {}, this.name, this.facts, this.going, this.acts);
  }

  /** Show what `GET /api/models` says of it. */
  draw(model, machine) {
    this.model = model;
    this.name.textContent = model.title;
    this.facts.replaceChildren(...lines(model, machine));
    const { download } = model;
    const failed = download?.state === "failed" && !model.downloaded;
    if (download && !OVER.has(download.state)) this.progress(download);
    else if (failed) this.progress(download);
    else this.rest();
  }

  /** A file of the hub of which there is no more than a name. */
  drawUnknown(download) {
    this.model = { name: download.model, title: download.model, bytes_begun: 0 };
    this.name.textContent = download.model;
    this.progress(download);
  }

  /** Show how its download stands. */
  progress(download) {
    if (OVER.has(download.state)) {
      this.rest(download);
      return;
    }
    let [bar] = this.going.getElementsByTagName("progress");
    if (!bar) {
      bar = h("progress", { "aria-label": say("download_of", { name: this.model.title }) });
      this.going.replaceChildren(bar, h("p", {}));
      this.act("going", button(say("cancel"), () => this.models.cancel(this.download.id)));
    }
    this.download = download;
    fill(bar, download);
    this.going.querySelector("p").textContent = inWords(download);
  }

  /** Nothing of it goes on. */
  rest(ended = null) {
    const { model } = this;
    this.going.replaceChildren();
    if (ended?.error) this.going.append(h("p", { class: "wrong" }, ...linked(ended.error.message)));
    if (model.downloaded) this.here();
    else if (model.repository || model.name.startsWith("hf:")) this.away();
    else this.act("nothing");
  }

  here() {
    const { model, models } = this;
    if (model.in_use) this.act("used", h("span", { class: "used" }, sign("check"), say("model_in_use")));
    else if (models.use) this.act("here", this.chooser(), model.removable && this.remover());
    else {
      this.act("here", model.removable && this.remover());
      this.going.replaceChildren(how(model.name));
    }
  }

  /** What makes this model the one that answers. */
  chooser() {
    const { model, models } = this;
    const choose = async () => {
      await models.tried(() => models.use(model.name));
      await models.refresh();
    };
    return button(say("model_use"), choose, "main", `${say("model_use")}: ${model.title}`);
  }

  away() {
    const { name, title, bytes, bytes_begun: begun } = this.model;
    const words = begun && bytes ? say("model_go_on", { share: Math.floor((100 * begun) / bytes) }) : say("model_download");
    this.act(`away ${words}`, button(words, () => this.models.download(name, title), "main", `${words}: ${title}`),
      begun > 0 && this.remover());
  }

  remover() {
    const { model, models } = this;
    const sure = () => {
      const keep = button(say("model_keep"), () => (this.rest(), this.acts.querySelector("button:last-of-type").focus()));
      this.act("sure", h("span", {}, say("model_remove_sure", { name: model.title })),
        button(say("model_remove"), () => models.remove(model.name), "grave"), keep);
      keep.focus();
    };
    return button(say("model_remove"), sure, "", `${say("model_remove")}: ${model.title}`);
  }

  /** Show what can be done; who was among the buttons stays there. */
  act(state, ...buttons) {
    if (this.acts.dataset.state === state) return;
    const had = this.acts.contains(document.activeElement);
    this.acts.dataset.state = state;
    this.acts.replaceChildren(...buttons.filter(Boolean));
    if (had) (this.acts.querySelector("button") ?? this.models.box?.querySelector("button"))?.focus();
  }
}

function button(words, onclick, kind = "", label = null) {
  return h("button", { type: "button", class: kind || false, onclick, "aria-label": label }, words);
}

function how(name) {
  const command = `cierzo --model ${name}`;
  return h("div", { class: "command how" }, h("code", {}, command), signButton("copy", say("copy"), () => copy(command)));
}

/** What it is, what it takes, whether it fits, how fast it would be. */
function lines(model, machine) {
  const window = model.context ? say("model_window", { context: number(model.context) }) : "";
  const facts = [model.bytes && size(model.bytes), model.license || say("license_unknown"), window];
  const needs = model.needs.map(({ context, memory, fits }) =>
    h("li", {}, say("model_needs", { memory: size(memory), context: number(context) }), " ",
      h("strong", { class: `fits ${fits}` }, say(`fits_${fits}`))));
  const room = !model.downloaded && model.bytes - model.bytes_begun > machine.free_disk;
  return [
    h("p", {}, facts.filter(Boolean).join(" · ")),
    h("ul", {}, ...needs, room && h("li", {}, h("strong", { class: "fits no" }, say("disk_short")))),
    model.speed && h("p", { class: "speed" }, say("model_speed", speeds(model.speed))),
  ].filter(Boolean);
}

function speeds({ slowest, fastest }) {
  const digits = fastest < 10 ? 1 : 0;
  return { slowest: number(slowest, digits), fastest: number(fastest, digits) };
}

function fill(bar, download) {
  bar.max = Math.max(1, download.bytes);
  bar.value = download.bytes_done;
  return bar;
}

function inWords(download) {
  if (download.state === "waiting") return say("download_waiting");
  if (download.state === "checking") return say("download_checking", { share: share(download) });
  const { bytes_done: done, bytes, rate, seconds_left: left } = download;
  const parts = [say("download_fetching", { done: size(done), size: size(bytes), share: share(download) })];
  if (rate) parts.push(`${size(rate)}/s`);
  if (left !== null) parts.push(left < 90 ? say("seconds_left", { count: number(left) }) : say("minutes_left", { count: number(left / 60) }));
  return parts.join(" · ");
}

/** A sentence in which addresses can be followed. */
function linked(words) {
  return words.split(/(https:\/\/[^\s,;]+[^\s,;.:])/).map((part, place) =>
    (place % 2 ? h("a", { href: part, target: "_blank", rel: "noopener noreferrer" }, part) : part));
}
