// The conversations, in Gradio's left bar: by day, or those that a search finds. What is done to them: list-acts.js.
//
// What is shown is read again and again, so it is changed in place: a row keeps its element for as long as it is
// there, and with it the focus, the place in the list and whatever is open in it. Titles are other people's text.

import { ask } from "./api.js";
import { named, openListMenu, openRowMenu, remove, rename, takeDrops, visible } from "./list-acts.js";
import { arrange, h, sign, signButton } from "./ui.js";
import { language, say, Told } from "./words.js";

const PAGE = 50; // rows that "More" adds
const PAUSE = 150; // milliseconds without a key after which what was typed is searched
const DAY = 86_400_000;

/**
 * Draw the list into Gradio's left bar.
 *
 * @param {HTMLElement} element Where.
 * @param {{open: (id: string|null, found?: string) => void}} on Shows a conversation, at the message that a search
 *   found; null is a new one.
 */
export function mountList(element, { open }) {
  const list = new List(element, open);
  list.refresh();
  return {
    /** Read it again; in vain, it stays as it was, and the error is raised. */
    refresh: async () => {
      const failed = await list.refresh();
      if (failed) throw failed;
    },
    select: (id) => list.select(id),
    focusSearch: () => (list.search.focus(), list.search.select()),
  };
}

// --- what can be shown: each a route, and what it calls its items and the place to go on ---------------

const CURRENT = { path: "/api/conversations", query: {}, items: "conversations", next: "after", most: 200 };
const ARCHIVE = { ...CURRENT, query: { archived: true } };
const hitsFor = (q) => ({ path: "/api/search", query: { q }, items: "hits", next: "before", most: 100 });

/** Read so many items, or all there are, in as few requests as the route allows. */
async function read({ path, query, items, next, most }, wanted) {
  const all = [];
  let from = null;
  do {
    const asked = new URLSearchParams({ ...query, limit: Math.min(most, wanted - all.length) });
    if (from !== null) asked.set(next, from);
    const page = await ask("GET", `${path}?${asked}`);
    all.push(...page[items]);
    from = page[next];
  } while (from !== null && all.length < wanted);
  return { items: all, more: from !== null };
}

// --- the place in the list, which a reload of this tab does not lose -------------------------------------------------

function lastPlace() {
  try {
    return JSON.parse(sessionStorage.getItem("cierzo.place")) ?? [PAGE, 0];
  } catch {
    return [PAGE, 0]; // storage is switched off
  }
}

function keepPlace(place) {
  try {
    sessionStorage.setItem("cierzo.place", JSON.stringify(place));
  } catch {
    // the list begins at its top then
  }
}

// --- groups ---------------------------------------------------------------------------------------------------------

const months = new Intl.DateTimeFormat(language, { month: "long", year: "numeric" });
const dayOf = (date) => Date.UTC(date.getFullYear(), date.getMonth(), date.getDate()) / DAY; // days have 23 to 25 hours

/** The group of a conversation: a number that grows from old to new, and its name. */
function groupOf({ pinned, updated }) {
  const date = new Date(updated);
  const ago = dayOf(new Date()) - dayOf(date);
  if (pinned) return [1e9 + 3, say("pinned_group")];
  if (ago <= 0) return [1e9 + 2, say("today")];
  if (ago === 1) return [1e9 + 1, say("yesterday")];
  if (ago <= 7) return [1e9, say("earlier_week")];
  return [date.getFullYear() * 12 + date.getMonth(), months.format(date)];
}

/** Conversations by group, newest first. The server has what was imported last on top, however old it is. */
function grouped(conversations) {
  const groups = new Map();
  for (const item of conversations.toSorted((one, other) => Date.parse(other.updated) - Date.parse(one.updated))) {
    const [rank, name] = groupOf(item);
    if (!groups.has(rank)) groups.set(rank, { rank, name, items: [] });
    groups.get(rank).items.push(item);
  }
  return [...groups.values()].sort((one, other) => other.rank - one.rank);
}

/** One row for each conversation in which something was found: its title, and the newest place in a message. */
function byConversation(hits) {
  const found = new Map();
  for (const { conversation, title, message, snippet } of hits) {
    const item = found.get(conversation) ?? { id: conversation, title, inTitle: null, inMessage: null, message: null };
    item[message === null ? "inTitle" : "inMessage"] ??= snippet;
    item.message ??= message;
    found.set(conversation, item);
  }
  return [...found.values()];
}

// --- small things ---------------------------------------------------------------------------------------------------

/** Set an attribute where it is another, or take it away (null): no change for nothing. */
function put(element, name, value) {
  if (element.getAttribute(name) === value) return;
  if (value === null) element.removeAttribute(name);
  else element.setAttribute(name, value);
}

function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

const marked = (parts) => parts.map(({ text, match }) => (match ? h("mark", {}, text) : text));

const button = (kind, onclick, ...inside) => h("button", { type: "button", class: kind, onclick }, ...inside);

const plain = (event) => !(event.button || event.ctrlKey || event.metaKey || event.shiftKey || event.altKey);

// --- the list -------------------------------------------------------------------------------------------------------

