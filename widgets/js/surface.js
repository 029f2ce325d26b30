// Elements and canvases. Text enters the page as text nodes and canvas text only, never as markup.

// An element with properties (class, text, data-*, aria-*, on*) and children.
export function h(tag, properties = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name === "style") node.style.cssText = value; // as an attribute a strict page would refuse it
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children);
  return node;
}

// Change a node's text only when it differs, so that a step touches little.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setData(node, name, value) {
  if (node.dataset[name] !== String(value)) node.dataset[name] = value;
}

export const UI_FONT = "-apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
export const CODE_FONT = "Menlo, Consolas, 'DejaVu Sans Mono', monospace";

// A canvas that keeps its size in CSS pixels and paints at the screen's resolution.
export class Surface {
  constructor(label) {
    this.canvas = h("canvas", { role: "img", "aria-label": label });
    this.ctx = this.canvas.getContext("2d");
    this.width = 0;
    this.height = 0;
  }

  resize(width, height) {
    const scale = window.devicePixelRatio || 1;
    if (this.width === width && this.height === height && this.scale === scale) return;
    Object.assign(this, { width, height, scale });
    this.canvas.width = Math.max(1, Math.round(width * scale));
    this.canvas.height = Math.max(1, Math.round(height * scale));
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
  }

  clear() {
    this.ctx.setTransform(this.scale, 0, 0, this.scale, 0, 0);
    this.ctx.clearRect(0, 0, this.width, this.height);
    return this.ctx;
  }

  label(text) {
    if (this.canvas.getAttribute("aria-label") !== text) this.canvas.setAttribute("aria-label", text);
  }
}

// Not captured: hatching, always with words where they fit.
export function hatch(ctx, palette, x, y, width, height, words) {
  ctx.save();
  ctx.beginPath();
  ctx.rect(x, y, width, height);
  ctx.clip();
  ctx.strokeStyle = palette.hatch;
  ctx.lineWidth = 1;
  ctx.beginPath();
  for (let at = x - height; at < x + width; at += 6) {
    ctx.moveTo(at, y + height);
    ctx.lineTo(at + height, y);
  }
  ctx.stroke();
  if (words) boxedWords(ctx, palette, x, y, width, height, words);
  ctx.restore();
}

function boxedWords(ctx, palette, x, y, width, height, words) {
  ctx.font = `600 11px ${UI_FONT}`;
  const textWidth = Math.min(width - 8, ctx.measureText(words).width);
  ctx.fillStyle = palette.panel;
  ctx.fillRect(x + 4, y + height / 2 - 8, textWidth + 8, 16);
  ctx.fillStyle = palette.text;
  ctx.textAlign = "left";
  ctx.textBaseline = "middle";
  ctx.fillText(words, x + 8, y + height / 2, width - 12);
}

// Undefined: a dotted frame without fill.
export function dottedFrame(ctx, palette, x, y, width, height) {
  ctx.save();
  ctx.strokeStyle = palette.secondary;
  ctx.lineWidth = 1;
  ctx.setLineDash([1, 2]);
  ctx.strokeRect(x + 0.5, y + 0.5, width - 1, height - 1);
  ctx.restore();
}

export function dashedFrame(ctx, colour, x, y, width, height, dash = [3, 2]) {
  ctx.save();
  ctx.strokeStyle = colour;
  ctx.lineWidth = 1.5;
  ctx.setLineDash(dash);
  ctx.strokeRect(x + 0.75, y + 0.75, width - 1.5, height - 1.5);
  ctx.restore();
}

// Waiting: a pale bar and what for.
function waitingBar(ctx, palette, x, y, width, height, words) {
  ctx.fillStyle = palette.track;
  ctx.fillRect(x, y + height / 2 - 7, Math.min(120, width * 0.3), 3);
  ctx.fillStyle = palette.secondary;
  ctx.font = `11px ${UI_FONT}`;
  ctx.textAlign = "left";
  ctx.textBaseline = "top";
  ctx.fillText(words, x, y + height / 2, width);
}

// Paint a state that is not "here"; returns whether it was one.
export function paintAbsence(ctx, palette, found, x, y, width, height) {
  if (found.state === "here") return false;
  if (found.state === "waiting") waitingBar(ctx, palette, x, y, width, height, found.words);
  else if (found.state === "missing") hatch(ctx, palette, x, y, width, height, found.words);
  else {
    dottedFrame(ctx, palette, x, y, width, height);
    ctx.fillStyle = palette.secondary;
    ctx.font = `11px ${UI_FONT}`;
    ctx.textAlign = "left";
    ctx.textBaseline = "middle";
    ctx.fillText(found.words, x + 8, y + height / 2, width - 12);
  }
  return true;
}

const shortened = new Map();

// Text cut to a width with an ellipsis, remembered: measuring is slow.
export function fitText(ctx, text, width) {
  const key = `${ctx.font}|${Math.round(width)}|${text}`;
  let fitted = shortened.get(key);
  if (fitted !== undefined) return fitted;
  fitted = text;
  if (ctx.measureText(text).width > width) {
    const characters = Array.from(text);
    while (characters.length > 1 && ctx.measureText(`${characters.join("")}…`).width > width) characters.pop();
    fitted = `${characters.join("")}…`;
  }
  if (shortened.size > 20_000) shortened.clear();
  shortened.set(key, fitted);
  return fitted;
}
