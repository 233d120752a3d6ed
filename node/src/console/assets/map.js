// The keyspace as a strip: a row for each member, a column for each cell, and what a cell is about.

import { byId, bytes, colour, cut, el, from, keyOf, rate, short, svg, to, whole } from "./show.js";

const NAME_WIDTH = 92;
const ROWS_HEIGHT = 150;
const GAP = 5;
const LOAD = 48;
const AXIS = 24;

let map = null;
let pointed = 0;
let held = null;
let onHold = () => {};

const load = (cell) => (cell.survey ? cell.survey.writes_per_second + cell.survey.reads_per_second : 0);
const nameOf = (place) => (place < 0 ? "unknown" : map.members[place].name);

// The place of the member that leads most of a cell; below 0 if nobody does.
function leaderOf(cell) {
  let best = -1;
  cell.led.forEach((count, place) => { if (count > (best < 0 ? 0 : cell.led[best])) best = place; });
  return best;
}

const tone = (place) => (place < 0 ? "" : colour(place));

export function show(next) {
  const isFirst = map === null;
  map = next;
  // At first what is busiest is told of.
  if (isFirst) pointed = map.cells.reduce((best, cell, n) => (load(cell) > load(map.cells[best]) ? n : best), 0);
  if (held !== null && held >= map.cells.length) held = null;
  pointed = Math.min(pointed, Math.max(map.cells.length - 1, 0));
  const many = map.cells.some((cell) => cell.ranges_count > 1);
  byId("map-note").textContent = `${whole(map.ranges_count)} range${map.ranges_count === 1 ? "" : "s"} on ${map.members.length} member${map.members.length === 1 ? "" : "s"}`
    + (many ? `; a cell is of up to ${Math.max(...map.cells.map((cell) => cell.ranges_count))} neighbouring ranges` : "");
  byId("legend").replaceChildren(
    ...map.members.map((member, place) => el("span", { class: colour(place) }, el("i", { class: "swatch" }), `led by ${member.name}`)),
    el("span", {}, el("i", { class: "swatch" }), "leader"),
    el("span", {}, el("i", { class: "swatch held" }), "replica"),
    el("span", {}, el("i", { class: "swatch none" }), "no replica"),
  );
  draw();
}

function draw() {
  const node = byId("map");
  const width = Math.max(node.clientWidth || node.parentElement.clientWidth || 900, 320);
  const ROW = Math.min(Math.max(ROWS_HEIGHT / map.members.length, 18), 46);
  const height = LOAD + GAP + map.members.length * (ROW + GAP) + AXIS;
  node.setAttribute("viewBox", `0 0 ${width} ${height}`);
  node.setAttribute("height", height);
  const count = map.cells.length;
  const step = (width - NAME_WIDTH) / Math.max(count, 1);
  const gap = step > 14 ? 2 : step > 5 ? 1 : 0;
  const x = (n) => NAME_WIDTH + n * step;
  const busiest = Math.max(1, ...map.cells.map(load));
  const parts = [svg("text", { x: 0, y: LOAD - 4, class: "name" }, "calls/s"),
    svg("text", { x: 0, y: 11 }, map.is_surveyed ? `to ${short(busiest)}` : "unknown")];
  map.members.forEach((member, place) => {
    const y = LOAD + GAP + place * (ROW + GAP);
    parts.push(svg("text", { x: 0, y: y + ROW / 2 + 4, class: "name" }, cut(member.name, 12)));
  });
  map.cells.forEach((cell, n) => {
    const column = svg("g", { class: tone(leaderOf(cell)), "data-cell": n });
    const w = Math.max(step - gap, 0.5);
    const bar = load(cell) === 0 ? 1 : Math.max(2, (load(cell) / busiest) * (LOAD - 2));
    column.append(svg("rect", { x: x(n), y: LOAD - bar, width: w, height: bar, class: "load" }));
    map.members.forEach((_, place) => {
      const y = LOAD + GAP + place * (ROW + GAP);
      const box = (top, h, cls) => svg("rect", { x: x(n), y: top, width: w, height: h, rx: step > 14 ? 3 : 0, class: cls });
      const held_h = ROW * (cell.held[place] / cell.ranges_count);
      const led_h = ROW * (cell.led[place] / cell.ranges_count);
      column.append(box(y, ROW, "none"));
      if (held_h > 0) column.append(box(y + ROW - held_h, held_h, "hold"));
      if (led_h > 0) {
        const own = svg("g", { class: colour(place) });
        own.append(box(y + ROW - led_h, led_h, "lead"));
        column.append(own);
      }
    });
    if (cell.leaderless_count > 0 || cell.changing_count > 0) {
      column.append(svg("rect", { x: x(n), y: height - AXIS - 1, width: w, height: 4, class: cell.leaderless_count > 0 ? "alert" : "change" }));
    }
    column.append(svg("rect", { x: x(n), y: 0, width: step, height: height - AXIS, class: "over" }));
    parts.push(column);
  });
  parts.push(...ticks(count, step, x, height, width));
  parts.push(svg("rect", { id: "map-mark", class: "mark", rx: 3 }));
  node.replaceChildren(...parts);
  mark();
}

