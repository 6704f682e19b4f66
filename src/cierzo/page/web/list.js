export function mountList(element, { open }) {
  element.replaceChildren();
  return { refresh: async () => {}, select() {}, focusSearch() {} };
}
