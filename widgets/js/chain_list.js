// The completion as sentences: text with forking tokens and markers, labels, entropy. Only sentences near the selected
// token are mounted; the rest is counted.

import { shownLabels } from "./chain_data.js";
import { messageName, messageNote } from "./strip.js";
import { h, setData } from "./surface.js";
import { mountedRange, mustRemount, scrollTarget } from "./transcript.js";

export class ChainList {
  constructor(view) {
    this.view = view;
    this.range = null;
    this.words = new Map(); // token → its element
    this.rows = new Map(); // sentence → {element, labels}
    this.marked = { token: null, row: null };
    this.scroller = h("div", {
      class: "moe-chain-scroll",
      tabindex: "0",
      role: "region",
      "aria-label": "Sentences of the completion",
    });
    this.element = h("section", { class: "moe-chain-list" }, this.head(), this.scroller);
    this.scroller.addEventListener("click", (event) => {
      const target = event.target.closest("[data-token]");
      if (target) view.select({ token: Number(target.dataset.token) });
    });
  }

  head() {
    const { data } = this.view;
    const { forks } = data;
    const share = forks && `top ${Math.round(forks.share * 100)} % by entropy of n = ${forks.n.toLocaleString("en")}`;
    const from = forks && forks.threshold !== null ? `, from ${forks.threshold.toPrecision(2)} nats` : "";
    return h(
      "div",
      { class: "moe-chain-head" },
      h("b", { text: data.channel ? "Chain of thought" : "Completion" }),
      h("span", {
        class: "moe-secondary",
        text: data.channel
          ? `${data.sentences.length} sentences`
          : `no analysis channel · ${data.sentences.length} sentences`,
      }),
      forks
        ? h(
            "span",
            { class: "moe-secondary" },
            h("span", { class: "moe-fork", text: "forking tokens" }),
            ` ${share}${from}`,
          )
        : h("span", { class: "moe-badge moe-badge-missing", text: "forking tokens: entropy not captured" }),
      h("span", { class: "moe-secondary" }, h("span", { class: "moe-marker", text: "markers" }), " by words"),
      h("span", { class: "moe-secondary", text: "labels by rules, a first pass · entropy mean · max, nats" }),
    );
  }

  // Read geometry here, before anything of this step is written.
  measure() {
    const { data, selection } = this.view;
    const token = Math.max(selection.token, data.start);
    this.isStale = mustRemount(this.range, token, data.stop, data.start);
    this.scrollTo = this.isStale ? null : this.target(token);
  }

  target(token) {
    return scrollTarget(this.scroller, this.words.get(token));
  }

  draw() {
    const { data, selection } = this.view;
    const token = Math.max(selection.token, data.start);
    if (this.isStale) this.mount(token);
    this.mark(selection.token);
    const to = this.isStale ? this.target(token) : this.scrollTo;
    if (to !== null) this.scroller.scrollTop = to;
  }

  mount(token) {
    const { data, tokens } = this.view;
    this.range = mountedRange(token, data.stop, data.start);
    const { from: low, to } = this.range;
    this.words.clear();
    this.rows.clear();
    this.marked = { token: null, row: null };
    const messages = tokens.messages.filter((m) => m.start < to && m.stop > low);
    this.scroller.replaceChildren(
      ...(low > data.start ? [this.more(low - data.start, "before", low - 1)] : []),
      ...messages.map((message) => this.message(message, low, to)),
      ...(to < data.stop ? [this.more(data.stop - to, "after", to)] : []),
    );
  }

  more(count, where, token) {
    const text = `${count.toLocaleString("en")} tokens ${where}`;
    return h("button", { class: "moe-more", type: "button", "data-token": token, text });
  }

  message(message, low, high) {
    const { data } = this.view;
    const count = `${message.stop - Math.max(message.start, data.start)} tokens`;
    const note = [messageNote(message), count].filter(Boolean).join(" · ");
    const label = h(
      "div",
      {
        class: "moe-channel",
        "data-token": Math.max(message.start, data.start),
        title: message.malformed && `malformed: ${message.malformed}`,
      },
      h("b", { text: messageName(message) }),
      h("span", { class: "moe-secondary", text: `  ${note}` }),
    );
    // Header tokens have no text of their own: stepping onto them marks the message's name.
    for (let i = Math.max(low, message.start); i < Math.min(high, message.contentStart); i++) this.words.set(i, label);
    const rows = this.stretches(message, low, high).map((stretch) => this.row(stretch));
    return h("div", { class: "moe-message moe-chain-message", "data-hue": message.hue }, label, ...rows);
  }

  // A message's content as sentences, and what is in none, such as its closing token.
  stretches(message, low, high) {
    const { data } = this.view;
    const out = [];
    const stop = Math.min(high, message.stop);
    let at = Math.max(low, message.contentStart);
    while (at < stop) {
      const number = data.sentenceAt(at);
      const next = number < 0 ? data.sentences.find((s) => s.start > at) : null;
      const end = Math.min(stop, number < 0 ? (next?.start ?? stop) : data.sentences[number].stop);
      out.push({ number, start: at, stop: end });
      at = end;
    }
    return out;
  }