// Borders between cells, as many as there is room for.
function ticks(count, step, x, height, width) {
  const parts = [];
  const every = Math.max(1, Math.ceil(110 / step));
  for (let n = 0; n < count; n += every) {
    if (n > 0) parts.push(svg("line", { x1: x(n), x2: x(n), y1: height - AXIS, y2: height - AXIS + 6, class: "tickline" }));
    const room = Math.floor((Math.min(every, count - n) * step - 8) / 6.7);
    const key = map.cells[n].from;
    if (room > 2) parts.push(svg("text", { x: Math.min(x(n) + (n > 0 ? 3 : 0), width - 20), y: height - 8, class: "tick" }, n === 0 && key === "" ? "first key" : cut(key, room)));
  }
  return parts;
}

function mark() {
  const n = held ?? pointed;
  const cell = map.cells[n];
  const node = byId("map").querySelector(`[data-cell="${n}"] .over`);
  const box = byId("map-mark");
  if (cell && node && box) {
    for (const name of ["x", "width", "height"]) box.setAttribute(name, node.getAttribute(name));
    box.setAttribute("y", 1);
    box.setAttribute("height", Number(node.getAttribute("height")) - 2);
  }
  card(cell);
}

function card(cell) {
  const node = byId("cell");
  if (!cell) { node.replaceChildren(el("p", { class: "note" }, "No range is known.")); return; }
  const one = cell.range !== null;
  const pairs = [];
  const add = (name, ...value) => pairs.push(el("dt", {}, name), el("dd", {}, ...value));
  add("from", keyOf(from(cell.from)));
  add("to", keyOf(to(cell.to)));
  const members = (counts) => counts.flatMap((count, place) => (count === 0 ? [] : [one ? nameOf(place) : `${nameOf(place)} ${count}`])).join(", ");
  add(one ? "leader" : "led by", members(cell.led) || "unknown", cell.leaderless_count > 0 && el("span", { class: "badge bad" }, one ? "no leader" : `${cell.leaderless_count} without`));
  add("replicas", members(cell.held), cell.changing_count > 0 && el("span", { class: "badge warn" }, "changing"));
  const told = cell.survey;
  if (told) {
    const about = told.is_counted ? "" : "~";
    add("size", `${about}${bytes(told.bytes)}, ${about}${whole(told.keys)} keys`);
    add("writes", `${rate(told.writes_per_second)}/s, ${bytes(told.write_bytes_per_second)}/s`);
    add("reads", `${rate(told.reads_per_second)}/s`);
    add("lag", `${whole(told.lag_entries)} entries`);
  } else {
    add("size, load", "known to the leader of the spine, which is not reached");
  }
  if (one) {
    add("generation", String(cell.generation));
    add("parent", cell.parent === 0 ? "–" : `range ${cell.parent}`);
  }
  const title = one ? `Range ${cell.range}${cell.range === 0 ? ", the spine's" : ""}` : `${whole(cell.ranges_count)} ranges`;
  const rest = cell.range === 0 && map.cells.filter((it) => it.range === 0).length > 1
    && el("p", { class: "note" }, "Range 0 has what no other has. Size and load are of all of it.");
  const next = el("div", {}, el("h3", {}, title, el("span", { class: "pin" }, held !== null ? "held; Esc lets go" : "")), el("dl", {}, pairs), rest || "",
    one ? "" : el("p", {}, jump(cell)));
  if (node.textContent !== next.textContent) node.replaceChildren(next);
}

function jump(cell) {
  const button = el("button", { type: "button" }, "Show them in the table");
  button.addEventListener("click", () => onHold(cell.first));
  return button;
}

function cellAt(event) {
  const n = event.target.closest?.("[data-cell]")?.dataset.cell;
  return n === undefined ? null : Number(n);
}

export function start(showTable) {
  onHold = showTable;
  const node = byId("map");
  node.addEventListener("pointermove", (event) => {
    const n = cellAt(event);
    if (n !== null && n !== pointed && held === null) { pointed = n; mark(); }
  });
  node.addEventListener("click", (event) => {
    const n = cellAt(event);
    if (n === null) return;
    held = held === n ? null : n;
    pointed = n;
    mark();
  });
  node.addEventListener("keydown", (event) => {
    if (!map) return;
    const last = map.cells.length - 1;
    const at = held ?? pointed;
    const moves = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: last };
    if (event.key in moves) {
      pointed = Math.min(Math.max(moves[event.key], 0), last);
      if (held !== null) held = pointed;
    } else if (event.key === "Enter" || event.key === " ") held = held === null ? pointed : null;
    else if (event.key === "Escape") held = null;
    else return;
    event.preventDefault();
    mark();
  });
  // Who moves along the strip by keys is told of each cell, and not again whenever it is looked at anew.
  node.addEventListener("focus", () => byId("cell").setAttribute("aria-live", "polite"));
  node.addEventListener("blur", () => byId("cell").removeAttribute("aria-live"));
  new ResizeObserver(() => { if (map) draw(); }).observe(node.parentElement);
}
