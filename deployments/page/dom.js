// Making elements. Text is only ever set as text, so nothing that a model or a server says is markup.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === false || value === null || value === undefined) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child || child === 0));
  return node;
}

/** An HTML element; attributes that begin with `on` are listeners, with `--` CSS variables. */
export const html = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

/** An SVG element, likewise. */
export const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Shows a message, or hides the element where there is none. */
export function say(node, message) {
  node.textContent = message ?? "";
  node.hidden = !message;
}

/** Replaces the rows of a table; `columns` are headings, those that begin with `#` of numbers. */
export function fillTable(table, caption, columns, rows) {
  const names = columns.map((column) => column.replace("#", ""));
  const kind = (i) => (columns[i].startsWith("#") ? "number" : false);
  const head = names.map((name, i) => html("th", { scope: "col", class: kind(i) }, name));
  const body = rows.map((cells) => {
    const made = cells.map((cell, i) =>
      i === 0
        ? html("th", { scope: "row" }, cell)
        : html("td", { class: kind(i) }, cell ?? "–"));
    return html("tr", {}, made);
  });
  table.replaceChildren(
    html("caption", { class: "visually-hidden" }, caption),
    html("thead", {}, html("tr", {}, head)),
    html("tbody", {}, body),
  );
}
