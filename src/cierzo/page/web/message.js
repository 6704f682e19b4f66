// One message: its text as the server has rendered it, what can be done with it, and the quiet line below an answer.

import { copy, h, sign, signButton } from "./ui.js";
import { count, number, say } from "./words.js";

/** Of these answers more can be asked for. */
const CUT = ["length", "stopped", "interrupted"];

/**
 * Draw a message, or bring the drawn one up to date.
 *
 * @param {object} shown One of `messages` of GET /api/conversations/{id}/branch.
 * @param {object} context What the line needs to know of the engine: `context`, its window.
 * @param {object} on What buttons do: `again`, `proceed`, `fork`, `edit`, `select`, each called with the message or an id.
 * @param {HTMLElement} [before] The article that showed it so far.
 */
export function drawMessage(shown, context, on, before) {
  const { message } = shown;
  const same = JSON.stringify(shown);
  if (before && (before.drawnAs === same || before.querySelector(".editing"))) return before;
  const article = before ?? h("article", { class: `message ${message.role}`, "data-id": message.id });
  article.setAttribute("aria-label", message.answer ? message.answer.model : say(message.role === "user" ? "you" : "system"));
  const body = article.querySelector(".body") ?? h("div", { class: "body" });
  const writing = message.answer?.state === "writing";
  article.setAttribute("aria-busy", String(writing));
  if (!writing) placeBlocks(body, 0, shown.html);
  const foot = h("footer", {}, writing ? h("p", { class: "line" }) : lineOf(message, context, on), actionsOf(shown, on));
  article.replaceChildren(body, foot);
  article.drawnAs = same;
  return article;
}

/** Put the server's blocks of HTML from place `first` on; those that are there already stay as they are. */
export function placeBlocks(body, first, blocks) {
  while (body.children.length > first + blocks.length) body.lastChild.remove();
  blocks.forEach((html, offset) => {
    const there = body.children[first + offset];
    if (there?.source === html) return;
    const block = h("div", { class: "block" });
    block.source = html;
    block.innerHTML = html; // safe as it is: see cierzo/rendering.py
    for (const code of block.querySelectorAll("pre")) addCopy(code);
    for (const table of block.querySelectorAll("table")) table.replaceWith(h("div", { class: "table", tabindex: "0" }, table.cloneNode(true)));
    if (there) there.replaceWith(block);
    else body.append(block);
  });
}

function addCopy(code) {
  const button = signButton("copy", say("copy_code"), () => copied(button, code.querySelector("code")?.textContent ?? ""));
  button.classList.add("copy-code");
  code.setAttribute("tabindex", "0"); // it scrolls, so the keyboard has to reach it
  code.replaceWith(h("div", { class: "code" }, code.cloneNode(true), button));
}

async function copied(button, text) {
  await copy(text);
  const name = button.getAttribute("aria-label");
  button.replaceChildren(sign("check"));
  button.setAttribute("aria-label", say("copied"));
  setTimeout(() => {
    button.replaceChildren(sign("copy"));
    button.setAttribute("aria-label", name);
  }, 1500);
}

function actionsOf({ message, siblings }, on) {
  const writing = message.answer?.state === "writing";
  const actions = h("div", { class: "actions" });
  if (siblings.length > 1) actions.append(siblingsOf(message, siblings, on));
  if (writing || message.role === "system") return actions;
  const button = signButton("copy", say("copy"), () => copied(button, message.text));
  actions.append(button);
  if (message.role === "user") actions.append(signButton("edit", say("edit"), () => on.edit(message)));
  else actions.append(signButton("again", say("again"), () => on.again(message)));
  actions.append(signButton("fork", say("fork"), () => on.fork(message)));
  return actions;
}

function siblingsOf(message, siblings, on) {
  const place = siblings.indexOf(message.id);
  const to = (step, name, label) =>
    signButton(name, label, () => on.select(siblings[place + step]), { disabled: !siblings[place + step] });
  return h("span", { class: "siblings", role: "group", "aria-label": say("siblings", { place: place + 1, count: siblings.length }) },
    to(-1, "before", say("sibling_before")),
    h("span", { "aria-hidden": "true" }, `${place + 1}/${siblings.length}`),
    to(1, "after", say("sibling_after")));
}

/** The quiet line: model, tokens, time to the first token, tokens a second, and why it ended. */
function lineOf(message, context, on) {
  const answer = message.answer;
  if (!answer) return null;
  const failed = answer.reason === "failed";
  const line = h("p", { class: failed ? "line failed" : "line", title: usedBy(answer) }, factsOf(answer, context).join(" · "));
  if (!message.text && answer.reason === "eos_token") line.prepend(`${say("empty")} `);
  if (CUT.includes(answer.reason)) line.append(": ", textButton(say("continue"), () => on.proceed(message)));
  if (failed) line.append(" ", textButton(say("retry"), () => on.again(message)));
  if (answer.dropped > 0) line.append(h("span", { class: "dropped" }, count("dropped", answer.dropped)));
  return line;
}

function textButton(words, onclick) {
  return h("button", { type: "button", class: "text-button", onclick }, words.toLowerCase());
}

function factsOf(answer, context) {
  const { finish } = answer;
  const facts = [nameOf(answer.model)];
  if (finish) {
    facts.push(count("tokens", finish.answer_tokens));
    if (finish.timings.first_token > 0) facts.push(say("first_token", { seconds: number(finish.timings.first_token, 2) }));
    if (finish.rate) facts.push(say("rate", { rate: number(finish.rate, finish.rate < 10 ? 1 : 0) }));
  }
  facts.push(endOf(answer, context));
  return facts;
}

function endOf(answer, context) {
  const { finish, reason, sampling } = answer;
  if (reason === "length") {
    const limit = sampling.max_new_tokens;
    return finish && finish.answer_tokens < limit ? say("ended_window", { context: number(context.context) }) : say("ended_length", { limit: number(limit) });
  }
  if (reason === "stop_sequence") return say("ended_stop", { stop: finish?.stop ?? "" });
  if (reason === "failed") return say("ended_failed", { failure: answer.failure });
  return say({ eos_token: "ended", stopped: "ended_stopped", interrupted: "ended_interrupted" }[reason] ?? "ended");
}

/** The sampling as it went to the engine: the same names as everywhere. */
function usedBy({ sampling, finish, engine, route }) {
  const seed = finish?.seed ?? sampling.seed;
  const values = Object.entries({ ...sampling, seed, stop: sampling.stop.map((stop) => JSON.stringify(stop)).join(", ") })
    .filter(([, value]) => value !== null && value !== "" && value !== undefined)
    .map(([name, value]) => `${name} ${value}`);
  return say("used", { values: [...values, engine, route !== "ids" && route].filter(Boolean).join(" · ") });
}

/** A model's name; of a file, without its folders. */
export function nameOf(model) {
  return model.split(/[\\/]/).at(-1);
}

/** The line while an answer is written: what happens now, since when. */
export function phaseLine(state) {
  const seconds = number((performance.now() - state.began) / 1000, 1);
  if (state.lost) return state.lost;
  if (state.tokens) return say("writing", { tokens: count("tokens", state.tokens), seconds });
  const { name, done, total } = state.phase ?? {};
  if (!name) return say("beginning", { seconds });
  const told = { queued: done, loading: done, reading: total }[name];
  return say(told ? `${name}${{ queued: "_at", loading: "_of", reading: "_of" }[name]}` : name, { done, total, seconds });
}
