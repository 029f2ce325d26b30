// The desk's token, for the one selection of a trace: kept on the page and not told to Python, which has no such trait.

export class LocalModel {
  // `key` is empty as long as the chain hides: then nothing is shared.
  constructor(key, token) {
    this.values = { _selection_key: key, _selection_told: ["token"], token, layer: 0, head: 0, expert: 0 };
  }

  get(name) {
    return this.values[name];
  }

  set(name, value) {
    this.values[name] = value;
  }

  on() {}

  off() {}

  save_changes() {}
}
