// Colours: hue means channel, the ramp means amount, ink means selection. Values and ratios: see tests/js/palette.test.js.

import { setData } from "./surface.js";

export const CHANNEL_COLOURS = {
  light: {
    ...{ system: "#454a5a", developer: "#2f3a00", user: "#157f77", analysis: "#a65a12" },
    ...{ commentary: "#5a0446", final: "#1c53a6", tool: "#7a45ee", unknown: "#63676a" },
  },
  dark: {
    ...{ system: "#e2e4e7", developer: "#7f9210", user: "#6fc4ab", analysis: "#f3a536" },
    ...{ commentary: "#c06d9b", final: "#5b8cf2", tool: "#c2a8ff", unknown: "#a9aeb1" },
  },
};

export const RAMP = {
  light: ["#f1f4f5", "#cfe3e6", "#92c3cc", "#4f9cb0", "#23708f", "#134a6c", "#0b2844"],
  dark: ["#1c2226", "#1c3d4c", "#1d5d73", "#2a8696", "#5cb3b3", "#a5d9c8", "#e4f4d6"],
};

// Of contrasts: less than nothing, nothing, more.
export const DIVERGING = {
  light: ["#8f3f06", "#d98a45", "#f4f2ef", "#9a86c4", "#472c86"],
  dark: ["#f0a558", "#93551f", "#26282b", "#6a58a3", "#bda8f5"],
};

const SURFACES = {
  light: {
    ...{ panel: "#ffffff", sunk: "#f7f8f9", ink: "#14181c", warning: "#9a3d00", bar: "#23708f", track: "#e8ebed" },
    ...{ text: "rgba(0,0,0,.87)", secondary: "rgba(0,0,0,.56)", line: "#e3e6e8", shade: "rgba(20,24,28,.07)" },
    ...{ foot: "#cdd1d3", grey: "#909496", dark: "#63676a", hatch: "rgba(0,0,0,.28)" },
  },
  dark: {
    ...{ panel: "#161819", sunk: "#1a1d1f", ink: "#f3f5f6", warning: "#ffb27a", bar: "#5cb3b3", track: "#272b2e" },
    ...{
      text: "rgba(255,255,255,.87)",
      secondary: "rgba(255,255,255,.6)",
      line: "#2b3033",
      shade: "rgba(243,245,246,.1)",
    },
    ...{ foot: "#41474b", grey: "#80868a", dark: "#a9aeb1", hatch: "rgba(255,255,255,.3)" },
  },
};

const STEPS = 128;

// Ratios that WCAG 2.2 asks of text: 1.4.3, and 1.4.6 where more contrast is wanted.
const READABLE = 4.5;
const READABLE_BY_MANY = 7;

function channelsOf(hex) {
  return [1, 3, 5].map((i) => parseInt(hex.slice(i, i + 2), 16));
}

