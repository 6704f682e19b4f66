// The settings: what the sliders and boxes that Gradio has drawn say, the presets, the engine's limits, the two bars.
//
// The controls themselves hold the values, and nothing else does: whatever changed one (a hand, a preset, Gradio's
// clamping), what is sent is what is seen. What is kept for the next visit is put back by early.js. It knows no chats.

import { h, kept, note, sign, signButton } from "./ui.js";
import { number, say, Told } from "./words.js";

const NUMBERS = ["temperature", "max_new_tokens", "top_p", "repetition_penalty", "top_k", "min_p"];
const WHOLE = new Set(["max_new_tokens", "top_k"]);
const FOLDED = ["top_k", "min_p", "seed", "stop_strings"];
const NAMES = [...NUMBERS, "seed", "stop_strings", "system"];

/** As in cierzo.messages: what an engine is never asked beyond. */
const MOST = { seed: 2 ** 32 - 2, stops: 16, stopLength: 256 };

/** The value that each control has before anybody touches it, by its name: the notebook's. */
const { usual } = window.gradio_config;

// For models of 7B, mostly quantised. Precise: so cool that the first choice nearly always wins, yet not 0, at which small
// models fall into loops; a lighter penalty, as code, numbers and lists have to repeat themselves. Creative: as warm as the
// slider goes, and min-p cuts the tail that derails a 7B model at that heat better than top-p does, which stays for
// engines without min-p. Neither touches the length: that is another wish. Balanced is the notebook, its length too.
const PRESETS = {
  precise: { temperature: 0.2, top_p: 0.9, repetition_penalty: 1.1, top_k: 0, min_p: 0 },
  balanced: Object.fromEntries(NUMBERS.map((name) => [name, usual[name]])),
  creative: { temperature: 1, top_p: 0.95, repetition_penalty: 1.1, top_k: 0, min_p: 0.05 },
};

const NARROW = "(max-width: 768px)"; // where Gradio lays a bar over the page; early.js knows it too

let ready = false;
let engineInUse = null;
let systemAsked; // what main.js wanted in the box before Gradio had drawn it
let systemIsOwn = true; // the box shows what new chats begin with, not what one conversation has

/** What Gradio's events call, by name: see shell.py and early.js. */
export const events = { changed, drawn, speak, dress };

// ------------------------------------------------------------------------------------------------ values

const part = (name, selector) => document.getElementById(name)?.querySelector(selector);
const field = (name) => part(name, NUMBERS.includes(name) ? "input[type=number]" : "textarea, input");

function value(name) {
  const box = field(name);
  if (!box) return window.gradio_config.components.find(({ props }) => props.elem_id === name).props.value;
  if (!NUMBERS.includes(name)) return box.value;
  const said = Number(box.value === "" ? part(name, "input[type=range]").value : box.value);
  const within = Math.min(Math.max(said, Number(box.min)), Number(box.max));
  // The notebook's slider for the length begins at 0, but no answer has less than one token: at 0 it is 1, and shows it.
  return WHOLE.has(name) ? Math.max(Math.round(within), name === "max_new_tokens" ? 1 : 0) : within;
}

const values = () => Object.fromEntries(NAMES.map((name) => [name, value(name)]));

/** Do as a hand would, so that Gradio knows it too. */
function put(name, to) {
  const box = field(name);
  box.value = to;
  box.dispatchEvent(new Event("input", { bubbles: true }));
}

function putAll(preset) {
  for (const name of NAMES) {
    if (typeof preset[name] === typeof usual[name]) put(name, preset[name]);
  }
}

function seedOf(text) {
  const seed = text.trim();
  if (seed === "") return undefined;
  if (!/^\d+$/.test(seed) || Number(seed) > MOST.seed) throw new Told(say("seed_wrong"));
  return Number(seed);
}

const ESCAPED = { "\\n": "\n", "\\t": "\t", "\\\\": "\\" };

/** One a line; spaces count, but a line of nothing else is no text that anybody meant. */
function stopsOf(text) {
  const stops = text.split("\n").filter((line) => line.trim() !== "")
    .map((line) => line.replace(/\\[nt\\]/g, (pair) => ESCAPED[pair]));
  if (stops.length > MOST.stops || stops.some((stop) => [...stop].length > MOST.stopLength)) {
    throw new Told(say("stop_many", { most: MOST.stops, longest: MOST.stopLength }));
  }
  return stops;
}

/**
 * What the next answer is made with, as the API wants it.
 *
 * @returns {{sampling: object, system: string}}
 * @throws {Told} The seed or the stop strings cannot be used. The field that is meant is shown.
 */
export function parameters() {
  const { seed, stop_strings: stops, system, ...sampling } = values();
  try {
    const [chosen, ends] = [seedOf(seed), stopsOf(stops)];
    if (chosen !== undefined) sampling.seed = chosen;
    if (ends.length) sampling.stop = ends;
  } catch (wrong) {
    if (ready) unfold(true);
    throw wrong;
  }
  return { sampling, system };
}

