// Asks for /status.json each second, and shows what it says. Counters only grow, so
// that rates are differences of two answers. All texts of the server and of its
// clients go into the page as textContent.
"use strict";

const KEPT_SECONDS = 600; // Of answers, for the plots.
const NOW_SECONDS = 5; // Rates of now are those of the last seconds.
const SLOW_MS = 15_000; // Between two questions of a page that nobody looks at.
const PATIENCE_MS = 5_000; // For an answer.
const UNLIMITED = 2 ** 60;

// --- Numbers for people.

function number(value) {
  if (!Number.isFinite(value)) return "–";
  if (value !== 0 && Math.abs(value) < 9.95 && !Number.isInteger(value)) {
    return value.toFixed(1);
  }
  return Math.round(value).toLocaleString("en").replaceAll(",", "\u202f");
}

function percent(part) {
  return Number.isFinite(part) ? `${number(Math.min(part, 1) * 100)}\u202f%` : "–";
}

function bytes(value) {
  let unit = 0;
  for (; Math.abs(value) >= 1024 && unit < 4; ++unit) value /= 1024;
  return `${number(value)}\u202f${["B", "KiB", "MiB", "GiB", "TiB"][unit]}`;
}

function duration(seconds) {
  if (!Number.isFinite(seconds)) return "–";
  if (seconds === 0) return "0\u202fs";
  if (seconds < 1) return `${number(seconds * 1e3)}\u202fms`;
  if (seconds < 60) return `${number(seconds)}\u202fs`;
  const units = [["d", 86400], ["h", 3600], ["min", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => seconds >= length);
  const parts = units.slice(first, first + 2).map(([name, length]) => {
    const count = Math.floor(seconds / length);
    seconds -= count * length;
    return count && `${count}\u202f${name}`;
  });
  return parts.filter(Boolean).join(" ");
}

function calls(count) {
  return `${number(count)} ${count === 1 ? "call" : "calls"}`;
}

// Gives a text of calls by code, the most frequent code first.
function codes(byCode) {
  return Object.entries(byCode).sort((a, b) => b[1] - a[1])
    .map(([code, count]) => `${code} ${number(count)}`).join(", ");
}

function failuresIn({ OK: _, ...failed }) {
  return failed;
}

// --- Elements.

const byId = (id) => document.getElementById(id);

function make(tag, attributes = {}, ...children) {
  const svg = ["svg", "path", "line", "text"].includes(tag);
  const node = svg
    ? document.createElementNS("http://www.w3.org/2000/svg", tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

// Changes a text only if it is another one, so that selections stay.
function write(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

// Shows parts of 1 as a bar in `cell`, below its text.
function bar(cell, text, parts, label) {
  if (!cell.words) {
    cell.words = cell.appendChild(make("div"));
    cell.bar = cell.appendChild(make("div", { class: "bar", "aria-hidden": "true" }));
  }
  write(cell.words, text);
  cell.title = label ?? "";
  while (cell.bar.children.length < parts.length) cell.bar.append(make("i"));
  parts.forEach(({ part, kind }, i) => {
    cell.bar.children[i].className = kind ?? "";
    cell.bar.children[i].style.width = `${Math.min(part || 0, 1) * 100}%`;
  });
}

// Shows pairs of a name and a function that draws into the description.
function describe(list, pairs) {
  list.drawn ??= new Map();
  for (const [name, node] of list.drawn) {
    if (pairs.some((pair) => pair[0] === name)) continue;
    node.parentNode.remove();
    list.drawn.delete(name);
  }
  for (const [name, draw] of pairs) {
    let node = list.drawn.get(name);
    if (!node) {
      node = make("dd");
      list.append(make("div", {}, make("dt", {}, name), node));
      list.drawn.set(name, node);
    }
    draw(node);
  }
}

function big(text, small) {
  return (node) => {
    if (!node.big) {
      node.big = node.appendChild(make("span"));
      node.small = node.appendChild(make("small"));
    }
    write(node.big, text);
    write(node.small, small);
  };
}

// Makes a table of `columns`: name, draw(cell, row), and what it sorts by, if it
// does. The first column names the row. Returns a function that shows rows, which
// have a `key` each.
function makeTable(table, caption, columns, sortedBy) {
  const body = make("tbody");
  const known = new Map();
  let rows = [];
  let sorted = columns.find((column) => column.name === sortedBy);
  let ascending = sorted.ascending ?? false;
  const heads = columns.map((column) => {
    const head = make("th", { scope: "col" });
    head.className = [column.wide && "wide", column.number && "number"]
      .filter(Boolean).join(" ");
    const button = make("button", { type: "button" }, column.name);
    button.addEventListener("click", () => {
      ascending = sorted === column ? !ascending : column.ascending ?? false;
      sorted = column;
      show(rows);
    });
    head.append(button);
    return head;
  });
  table.append(
    make("caption", { class: "visually-hidden" }, caption),
    make("thead", {}, make("tr", {}, ...heads)),
    body,
  );

  function makeRow() {
    return make("tr", {}, ...columns.map((column, i) => {
      const cell = i === 0 ? make("th", { scope: "row" }) : make("td");
      cell.className = heads[i].className;
      return cell;
    }));
  }

  function show(next) {
    rows = next;
    heads.forEach((head, i) => {
      if (columns[i] !== sorted) head.removeAttribute("aria-sort");
      else head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
    });
    const order = (a, b) => {
      const [x, y] = [sorted.by(a), sorted.by(b)];
      const compared = typeof x === "string" ? x.localeCompare(y) : (x > y) - (x < y);
      return (ascending ? compared : -compared) || a.key.localeCompare(b.key);
    };
    const wanted = new Set(rows.map((row) => row.key));
    for (const [key, node] of known) {
      if (wanted.has(key)) continue;
      node.remove();
      known.delete(key);
    }
    [...rows].sort(order).forEach((row, i) => {
      if (!known.has(row.key)) known.set(row.key, makeRow());
      const node = known.get(row.key);
      columns.forEach((column, j) => column.draw(node.children[j], row));
      if (body.children[i] !== node) body.insertBefore(node, body.children[i] ?? null);
    });
  }
  return show;
}

// --- The answers so far.

let samples = []; // The oldest first; one for each answer.

function sum(values) {
  return values.reduce((total, value) => total + value, 0);
}

function sampleOf(status) {
  const { calls_by_code: ended } = status;
  const paid = new Map(status.principals.map((principal) => [
    principal.name, sum(Object.values(principal.device_seconds)),
  ]));
  return {
    time: status.monotonic_seconds,
    busy: status.devices.map((device) => device.busy_seconds),
    batches: status.devices.map((device) => device.batches),
    succeeded: ended.OK ?? 0,
    failed: sum(Object.values(failuresIn(ended))),
    queue: status.latency.queue,
    compute: status.latency.compute,
    paid,
  };
}

function keep(status) {
  const sample = sampleOf(status);
  if (keep.uid !== status.server.uid) {
    samples = []; // Another server's.
    keep.uid = status.server.uid;
  }
  samples.push(sample);
  while (samples[0].time < sample.time - KEPT_SECONDS) samples.shift();
}

// Gives the last sample that is at least so much older than that of `index`; else
// the oldest one.
function before(index, seconds) {
  let at = index;
  while (at > 0 && samples[at].time > samples[index].time - seconds) --at;
  return samples[at];
}

// Gives the rate of a counter over the seconds before a sample; NaN: not known.
function rate(counter, seconds = NOW_SECONDS, index = samples.length - 1) {
  const [from, to] = [before(index, seconds), samples[index]];
  return (counter(to) - counter(from)) / (to.time - from.time);
}

// Gives the time that a part `q` of the calls took at most, as far as buckets tell.
function quantile(name, q, index = samples.length - 1) {
  const to = samples[index][name];
  const from = before(index, NOW_SECONDS)[name].counts;
  const counts = to.counts.map((count, i) => count - (from[i] ?? 0));
  let left = q * sum(counts);
  if (left === 0) return NaN;
  for (let i = 0; i < to.upper_bounds.length; ++i) {
    const low = i === 0 ? 0 : to.upper_bounds[i - 1];
    if (counts[i] > 0 && left <= counts[i]) {
      return low + (left / counts[i]) * (to.upper_bounds[i] - low);
    }
    left -= counts[i];
  }
  return to.upper_bounds.at(-1);
}

// --- Plots.

function niceAbove(value) {
  if (!(value > 0)) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].find((step) => step * power >= value) * power;
}

// Draws series: a name, a color and a function that gives the value at a sample.
function plot(id, title, unit, series, most) {
  const figure = byId(id);
  const [width, height, left, bottom] = [Math.max(figure.clientWidth, 200), 130, 52, 18];
  const end = samples.at(-1).time;
  const span = Math.min(KEPT_SECONDS, Math.max(60, end - samples[0].time));
  const lines = series.map(({ value }) => samples.map((sample, i) => (
    { time: sample.time, value: i === 0 ? NaN : value(i) })));
  const high = most ?? niceAbove(Math.max(
    0, ...lines.flat().map((point) => point.value).filter(Number.isFinite)));
  const x = (time) => left + (width - left - 4) * (1 - (end - time) / span);
  const y = (value) => 8 + (height - bottom - 8) * (1 - Math.min(value / high, 1));
  const svg = make("svg", { viewBox: `0 0 ${width} ${height}`, role: "img" });
  for (const part of [0, 0.5, 1]) {
    const at = y(part * high);
    svg.append(
      make("line", { class: "grid", x1: left, x2: width - 4, y1: at, y2: at }),
      make("text", { x: left - 6, y: at + 4, "text-anchor": "end" }, unit(part * high)),
    );
  }
  svg.append(
    make("text", { x: left, y: height - 3 }, `${duration(span)} ago`),
    make("text", { x: width - 4, y: height - 3, "text-anchor": "end" }, "now"),
  );
  const caption = make("figcaption", {}, make("b", {}, title));
  series.forEach(({ name, color, dash }, i) => {
    let path = "";
    let pen = "M";
    for (const point of lines[i]) {
      if (Number.isFinite(point.value)) {
        path += `${pen}${x(point.time).toFixed(1)} ${y(point.value).toFixed(1)}`;
      }
      pen = Number.isFinite(point.value) ? "L" : "M";
    }
    const drawn = make("path", { d: path });
    drawn.style.stroke = `var(--${color})`;
    if (dash) drawn.style.strokeDasharray = "5 4";
    svg.append(drawn);
    const key = make("span", {}, `${name} ${unit(lines[i].at(-1).value)}`);
    key.style.setProperty("--color", `var(--${color})`);
    if (dash) key.style.setProperty("--dash", "dashed");
    caption.append(key);
  });
  svg.setAttribute("aria-label", caption.textContent);
  figure.replaceChildren(caption, svg);
}

function drawPlots(status) {
  const colors = ["blue", "violet", "green", "orange"];
  plot("plot-busy", "Devices busy", percent, status.devices.map((device, i) => ({
    name: device.name,
    color: colors[i % colors.length],
    dash: i >= colors.length,
    value: (at) => rate((sample) => sample.busy[i], NOW_SECONDS, at),
  })), 1);
  plot("plot-calls", "Calls a second", number, [
    { name: "succeed", color: "green",
      value: (at) => rate((sample) => sample.succeeded, NOW_SECONDS, at) },
    { name: "fail", color: "red", dash: true,
      value: (at) => rate((sample) => sample.failed, NOW_SECONDS, at) },
  ]);
  const quantiles = (name) => [
    { name: "19 of 20 below", color: "orange",
      value: (at) => quantile(name, 0.95, at) },
    { name: "half below", color: "blue", dash: true,
      value: (at) => quantile(name, 0.5, at) },
  ];
  plot("plot-queue", "Wait for the device", duration, quantiles("queue"));
  plot("plot-compute", "Work on the device", duration, quantiles("compute"));
}

// --- Parts of the page.

function drawHead(status) {
  const { server } = status;
  state(server.serving ? "good" : "bad", server.serving ? "serves" : "takes no calls");
  write(byId("about"), `${server.version}, torch ${server.torch}, up `
    + `${duration(status.time - server.start_time)}, at ${server.addresses.join(", ")}`);
}

function drawTiles(status) {
  const tiles = [];
  status.devices.forEach((device, i) => {
    const waits = `${number(device.queued)} wait, ${duration(device.backlog_seconds)}`;
    tiles.push([`Busy: ${device.name}`, big(
      device.lost ? "lost" : percent(rate((sample) => sample.busy[i])),
      `${waits}; ${device.description}`)]);
  });
  const { calls } = status.limits;
  tiles.push(["Calls a second", big(
    number(rate((sample) => sample.succeeded + sample.failed)),
    `${number(rate((sample) => sample.failed))} fail; ${number(calls.used)} in progress`)]);
  tiles.push(["Wait for the device", big(
    duration(quantile("queue", 0.95)),
    `19 of 20 wait less; half less than ${duration(quantile("queue", 0.5))}`)]);
  status.devices.forEach((device, i) => {
    const run = Object.keys(device.batches)
      .map((reason) => [rate((sample) => sample.batches[i][reason]), reason])
      .filter(([count]) => count > 0);
    tiles.push([`Batches a second: ${device.name}`, big(
      number(rate((sample) => sum(Object.values(sample.batches[i])))),
      run.map(([count, reason]) => `${reason.replace("_", " ")} ${number(count)}`)
        .join(", ") || "none ran")]);
  });
  tiles.push(["Calls since the start", big(
    number(sum(Object.values(status.calls_by_code))), codes(status.calls_by_code))]);
  describe(byId("tiles"), tiles);
  write(byId("span"), `The last ${duration(samples.at(-1).time - samples[0].time)}; `
    + "it keeps 10 min.");
}

function share(row, seconds) {
  return rate((sample) => sample.paid.get(row.name) ?? 0, seconds);
}

function shareColumn(name, seconds, wide) {
  return {
    name, wide,
    by: (row) => share(row, seconds) || 0,
    draw: (cell, row) => {
      const part = share(row, seconds);
      bar(cell, percent(part), [{ part }]);
    },
  };
}

const drawWho = makeTable(byId("who"), "Principals", [
  { name: "Principal", by: (row) => row.name, ascending: true,
    draw: (cell, row) => write(cell, row.name) },
  shareColumn("Now", NOW_SECONDS),
  shareColumn("Since this page opened", KEPT_SECONDS, true),
  { name: "Device time", number: true, wide: true,
    by: (row) => sum(Object.values(row.device_seconds)),
    draw: (cell, row) => write(cell, duration(sum(Object.values(row.device_seconds)))) },
  { name: "Calls now", number: true, by: (row) => row.calls_in_progress,
    draw: (cell, row) => write(cell, number(row.calls_in_progress)) },
  { name: "Instances", number: true, wide: true, by: (row) => row.instances,
    draw: (cell, row) => write(cell, number(row.instances)) },
  { name: "Tapes", number: true, wide: true, by: (row) => row.tapes,
    draw: (cell, row) => write(cell, number(row.tapes)) },
  { name: "Memory", by: (row) => row.total,
    draw: (cell, row) => {
      const networks = Math.min(row.instance_bytes, row.total);
      const tapes = Math.min(row.tape_bytes, row.total - networks);
      const other = row.total - networks - tapes;
      const gpu = row.device_memory_bytes;
      bar(cell, bytes(row.total) + (gpu ? `, ${bytes(gpu)} on GPUs` : ""), [
        { part: networks / row.most, kind: "networks" },
        { part: tapes / row.most, kind: "tapes" },
        { part: other / row.most, kind: "other" },
      ], `networks ${bytes(networks)}, tapes ${bytes(tapes)}, other ${bytes(other)}`);
    } },
], "Since this page opened");

function showPrincipals(status) {
  const rows = status.principals.map((principal) => ({
    ...principal,
    key: principal.name,
    total: principal.memory_bytes + principal.device_memory_bytes,
  }));
  const most = Math.max(1, ...rows.map((row) => row.total));
  drawWho(rows.map((row) => ({ ...row, most })));
  const more = status.principals_left_out;
  write(byId("who-more"), more ? `${number(more)} more have less memory.` : "");
}

const drawCalls = makeTable(byId("calls"), "Calls by principal and code", [
  { name: "Principal", by: (row) => row.key, ascending: true,
    draw: (cell, row) => write(cell, row.key) },
  { name: "OK", number: true, by: (row) => row.succeeded,
    draw: (cell, row) => write(cell, number(row.succeeded)) },
  { name: "Failed", by: (row) => row.failed,
    draw: (cell, row) => write(cell, row.text) },
], "OK");

function showCalls(status) {
  const rows = status.principals.map(({ name, calls_by_code: ended }) => ({
    key: name,
    succeeded: ended.OK ?? 0,
    failed: sum(Object.values(failuresIn(ended))),
    text: codes(failuresIn(ended)) || "–",
  }));
  drawCalls(rows.filter((row) => row.succeeded + row.failed > 0));
}

function idleText(row) {
  const used = row.idle_seconds < 3 ? "now"
    : `${duration(Math.floor(row.idle_seconds))} ago`;
  return row.asleep ? `${used}, asleep` : used;
}

function countColumn(name, value) {
  return { name, number: true, wide: true, by: value,
    draw: (cell, row) => write(cell, number(value(row))) };
}

const drawInstances = makeTable(byId("instances"), "Instances", [
  { name: "Name", by: (row) => row.key, ascending: true,
    draw: (cell, row) => {
      const marks = [row.shared && "shared", row.read_only && "read-only"];
      if (!cell.marks) {
        cell.words = cell.appendChild(make("span"));
        cell.kind = cell.appendChild(make("small", { class: "narrow" }));
        cell.marks = cell.appendChild(make("small"));
      }
      write(cell.words, row.full);
      write(cell.kind, row.kind);
      write(cell.marks, marks.filter(Boolean).join(", "));
    } },
  { name: "Benchmark", wide: true, by: (row) => row.kind, ascending: true,
    draw: (cell, row) => write(cell, row.kind) },
  { name: "Device", wide: true, by: (row) => row.device, ascending: true,
    draw: (cell, row) => write(cell, row.device) },
  { name: "Memory", number: true, by: (row) => row.memory_bytes,
    draw: (cell, row) => write(cell, bytes(row.memory_bytes)) },
  countColumn("Version", (row) => row.params_version),
  countColumn("Forwards", (row) => row.counters.forwards),
  countColumn("Backwards", (row) => row.counters.backwards),
  countColumn("Steps", (row) => row.counters.steps),
  countColumn("Writes", (row) => row.counters.writes),
  { name: "Last use", ascending: true,
    by: (row) => (row.idle_seconds < 3 ? 0 : row.idle_seconds),
    draw: (cell, row) => write(cell, idleText(row)) },
], "Last use");

function showInstances(status) {
  const wanted = byId("filter").value.trim().toLowerCase();
  const all = status.instances.map((instance) => {
    const full = `${instance.owner}/${instance.name}`;
    const kind = instance.benchmark || instance.architecture;
    return { ...instance, full, kind, key: `${full}\n${instance.uid}` };
  });
  const rows = all.filter((row) => [row.full, row.benchmark, row.architecture, row.device]
    .some((text) => text.toLowerCase().includes(wanted)));
  drawInstances(rows);
  const more = status.instances_left_out;
  write(byId("instances-more"), `${number(rows.length)} of ${number(all.length)}`
    + (more ? `; ${number(more)} more, which take less memory, are left out` : ""));
}

function used(text, amount, limit) {
  const part = amount / limit;
  return (node) => bar(node, text, [{ part, kind: part > 0.9 ? "full" : "" }]);
}

const LIMITS = {
  calls: "Calls", streams: "Streams of calls", sessions: "Sessions",
  instances: "Instances", tapes: "Tapes", tape_bytes: "Memory of tapes",
  memory_bytes: "Memory of tensors", in_flight_bytes: "Uploads under way",
  checkpoint_bytes: "Checkpoints",
};

function showLimits(status) {
  const names = new Set([...Object.keys(LIMITS), ...Object.keys(status.limits)]
    .filter((name) => name in status.limits));
  describe(byId("limits"), [...names].map((name) => {
    const { used: amount, limit } = status.limits[name];
    const unit = name.endsWith("bytes") ? bytes : number;
    const open = limit === 0 || limit >= UNLIMITED;
    return [LIMITS[name] ?? name,
      used(open ? `${unit(amount)}, not limited` : `${unit(amount)} of ${unit(limit)}`,
        open ? 0 : amount, limit || 1)];
  }));
}

function showMachine({ machine }) {
  const { cores, load, memory_bytes: memory, state_disk: disk } = machine;
  const taken = memory - machine.memory_available_bytes;
  const usable = machine.memory_usable_bytes;
  const pairs = [
    [`Load, ${cores} cores`, used(
      load.map((each) => each.toFixed(2)).join(", ") + " (1, 5, 15 min)", load[0], cores)],
    ["Memory", used(`${bytes(taken)} of ${bytes(memory)} taken`, taken, memory)],
    ["Memory of the server", used(
      `${bytes(machine.process_memory_bytes)} of ${bytes(usable)} that it may use`,
      machine.process_memory_bytes, usable)],
  ];
  if (disk) {
    const full = disk.bytes - disk.available_bytes;
    pairs.push(["Disk of the state folder", used(
      `${bytes(full)} of ${bytes(disk.bytes)} taken`, full, disk.bytes)]);
  }
  pairs.push(["Processor", (node) => write(node, machine.processor)]);
  describe(byId("machine"), pairs);
}

// `usage` has for each span a list of principals. The first answers have
// none.
const SPANS = [["hour", "This hour"], ["day", "24 hours"], ["month", "30 days"]];

const drawUsage = makeTable(byId("used"), "Device time and calls, by span", [
  { name: "Principal", by: (row) => row.key, ascending: true,
    draw: (cell, row) => write(cell, row.key) },
  ...SPANS.map(([span, name]) => ({
    name, by: (row) => row[span]?.device_seconds ?? 0,
    draw: (cell, row) => (row[span]
      ? big(duration(row[span].device_seconds), calls(row[span].calls))
      : big("–", ""))(cell),
  })),
], "24 hours");

function showUsage({ usage }) {
  byId("usage").hidden = !usage;
  if (!usage) return;
  const rows = new Map();
  for (const [span] of SPANS) {
    for (const each of usage[span] ?? []) {
      const row = rows.get(each.principal) ?? { key: each.principal };
      rows.set(each.principal, { ...row, [span]: each });
    }
  }
  drawUsage([...rows.values()]);
  const at = new Date(usage.time * 1000).toLocaleTimeString("en-GB");
  write(byId("usage-time"), "Device time, and calls; in whole hours of UTC, with the "
    + `present one. As of ${at}.`);
}

// --- The loop.

let last; // The last answer.
let answered; // When it came.
let failures = 0; // Since then.
let timer;
let asking = false;

function state(kind, text) {
  byId("state").className = kind;
  write(byId("state"), text);
  document.body.classList.toggle("gone", kind === "bad" && failures > 0);
  document.title = kind === "good" ? "Backboned" : `Backboned: ${text}`;
}

function draw() {
  if (!last || document.hidden) return;
  drawHead(last);
  drawTiles(last);
  drawPlots(last);
  showPrincipals(last);
  showCalls(last);
  showUsage(last);
  showInstances(last);
  showLimits(last);
  showMachine(last);
}

async function fetchStatus() {
  try {
    const answer = await fetch("status.json", {
      cache: "no-store", signal: AbortSignal.timeout(PATIENCE_MS),
    });
    return answer.ok ? await answer.json() : null;
  } catch {
    return null; // The server has gone, or is slow.
  }
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    const status = await fetchStatus();
    if (status) {
      last = status;
      answered = new Date();
      failures = 0;
      keep(status);
      draw();
    } else {
      ++failures;
      const since = answered ? `since ${answered.toLocaleTimeString("en-GB")}` : "yet";
      state("bad", `no answer ${since}`);
    }
  } finally {
    asking = false;
    const pause = Math.min(1000 * 2 ** failures, SLOW_MS);
    timer = setTimeout(ask, document.hidden ? SLOW_MS : pause);
  }
}

document.addEventListener("visibilitychange", () => {
  if (!document.hidden) ask();
});
byId("filter").addEventListener("input", () => last && showInstances(last));
ask();