  row({ number, start, stop }) {
    if (number < 0) return h("div", { class: "moe-chain-loose" }, ...this.pieces(start, stop));
    const sentence = this.view.data.sentences[number];
    const text = h(
      "div",
      { class: "moe-content moe-chain-text" },
      start > sentence.start ? "… " : "",
      ...this.pieces(start, stop),
      stop < sentence.stop ? " …" : "",
    );
    const labels = h("div", { class: "moe-chain-labels" });
    const name = h("span", {
      class: "moe-chain-number moe-secondary",
      "data-token": sentence.start,
      text: `${number + 1}`,
    });
    const element = h(
      "div",
      { class: "moe-chain-row", "data-sentence": number },
      name,
      text,
      labels,
      this.entropy(number),
    );
    this.rows.set(number, { element, labels });
    this.writeLabels(number);
    return element;
  }

  pieces(from, to) {
    const { tokens, data } = this.view;
    return tokens.pieces(from, to).map(({ token, count, text }) => {
      const special = tokens.isSpecial(token);
      const shown = special ? tokens.cell(token) : text;
      const element = h("span", { "data-token": token, class: special ? "moe-special" : null });
      // Marks go around the word, not the space before it, which may end the line above.
      const word = shown.length > 1 && shown.startsWith(" ") ? h("span", { text: shown.slice(1) }) : element;
      if (word === element) element.textContent = shown;
      else element.append(" ", word);
      for (let i = token; i < token + count; i++) {
        this.words.set(i, word);
        if (data.isFork.has(i)) word.classList.add("moe-fork");
        const marker = data.markerAt.get(i);
        if (!marker) continue;
        word.classList.add("moe-marker");
        word.title = `${marker.kind}: rule ${marker.rule}`;
      }
      return element;
    });
  }

  entropy(number) {
    const { data } = this.view;
    const found = data.entropyOf(number);
    if (!found) return h("div", { class: "moe-chain-entropy moe-missing", title: "entropy not captured", text: "–" });
    if (Number.isNaN(found.mean)) return h("div", { class: "moe-chain-entropy moe-undefined", text: "undefined" });
    const width = (value) => `width:${data.topEntropy ? ((100 * value) / data.topEntropy).toFixed(1) : 0}%`;
    const [mean, max] = [found.mean, found.max].map((value) => value.toFixed(2));
    return h(
      "div",
      {
        class: "moe-chain-entropy",
        "data-mean": found.mean,
        "data-max": found.max,
        title: `entropy: mean ${mean}, max ${max} nats`,
      },
      h(
        "span",
        { class: "moe-bar" },
        h("i", { class: "moe-chain-max", style: width(found.max) }),
        h("i", { style: width(found.mean) }),
      ),
      h("span", { class: "moe-number", text: `${mean} · ${max}` }),
    );
  }

  writeLabels(number) {
    const row = this.rows.get(number);
    if (!row) return;
    const { data, model } = this.view;
    const labels = shownLabels(data.sentences[number], model.get("labels"), model.get("labels_by"));
    row.labels.replaceChildren(
      ...labels.map(({ label, own, words }) =>
        h("span", {
          class: `moe-label${own ? " moe-label-own" : ""}`,
          "data-label": label,
          text: own ? `✎ ${label}` : label,
          title: words,
        }),
      ),
      ...this.turn(number),
    );
  }

  // The way back: to the sentence that is taken up again.
  turn(number) {
    const turn = this.view.data.turnOf.get(number);
    if (!turn) return [];
    const alike = `similarity ${turn.similarity.toFixed(2)}, by words`;
    if (turn.to === null)
      return [
        h("span", { class: "moe-turn", text: "↶ –", title: `“${turn.words}” takes up no earlier sentence: ${alike}` }),
      ];
    const words = `“${turn.words}” turns back to sentence ${turn.to + 1}: ${alike}`;
    const token = this.view.data.sentences[turn.to].start;
    return [
      h("button", {
        type: "button",
        class: "moe-chip moe-turn",
        text: `↶ ${turn.to + 1}`,
        title: words,
        "aria-label": words,
        "data-token": token,
      }),
    ];
  }

  // Own labels changed.
  relabel() {
    for (const number of this.rows.keys()) this.writeLabels(number);
  }

  mark(token) {
    const { data } = this.view;
    const word = this.words.get(token) ?? null;
    if (word !== this.marked.token) {
      this.marked.token?.classList.remove("moe-current");
      this.marked.token?.removeAttribute("aria-current");
      word?.classList.add("moe-current");
      word?.setAttribute("aria-current", "true");
      this.marked.token = word;
    }
    const row = this.rows.get(data.sentenceAt(token))?.element ?? null;
    if (row !== this.marked.row) {
      this.marked.row?.classList.remove("moe-sentence");
      row?.classList.add("moe-sentence");
      this.marked.row = row;
    }
    setData(this.element, "current", token);
  }
}
