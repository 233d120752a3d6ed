// The tables: ranges, members, watches and leases, what placement decided, and what is asked for most.

import { byId, bytes, colour, cut, el, from, keyOf, length, moment, rate, table, to, whole } from "./show.js";

const SILENT_MS = 5000;
const badge = (text, cls) => el("span", { class: `badge ${cls}` }, text);

export function ranges(told) {
  const unknown = (row, text) => (row.survey ? text(row.survey) : "–");
  table(byId("ranges"), [
    { head: "Range", num: true, row: true, cell: (row) => row.range },
    { head: "From", cls: "keycell", cell: (row) => spans(row, (span) => from(span[0])) },
    { head: "To", cls: "keycell", cell: (row) => spans(row, (span) => to(span[1])) },
    { head: "Leader", cell: (row) => row.leader?.name ?? badge("none", "bad") },
    { head: "Replicas", cell: (row) => [row.replicas.map((it) => it.name).join(", "), row.is_changing ? badge("changing", "warn") : ""] },
    { head: "Size", num: true, cell: (row) => unknown(row, (it) => (it.is_counted ? "" : "~") + bytes(it.bytes)) },
    { head: "Keys", num: true, cell: (row) => unknown(row, (it) => (it.is_counted ? "" : "~") + whole(it.keys)) },
    { head: "Writes/s", num: true, cell: (row) => unknown(row, (it) => rate(it.writes_per_second)) },
    { head: "Written/s", num: true, cell: (row) => unknown(row, (it) => bytes(it.write_bytes_per_second)) },
    { head: "Reads/s", num: true, cell: (row) => unknown(row, (it) => rate(it.reads_per_second)) },
    { head: "Lag", num: true, title: "entries", cell: (row) => unknown(row, (it) => whole(it.lag_entries)) },
    { head: "Generation", num: true, cell: (row) => row.generation },
    { head: "Parent", num: true, cell: (row) => (row.parent === 0 ? "–" : row.parent) },
  ], told.ranges, "No range is known.");
  byId("ranges-more").textContent = told.ranges.length === 0 ? ""
    : `${whole(told.first + 1)} to ${whole(told.first + told.ranges.length)} of ${whole(told.ranges_count)}${told.more > 0 ? `, and ${whole(told.more)} more` : ""}`;
  byId("ranges-back").disabled = told.first === 0;
  byId("ranges-next").disabled = told.more === 0;
}

function spans(row, key) {
  const all = row.spans.map((span) => el("div", {}, keyOf(key(span))));
  if (row.spans_more > 0) all.push(el("div", { class: "note" }, `and ${row.spans_more} more`));
  return all;
}

function part(used, all, title) {
  if (!all) return "";
  const text = `${Math.round((used / all) * 100)}% ${title}, ${bytes(all)}`;
  return el("meter", { class: "under", min: 0, max: 1, low: 0.75, high: 0.9, optimum: 0, value: used / all, title: text, "aria-label": text });
}

function state(row) {
  const silent = row.survey?.silent_ms;
  if (!row.is_reached) return badge("not reached", "bad");
  if (row.alarms.length > 0) return row.alarms.map((alarm) => badge(alarm, "bad"));
  if (silent > SILENT_MS) return badge(`silent ${length(silent)}`, "warn");
  if (row.is_draining) return badge("draining", "warn");
  return badge("up", "good");
}

function role(row) {
  if (row.is_leader) return "leads the spine";
  return row.is_learner ? "learner" : row.figures?.role ?? "";
}

export function members(told) {
  const told_of = (row, text) => (row.figures ? text(row.figures) : "–");
  const known = (row, text) => (row.survey ? text(row.survey) : "–");
  table(byId("members-table"), [
    { head: "Member", row: true, cell: (row) => [el("i", { class: `swatch ${colour(told.members.indexOf(row))}` }), ` ${row.name}`, row.is_asked ? badge("asked", "") : "", el("small", { class: "mono" }, row.id)] },
    { head: "State", title: "with its role in the spine, and its zone", cell: (row) => [state(row), el("small", {}, [role(row), row.survey?.zone].filter(Boolean).join(", "))] },
    { head: "Heard", num: true, title: "by the leader, so long ago", cell: (row) => known(row, (it) => length(it.silent_ms)) },
    { head: "Leads", num: true, title: "of the ranges it holds", cell: (row) => `${whole(row.led_count)} of ${whole(row.replicas_count)}` },
    { head: "Requests/s", num: true, title: "of its clients, smoothed over about a minute", cell: (row) => known(row, (it) => rate(it.requests_per_second)) },
    { head: "Puts/s", num: true, title: "keys written here, whoever was asked", cell: (row) => told_of(row, (it) => rate(it.puts_per_second)) },
    { head: "Reads/s", num: true, cell: (row) => told_of(row, (it) => rate(it.reads_per_second)) },
    { head: "Failed/s", num: true, title: "calls that ended with an error", cell: (row) => told_of(row, (it) => it.failed_per_second > 0 ? el("span", { class: "warn" }, rate(it.failed_per_second)) : "0") },
    { head: "Pending", num: true, title: "commands of its clients that wait", cell: (row) => told_of(row, (it) => whole(it.pending)) },
    { head: "Flush p99", num: true, title: "of the log", cell: (row) => told_of(row, (it) => atMost(it.flush_p99_ms)) },
    { head: "Request p99", num: true, cell: (row) => told_of(row, (it) => atMost(it.request_p99_ms)) },
    { head: "Store", num: true, title: "and its part of the quota", cell: (row) => told_of(row, (it) => [bytes(it.store_bytes), part(it.store_bytes, it.quota_bytes, "of the quota")]) },
    { head: "Disk used", num: true, title: "of the disk with its data", cell: (row) => known(row, (it) => [it.capacity_bytes ? bytes(it.used_bytes) : "–", part(it.used_bytes, it.capacity_bytes, "of the disk")]) },
    { head: "Memory", num: true, cell: (row) => told_of(row, (it) => bytes(it.memory_bytes)) },
    { head: "CPU", num: true, title: "100% is one processor", cell: (row) => told_of(row, (it) => `${Math.round(it.cpus * 100)}%`) },
    { head: "Version", cell: (row) => row.version ?? "–" },
  ], told.members, "No member is known.");
  byId("members-note").textContent = told.more > 0 ? `and ${whole(told.more)} more` : "";
}

