// Small parts of which the page is made: elements, buttons with signs, menus, notes with an undo, dialogs.

import { say, Told } from "./words.js";

/** Make an element: `h("p", {class: "quiet", onclick: f}, "text", child)`. Text is text, never HTML. */
export function h(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value === true) element.setAttribute(key, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

const PATHS = {
  new: "M12 5v14M5 12h14",
  search: "M11 18a7 7 0 1 0 0-14 7 7 0 0 0 0 14ZM16.5 16.5 21 21",
  send: "M12 20V5M5.5 11.5 12 5l6.5 6.5",
  stop: "M7 7h10v10H7z",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  copy: "M9 9h10v10H9zM5 15V5h10",
  edit: "M5 19h3L19 8l-3-3L5 16zM14 7l3 3",
  again: "M19 12a7 7 0 1 1-2.2-5.1M19 4v4h-4",
  continue: "M5 12h13M13 6l6 6-6 6",
  fork: "M7 5v6a4 4 0 0 0 4 4h6M7 11v8M14 11l4 4-4 4",
  before: "M14 6l-6 6 6 6",
  after: "M10 6l6 6-6 6",
  down: "M12 5v14M6 13l6 6 6-6",
  close: "M6 6l12 12M18 6 6 18",
  pin: "M9 4h6l-1 6 3 3H7l3-3zM12 13v7",
  check: "M5 13l4 4L19 7",
  settings: "M4 7h10M18 7h2M4 17h2M10 17h10M14 5v4M6 15v4",
  list: "M4 6h16M4 12h16M4 18h10",
  keys: "M3 7h18v10H3zM7 11h.01M11 11h.01M15 11h.01M8 14h8",
};

/** One of the signs above, hidden from screen readers. */
export function sign(name) {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  for (const [key, value] of Object.entries({ viewBox: "0 0 24 24", "aria-hidden": "true", class: "sign" })) {
    svg.setAttribute(key, value);
  }
  const path = document.createElementNS("http://www.w3.org/2000/svg", "path");
  path.setAttribute("d", PATHS[name]);
  svg.append(path);
  return svg;
}

/** A button that shows a sign only; `label` is its name and what the pointer shows. */
export function signButton(name, label, onclick, attributes = {}) {
  return h("button", { type: "button", class: "sign-button", "aria-label": label, title: label, onclick, ...attributes }, sign(name));
}

const AGAIN = 250; // milliseconds within which a press on a menu's button is the one that closed the menu

/**
 * Open a menu below a button. Arrows, Home, End, Escape and Tab do what they do in menus.
 *
 * @param {HTMLElement} button Where it opens, and where the focus returns.
 * @param {[string, () => void][]} entries Words and what is done.
 */
export function openMenu(button, entries) {
  if (performance.now() - (button.menuClosed ?? -AGAIN) < AGAIN) return; // the same press has just closed it
  const items = entries.map(([words, act]) =>
    h("button", { type: "button", role: "menuitem", tabindex: "-1", onclick: () => (close(), act()) }, words));
  const menu = h("div", { class: "menu", role: "menu", popover: "auto" }, ...items);
  const close = () => {
    const focused = document.activeElement;
    button.setAttribute("aria-expanded", "false");
    if (focused === document.body || menu.contains(focused)) button.focus(); // else whoever closed it is elsewhere
    menu.remove();
  };
  menu.addEventListener("keydown", (event) => moveIn(items, event));
  menu.addEventListener("beforetoggle", (event) => {
    if (event.newState !== "closed" || !menu.isConnected) return;
    button.menuClosed = performance.now();
    close();
  });
  document.body.append(menu);
  menu.showPopover();
  placeBelow(menu, button.getBoundingClientRect());
  button.setAttribute("aria-haspopup", "menu");
  button.setAttribute("aria-expanded", "true");
  items[0].focus();
}

function moveIn(items, event) {
  const place = items.indexOf(document.activeElement);
  const last = items.length - 1;
  const to = { ArrowDown: place === last ? 0 : place + 1, ArrowUp: place <= 0 ? last : place - 1, Home: 0, End: last }[event.key];
  if (to !== undefined) {
    event.preventDefault();
    items[to].focus();
  } else if (event.key === "Tab") {
    event.preventDefault();
    event.currentTarget.hidePopover();
  }
}

function placeBelow(menu, at) {
  const { width, height } = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(at.left, innerWidth - width - 8))}px`;
  menu.style.top = `${at.bottom + height + 8 > innerHeight ? Math.max(8, at.top - height - 4) : at.bottom + 4}px`;
}

const NOTE_STAYS = 8000;

/** Show a line at the foot of the page for some seconds, with something to do about it: `note("…", ["Undo", undo])`. */
export function note(words, action = null, { failed = false } = {}) {
  let notes = document.getElementById("notes");
  if (!notes) document.body.append((notes = h("div", { id: "notes", role: "status", "aria-live": "polite" })));
  const line = h("div", { class: failed ? "note failed" : "note" }, h("span", {}, words));
  const gone = setTimeout(() => line.remove(), NOTE_STAYS);
  const end = () => (clearTimeout(gone), line.remove());
  if (action) line.append(h("button", { type: "button", onclick: () => (end(), action[1]()) }, action[0]));
  line.append(signButton("close", say("close"), end));
  notes.replaceChildren(line);
}

/** Do something that asks the server; an error becomes a note with a retry. */
export async function trying(act) {
  try {
    return await act();
  } catch (error) {
    if (!(error instanceof Told)) throw error;
    note(error.message, [say("retry"), () => trying(act)], { failed: true });
    return undefined;
  }
}

/** Make these the children, in this order. What stands where it should is not touched: it keeps its focus. */
export function arrange(parent, children) {
  const wanted = new Set(children);
  for (const child of [...parent.children]) if (!wanted.has(child)) child.remove();
  children.forEach((child, place) => {
    if (parent.children[place] !== child) parent.insertBefore(child, parent.children[place] ?? null);
  });
}

/** Open a dialog with a title; Escape and its button close it. */
export function dialog(title, ...children) {
  const box = h("dialog", { class: "dialog", "aria-label": title, onclose: () => box.remove() },
    h("header", {}, h("h2", {}, title), signButton("close", say("close"), () => box.close())),
    ...children);
  box.addEventListener("click", (event) => event.target === box && box.close());
  document.body.append(box);
  box.showModal();
  return box;
}

/** Put text on the clipboard, also over plain http, where browsers give pages no clipboard. */
export async function copy(text) {
  if (navigator.clipboard && window.isSecureContext) return await navigator.clipboard.writeText(text);
  const area = h("textarea", { class: "unseen", readonly: true });
  area.style.whiteSpace = "pre"; // else what is copied has lost its lines' beginnings
  area.value = text;
  const before = document.activeElement;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
  before?.focus();
  return undefined;
}

/** What the browser keeps for this page, or nothing where storage is switched off. */
export const kept = {
  get(name) {
    try {
      return localStorage.getItem(`cierzo.${name}`);
    } catch {
      return null;
    }
  },
  set(name, value) {
    try {
      if (value === null || value === "") localStorage.removeItem(`cierzo.${name}`);
      else localStorage.setItem(`cierzo.${name}`, value);
    } catch {
      // full, or switched off: the page works, and forgets
    }
  },
};
