// The page's words in the language in use. Gradio is told all three languages; see words/*.json.

const all = window.gradio_config.i18n_translations;

/** An error whose message is for people: it is shown as it is. */
export class Told extends Error {}

/** "es", "en" or "fr". */
export const language = document.documentElement.lang;

const words = { ...all.en, ...all[language] };

/** The sentence of that name, with its {names} filled in. */
export function say(name, values = {}) {
  return words[name].replace(/\{(\w+)\}/g, (_, key) => String(values[key] ?? ""));
}

/** A number as people write it there: 1,234.5 or 1 234,5. */
export function number(value, digits = 0) {
  return new Intl.NumberFormat(language, { minimumFractionDigits: digits, maximumFractionDigits: digits }).format(value);
}

/** "1 token" or "256 tokens": the word alone for one is the sentence NAME_one. */
export function count(name, value) {
  return say(value === 1 ? `${name}_one` : name, { count: number(value) });
}
