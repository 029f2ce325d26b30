// The tokens of a rollout as they are generated, and a Stop button. Token text is untrusted: textContent only.

const INTERRUPT = "To stop, interrupt the kernel (■ in the toolbar): the part that is done is returned.";
const PATIENCE_MS = 2000; // after that without an answer, the kernel does not hear messages while its cell runs
const ANNOUNCE_MS = 5000; // how often a screen reader is told of progress

/** Return the text a token is shown with: specials as ⟨end⟩, a lone newline visible, control characters as pictures. */
export function shownText(text, special) {
  if (special) return `⟨${text.replace(/^<\|(.*)\|>$/s, "$1")}⟩`;
  return text.replace(/[\u0000-\u0008\u000b-\u001f]/g, (c) => String.fromCharCode(0x2400 + c.charCodeAt(0)));
}

/** Return the tokens from number `from` on, of those that `earlier` (its first has number `first`) and `recent` hold. */
export function tokensFrom(from, first, earlier, recent) {
  const skip = from - first;
  return skip < earlier.length ? earlier.slice(skip).concat(recent) : recent.slice(skip - earlier.length);
}

function element(tag, className, text = "") {
  const made = document.createElement(tag);
  made.className = className;
  made.textContent = text;
  return made;
}

/** A log that tokens are appended to: one block per channel, one text node per run of like tokens. */
function tokenLog(container) {
  let block = null, run = null, channel, special;

  const append = (text, nextChannel, nextSpecial) => {
    if (block === null || nextChannel !== channel) {
      block = element("div", "moe-live-block");
      block.dataset.channel = nextChannel ?? "none";
      block.append(element("span", "moe-live-channel", nextChannel ?? "header"));
      container.append(block);
      run = null;
    }
    if (run === null || nextSpecial !== special) {
      const span = element("span", nextSpecial ? "moe-live-special" : "moe-live-text");
      run = document.createTextNode("");
      span.append(run);
      block.append(span);
    }
    run.appendData(shownText(text, nextSpecial));
    channel = nextChannel;
    special = nextSpecial;
  };
  const clear = () => {
    container.textContent = "";
    block = run = null;
  };
  return { append, clear };
}

function render({ model, el }) {
  const root = element("section", "moe-live");
  root.setAttribute("aria-label", "generation");
  root.dataset.lmSuppressShortcuts = "true";
  const head = element("div", "moe-live-head");
  const stop = element("button", "moe-live-stop", "■ Stop");
  stop.type = "button";
  head.append(element("span", "moe-live-question", model.get("question")), stop);
  const cut = element("div", "moe-live-note");
  const text = element("div", "moe-live-tokens");
  text.tabIndex = 0;
  text.setAttribute("role", "log");
  text.setAttribute("aria-live", "off"); // token by token is noise; the announcer below speaks now and then
  text.setAttribute("aria-label", "tokens");
  const status = element("div", "moe-live-status");
  const announcer = element("div", "moe-live-announcer");
  announcer.setAttribute("role", "status");
  root.append(head, cut, text, status, announcer);
  el.append(root);

  const log = tokenLog(text);
  const started = performance.now();
  let drawn = 0, drawnFirst = 0, announced = 0, deaf = 0;

  const note = (message) => { status.dataset.note = message; showStatus(); };

  const showStatus = () => {
    const ended = model.get("ended"), count = model.get("count");
    root.dataset.state = ended ? "ended" : "running";
    stop.hidden = Boolean(ended) || !model.get("can_stop");
    const progress = `${count} ${count === 1 ? "token" : "tokens"}`;
    status.textContent = ended ? `${progress} · ${ended}` : [`generating · ${progress}`, status.dataset.note].filter(Boolean).join(" · ");
    const now = performance.now();
    if (ended || now - announced >= ANNOUNCE_MS) {
      announced = now;
      announcer.textContent = status.textContent;
    }
  };

  const draw = () => {
    const first = model.get("first"), count = model.get("count");
    const atEnd = text.scrollTop + text.clientHeight >= text.scrollHeight - 8;
    if (first !== drawnFirst) {
      log.clear();
      drawn = drawnFirst = first;
      cut.textContent = `${first} earlier tokens are not shown here; the trace has them`;
    }
    for (const token of tokensFrom(drawn, first, model.get("earlier"), model.get("recent"))) log.append(...token);
    drawn = count;
    if (atEnd) text.scrollTop = text.scrollHeight; // who has scrolled back to read is left there
    showStatus();
  };

  const heard = (message) => {
    if (message.type !== "stopping") return;
    clearTimeout(deaf);
    note("stopping after this token");
  };

  stop.addEventListener("click", () => {
    stop.disabled = true;
    model.send({ type: "stop" });
    note("asking the kernel to stop");
    deaf = setTimeout(() => note(INTERRUPT), PATIENCE_MS);
  });
  model.on("change:count", draw);
  model.on("change:ended", showStatus);
  model.on("msg:custom", heard);
  if (!model.get("can_stop")) status.dataset.note = INTERRUPT;
  drawn = drawnFirst = 0;
  draw();

  return () => {
    clearTimeout(deaf);
    model.off("change:count", draw);
    model.off("change:ended", showStatus);
    model.off("msg:custom", heard);
    root.remove();
  };
}

export default { render };
