// The heat map: time from left to right, keys from top to bottom, colour for calls in a second.

import { byId, clock, cut, el, from, keyOf, length, rate, short, table, to } from "./show.js";

const LABELS = 150;
const AXIS = 20;
const HEIGHT_MIN = 90;
const ROW_MIN = 7;
const ROW_MAX = 26;
// The time that is drawn, which grows by the minute.
const SPAN_MS_MIN = 300000;
const MINUTE_MS = 60000;
// From nothing to the most; dark pages begin dark.
const LIGHT = [[238, 242, 247], [253, 224, 150], [249, 158, 61], [214, 63, 53], [115, 14, 54]];
const DARK = [[27, 37, 51], [66, 30, 110], [168, 45, 110], [241, 106, 66], [253, 231, 140]];

let heat = null;
let kind = "both";
let pointed = null;
const dark = window.matchMedia("(prefers-color-scheme: dark)");

function value(column, row) {
  const { writes_per_second: writes, reads_per_second: reads } = column;
  if (writes === null || reads === null) return null;
  if (kind === "writes") return writes[row];
  return kind === "reads" ? reads[row] : writes[row] + reads[row];
}

const peak = () => {
  let most = 0;
  for (const column of heat.columns) heat.rows.forEach((_, row) => { most = Math.max(most, value(column, row) ?? 0); });
  return most;
};

// Half of the colours are for the lowest tenth, so that quiet keys are told from idle ones.
function tint(share) {
  const stops = dark.matches ? DARK : LIGHT;
  const at = Math.min(Math.max(share, 0), 1) ** 0.4 * (stops.length - 1);
  const n = Math.min(Math.floor(at), stops.length - 2);
  const mix = stops[n].map((part, i) => Math.round(part + (stops[n + 1][i] - part) * (at - n)));
  return `rgb(${mix.join(" ")})`;
}

function geometry() {
  const node = byId("heat-canvas");
  const width = Math.max(node.clientWidth, 320);
  const rows = Math.max(heat.rows.length, 1);
  const row = Math.min(Math.max(260 / rows, ROW_MIN), rows === 1 ? 64 : ROW_MAX);
  const plot = Math.max(row * rows, Math.min(HEIGHT_MIN, row * rows));
  const end = heat.columns.at(-1)?.time_ms ?? Date.now();
  const age = end - (heat.columns[0]?.time_ms ?? end);
  const span = Math.min(Math.max(Math.ceil(age / MINUTE_MS) * MINUTE_MS, SPAN_MS_MIN), heat.columns_max * heat.sample_every_ms);
  const x = (ms) => LABELS + (1 - (end + heat.sample_every_ms - ms) / (span + heat.sample_every_ms)) * (width - LABELS);
  return { node, width, row, plot, x, end, span };
}

export function show(next) {
  heat = next;
  byId("heat-help").textContent = `Columns are ${length(heat.sample_every_ms)} apart, and ${length(heat.sample_every_ms * heat.columns_max)} are kept by the asked node since it started. `
    + "A cell is the load, smoothed over about a minute, of the range that had the keys then. Arrow keys move the pointer.";
  draw();
  fillTable();
}

function draw() {
  const { node, width, row, plot, x, end, span } = geometry();
  const height = plot + AXIS;
  const scale = window.devicePixelRatio || 1;
  node.width = Math.round(width * scale);
  node.height = Math.round(height * scale);
  node.style.height = `${height}px`;
  const pen = node.getContext("2d");
  const style = getComputedStyle(document.documentElement);
  const ink = (name) => style.getPropertyValue(name).trim();
  pen.scale(scale, scale);
  const unknown = hatch(pen, ink);
  pen.strokeStyle = ink("--line");
  pen.strokeRect(LABELS + 0.5, 0.5, width - LABELS - 1, plot - 1);
  const most = Math.max(peak(), 1);
  const step = Math.max(x(heat.sample_every_ms) - x(0), 1);
  heat.columns.forEach((column, n) => {
    const left = x(column.time_ms);
    const right = n + 1 < heat.columns.length ? Math.min(x(heat.columns[n + 1].time_ms), left + 3 * step) : left + step;
    if (right < LABELS) return;
    heat.rows.forEach((_, at) => {
      const load = value(column, at);
      pen.fillStyle = load === null ? unknown : tint(load / most);
      const edge = Math.max(left, LABELS);
      pen.fillRect(edge, at * row, Math.max(right - edge, 1) + 0.4, row + (row > 12 ? -1 : 0.4));
    });
  });
  label(pen, ink, row, plot, x, end, span, width);
  if (pointed) {
    pen.strokeStyle = ink("--ink");
    const left = Math.max(x(heat.columns[pointed.column].time_ms), LABELS);
    pen.lineWidth = 1.5;
    pen.strokeRect(left - 1, pointed.row * row - 0.5, Math.max(step, 3) + 2, row + 0.5);
  }
  legend(most);
  tell();
}

// What is not known is hatched; what was not kept is empty.
function hatch(pen, ink) {
  const tile = el("canvas", { width: 6, height: 6 });
  const line = tile.getContext("2d");
  line.strokeStyle = ink("--soft");
  line.globalAlpha = 0.5;
  line.moveTo(0, 6);
  line.lineTo(6, 0);
  line.stroke();
  return pen.createPattern(tile, "repeat");
}

