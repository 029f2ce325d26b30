// What a view says, in its language. `say("…")` with a plain English text is found by the course's builder.

// English as it is: for whoever has no language.
export const plain = (text, values = {}) => filled(text, values);

// A text with {names} in it, and what stands in their place.
function filled(text, values) {
  return text.replace(/\{(\w+)\}/g, (whole, name) => (Object.hasOwn(values, name) ? String(values[name]) : whole));
}

// A view's render function that is given `say`, and that draws anew when the language changes.
export function inLanguage(render) {
  return ({ model, el }) => {
    const say = (text, values = {}) => {
      const known = model.get("_texts");
      return filled(Object.hasOwn(known, text) ? known[text] : text, values);
    };
    let stop = render({ model, el, say });
    const again = () => {
      stop();
      el.replaceChildren();
      stop = render({ model, el, say });
    };
    model.on("change:_texts", again);
    return () => {
      model.off("change:_texts", again);
      stop();
    };
  };
}