export function luminance(hex) {
  const [r, g, b] = channelsOf(hex).map((v) =>
    v / 255 <= 0.04045 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4,
  );
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

export function contrast(a, b) {
  const [low, high] = [luminance(a), luminance(b)].sort((x, y) => x - y);
  return (high + 0.05) / (low + 0.05);
}

// Black or white, whichever contrasts more.
export function textOn(hex) {
  return contrast(hex, "#000000") >= contrast(hex, "#ffffff") ? "#000000" : "#ffffff";
}

// Colour of an amount within 0–1 on a ramp of equally spaced stops.
export function mix(stops, amount) {
  const at = Math.min(1, Math.max(0, amount)) * (stops.length - 1);
  const low = Math.min(stops.length - 2, Math.floor(at));
  const [a, b] = [channelsOf(stops[low]), channelsOf(stops[low + 1])];
  return `#${a
    .map((v, i) =>
      Math.round(v + (b[i] - v) * (at - low))
        .toString(16)
        .padStart(2, "0"),
    )
    .join("")}`;
}

// A hue, moved towards ink until it contrasts enough with the paper.
export function legible(hue, paper, ink, ratio) {
  for (let amount = 0; amount < 1; amount += 0.05) {
    const mixed = mix([hue, ink], amount);
    if (contrast(mixed, paper) >= ratio) return mixed;
  }
  return ink;
}

// Two colours and what lies between them: nothing that must be seen is pale.
function highContrast(paper, ink) {
  const between = (amount) => mix([paper, ink], amount);
  return {
    ...{ panel: paper, sunk: paper, ink, text: ink, secondary: ink, line: between(0.6) },
    ...{ track: between(0.2), shade: `${between(0.6)}38`, foot: between(0.45), grey: between(0.7), dark: between(0.85) },
    ...{ hatch: between(0.5), bar: between(0.6) }, // a bar beside one of ink is another thing
  };
}

// Everything a canvas needs to paint in one theme. `contrast` is "more" where the reader asked for it, "forced" where
// the system sets the colours: those reach the style sheet by themselves, and a canvas by `paper` and `ink` only.
export class Palette {
  constructor(name, { contrast: wanted = "", paper, ink } = {}) {
    this.name = name;
    this.contrast = wanted;
    Object.assign(this, SURFACES[name]);
    this.channels = CHANNEL_COLOURS[name];
    this.diverging = DIVERGING[name];
    this.ramp = RAMP[name];
    if (wanted) this.strengthen(paper ?? (name === "dark" ? "#000000" : "#ffffff"), ink ?? textOn(this.panel));
    // What a drawing that is kept was made with.
    this.id = [name, wanted, this.panel, this.ink].join(" ");
    this.fills = Array.from({ length: STEPS + 1 }, (_, i) => mix(this.ramp, i / STEPS));
    this.texts = this.fills.map(textOn);
    // As pixels of an ImageData, which are little-endian ABGR.
    this.pixels = Uint32Array.from(this.fills, (fill) => {
      const [r, g, b] = channelsOf(fill);
      return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
    });
    this.onChannel = Object.fromEntries(Object.entries(this.channels).map(([k, v]) => [k, textOn(v)]));
  }

  strengthen(paper, ink) {
    const isForced = this.contrast === "forced";
    const seen = (hue) => legible(hue, paper, ink, isForced ? READABLE : READABLE_BY_MANY);
    this.warning = seen(this.warning);
    this.channels = Object.fromEntries(Object.entries(this.channels).map(([channel, hue]) => [channel, seen(hue)]));
    Object.assign(this, highContrast(paper, ink));
    if (!isForced) return;
    this.ramp = [mix([paper, ink], 0.08), ink];
    this.diverging = this.diverging.with(2, mix([paper, ink], 0.08));
  }

  step(amount) {
    return Math.round(Math.min(1, Math.max(0, amount)) * STEPS);
  }

  fill(amount) {
    return this.fills[this.step(amount)];
  }

  // Colour of a contrast within −1 to 1.
  diverge(amount) {
    return mix(this.diverging, (amount + 1) / 2);
  }

  pixel(amount) {
    return this.pixels[this.step(amount)];
  }

  textOnFill(amount) {
    return this.texts[this.step(amount)];
  }
}

// "light" or "dark", as JupyterLab says, else as the system prefers.
export function themeName(el) {
  const lab = el.closest("[data-jp-theme-light]") ?? document.body;
  if (lab.dataset.jpThemeLight) return lab.dataset.jpThemeLight === "false" ? "dark" : "light";
  return matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
}

// A colour of the system as #rrggbb.
function systemColour(el, name) {
  const probe = document.createElement("span");
  probe.style.cssText = `color: ${name}; forced-color-adjust: none`;
  el.append(probe);
  const hex = getComputedStyle(probe)
    .color.match(/\d+/g)
    .slice(0, 3)
    .map((part) => Number(part).toString(16).padStart(2, "0"));
  probe.remove();
  return `#${hex.join("")}`;
}

// The palette of where an element stands; forced colours go before JupyterLab's theme.
export function paletteOf(el) {
  if (matchMedia("(forced-colors: active)").matches) {
    const [paper, ink] = ["Canvas", "CanvasText"].map((name) => systemColour(el, name));
    return new Palette(textOn(paper) === "#ffffff" ? "dark" : "light", { contrast: "forced", paper, ink });
  }
  return new Palette(themeName(el), { contrast: matchMedia("(prefers-contrast: more)").matches ? "more" : "" });
}

// Give a view the palette of where it stands: for its canvases, and its style sheet what only a script can know.
export function adoptPalette(root, el) {
  const palette = paletteOf(el);
  setData(root, "theme", palette.name);
  for (const [channel, colour] of Object.entries(palette.channels)) {
    if (palette.contrast) root.style.setProperty(`--${channel}`, colour);
    else root.style.removeProperty(`--${channel}`);
  }
  return palette;
}

// Call back when the theme changes; returns the function that stops it.
export function watchTheme(callback) {
  const observer = new MutationObserver(callback);
  observer.observe(document.body, { attributes: true, attributeFilter: ["data-jp-theme-light"] });
  const queries = ["(prefers-color-scheme: dark)", "(forced-colors: active)", "(prefers-contrast: more)"].map((query) =>
    matchMedia(query),
  );
  for (const query of queries) query.addEventListener("change", callback);
  return () => {
    observer.disconnect();
    for (const query of queries) query.removeEventListener("change", callback);
  };
}