class List {
  rows = new Map(); // by id: the element of each row that is shown, its parts, and what it shows
  groups = new Map(); // by rank or name: their elements
  selected = null; // the conversation that is open
  reached = null; // the row that Tab goes to: one for all of them
  renaming = null; // the box in which a title is being written
  source = CURRENT;
  wanted = PAGE;
  shown = { source: null, items: [], more: false, failed: null };
  asked = 0; // readings so far
  stale = 0; // what the readings up to this one find is no longer so

  constructor(element, open) {
    this.open = open;
    this.search = h("input", {
      type: "search", class: "list-search", placeholder: say("search"), "aria-label": say("search"), maxlength: 300,
      autocomplete: "off", spellcheck: "false",
      oninput: () => this.typed(), onkeydown: (event) => this.keyInSearch(event),
    });
    this.create = button("list-new", () => open(null), sign("new"), say("new_chat"));
    const tools = signButton("more", say("list_menu"), () => openListMenu(this, tools), { "aria-haspopup": "menu" });
    this.back = signButton("before", say("back_to_list"), () => this.show(CURRENT));
    this.heading = h("h2", {});
    this.places = h("div", {});
    this.status = h("p", { class: "list-status", role: "status" });
    this.again = button("list-more", () => this.refresh(), say("retry"));
    this.more = button("list-more", () => this.showMore(), say("more_conversations"));
    this.nav = h("nav", { class: "list-nav", "aria-label": say("conversations"), onkeydown: (event) => this.key(event),
      onfocusin: (event) => this.reach(this.rowOf(event.target)?.item.id ?? this.reached) },
      h("div", { class: "list-heading" }, this.back, this.heading), this.status, this.again, this.places, this.more);
    for (const part of [this.back, this.again, this.more]) part.hidden = true;
    element.append(
      h("p", { class: "list-brand" },
        h("img", { src: "/cierzo/icon.svg", alt: "", width: 26, height: 26, draggable: "false" }), "Cierzo"),
      this.create,
      h("div", { class: "list-tools" }, sign("search"), this.search, tools),
      this.nav);
    takeDrops(this);
    [this.wanted, this.place] = lastPlace();
    addEventListener("pagehide", () => this.source === CURRENT && keepPlace([this.wanted, this.nav.scrollTop]));
  }

  // --- reading

  /** Read what is shown again. Returns why it could not be read: then it stays, or where there is nothing says so. */
  async refresh() {
    const turn = ++this.asked;
    const { source } = this;
    let found;
    let failed = null;
    try {
      found = await read(source, this.wanted);
    } catch (error) {
      if (!(error instanceof Told)) throw error;
      failed = error;
      const same = this.shown.source === source;
      found = same ? this.shown : { items: [], more: false, failed: error.message };
    }
    if (turn > this.stale) this.turnTo({ failed: null, ...found, source });
    this.stale = Math.max(this.stale, turn);
    return failed;
  }

  turnTo(found) {
    const turned = this.shown.source !== found.source;
    this.shown = found;
    this.draw();
    if (turned) [this.nav.scrollTop, this.place] = [this.place, 0];
  }

  /** Show something else. What is still on its way is for what was shown before. */
  async show(source) {
    this.source = source;
    this.wanted = PAGE;
    this.expire();
    await this.refresh();
  }

  async showMore() {
    const before = this.links().length;
    this.wanted += PAGE;
    await this.refresh();
    this.links()[before]?.focus();
  }

  /** Conversations were changed: answers that are on their way show what was. */
  expire() {
    this.stale = this.asked;
  }

  // --- drawing

  draw() {
    if (this.renaming) return; // nothing moves under the box; its end draws
    const held = this.nav.contains(document.activeElement) ? document.activeElement : null;
    const place = this.links().indexOf(this.rowOf(held)?.link);
    const { source, items, more, failed } = this.shown;
    const searched = source?.items === "hits";
    const groups = searched ? [{ rank: "hits", name: null, items: byConversation(items) }] : grouped(items);
    this.forget(new Set(groups.flatMap((group) => group.items.map(({ id }) => id))));
    arrange(this.places, groups.filter((group) => group.items.length).map((group) => this.drawGroup(group)));
    put(this.heading, "class", source === ARCHIVE ? null : "unseen");
    write(this.heading, say(source === ARCHIVE ? "archive_shown" : "conversations"));
    write(this.status, failed ?? (items.length || !source ? "" : this.nothing(source)));
    put(this.again, "hidden", failed ? null : "");
    put(this.back, "hidden", source === ARCHIVE ? null : "");
    put(this.more, "hidden", more ? null : "");
    this.reach(this.reached);
    if (held && (held.hidden || held !== document.activeElement)) this.holdOn(held, place);
  }

  nothing(source) {
    if (source.items === "hits") return say("search_none", { text: named(source.query.q) });
    return say(source === ARCHIVE ? "archive_none" : "no_conversations");
  }

  forget(ids) {
    for (const id of this.rows.keys()) if (!ids.has(id)) this.rows.delete(id);
  }

