export const events = { changed(){}, chosen(){ return null }, speak(){}, dress(){}, remembered(){} };
export function parameters() { return { sampling: { temperature: 0, max_new_tokens: 256, top_p: 0.9, repetition_penalty: 1.2 }, system: "" }; }
export function setSystem() {}
export function markEngine() {}