function label(pen, ink, row, plot, x, end, span, width) {
  pen.fillStyle = ink("--soft");
  pen.textBaseline = "middle";
  pen.font = '11px ui-monospace, "DejaVu Sans Mono", monospace';
  const every = Math.ceil(13 / row);
  heat.rows.forEach((it, at) => {
    if (at % every === 0) pen.fillText(it.from === "" ? "first key" : cut(it.from, 20), 0, Math.max((at + 0.5) * row, 6));
  });
  pen.font = "11px system-ui, sans-serif";
  pen.textBaseline = "alphabetic";
  const apart = span > 2 * SPAN_MS_MIN ? 5 : 1;
  const most = Math.floor(span / MINUTE_MS / apart) * apart;
  for (let minutes = most; minutes >= 0; minutes -= apart) {
    const ms = minutes * MINUTE_MS;
    const at = x(end - ms);
    const text = minutes === 0 ? "now" : `−${minutes} min`;
    pen.textAlign = minutes === 0 ? "right" : at < LABELS + 20 ? "left" : "center";
    pen.fillText(text, minutes === 0 ? width : Math.max(at, LABELS), plot + 15);
  }
  pen.textAlign = "left";
}

function legend(most) {
  const node = byId("heat-scale");
  const canvas = node.querySelector("canvas") ?? el("canvas", { width: 140, height: 10, "aria-hidden": "true" });
  const pen = canvas.getContext("2d");
  for (let n = 0; n < 140; n += 1) { pen.fillStyle = tint(n / 139); pen.fillRect(n, 0, 1, 10); }
  node.replaceChildren("0", canvas, `${short(most)}/s`);
}

function tell() {
  const node = byId("heat-told");
  if (!pointed) { node.textContent = heat.columns.length < 2 ? "The history begins now." : ""; return; }
  const column = heat.columns[pointed.column];
  const row = heat.rows[pointed.row];
  const load = value(column, pointed.row);
  const what = row.range === null ? `${row.ranges_count} ranges` : `range ${row.range}`;
  const known = load === null ? "not known: the leader was not reached"
    : `${rate(column.writes_per_second[pointed.row])} writes/s, ${rate(column.reads_per_second[pointed.row])} reads/s`;
  node.replaceChildren(`${clock(column.time_ms)}  `, keyOf(cut(from(row.from), 60)), " to ", keyOf(cut(to(row.to), 60)), ` (${what} now): ${known}`);
}

function fillTable() {
  const figures = heat.rows.map((row, at) => {
    const known = heat.columns.map((column) => ({ time: column.time_ms, load: value(column, at) })).filter((it) => it.load !== null);
    const most = known.reduce((best, it) => (best === null || it.load > best.load ? it : best), null);
    const mean = known.reduce((sum, it) => sum + it.load, 0) / Math.max(known.length, 1);
    return { row, now: known.at(-1)?.load ?? null, mean, most };
  });
  table(byId("heat-table"), [
    { head: "From", row: true, cls: "keycell", cell: (it) => keyOf(from(it.row.from)) },
    { head: "To", cls: "keycell", cell: (it) => keyOf(to(it.row.to)) },
    { head: "Ranges", num: true, cell: (it) => it.row.ranges_count },
    { head: "Now /s", num: true, cell: (it) => rate(it.now) },
    { head: "Mean /s", num: true, cell: (it) => rate(it.mean) },
    { head: "Most /s", num: true, cell: (it) => rate(it.most?.load) },
    { head: "At", cell: (it) => (it.most && it.most.load > 0 ? clock(it.most.time) : "–") },
  ], figures, "No range is known.");
}

function point(event) {
  const { node, row, x } = geometry();
  const box = node.getBoundingClientRect();
  const [left, top] = [event.clientX - box.left, event.clientY - box.top];
  const at = Math.floor(top / row);
  let column = -1;
  heat.columns.forEach((it, n) => { if (x(it.time_ms) <= left) column = n; });
  pointed = left < LABELS || at >= heat.rows.length || column < 0 ? null : { column, row: at };
  draw();
}

export function start() {
  const node = byId("heat-canvas");
  node.addEventListener("pointermove", (event) => { if (heat) point(event); });
  node.addEventListener("pointerleave", () => { pointed = null; if (heat) draw(); });
  node.addEventListener("keydown", (event) => {
    const moves = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const move = moves[event.key];
    if (!heat || !move || heat.columns.length === 0 || heat.rows.length === 0) return;
    const at = pointed ?? { column: heat.columns.length - 1, row: 0 };
    const clamp = (n, count) => Math.min(Math.max(n, 0), count - 1);
    pointed = { column: clamp(at.column + move[0], heat.columns.length), row: clamp(at.row + move[1], heat.rows.length) };
    event.preventDefault();
    draw();
  });
  byId("heat-kind").addEventListener("change", (event) => {
    kind = event.target.value;
    if (heat) show(heat);
  });
  dark.addEventListener("change", () => { if (heat) draw(); });
  new ResizeObserver(() => { if (heat) draw(); }).observe(node.parentElement);
}