/**
 * Show a system prompt: call it when a conversation is opened, not each time that something in it changes.
 *
 * @param {string | null} text The conversation's; null where none is open: then it is what new chats begin with, which
 *   is kept as it is written.
 */
export function setSystem(text) {
  systemIsOwn = text === null;
  systemAsked = text ?? kept.get("system") ?? "";
  if (ready) put("system", systemAsked);
}

// ------------------------------------------------------------------------------------------------ what changes do

function changed() {
  if (!ready) return;
  const { system, ...now } = values();
  kept.set("parameters", JSON.stringify(now));
  if (systemIsOwn) kept.set("system", system);
  for (const name of NUMBERS) document.getElementById(name).classList.toggle("usual", now[name] === usual[name]);
  complain("seed", () => seedOf(now.seed));
  complain("stop_strings", () => stopsOf(now.stop_strings));
  document.querySelector("#more-head .folded").textContent = FOLDED.filter((name) => now[name] !== usual[name])
    .map((name) => `${say(name)} ${inWords(now[name])}`).join(" · ");
  markPreset();
}

function complain(name, read) {
  let words = "";
  try {
    read();
  } catch (wrong) {
    words = wrong.message;
  }
  const line = document.getElementById(`${name}-wrong`);
  if (line.textContent !== words) line.textContent = words; // it is read out when it changes
  field(name).setAttribute("aria-invalid", String(words !== ""));
}

/** Gradio makes 0 of an empty number box, and lets numbers stay in it that are not used: put back what is. */
function tidy(event) {
  const name = event.target.closest(".block")?.id;
  if (NUMBERS.includes(name) && field(name).value !== String(value(name))) put(name, value(name));
}

function keepEmptyFromGradio(event) {
  if (event.target.type === "number" && event.target.value === "") event.stopPropagation();
}

/** Gradio's own would go back to what the slider showed when it was drawn, which is what the last visit left. */
function reset(event) {
  const button = event.target.closest(".reset-button");
  if (!button) return;
  event.stopPropagation();
  const name = button.closest(".block").id;
  put(name, usual[name]);
  field(name).focus(); // the button goes where there is nothing to go back to
}

// ------------------------------------------------------------------------------------------------ presets

function ownPresets() {
  try {
    const all = JSON.parse(kept.get("presets")) ?? [];
    return all.filter((each) => typeof each?.name === "string" && each.values && typeof each.values === "object");
  } catch {
    return []; // not ours
  }
}

function keepPresets(list) {
  kept.set("presets", list.length ? JSON.stringify(list) : null);
  drawPresets();
}

function drawPresets() {
  const own = ownPresets();
  const pills = [
    ...Object.entries(PRESETS).map(([name, preset]) => pill(say(name), preset)),
    ...own.map(({ name, values: preset }) =>
      h("span", { class: "own" }, pill(name, preset),
        signButton("close", say("preset_delete", { name }), () => deletePreset(name)))),
  ];
  document.getElementById("presets").replaceChildren(
    h("div", { class: "pills", role: "group", "aria-label": say("preset") }, ...pills),
    saver());
  markPreset();
}

function pill(words, preset) {
  const told = NUMBERS.filter((name) => name in preset).map((name) => `${say(name)} ${inWords(preset[name])}`);
  const button = h("button", { type: "button", class: "pill", title: told.join("\n"), onclick: () => putAll(preset) }, words);
  button.preset = preset;
  return button;
}

const inWords = (value) => (typeof value === "number" ? number(value, String(value).split(".")[1]?.length) : value);

/** Show which presets the controls agree with, if any. */
function markPreset() {
  const now = values();
  for (const button of document.querySelectorAll("#presets .pill")) {
    const agrees = Object.entries(button.preset).every(([name, its]) => now[name] === its);
    button.setAttribute("aria-pressed", String(agrees));
  }
}

function saver() {
  const open = h("button", { type: "button", class: "quiet", onclick: () => (box.replaceChildren(form), input.focus()) },
    sign("new"), say("preset_save"));
  const input = h("input", {
    "aria-label": say("preset_name"), placeholder: say("preset_name"), maxlength: "40", required: true, autocomplete: "off",
  });
  const close = () => (box.replaceChildren(open), open.focus());
  const form = h("form", {
    onsubmit: (event) => (event.preventDefault(), savePreset(input.value.trim())),
    onkeydown: (event) => event.key === "Escape" && (event.stopPropagation(), close()),
  }, input, h("button", { type: "submit" }, say("preset_keep")), signButton("close", say("cancel"), close));
  const box = h("div", { class: "saver" }, open);
  return box;
}

/** Everything is kept, the system prompt too: an own preset may be a whole role. */
function savePreset(name) {
  if (!name) return;
  const all = ownPresets();
  const old = all.find((each) => each.name === name);
  const put = (list, mine) => list.map((each) => (each.name === name ? mine : each));
  const mine = { name, values: values() };
  keepPresets(old ? put(all, mine) : [...all, mine]);
  document.querySelector("#presets .quiet").focus();
  if (old) note(say("preset_replaced", { name }), [say("undo"), () => keepPresets(put(ownPresets(), old))]);
}

