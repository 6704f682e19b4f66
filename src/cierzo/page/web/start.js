// What a newcomer asks for: which keys do what.

import { dialog, h } from "./ui.js";
import { say } from "./words.js";

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
