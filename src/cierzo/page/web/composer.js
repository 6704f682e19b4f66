// The box in which one writes, its button, and the draft that a reload does not lose.

import { h, kept, signButton } from "./ui.js";
import { say } from "./words.js";

const TALLEST = 240; // pixels, then the box scrolls

export class Composer {
  /** @param {object} page `send(text)` gives a promise of whether it was stored; `stop()`; `editLast()`. */
  constructor(page) {
    this.page = page;
    this.where = "new";
    this.busy = false;
    this.box = h("textarea", {
      id: "box", rows: "1", placeholder: say("write"), "aria-label": say("message"), autocomplete: "off", enterkeyhint: "send",
      oninput: () => this.typed(), onkeydown: (event) => this.pressed(event),
    });
    this.send = signButton("send", say("send"), () => this.submit(), { id: "send" });
    this.stop = signButton("stop", say("stop"), () => this.page.stop(), { id: "stop", hidden: true });
    this.element = h("form", { id: "composer", onsubmit: (event) => (event.preventDefault(), this.submit()) }, this.box, this.send, this.stop);
  }

  /** Turn to the draft of a conversation, or to that of the next new one. */
  turnTo(id) {
    this.where = id ?? "new";
    if (this.busy) return; // the first message has made the conversation: what is typed since goes on in it
    this.box.value = kept.get(`draft.${this.where}`) ?? "";
    this.grow();
  }

  /** Show Stop while an answer is written: the box stays as it is, for the next message. */
  answering(is) {
    const had = document.activeElement;
    this.stop.hidden = !is;
    this.send.hidden = is;
    if (had === this.stop || had === this.send) this.box.focus();
  }

  focus() {
    if (matchMedia("(hover: hover)").matches) this.box.focus(); // on a phone the keyboard would cover the page
  }

  typed() {
    kept.set(`draft.${this.where}`, this.box.value);
    this.grow();
  }

  grow() {
    this.box.style.height = "auto";
    this.box.style.height = `${Math.min(this.box.scrollHeight, TALLEST)}px`;
  }

  pressed(event) {
    const writes = event.shiftKey || event.isComposing || !matchMedia("(pointer: fine)").matches;
    if (event.key === "Enter" && !writes) {
      event.preventDefault();
      this.submit();
    } else if (event.key === "ArrowUp" && !this.box.value) {
      event.preventDefault();
      this.page.editLast();
    }
  }

  /** Put a text back that could not be sent. */
  giveBack(text) {
    if (this.box.value) return; // it stands there, or something newer does
    this.box.value = text;
    this.typed();
  }

  /** Send what stands here. It leaves the box only when it is stored; what is typed meanwhile stays. */
  async submit() {
    const text = this.box.value;
    if (!text.trim() || this.busy || this.send.hidden) return;
    this.busy = true;
    const from = this.where;
    try {
      if (!(await this.page.send(text))) return;
      kept.set(`draft.${from}`, null);
      if (this.box.value.startsWith(text)) this.box.value = this.box.value.slice(text.length);
      this.typed();
    } finally {
      this.busy = false;
    }
  }
}
