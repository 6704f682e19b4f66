// The server's API: requests, and answers that are followed while they are written. See docs/api.md.

import { say, Told } from "./words.js";

/** A request that the server refused, or that did not reach it (status 0). Its message is for people. */
export class ApiError extends Told {
  constructor(message, status, type = "") {
    super(message);
    this.status = status;
    this.type = type;
  }
}

/** An address of the API, in which an id leads nowhere else, whatever stands in it: at`/api/messages/${id}/fork`. */
export function at(parts, ...ids) {
  return String.raw({ raw: parts }, ...ids.map(encodeURIComponent));
}

/** Ask the API; gives the JSON of its answer, or raises ApiError. */
export async function ask(method, path, body) {
  const json = body === undefined ? {} : { body: JSON.stringify(body), headers: { "Content-Type": "application/json" } };
  return await sent(method, path, json);
}

/** Send a file of conversations as it is. */
export async function upload(path, file) {
  return await sent("POST", path, { body: file, headers: { "Content-Type": "application/json" } });
}

async function sent(method, path, options) {
  let response;
  try {
    // Without the browser's cache: there, whoever asks for an address waits until a change that was sent to it is done.
    response = await fetch(path, { method, cache: "no-store", ...options });
  } catch {
    throw new ApiError(say("offline"), 0);
  }
  const said = await response.json().catch(() => null);
  if (!response.ok) {
    throw new ApiError(said?.error?.message ?? `${response.status} ${response.statusText}`, response.status, said?.error?.type);
  }
  return said;
}

/** An id that no other client makes: 26 letters and digits. It works over plain http, where randomUUID does not. */
export function newId() {
  const bytes = crypto.getRandomValues(new Uint8Array(26));
  return Array.from(bytes, (byte) => "0123456789abcdefghjkmnpqrstvwxyz"[byte & 31]).join("");
}

/**
 * Follow an answer as HTML until its end. After a break it asks again by itself, and gets all that there is at once.
 *
 * @param {string} reply The answer's id.
 * @param {{phase: Function, html: Function, end: Function, lost: Function}} on What is called with each event's data;
 *   `lost` is called when the connection breaks.
 * @returns {() => void} Leaves. The answer goes on.
 */
export function follow(reply, on) {
  let source;
  let timer;
  const open = () => {
    source = new EventSource(at`/api/replies/${reply}/html`);
    source.addEventListener("phase", (event) => on.phase(JSON.parse(event.data)));
    source.addEventListener("html", (event) => on.html(JSON.parse(event.data)));
    source.addEventListener("end", (event) => {
      source.close();
      on.end(JSON.parse(event.data));
    });
    source.addEventListener("error", (event) => {
      on.lost(event.data ? JSON.parse(event.data).error.message : say("offline"));
      if (event.data || source.readyState === EventSource.CLOSED) {
        source.close(); // an error's word, or a refusal: the browser would not try again by itself
        timer = setTimeout(open, 1000);
      }
    });
  };
  open();
  return () => {
    clearTimeout(timer);
    source.close();
  };
}
