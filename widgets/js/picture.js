// A picture of a view as it stands: SVG with its text as text and its canvases as images, or PNG drawn from that.
// Nothing leaves the page: the SVG holds its styles, and refers to nothing outside itself.

import { h } from "./surface.js";

const XHTML = "http://www.w3.org/1999/xhtml";
const SVG = "http://www.w3.org/2000/svg";
const PNG_SCALE = 2;

// What XML cannot hold, even escaped: most control characters, halves of a pair, two non-characters.
const NOT_XML =
  /[\u0000-\u0008\u000b\u000c\u000e-\u001f\ufffe\uffff]|[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/g;

export function xmlText(text) {
  return text.replace(NOT_XML, "\ufffd");
}

// "trace-explorer-47-85" from what a view is called.
export function fileName(label, kind) {
  const words = label.toLowerCase().match(/[a-z0-9]+/g) ?? ["view"];
  return `${words.join("-").slice(0, 60).replace(/-$/, "")}.${kind}`;
}

// The names of the notebook's variables that a style sheet uses.
export function variablesOf(css) {
  return [...new Set(css.match(/--jp-[\w-]+/g) ?? [])];
}

// The view as an SVG document.
export function pictureOf(view) {
  const { root } = view;
  const { width, height } = root.getBoundingClientRect();
  const css = view.model.get("_css") ?? "";
  const page = getComputedStyle(root);
  const variables = variablesOf(css).map((name) => `${name}: ${page.getPropertyValue(name) || "initial"};`);
  const style = `.moe-box { ${variables.join(" ")} } .moe-root { height: ${height}px; outline: 0 !important } .moe-root * { scrollbar-width: none }\n${css}`;
  const sheet = document.createElementNS(XHTML, "style");
  sheet.textContent = xmlText(style);
  const box = h("div", { class: "moe-box", style: `width: ${width}px` }, sheet, still(root));
  const svg = document.createElementNS(SVG, "svg");
  const inside = document.createElementNS(SVG, "foreignObject");
  for (const node of [svg, inside]) {
    node.setAttribute("width", Math.ceil(width));
    node.setAttribute("height", Math.ceil(height));
  }
  inside.append(box);
  svg.append(title(root.getAttribute("aria-label")), inside);
  return { svg: new XMLSerializer().serializeToString(svg), width: Math.ceil(width), height: Math.ceil(height) };
}

function title(words) {
  const node = document.createElementNS(SVG, "title");
  node.textContent = xmlText(words ?? "");
  return node;
}

// A copy of an element that needs no script: canvases as images, fields with what was typed, scrolled as it is.
function still(original) {
  const copy = original.cloneNode(true);
  const [from, to] = [original, copy].map((node) => [node, ...node.querySelectorAll("*")]);
  from.forEach((node, i) => freeze(node, to[i]));
  const texts = document.createTreeWalker(copy, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) texts.currentNode.data = xmlText(texts.currentNode.data);
  return copy;
}

function freeze(node, copy) {
  for (const { name, value } of [...copy.attributes]) copy.setAttribute(name, xmlText(value));
  if (node instanceof HTMLCanvasElement) copy.replaceWith(imageOf(node, copy));
  else if (node instanceof HTMLInputElement) copy.setAttribute("value", xmlText(node.value));
  else if (node instanceof HTMLTextAreaElement) copy.textContent = xmlText(node.value);
  else if (node instanceof HTMLOptionElement) copy.toggleAttribute("selected", node.selected);
  if (node.scrollTop || node.scrollLeft) {
    copy.style.overflow = "hidden";
    for (const child of copy.children) child.style.translate = `${-node.scrollLeft}px ${-node.scrollTop}px`;
  }
}

function imageOf(canvas, copy) {
  const image = h("img", { src: canvas.toDataURL(), alt: copy.getAttribute("aria-label") ?? "" });
  image.className = copy.className;
  const { display, position, top, left, right, bottom } = getComputedStyle(canvas);
  const placed = position === "static" ? "" : `position: ${position}; inset: ${top} ${right} ${bottom} ${left};`;
  const { clientWidth: width, clientHeight: height } = canvas;
  image.style.cssText = `${copy.style.cssText}; ${placed} display: ${display}; width: ${width}px; height: ${height}px`;
  return image;
}

// Save a picture of the view as the browser saves a download; `kind` is svg or png.
export async function savePicture(view, kind) {
  const { svg, width, height } = pictureOf(view);
  const blob = kind === "svg" ? new Blob([svg], { type: "image/svg+xml" }) : await drawn(svg, width, height);
  const link = h("a", { href: URL.createObjectURL(blob), download: fileName(view.root.getAttribute("aria-label"), kind) });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function drawn(svg, width, height) {
  const image = new Image();
  // From a Blob URL Chromium would mark the canvas as tainted by the foreign object.
  image.src = `data:image/svg+xml;charset=utf-8,${encodeURIComponent(svg)}`;
  await image.decode();
  const canvas = h("canvas", { width: width * PNG_SCALE, height: height * PNG_SCALE });
  const ctx = canvas.getContext("2d");
  ctx.scale(PNG_SCALE, PNG_SCALE);
  ctx.drawImage(image, 0, 0);
  return new Promise((resolve, refuse) => {
    canvas.toBlob((blob) => (blob ? resolve(blob) : refuse(new Error("the browser made no PNG of it"))), "image/png");
  });
}
