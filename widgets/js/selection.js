// The one selection: token, layer, head, expert, shared by every view of a trace on the page, and with Python.
//
// Views with the same key are members of one channel. A step is handed to the others at once, with no kernel; a view
// that adopts a step never publishes it again; each tells its own traits to Python. The channels belong to the page
// and not to this module, of which every widget brings its own copy.

export const SHARED = ["token", "layer", "head", "expert"];
const SYNC_DELAY_MS = 60;

function channels() {
  return (globalThis[Symbol.for("moe-workbench.selection")] ??= new Map());
}

// A selection within the counts of tokens, layers, heads and experts, whatever was asked for.
export function withinCounts(wanted, counts) {
  const within = (name) => Math.min(Math.max(0, counts[name] - 1), Math.max(0, Math.trunc(wanted[name]) || 0));
  return Object.fromEntries(SHARED.map((name) => [name, within(name)]));
}

// Move the views of a key, all but `from`. Where there is none, nothing happens.
export function publish(key, changes, from = null) {
  const channel = channels().get(key);
  if (!channel) return;
  Object.assign(channel.values, changes);
  for (const member of [...channel.members]) if (member !== from) member.adopt(changes);
}

const pick = (values, names) => Object.fromEntries(names.map((name) => [name, values[name]]));

export class Selection {
  // `clamp` brings a selection within what the view shows; `moved` is called when others or Python moved it; `own`
  // are values of this view alone, as ours → Python's name, that are kept and told to Python likewise.
  constructor(model, { clamp, moved, own = {} }) {
    Object.assign(this, { model, clamp, moved });
    this.traits = { ...Object.fromEntries(SHARED.map((name) => [name, name])), ...own };
    this.key = model.get("_selection_key");
    this.values = this.fromModel();
    this.onChange = () => this.fromPython();
    for (const name of Object.values(this.traits)) model.on(`change:${name}`, this.onChange);
    if (this.key) this.join();
  }

  // Adopt what the views already here have selected, but for what the constructor was told.
  join() {
    const told = this.model.get("_selection_told") ?? [];
    if (!channels().has(this.key)) channels().set(this.key, { values: {}, members: new Set() });
    const { values, members } = channels().get(this.key);
    const adopted = SHARED.filter((name) => name in values && !told.includes(name));
    this.take(pick(values, adopted));
    members.add(this);
    const published = SHARED.filter((name) => !adopted.includes(name));
    publish(this.key, pick(this.values, published), this);
    if (told.length) this.model.set("_selection_told", []); // it wins once, not whenever the view is shown again
    if (told.length || adopted.length) this.tellSoon();
  }

  close() {
    clearTimeout(this.syncTimer);
    for (const name of Object.values(this.traits)) this.model.off(`change:${name}`, this.onChange);
    const channel = channels().get(this.key);
    channel?.members.delete(this);
    if (channel?.members.size === 0) channels().delete(this.key);
  }

  fromModel() {
    return this.clamp(
      Object.fromEntries(Object.entries(this.traits).map(([ours, its]) => [ours, this.model.get(its)])),
    );
  }

  // Change values within bounds; returns the shared ones that changed, or null.
  take(wanted) {
    const before = this.values;
    this.values = this.clamp({ ...before, ...wanted });
    const changed = SHARED.filter((name) => this.values[name] !== before[name]);
    return changed.length ? pick(this.values, changed) : null;
  }

  // A step of this view.
  move(changes) {
    const changed = this.take(changes);
    this.tellSoon();
    if (changed) publish(this.key, changed, this);
  }

  // A step of another view.
  adopt(changes) {
    if (!this.take(changes)) return;
    this.tellSoon();
    this.moved();
  }

  // Python moved the selection. What this view has not told Python yet stands.
  fromPython() {
    if (this.syncTimer || this.telling) return;
    const changed = this.take(this.fromModel());
    if (changed) publish(this.key, changed, this);
    this.moved();
  }

  tellSoon() {
    this.syncTimer ??= setTimeout(() => this.tellPython(), SYNC_DELAY_MS);
  }

  tellPython() {
    this.syncTimer = null;
    this.telling = true; // setting one value announces it before the others are set
    for (const [ours, its] of Object.entries(this.traits)) {
      if (this.model.get(its) !== this.values[ours]) this.model.set(its, this.values[ours]);
    }
    this.telling = false;
    this.model.save_changes();
  }
}
