// How figures and keys are written, and how elements are made. Text is only ever set as text.

const SVG = "http://www.w3.org/2000/svg";

export const byId = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child === null || child === undefined || child === false) continue;
    node.append(child instanceof Node ? child : String(child));
  }
  return node;
}

export const el = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
export const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

export const whole = (n) => Math.round(n).toLocaleString("en-US");

export function rate(n) {
  if (n === null || n === undefined) return "–";
  return n > 0 && n < 10 ? n.toFixed(1).replace(/\.0$/, "") : whole(n);
}

export function bytes(n) {
  if (n === null || n === undefined) return "–";
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (n >= 1024 && unit < units.length - 1) { n /= 1024; unit += 1; }
  return `${unit === 0 || n >= 100 ? Math.round(n) : n.toFixed(1)} ${units[unit]}`;
}

export function short(n) {
  if (n === null || n === undefined) return "–";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e4, "k"]]) {
    if (n >= size) return `${(n / (unit === "k" ? 1e3 : size)).toFixed(n >= 1e5 && unit === "k" ? 0 : 1)}${unit}`;
  }
  return whole(n);
}

export function length(ms) {
  if (ms === null || ms === undefined) return "–";
  if (ms < 1000) return `${Math.round(ms)} ms`;
  const s = ms / 1000;
  if (s < 120) return `${s < 10 ? s.toFixed(1) : Math.round(s)} s`;
  if (s < 5400) return `${Math.round(s / 60)} min`;
  if (s < 172800) return `${Math.round(s / 3600)} h`;
  return `${Math.round(s / 86400)} d`;
}

export const clock = (ms) => new Date(ms).toLocaleTimeString("en-GB");
export const moment = (ms) => {
  const at = new Date(ms);
  const pad = (n) => String(n).padStart(2, "0");
  return `${at.getFullYear()}-${pad(at.getMonth() + 1)}-${pad(at.getDate())} ${at.toLocaleTimeString("en-GB")}`;
};

// Keys come escaped. The first key is the empty one; after the last there is none.
export const from = (key) => (key === "" ? "the first key" : key);
export const to = (key) => (key === null ? "the end" : key);
export const cut = (text, count) => (text.length > count ? `${text.slice(0, count - 1)}…` : text);
export const keyOf = (text) => el("span", { class: "key" }, text);

// Colours of members: by their place in the order of names.
export const colour = (place) => `c${place % 9}`;

// A table: columns are {head, num, row, cls, cell}; `row` marks the cell that names its row.
export function table(node, columns, rows, empty) {
  const head = el("thead", {}, el("tr", {},
    columns.map((it) => el("th", { scope: "col", class: it.num ? "num" : null, title: it.title }, it.head))));
  const body = el("tbody", {}, rows.map((row) => el("tr", {}, columns.map((column) => {
    const content = column.cell(row);
    const cls = [column.num ? "num" : "", column.cls ?? ""].join(" ").trim() || null;
    return column.row ? el("th", { scope: "row", class: cls }, content) : el("td", { class: cls }, content);
  }))));
  if (rows.length === 0) {
    body.append(el("tr", {}, el("td", { colspan: columns.length, class: "empty" }, empty)));
  }
  node.replaceChildren(head, body);
}
