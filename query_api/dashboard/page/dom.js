// Building what is seen. Everything from events goes through here as text: there is no way to pass markup.

// Characters that would hide, turn around or break what stands beside them, by their code points: controls (but tab and line
// feed), bidirectional marks, zero-width and other invisible ones.
const HIDDEN = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u00ad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb]/g;

/** Returns a text whose hidden characters are shown by their code points, as in ⟨U+202E⟩. */
export function visible(text) {
  return String(text).replace(HIDDEN, (char) => `⟨U+${char.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}⟩`);
}

/**
 * Makes an element.
 *
 * @param {string} name tag, with classes behind dots: "button.chip.quiet"
 * @param {Object} [attributes] onX: listeners; dataset: an object; true: present; false, null: absent; others as attributes.
 *   `style` takes an object of properties, for the policy of this page forbids style attributes.
 * @param {...(Node|string|number|null|Array)} children strings become text nodes, made visible
 */
export function h(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElement(tag), classes, attributes, children);
}

/** Makes an SVG element, as `h` does. */
export function svg(name, attributes = {}, ...children) {
  const [tag, ...classes] = name.split(".");
  return filled(document.createElementNS("http://www.w3.org/2000/svg", tag), classes, attributes, children);
}

function filled(element, classes, attributes, children) {
  if (classes.length) element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (key === "dataset") Object.assign(element.dataset, value);
    else if (key === "style") for (const [name, to] of Object.entries(value)) element.style.setProperty(name, to);
    else if (value === true) element.setAttribute(key, "");
    else if (key === "value" || key === "href") element.setAttribute(key, value); // read again by us, and so left as it is
    else element.setAttribute(key, visible(value));
  }
  put(element, ...children);
  return element;
}

/** Appends children; strings and numbers as text. */
export function put(parent, ...children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    parent.append(child instanceof Node ? child : document.createTextNode(visible(child)));
  }
}

/** Puts children in the place of what is there. */
export function replace(parent, ...children) {
  parent.replaceChildren();
  put(parent, ...children);
}

/** Tells something to those who listen rather than look. */
export function say(text) {
  document.getElementById("said").textContent = visible(text);
}

/** Copies a text, and says so on the button that was pressed. */
export async function copy(text, button) {
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Browsers allow it only where the address is https or this machine.
    const area = h("textarea.unseen", { readonly: true });
    area.value = text;
    button.after(area);
    area.select();
    button.textContent = document.execCommand("copy") ? "Copied" : "Press Ctrl+C";
    area.remove();
  }
  say(button.textContent);
  setTimeout(() => { button.textContent = label; }, 1500);
}
