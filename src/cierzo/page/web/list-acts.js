// What can be done to conversations from the list: named, pinned, put away, deleted, taken out and in as files.
//
// Each asks the server, then the list reads again. What goes wrong is told at the foot of the page, with a retry.

import { ask, at, upload } from "./api.js";
import { h, note, openMenu, trying } from "./ui.js";
import { count, say } from "./words.js";

const LONGEST_TITLE = 300;
const LONGEST_NAMED = 60;
const TURNING = /[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]/g; // signs that change the direction of what follows

const addressOf = (id) => at`/api/conversations/${id}`;

/** A title as it is shown: one that nobody could see or hear is none. */
export function visible(title) {
  return /[\p{L}\p{N}\p{P}\p{S}]/u.test(title) ? title : say("untitled");
}

/** A title or a file's name inside a sentence: not too long, and unable to turn the rest of the sentence around. */
export function named(text) {
  const letters = Array.from(visible(text).replace(TURNING, ""));
  return letters.length > LONGEST_NAMED ? `${letters.slice(0, LONGEST_NAMED - 1).join("")}…` : letters.join("");
}

/** Do something, then show what became of it. An answer from before it would show what was. */
function doing(list, act) {
  return trying(async () => {
    try {
      return await act();
    } finally {
      list.expire();
      await list.refresh();
    }
  });
}

/** The menu of a row. */
export function openRowMenu(list, row) {
  const { id, pinned, archived } = row.item;
  const change = (body) => doing(list, () => ask("PATCH", addressOf(id), body));
  openMenu(row.button, [
    [say("rename"), () => rename(list, row)],
    [say(pinned ? "unpin" : "pin"), () => change({ pinned: !pinned })],
    [say(archived ? "unarchive" : "archive"), () => (archived ? change({ archived: false }) : putAway(list, row.item))],
    [say("export_json"), () => save(`${addressOf(id)}/export?format=json`)],
    [say("export_markdown"), () => save(`${addressOf(id)}/export?format=markdown`)],
    [say("delete"), () => remove(list, row.item)],
  ]);
}

/** The menu of the list. */
export function openListMenu(list, button) {
  openMenu(button, [
    [say("import"), () => choose((files) => bring(list, files))],
    [say("export_all"), () => save("/api/export?format=json")],
    [say("archive_shown"), () => list.showArchive()],
  ]);
}

/** Write a title where it stands. Enter and leaving the box keep it, Escape does not. */
export function rename(list, row) {
  const box = h("input", { class: "row-box", "aria-label": say("title_of"), maxlength: LONGEST_TITLE, dir: "auto" });
  box.value = row.item.title;
  const before = box.value; // a field holds one line, whatever the title holds
  const end = (keep, focus) => {
    if (list.renaming !== box) return; // taking the box away makes it lose the focus once more
    list.renaming = null;
    const title = box.value.trim();
    box.remove();
    row.li.classList.remove("renaming");
    if (focus) row.link.focus();
    if (keep && title && title !== before) giveTitle(list, row, title);
    else list.draw();
  };
  box.addEventListener("blur", () => end(true, false));
  box.addEventListener("keydown", (event) => {
    if (event.isComposing || !["Enter", "Escape"].includes(event.key)) return;
    event.preventDefault();
    event.stopPropagation();
    end(event.key === "Enter", true);
  });
  list.renaming = box;
  row.li.classList.add("renaming");
  row.li.append(box);
  box.focus();
  box.select();
}

/** The row shows the new title at once: what is read before the server has written it still finds the old one. */
async function giveTitle(list, row, title) {
  row.given = title;
  list.draw();
  await doing(list, () => ask("PATCH", addressOf(row.item.id), { title }));
  row.given = null;
  list.draw();
}

function putAway(list, { id, title }) {
  const archive = (archived) => ask("PATCH", addressOf(id), { archived });
  return doing(list, async () => {
    await archive(true);
    note(say("archived", { title: named(title) }), [say("undo"), () => doing(list, () => archive(false))]);
  });
}

/** Put a conversation into the bin, and say how to get it out. */
export function remove(list, { id, title }) {
  const wasOpen = id === list.selected;
  return doing(list, async () => {
    await ask("DELETE", addressOf(id));
    note(say("deleted", { title: named(title) }), [say("undo"), () => restore(list, id, wasOpen)]);
    if (wasOpen) list.open(null);
  });
}

async function restore(list, id, wasOpen) {
  await doing(list, async () => {
    await ask("POST", `${addressOf(id)}/restore`);
    if (wasOpen) list.open(id);
  });
  if (!wasOpen) list.rows.get(id)?.link.focus(); // the button that was pressed is gone
}

/** Let the browser keep what is at an address as a file. */
function save(address) {
  const link = h("a", { href: address, download: "" });
  document.body.append(link);
  link.click();
  link.remove();
}

function choose(take) {
  const field = h("input", { type: "file", accept: ".json,application/json", multiple: true, hidden: true });
  field.addEventListener("change", () => (field.remove(), take([...field.files])));
  field.addEventListener("cancel", () => field.remove());
  document.body.append(field);
  field.click();
}

/** Whether this can be a file of conversations. A folder can have any name, but cannot be read. */
async function isJson(file) {
  if (file.type !== "application/json" && !/\.json$/i.test(file.name)) return false;
  return await file.slice(0, 1).arrayBuffer().then(() => true, () => false);
}

/** Import files; none of them where one is no file of conversations. */
async function bring(list, files) {
  for (const file of files) {
    if (!(await isJson(file))) return note(say("import_not_json", { name: named(file.name) }), null, { failed: true });
  }
  const added = [];
  list.nav.setAttribute("aria-busy", "true");
  await doing(list, async () => {
    for (; files.length; files.shift()) added.push(...(await upload("/api/import", files[0])).conversations);
    note(count("imported", added.length));
    if (added.length === 1) list.open(added[0]);
  });
  return list.nav.removeAttribute("aria-busy");
}

const STAYS = 1000; // milliseconds without a word of them after which the files are taken to be elsewhere

/** Import files that are dropped anywhere on the page, which says so while they are over it. */
export function takeDrops(list) {
  const sheet = h("div", { class: "list-drop", hidden: true }, h("p", {}, say("import_drop")));
  let gone;
  const hide = () => {
    clearTimeout(gone);
    sheet.hidden = true;
  };
  document.body.append(sheet);
  addEventListener("dragover", (event) => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    event.preventDefault();
    event.dataTransfer.dropEffect = "copy";
    hide();
    sheet.hidden = false;
    gone = setTimeout(hide, STAYS); // it comes several times a second; no event is sure to tell that they left
  });
  addEventListener("dragleave", (event) => event.relatedTarget === null && hide());
  addEventListener("drop", (event) => {
    hide();
    if (!event.dataTransfer?.files.length) return;
    event.preventDefault();
    bring(list, [...event.dataTransfer.files]);
  });
}