  drawGroup({ rank, name, items }) {
    if (!this.groups.has(rank)) {
      const heading = h("h3", {});
      const ul = h("ul", {});
      this.groups.set(rank, { heading, ul, section: h("section", {}, name === null ? null : heading, ul) });
    }
    const { heading, ul, section } = this.groups.get(rank);
    if (name !== null) write(heading, name);
    arrange(ul, items.map((item) => this.drawRow(item)));
    return section;
  }

  drawRow(item) {
    const hit = "inMessage" in item;
    let row = this.rows.get(item.id);
    if (!row || row.hit !== hit) this.rows.set(item.id, (row = this.makeRow(item, hit)));
    row.item = item;
    const title = visible(row.given ?? item.title);
    put(row.link, "title", title);
    put(row.link, "aria-current", item.id === this.selected ? "page" : null);
    if (hit) this.drawHit(row, title);
    else {
      write(row.name, title);
      for (const name of ["aria-label", "title"]) put(row.button, name, say("menu_of", { title: named(title) }));
    }
    return row.li;
  }

  drawHit(row, title) {
    const { inTitle, inMessage } = row.item;
    const drawn = JSON.stringify([title, inTitle, inMessage]);
    if (row.drawn === drawn) return;
    row.drawn = drawn;
    row.name.replaceChildren(...marked(inTitle ?? [{ text: title }]));
    row.snippet.replaceChildren(...marked(inMessage ?? []));
  }

  makeRow({ id }, hit) {
    const row = { hit, name: h("span", { class: "row-name", dir: "auto" }), snippet: null, button: null };
    if (hit) row.snippet = h("span", { class: "row-snippet", dir: "auto" });
    else row.button = signButton("more", "", () => openRowMenu(this, row), { "aria-haspopup": "menu" });
    const href = `/?c=${encodeURIComponent(id)}`;
    row.link = h("a", { href, onclick: (event) => this.clicked(event, id) }, row.name, row.snippet);
    row.li = h("li", { class: "row" }, row.link, row.button);
    return row;
  }

  clicked(event, id) {
    if (!plain(event)) return; // a new tab or window, or a download: the browser's business
    event.preventDefault();
    this.open(id, this.rows.get(id)?.item.message);
  }

  // --- focus and keys

  links() {
    return [...this.places.querySelectorAll("a")];
  }

  rowOf(element) {
    const li = element?.closest?.("li.row");
    return li ? [...this.rows.values()].find((row) => row.li === li) : undefined;
  }

  /** Let Tab go to one row only, and to its menu: the arrows go to the others. */
  reach(id) {
    const first = this.rowOf(this.links()[0])?.item.id;
    const chosen = [id, this.selected, first].find((each) => this.rows.has(each));
    if (this.rows.has(id)) this.reached = id;
    for (const [each, { link, button }] of this.rows) {
      for (const part of [link, button]) if (part) put(part, "tabindex", each === chosen ? "0" : "-1");
    }
  }

  /** Give the focus back to what was moved; where it is gone, to the row that is now in its place. */
  holdOn(held, place) {
    const links = this.links();
    const there = held.isConnected && !held.hidden ? held : links[Math.min(Math.max(place, 0), links.length - 1)];
    (there ?? this.create).focus({ preventScroll: true });
  }

  keyInSearch(event) {
    if (event.key === "ArrowDown") {
      event.preventDefault();
      this.links()[0]?.focus();
    } else if (event.key === "Escape" && this.search.value) {
      event.preventDefault();
      event.stopPropagation(); // it has done its work, and stops no answer
      this.search.value = "";
      this.typed(0);
    }
  }

  key(event) {
    if (event.target === this.renaming || event.ctrlKey || event.metaKey || event.altKey || event.shiftKey) return;
    const row = this.rowOf(event.target);
    const links = this.links();
    const place = links.indexOf(row?.link);
    const to = { ArrowDown: place + 1, ArrowUp: place - 1, Home: 0, End: links.length - 1 }[event.key];
    const own = row && !row.hit && !event.repeat;
    if (to !== undefined && place >= 0) (to < 0 ? this.search : links[Math.min(to, links.length - 1)]).focus();
    else if (event.key === "Delete" && own) remove(this, row.item);
    else if (event.key === "F2" && own) rename(this, row);
    else return;
    event.preventDefault();
  }

  /** Mark the conversation that is open, and bring its row into view: in the list, which may be off the screen. */
  select(id) {
    this.selected = this.reached = id;
    this.draw();
    const at = this.rows.get(id)?.li.getBoundingClientRect();
    if (!at) return;
    const view = this.nav.getBoundingClientRect();
    if (at.top < view.top || at.bottom > view.bottom) this.nav.scrollTop += at.top - view.top - view.height / 3;
  }

  // --- what is chosen

  typed(pause = PAUSE) {
    clearTimeout(this.typing);
    this.typing = setTimeout(() => {
      const text = this.search.value.trim();
      if (text !== (this.source.query.q ?? "")) this.show(text ? hitsFor(text) : CURRENT);
    }, pause);
  }

  async showArchive() {
    this.search.value = "";
    await this.show(ARCHIVE);
    this.back.focus();
  }
}
