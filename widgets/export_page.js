// Entry of a page without a kernel: the views, the choice of light and dark, and what stands there as text.

import { PageModel, stateOf } from "./js/page_model.js";
import { h } from "./js/surface.js";

const THEMES = ["as the system", "light", "dark"];

// Light or dark for views and page; nothing set means that the system says.
function setTheme(name) {
  const { dataset } = document.body;
  if (name === "light" || name === "dark") dataset.jpThemeLight = String(name === "light");
  else delete dataset.jpThemeLight;
}

function themeChoice() {
  const options = THEMES.map((name) => h("option", { value: name, text: name }));
  const choice = h("select", { onchange: (event) => setTheme(event.target.value) }, ...options);
  return h("label", {}, "Colours ", choice);
}

// The text of the page, hidden while the views are there.
function textSwitch() {
  const toggle = () => {
    const isShown = document.body.classList.toggle("page-reading");
    button.setAttribute("aria-pressed", String(isShown));
  };
  const button = h("button", { type: "button", "aria-pressed": "false", text: "Text and figures", onclick: toggle });
  return button;
}

function start(views) {
  const bar = document.getElementById("page-bar");
  const said = h("span", { role: "status" });
  bar.append(themeChoice(), textSwitch(), said);
  let isAsked = false;
  const asked = () => {
    if (!isAsked) said.textContent = "Part of this needs a kernel, and is not in the page.";
    isAsked = true;
  };
  try {
    const css = document.getElementById("page-style").textContent;
    const loaded = JSON.parse(document.getElementById("page-data").textContent);
    for (const view of loaded) {
      const el = h("section", { class: "page-view" });
      document.getElementById("page-views").append(el);
      views[view.name]().render({ model: new PageModel(stateOf(view), css, asked), el });
    }
    document.body.classList.add("page-steps");
  } catch (problem) {
    // Half a view would mislead; the text below it says the same.
    document.getElementById("page-views").replaceChildren();
    said.textContent = `The views could not start (${problem.message}); below is what they hold as text.`;
    throw problem;
  }
}

export default { start };
