// What a newcomer asks for: the way to a larger model, and which keys do what.

import { ask } from "./api.js";
import { copy, dialog, h, signButton, trying } from "./ui.js";
import { number, say } from "./words.js";

const OFFERED = "mistral-7b";
const ROOM = 1.15; // times what a model needs: below that other programs suffer

/** Say what Mistral 7B needs, what this machine has, and how to get it. */
export async function showOffer(engine) {
  const told = await trying(() => ask("GET", "/api/models"));
  if (!told) return;
  const model = told.models.find(({ name }) => name === OFFERED) ?? told.models.find(({ name }) => name.startsWith(OFFERED));
  const lines = [command(`cierzo models pull ${OFFERED}`), h("p", {}, say("offer_then")), command(`cierzo --model ${OFFERED}`)];
  dialog(say("offer"),
    h("p", {}, `${say("model_now")}: ${engine?.model ?? ""}`),
    model && h("p", {}, sizes(model, told.machine), " ", h("strong", {}, verdict(model, told.machine))),
    h("p", {}, say("offer_how")), ...lines);
}

function sizes(model, machine) {
  const gigabytes = (bytes) => number(bytes / 1e9, 1);
  return say("offer_size", {
    name: model.title, size: gigabytes(model.bytes), needed: gigabytes(model.needed_memory),
    memory: gigabytes(machine.memory), disk: gigabytes(machine.free_disk),
  });
}

function verdict(model, machine) {
  if (machine.memory < model.needed_memory || machine.free_disk < model.bytes) return say("offer_not");
  return machine.free_memory < model.needed_memory * ROOM ? say("offer_tight") : say("offer_fits");
}

function command(text) {
  return h("div", { class: "command" }, h("code", {}, text), signButton("copy", say("copy"), () => copy(text)));
}

const APPLE = /Mac|iP/.test(navigator.platform);

/** Show which keys do what. */
export function showKeys() {
  const command = APPLE ? "⌘" : "Ctrl";
  const keys = [
    [["Enter"], "key_send"], [["Shift", "Enter"], "key_line"], [["↑"], "key_edit"], [["Esc"], "key_stop"],
    [[command, "K"], "key_search"], [[command, "Shift", "O"], "key_new"], [["↑", "↓"], "key_list"], [["?"], "key_help"],
  ];
  dialog(say("keys"), h("dl", { class: "keys" }, ...keys.flatMap(([pressed, name]) => [
    h("dt", {}, ...pressed.map((key) => h("kbd", {}, key))), h("dd", {}, say(name))])));
}
