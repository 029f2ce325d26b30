// What a view needs of a notebook, in a page without one: its state, and an honest answer to what it asks a kernel.

// Bytes of base64.
export function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return new DataView(bytes.buffer);
}

// State with its buffers put where they belong, as Jupyter embeds them: {path: […], data: base64}.
export function stateOf({ state, buffers }) {
  for (const { path, data } of buffers) {
    let at = state;
    for (const key of path.slice(0, -1)) at = at[key];
    at[path.at(-1)] = bytesOf(data);
  }
  return state;
}

const NOT_HERE = "not in this page: needs a kernel";

// What a kernel would have answered to a message, were it there to say that it is not.
export function answerTo(message) {
  if (Array.isArray(message?.fetch)) {
    const failed = Object.fromEntries(message.fetch.map((key) => [key, NOT_HERE]));
    return { side: message.side, blocks: [], failed, gone: true };
  }
  if (message?.card !== undefined) return null; // the view says that it waits; the page says for what
  return { said: NOT_HERE, kind: "warning" };
}

// The part of anywidget's model that views use. `asked` is told of every message, which nobody can answer here.
export class PageModel {
  constructor(state, css, asked) {
    Object.assign(this, { state: { ...state, _css: css }, asked, listeners: new Map() });
  }

  get(name) {
    return this.state[name];
  }

  set(name, value) {
    if (typeof name !== "string") return Object.entries(name).forEach(([key, its]) => this.set(key, its));
    if (this.state[name] === value) return;
    this.state[name] = value;
    this.tell(`change:${name}`, this, value);
  }

  save_changes() {}

  on(name, callback) {
    if (!this.listeners.has(name)) this.listeners.set(name, new Set());
    this.listeners.get(name).add(callback);
  }

  off(name, callback) {
    if (callback) this.listeners.get(name)?.delete(callback);
    else this.listeners.delete(name);
  }

  tell(name, ...values) {
    for (const callback of [...(this.listeners.get(name) ?? [])]) callback(...values);
  }

  // Answered after the view has drawn, as from a kernel.
  send(message) {
    this.asked(message);
    const answer = answerTo(message);
    if (answer) queueMicrotask(() => this.tell("msg:custom", answer, []));
  }
}