const atMost = (ms) => (ms === null ? "–" : `<${ms < 1 ? ms.toFixed(2) : whole(ms)} ms`);

export function watches(told) {
  table(byId("watches-table"), [
    { head: "Member", row: true, cell: (row) => row.name },
    { head: "Streams", num: true, cell: (row) => whole(row.watch_streams) },
    { head: "Watchers", num: true, cell: (row) => whole(row.watchers) },
    { head: "Slow", num: true, title: "watchers that are behind", cell: (row) => (row.slow_watchers > 0 ? badge(whole(row.slow_watchers), "warn") : "0") },
    { head: "Events/s", num: true, cell: (row) => rate(row.events_per_second) },
  ], told.members, "No member has told yet.");
  byId("watches-note").textContent = told.silent_count > 0 ? `${told.silent_count} members did not tell.` : "";
}

export function leases(told) {
  table(byId("leases-table"), [
    { head: "Lease", row: true, cell: (row) => el("span", { class: "mono" }, row.lease) },
    { head: "Ends in", num: true, cell: (row) => (row.seconds_left < 0 ? badge(`due ${-row.seconds_left} s`, "warn") : length(row.seconds_left * 1000)) },
    { head: "Granted for", num: true, cell: (row) => length(row.ttl_seconds * 1000) },
  ], told.ending, told.is_surveyed ? "There are no leases." : "Leases are known to the leader of the spine, which is not reached.");
  const since = told.since_start;
  byId("leases-note").textContent = told.is_surveyed
    ? `${whole(told.leases_count)} leases${told.more > 0 ? `, ${whole(told.more)} of them not shown` : ""}.`
      + (since ? ` Since the leader started: ${whole(since.granted)} granted, ${whole(since.renewed)} renewed, ${whole(since.revoked)} ended, ${whole(since.expired)} expired.` : "")
    : "";
}

export function decisions(told) {
  const outcome = (row) => {
    if (row.outcome === "") return badge("under way", "warn");
    return row.outcome === "done" ? el("span", { class: "good" }, "done") : el("span", { class: "bad" }, row.outcome);
  };
  table(byId("decisions-table"), [
    { head: "When", row: true, cell: (row) => moment(row.time_ms) },
    { head: "Step", cls: "mono", cell: (row) => row.step },
    { head: "Rule", cell: (row) => row.rule },
    { head: "Reason", cls: "wide", cell: (row) => row.reason },
    { head: "Outcome", cell: outcome },
  ], told.decisions, "Nothing was decided so far.");
  byId("decisions-note").textContent = `${whole(told.decisions.length + told.more)} decisions are kept, the newest first${told.more > 0 ? `; ${whole(told.more)} are not shown` : ""}`;
  const complaints = told.complaints.map((it) => el("p", { class: "banner warn" }, el("b", {}, "Cannot be helped: "), `${it.about}: ${it.reason}`));
  if (told.complaints_more > 0) complaints.push(el("p", { class: "note" }, `and ${whole(told.complaints_more)} more`));
  if (!told.is_surveyed) complaints.push(el("p", { class: "note" }, "What cannot be helped is known to the leader of the spine, which is not reached."));
  byId("complaints").replaceChildren(...complaints);
}

export function hot(told) {
  for (const [kind, head] of [["keys", "Key"], ["prefixes", "Prefix"], ["clients", "Client"]]) {
    const rows = told[kind];
    const most = Math.max(1, ...rows.map((row) => row.calls_per_second));
    table(byId(`hot-${kind}`), [
      { head, row: true, cls: "keycell", cell: (row) => keyOf(cut(row.name, 120)) },
      { head: "Calls/s", num: true, title: "estimated from one call in 16, of about the last minute", cell: (row) => [span(row), el("meter", { min: 0, max: most, value: row.calls_per_second, "aria-hidden": "true" })] },
    ], rows, "Nothing was asked for of late.");
  }
  byId("hot-note").textContent = "Range, Put, DeleteRange and Txn of about the last minute, all members together, estimated from one call in 16"
    + (told.silent_count > 0 ? `; ${told.silent_count} members did not tell` : "");
}

function span(row) {
  const [least, most] = [row.at_least_per_second, row.calls_per_second];
  return most - least < 0.05 ? `~${rate(most)}` : `~${rate(least)} to ${rate(most)}`;
}
