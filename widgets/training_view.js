// The load of the experts while a router is trained, and a Stop button. Texts are untrusted: text nodes only.

import { adoptPalette, watchTheme } from "./js/palette.js";
import { StatusLine } from "./js/parts.js";
import { h, setData, setText } from "./js/surface.js";
import { TrainingPainter } from "./js/training_paint.js";
import { TIMES_UNIFORM, pictureWords, progressWords, summaryPairs } from "./js/training_words.js";

const PATIENCE_MS = 2000; // after that without an answer, the kernel does not hear messages while its cell runs
const DEAF = "to stop, interrupt the kernel (■ in the toolbar): what is done is kept";

function render({ model, el }) {
  const painter = new TrainingPainter();
  const status = new StatusLine([]);
  status.parts.setAttribute("aria-live", "off"); // ten times a second is noise; only the end is announced
  const progress = h("span", { class: "moe-secondary" });
  const announced = h("span", { class: "moe-secondary", role: "status" });
  const note = h("span", { class: "moe-secondary" });
  const stop = h("button", { type: "button", class: "moe-button", text: "Stop" });
  const scale = h(
    "span",
    { class: "moe-secondary" },
    "0 ",
    h("i", { class: "moe-scale moe-ramp", "aria-hidden": "true" }),
    ` ${TIMES_UNIFORM} × uniform, and above`,
  );
  const root = h(
    "section",
    { class: "moe-root moe-training", "aria-label": `training: ${model.get("title")}` },
    h(
      "header",
      { class: "moe-header" },
      h("div", { class: "moe-header-row" }, h("b", { text: model.get("title") }), scale),
      h("div", { class: "moe-header-row" }, h("div", {}, progress, announced, note), stop),
    ),
    h("div", { class: "moe-training-picture" }, painter.surface.canvas),
    status.element,
  );
  let asked = 0;
  stop.addEventListener("click", () => {
    stop.disabled = true;
    model.send({ stop: true });
    asked = setTimeout(() => setText(note, ` · ${DEAF}`), PATIENCE_MS);
  });

  let width = 0;
  const draw = () => {
    const facts = model.get("_facts");
    const ended = model.get("_ended");
    const palette = adoptPalette(root, el);
    setData(root, "state", ended || "running");
    setText(announced, ended ? progressWords(facts, model.get("steps"), ended) : "");
    setText(progress, ended ? "" : progressWords(facts, model.get("steps"), ended));
    stop.hidden = Boolean(ended);
    if (ended) setText(note, "");
    width = root.clientWidth || width; // 0 while JupyterLab has the cell off the page, where the theme may change too
    if (!facts.done || !width) return;
    setData(root, "done", facts.done);
    const steps = model.get("steps");
    painter.paint(palette, {
      ...{ facts, steps, arrays: model.get("_arrays"), width: width - 28 },
      columns: steps / model.get("_per_column"),
    });
    painter.surface.label(pictureWords(facts));
    status.write(summaryPairs(facts));
  };
  const heard = (message) => message?.stopping !== undefined && clearTimeout(asked);
  const observer = new ResizeObserver(draw);
  model.on("change:_facts change:_ended", draw);
  model.on("msg:custom", heard);
  el.classList.add("moe-host");
  el.append(root);
  observer.observe(root);
  draw();
  const stopTheme = watchTheme(draw);
  return () => {
    clearTimeout(asked);
    model.off("change:_facts change:_ended", draw);
    model.off("msg:custom", heard);
    observer.disconnect();
    stopTheme();
  };
}

export default { render };
