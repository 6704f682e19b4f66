// Before Gradio begins: the language and the theme that were chosen, and the names of what its events call.
(() => {
  const chosen = (name) => {
    try {
      return localStorage.getItem(`cierzo.${name}`) ?? "";
    } catch {
      return ""; // storage is switched off: the browser's own choice it is
    }
  };
  const says = (object, name, value) => Object.defineProperty(object, name, { get: () => value, configurable: true });

  // Gradio speaks the language that the browser names first.
  const spoken = chosen("language") || (navigator.languages ?? [navigator.language]).find((tag) => /^(en|es|fr)\b/.test(tag)) || "en";
  says(navigator, "language", spoken);
  says(navigator, "languages", [spoken]);
  document.documentElement.lang = spoken.slice(0, 2);

  // And it is dark where the system says so.
  const asked = window.matchMedia.bind(window);
  window.matchMedia = (query) => {
    const look = chosen("look");
    return look && query.includes("prefers-color-scheme") ? asked(query.includes(look) ? "all" : "not all") : asked(query);
  };
  document.documentElement.classList.toggle("dark", window.matchMedia("(prefers-color-scheme: dark)").matches);

  // Gradio makes functions out of the text of an event's `js=`, which the page's policy forbids (`unsafe-eval`). Ours
  // are names, "cierzo:changed", and a name is looked up.
  const made = Object.getPrototypeOf(async () => {}).constructor;
  Object.defineProperty(made.prototype, "constructor", {
    configurable: true,
    value: function (...source) {
      const name = /cierzo:(\w+)/.exec(source.at(-1))?.[1];
      if (!name) throw new EvalError("this page runs no text as a program");
      return () => async (...values) => (await import("/cierzo/settings.js")).events[name](...values);
    },
  });
})();
