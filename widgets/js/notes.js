// Bookmarks and notes on tokens: shown as a row of chips, edited in place, saved beside the trace by Python.

import { h, setText } from "./surface.js";

export class Notes {
  constructor(explorer) {
    this.explorer = explorer;
    this.model = explorer.model;
    this.list = h("div", { class: "moe-chips", role: "group", "aria-label": "Bookmarks and notes" });
    this.input = h("input", {
      type: "text",
      maxlength: "2000",
      "aria-label": "Note on this token",
      placeholder: "note on this token, ⏎ keeps it, empty removes it",
    });
    this.about = h("b", { class: "moe-code" });
    this.editor = h("div", { class: "moe-editor", hidden: true }, this.about, this.input);
    this.element = h("div", { class: "moe-notes", hidden: true }, this.list, this.editor);
    this.input.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.keep();
      if (event.key === "Escape") this.closeEditor();
      event.stopPropagation();
    });
  }

  get bookmarks() {
    return this.model.get("bookmarks") ?? [];
  }

  get notes() {
    return this.model.get("notes") ?? {};
  }

  marks() {
    return new Set([...this.bookmarks, ...Object.keys(this.notes).map(Number)]);
  }

  toggleBookmark() {
    const { token } = this.explorer.selection;
    const kept = this.bookmarks.filter((t) => t !== token);
    const added = kept.length === this.bookmarks.length;
    this.change("bookmarks", added ? [...kept, token].sort((a, b) => a - b) : kept);
    this.explorer.status.say(added ? `bookmark on token ${token}` : `bookmark on token ${token} removed`);
  }

  edit() {
    const { token } = this.explorer.selection;
    this.editing = token;
    setText(this.about, `${token} ${this.explorer.tokens.cell(token)}`);
    this.input.value = this.notes[token] ?? "";
    this.editor.hidden = false;
    this.element.hidden = false;
    this.input.focus();
  }

  keep() {
    const text = this.input.value.trim();
    const { [this.editing]: _, ...others } = this.notes;
    this.change("notes", text ? { ...others, [this.editing]: text } : others);
    this.closeEditor();
  }

  closeEditor() {
    this.editor.hidden = true;
    this.refresh();
    this.explorer.root.focus();
  }

  change(name, value) {
    this.model.set(name, value);
    this.model.save_changes();
    this.refresh();
    this.explorer.schedule();
  }

  refresh() {
    const tokens = [...this.marks()].filter((t) => t < this.explorer.facts.numTokens).sort((a, b) => a - b);
    this.list.replaceChildren(...tokens.map((t) => this.chip(t)));
    this.element.hidden = !tokens.length && this.editor.hidden;
  }

  chip(token) {
    const note = this.notes[token];
    const words = h("span", { class: "moe-code", text: `${token} ${this.explorer.tokens.cell(token)}` });
    const button = h(
      "button",
      { type: "button", class: "moe-chip", title: note, onclick: () => this.explorer.select({ token }) },
      words,
    );
    if (note) button.append(h("span", { text: ` ${note}` }));
    return button;
  }
}