function deletePreset(name) {
  const all = ownPresets();
  const place = all.findIndex((each) => each.name === name);
  const gone = all[place];
  keepPresets(all.toSpliced(place, 1));
  document.querySelector("#presets .quiet").focus();
  note(say("preset_deleted", { name }), [say("undo"), () => keepPresets(ownPresets().toSpliced(place, 0, gone))]);
}

// ------------------------------------------------------------------------------------------------ engine, language, look

/** Let each control say whether the engine in use heeds it. Takes the answer of `GET /api/engine`. */
export function markEngine(engine) {
  engineInUse = engine;
  if (!ready) return;
  for (const name of NAMES.filter((each) => each !== "system")) {
    const heeded = engine.honours.includes(name === "stop_strings" ? "stop" : name);
    document.getElementById(name).classList.toggle("unheeded", !heeded);
    document.getElementById(`${name}-unheeded`).textContent = heeded ? "" : say("unhonoured", { engine: engine.engine });
  }
}

/** Gradio and our words choose their language when the page begins, so it begins again. */
function speak(language) {
  if (language === (kept.get("language") ?? "")) return;
  kept.set("language", language);
  location.reload();
}

function dress(look) {
  kept.set("look", look);
  window.dispatchEvent(new Event("cierzo:look"));
}

// ------------------------------------------------------------------------------------------------ what Gradio left out

/** Gradio has drawn everything: what it says in English only, or not at all, is said here. */
function drawn() {
  for (const name of NAMES) describe(name);
  const bar = document.getElementById("settings");
  bar.addEventListener("input", keepEmptyFromGradio, true);
  bar.addEventListener("change", tidy);
  bar.addEventListener("click", reset, true);
  readyBar("side", "list", say("toggle_list"));
  readyBar("settings", "settings", say("toggle_settings"));
  bar.querySelector(".sidebar-content").before(h("h2", { id: "settings-title" }, say("toggle_settings")));
  matchMedia(NARROW).addEventListener("change", closeBars);
  foldable();
  drawPresets();
  ready = true;
  if (systemAsked !== undefined) put("system", systemAsked);
  if (engineInUse) markEngine(engineInUse);
  changed();
}

/** Name a control after its label alone, and describe it with what stands below. */
function describe(name) {
  const block = document.getElementById(name);
  const [label, info] = [block.querySelector("[data-testid=block-info]"), block.querySelector(".info-text")];
  info.id = `${name}-info`;
  block.append(h("p", { class: "unheeded-note", id: `${name}-unheeded` }));
  block.append(h("p", { class: "wrong", id: `${name}-wrong`, role: "status" }));
  for (const control of block.querySelectorAll("input, textarea")) {
    control.setAttribute("aria-label", label.textContent.trim());
    control.setAttribute("aria-describedby", `${info.id} ${name}-unheeded ${name}-wrong`);
  }
  const back = block.querySelector(".reset-button");
  const words = back && say("reset", { name: say(name), value: inWords(usual[name]) });
  back?.setAttribute("aria-label", words);
  back?.setAttribute("title", words);
}

function readyBar(id, picture, words) {
  const bar = document.getElementById(id);
  const button = bar.querySelector(".toggle-button");
  const content = bar.querySelector(".sidebar-content");
  const isOpen = () => bar.classList.contains("open");
  const tell = () => button.setAttribute("aria-expanded", String(isOpen()));
  content.id = `${id}-content`;
  for (const [key, its] of Object.entries({ "aria-label": words, title: words, "aria-controls": content.id })) {
    button.setAttribute(key, its);
  }
  button.append(sign(picture), sign("close"));
  // On a phone a bar covers the page, so there it begins closed whatever was chosen elsewhere.
  button.addEventListener("click", () => matchMedia(NARROW).matches || kept.set(`bar.${id}`, isOpen() ? "closed" : "open"));
  new MutationObserver(tell).observe(bar, { attributeFilter: ["class"] });
  tell();
}

/** Give the page back to the conversation, where a bar lies over it. */
export function closeBars() {
  if (!matchMedia(NARROW).matches) return;

  for (const button of document.querySelectorAll(".sidebar.open > .toggle-button")) button.click();
}

function foldable() {
  const words = h("span", {}, say("more"), h("span", { class: "folded" }));
  const turn = () => unfold(!isUnfolded(), true);
  const button = h("button", { type: "button", "aria-controls": "more", onclick: turn }, words, sign("after"));
  document.getElementById("more-head").replaceChildren(button);
  unfold(kept.get("more") === "open");
}

const isUnfolded = () => document.getElementById("more").hasAttribute("data-open");

function unfold(open, byHand = false) {
  document.getElementById("more").toggleAttribute("data-open", open);
  document.querySelector("#more-head button").setAttribute("aria-expanded", String(open));
  if (byHand) kept.set("more", open ? "open" : "closed");
}
