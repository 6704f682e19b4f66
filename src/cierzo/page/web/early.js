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

  // And it is dark where the system says so. Gradio puts its mark for that on the body, our style sheets look at the top.
  const DARK = "(prefers-color-scheme: dark)";
  const asked = window.matchMedia.bind(window);
  window.matchMedia = (query) => {
    const look = chosen("look");
    return look && query.includes("prefers-color-scheme") ? asked(query.includes(look) ? "all" : "not all") : asked(query);
  };
  const wear = () => {
    const dark = window.matchMedia(DARK).matches;
    for (const element of [document.documentElement, document.body]) element?.classList.toggle("dark", dark);
    for (const meta of document.querySelectorAll("meta[name=theme-color]")) meta.content = dark ? "#151413" : "#faf9f7";
  };
  wear();
  asked(DARK).addEventListener("change", wear);
  window.addEventListener("cierzo:look", wear);

  // What was set in this browser is written into what Gradio draws from, before it draws: nothing jumps afterwards.
  const parameters = () => {
    try {
      return JSON.parse(chosen("parameters")) ?? {};
    } catch {
      return {}; // nothing yet, or not ours
    }
  };
  const fits = (value, { value: usual, minimum = value, maximum = value }) =>
    typeof value === typeof usual && value >= minimum && value <= maximum;
  const isOpen = (bar) => {
    if (asked("(max-width: 768px)").matches) return false; // Gradio lays it over the whole page there
    return chosen(`bar.${bar}`) ? chosen(`bar.${bar}`) === "open" : bar !== "settings" || asked("(min-width: 1201px)").matches;
  };
  const remember = () => {
    const config = window.gradio_config;
    const kept = { ...parameters(), system: chosen("system"), language: chosen("language"), look: chosen("look") };
    config.usual = {};
    for (const { type, props } of config.components) {
      if (type === "sidebar") props.open = isOpen(props.elem_id);
      if (type === "slider" || type === "textbox") config.usual[props.elem_id] = props.value;
      if (fits(kept[props.elem_id], props)) props.value = kept[props.elem_id];
    }
  };
  document.addEventListener("readystatechange", remember, { once: true }); // scripts of modules run after that

  // Gradio makes functions out of the text of an event's `js=`, which the page's policy forbids (`unsafe-eval`). Ours
  // are names, "cierzo:changed", and a name is looked up.
  const made = Object.getPrototypeOf(async () => {}).constructor;
  Object.defineProperty(made.prototype, "constructor", {
    configurable: true,
    value: function (...source) {
      const name = /cierzo:(\w+)/.exec(source.at(-1))?.[1];
      if (!name) throw new EvalError("this page runs no text as a program");
      return () => async (...values) => {
        try {
          return await (await import("/cierzo/settings.js")).events[name](...values);
        } catch (error) {
          return reportError(error); // Gradio would say nothing
        }
      };
    },
  });
})();
