// Asks the node again and again, and has every part of the page show what it told.

import { bytes, byId, clock, el, length, rate, short, whole } from "./show.js";
import * as map from "./map.js";
import * as heat from "./heat.js";
import * as tables from "./tables.js";

const ASK_EVERY_MS = 5000;
const PARTS = ["cluster", "map", "heat", "members", "decisions", "watches", "leases", "hot"];

let isPaused = false;
let told = null;
let failure = null;
// The number of the first row of the table of ranges, and how many it has.
let first = 0;
let page = 0;

async function ask(what) {
  const answer = await fetch(`api/${what}`, { cache: "no-store" });
  if (answer.ok) return answer.json();
  const { error } = await answer.json().catch(() => ({ error: answer.statusText }));
  throw new Error(error);
}

async function look() {
  try {
    const answers = await Promise.all(PARTS.map(ask));
    const parts = Object.fromEntries(PARTS.map((part, n) => [part, answers[n]]));
    failure = null;
    told = parts.cluster;
    cluster(told);
    map.show(parts.map);
    heat.show(parts.heat);
    tables.members(parts.members);
    tables.decisions(parts.decisions);
    tables.watches(parts.watches);
    tables.leases(parts.leases);
    tables.hot(parts.hot);
    if (byId("ranges-details").open) await ranges();
  } catch (error) {
    failure = error.message;
  }
  banners();
}

async function ranges() {
  const answer = await ask(`ranges?order=${byId("ranges-order").value}&first=${first}`);
  page = answer.rows_max;
  tables.ranges(answer);
}

function turn(to) {
  first = Math.max(to, 0);
  ranges().catch((error) => { failure = error.message; banners(); });
}

function cluster(it) {
  document.title = `${it.asked.name} · Flotilla`;
  byId("identity").replaceChildren("cluster ", el("b", { class: "mono" }, it.cluster_id), " asked at ", el("b", {}, it.asked.name),
    `, API ${it.etcd_version}${it.is_auth_enabled ? ", authentication on" : ""}`);
  const about = it.is_surveyed ? "" : "unknown";
  const tile = (name, value, note, cls) =>
    el("div", {}, el("dt", {}, name), el("dd", {}, value, el("small", { class: cls ?? null }, note ?? "")));
  const missing = it.members_count - it.reached_count;
  const troubled = it.leaderless_count > 0;
  byId("tiles").replaceChildren(
    tile("Members", String(it.members_count), missing > 0 ? `${missing} not reached` : "all reached", missing > 0 ? "bad" : null),
    tile("Spine led by", it.leader?.name ?? "nobody", `term ${it.term}`, it.leader ? null : "bad"),
    tile("Ranges", whole(it.ranges_count), troubled ? `${it.leaderless_count} without a leader` : it.changing_count > 0 ? `${it.changing_count} changing` : "all led", troubled ? "bad" : it.changing_count > 0 ? "warn" : null),
    tile("Revision", whole(it.revision), it.compact_revision > 0 ? `compacted to ${whole(it.compact_revision)}` : "not compacted"),
    tile("Data", about || bytes(it.bytes), about || `~${short(it.keys)} keys`),
    tile("Writes/s", about || rate(it.writes_per_second), about || `${bytes(it.write_bytes_per_second)}/s`),
    tile("Reads/s", about || rate(it.reads_per_second), about || "of all members"),
    tile("Replication lag", about || whole(it.lag_entries_max), about || "entries at most", it.lag_entries_max > 5000 ? "warn" : null),
    tile("Placement", about || (it.complaints_count > 0 ? whole(it.complaints_count) : "calm"), about || (it.complaints_count > 0 ? "cannot be helped" : "no complaints"), it.complaints_count > 0 ? "warn" : null),
  );
}

function banners() {
  const all = [];
  const say = (cls, text) => all.push(el("p", { class: `banner ${cls}` }, text));
  if (failure) say("bad", `The node does not answer: ${failure}.${told ? ` What follows is of ${clock(told.looked_ms)}.` : ""}`);
  if (told) {
    for (const alarm of told.alarms) say("bad", `Alarm ${alarm.kind} at ${alarm.member.name}.`);
    if (!told.leader) say("bad", "The asked member knows of no leader of the spine: nothing can be written.");
    else if (!told.is_surveyed) say("warn", `Sizes and load are known to the leader of the spine, ${told.leader.name}, which has not told yet or is not reached.`);
  }
  // What stays the same is not said again.
  const text = all.map((it) => it.textContent).join("\n");
  if (byId("banners").dataset.text === text) return;
  byId("banners").dataset.text = text;
  byId("banners").replaceChildren(...all);
}

function age() {
  byId("age").textContent = isPaused ? "paused" : told ? `${length(Math.max(Date.now() - told.looked_ms, 0)).replace(/\.\d/, "")} ago` : "";
}

async function loop() {
  if (!isPaused && document.visibilityState === "visible") await look();
  setTimeout(loop, ASK_EVERY_MS);
}

byId("pause").addEventListener("click", () => {
  isPaused = !isPaused;
  byId("pause").setAttribute("aria-pressed", String(isPaused));
  byId("pause").textContent = isPaused ? "Go on" : "Pause";
  age();
});
document.addEventListener("visibilitychange", () => { if (document.visibilityState === "visible" && !isPaused) look(); });
byId("ranges-details").addEventListener("toggle", () => { if (byId("ranges-details").open) turn(first); });
byId("ranges-order").addEventListener("change", () => turn(0));
byId("ranges-back").addEventListener("click", () => turn(first - page));
byId("ranges-next").addEventListener("click", () => turn(first + page));
map.start((row) => {
  byId("ranges-order").value = "key";
  first = row;
  byId("ranges-details").open = true;
  turn(row);
  byId("ranges-details").scrollIntoView();
});
heat.start();
setInterval(age, 1000);
loop();
