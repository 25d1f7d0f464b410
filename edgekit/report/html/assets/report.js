// edgekit's report: tables that sort and filter, charts by uPlot. All text it shows goes in as text, never as markup.
(() => {
"use strict";

const css = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

// ------------------------------------------------------------------------------------------------------------- tables

const valueOf = (row, column) => {
  const cell = row.cells[column];
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  return cell.classList.contains("figure") ? null : cell.textContent;
};

const compare = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b), "en", {numeric: true});

const isMissing = value => value === null || value === "" || value === "-";

function sortBy(table, column, heading) {
  const descending = heading.getAttribute("aria-sort") === "ascending";
  for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
  heading.setAttribute("aria-sort", descending ? "descending" : "ascending");
  const rows = [...table.tBodies[0].rows].map(row => [row, valueOf(row, column)]);
  rows.sort(([, a], [, b]) => {
    if (isMissing(a) || isMissing(b)) return isMissing(a) - isMissing(b); // what is not known comes last either way
    return descending ? compare(b, a) : compare(a, b);
  });
  table.tBodies[0].append(...rows.map(([row]) => row));
}

function makeSortable(table) {
  [...table.tHead.rows[0].cells].forEach((heading, column) => {
    if (!heading.textContent || table.tBodies[0].rows.length < 2) return;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = heading.textContent;
    heading.replaceChildren(button);
    button.addEventListener("click", () => sortBy(table, column, heading));
  });
}

function makeFilterable(input) {
  const name = input.dataset.filter;
  const rows = [...document.getElementById(`${name}-table`).tBodies[0].rows];
  const texts = new Map(rows.map(row => [row, [...row.cells].map(cell => cell.textContent).join(" ").toLowerCase()]));
  const chooser = document.querySelector(`[data-statuses="${name}"]`);
  const shown = document.querySelector(`[data-shown="${name}"]`);
  const apply = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    let count = 0;
    for (const row of rows) {
      const fits = words.every(word => texts.get(row).includes(word)) && (!chooser?.value || row.dataset.status === chooser.value);
      row.hidden = !fits;
      count += fits;
    }
    shown.textContent = `${count} of ${rows.length}`;
  };
  input.addEventListener("input", apply);
  chooser?.addEventListener("change", apply);
  apply();
}

// ------------------------------------------------------------------------------------------------------------- charts

const FONT = "12px system-ui, -apple-system, \"Segoe UI\", Roboto, \"DejaVu Sans\", sans-serif";

function short(value) {
  if (value === null || value === undefined) return "";
  const size = Math.abs(value);
  if (size >= 10000) return `${Number((value / 1000).toPrecision(3))}k`;
  return String(Number(value.toPrecision(3)));
}

// A figure by its axis: "p50 latency, ms" and 3.5 are "p50 latency 3.5 ms".
function told(label, value) {
  const [what, unit] = label.split(", ");
  return `${what} ${short(value)}${unit ? ` ${unit}` : ""}`;
}

// Ticks of a logarithmic axis that may be far shorter than a decade.
function logTicks(low, high) {
  if (!(low > 0 && high < Infinity)) return [low, high];
  for (const steps of [[1], [1, 3], [1, 2, 5], [1, 1.5, 2, 3, 4, 5, 7]]) {
    const found = [];
    for (let e = Math.floor(Math.log10(low)); e <= Math.log10(high); e++) {
      for (const step of steps) {
        const tick = Number((step * 10 ** e).toPrecision(3));
        if (tick >= low && tick <= high) found.push(tick);
      }
    }
    if (found.length >= 3) return found;
  }
  return [low, high];
}

function axis(label, log, side) {
  const base = {
    label, side, stroke: css("--soft"), font: FONT, labelFont: FONT, labelSize: 18,
    size: side % 2 ? (_, ticks) => 16 + 7 * Math.max(...(ticks ?? [""]).map(tick => tick.length)) : 34,
    grid: {stroke: css("--grid"), width: 1}, ticks: {stroke: css("--line"), width: 1, size: 4},
    values: (_, ticks) => ticks.map(short),
  };
  if (log) Object.assign(base, {splits: (_, __, low, high) => logTicks(low, high), filter: (_, ticks) => ticks});
  return base;
}

function scale(values, log, limit) {
  const all = limit === null || limit === undefined ? values : [...values, limit];
  const low = Math.min(...all), high = Math.max(...all);
  const room = (high - low || Math.abs(high) || 1) * 0.08;
  const range = log ? [low / 1.25, high * 1.25] : [low >= 0 ? Math.max(low - room, 0) : low - room, high + room];
  return {time: false, distr: log ? 3 : 1, range: () => range};
}

const height = width => Math.round(Math.min(Math.max(width * 0.62, 200), 340));

const common = width => ({
  width, height: height(width), legend: {show: false}, padding: [12, 14, 0, 0],
  cursor: {drag: {x: false, y: false, setScale: false}, points: {show: false}},
});

function showTip(plot, tip, x, y, words) {
  tip.hidden = !words;
  if (!words) return;
  tip.textContent = words;
  const left = plot.over.offsetLeft + x, width = plot.root.offsetWidth;
  tip.style.top = `${plot.over.offsetTop + y + 12}px`;
  tip.style.left = left < width / 2 ? `${left + 12}px` : "auto";
  tip.style.right = left < width / 2 ? "auto" : `${width - left + 12}px`;
}

function makeTip(place) {
  const tip = document.createElement("div");
  tip.className = "tip";
  tip.hidden = true;
  place.append(tip);
  return tip;
}

const SPOTS = {
  rejected: () => ({size: 8, stroke: css("--bad"), fill: "transparent", width: 1.5}),
  feasible: () => ({size: 8, stroke: css("--plain"), fill: "transparent", width: 1.5}),
  front: () => ({size: 8, stroke: css("--front"), fill: css("--front"), width: 1.5}),
  picked: () => ({size: 11, stroke: css("--second"), fill: css("--card"), width: 2.5}),
  reference: () => ({size: 10, stroke: css("--text"), fill: css("--card"), width: 2}),
  chosen: () => ({size: 14, stroke: css("--second"), fill: css("--second"), width: 2}),
};

const NEAR = 30; // pixels within which a spot answers to the pointer

function drawLimits(plot, data) {
  const {ctx, bbox} = plot, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.strokeStyle = ctx.fillStyle = css("--bad");
  ctx.setLineDash([5 * ratio, 4 * ratio]);
  ctx.lineWidth = ratio;
  ctx.font = FONT.replace("12px", `${11 * ratio}px`);
  for (const [key, limit] of [["x", data.x.limit], ["y", data.y.limit]]) {
    if (limit === null) continue;
    const at = Math.round(plot.valToPos(limit, key, true));
    ctx.beginPath();
    if (key === "x") { ctx.moveTo(at, bbox.top); ctx.lineTo(at, bbox.top + bbox.height); }
    else { ctx.moveTo(bbox.left, at); ctx.lineTo(bbox.left + bbox.width, at); }
    ctx.stroke();
    ctx.textAlign = "right";
    if (key === "x") ctx.fillText("limit", at - 4 * ratio, bbox.top + 12 * ratio);
    else ctx.fillText("limit", bbox.left + bbox.width - 4 * ratio, at - 5 * ratio);
  }
  ctx.restore();
}

// 95 % intervals, beneath the spots.
function drawBars(plot, data) {
  const {ctx, bbox} = plot, ratio = devicePixelRatio || 1;
  ctx.save();
  ctx.beginPath();
  ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
  ctx.clip();
  ctx.lineWidth = ratio;
  for (const [x, y, , group, , across, along] of data.spots) {
    ctx.strokeStyle = SPOTS[group]().stroke;
    ctx.globalAlpha = group === "chosen" || group === "picked" ? 0.9 : 0.45;
    ctx.beginPath();
    const px = plot.valToPos(x, "x", true), py = plot.valToPos(y, "y", true);
    // The lower end of an interval may lie off a logarithmic axis: then it ends at the plot's edge.
    const end = (value, key, log, edge) => log && value <= 0 ? edge : plot.valToPos(value, key, true);
    if (across) {
      ctx.moveTo(end(across[0], "x", data.x.log, bbox.left), py);
      ctx.lineTo(end(across[1], "x", data.x.log, bbox.left), py);
    }
    if (along) {
      ctx.moveTo(px, end(along[0], "y", data.y.log, bbox.top + bbox.height));
      ctx.lineTo(px, end(along[1], "y", data.y.log, bbox.top + bbox.height));
    }
    ctx.stroke();
  }
  ctx.restore();
}

// The names of the spots that matter, each where there is room: beside its spot, not over another name or such a spot.
function drawNames(plot, data) {
  const {ctx, bbox} = plot, ratio = devicePixelRatio || 1;
  const most = plot.width < 420 ? 26 : 40; // characters
  const named = data.spots.filter(spot => spot[4]).map(spot => ({
    text: spot[4].length > most ? `${spot[4].slice(0, most - 1)}…` : spot[4], chosen: spot[3] === "chosen",
    x: plot.valToPos(spot[0], "x", true), y: plot.valToPos(spot[1], "y", true),
  })).sort((a, b) => b.chosen - a.chosen);
  const tall = 12 * ratio, away = 11 * ratio;
  const taken = named.map(({x, y}) => [x - 7 * ratio, y - 7 * ratio, x + 7 * ratio, y + 7 * ratio]);
  const wall = bbox.left + bbox.width, word = 34 * ratio; // where drawLimits writes
  if (data.y.limit !== null) { const y = plot.valToPos(data.y.limit, "y", true); taken.push([wall - word, y - 16 * ratio, wall, y + ratio]); }
  if (data.x.limit !== null) { const x = plot.valToPos(data.x.limit, "x", true); taken.push([x - word, bbox.top, x + ratio, bbox.top + 16 * ratio]); }
  const overlap = (a, b) => Math.max(0, Math.min(a[2], b[2]) - Math.max(a[0], b[0])) * Math.max(0, Math.min(a[3], b[3]) - Math.max(a[1], b[1]));
  const outside = box => Math.max(0, bbox.left - box[0]) + Math.max(0, box[2] - bbox.left - bbox.width)
    + Math.max(0, bbox.top - box[1]) + Math.max(0, box[3] - bbox.top - bbox.height);
  ctx.save();
  ctx.font = FONT.replace("12px", `${11 * ratio}px`);
  ctx.textBaseline = "top";
  ctx.textAlign = "left";
  ctx.lineJoin = "round";
  ctx.lineWidth = 3 * ratio;
  ctx.strokeStyle = css("--card");
  ctx.fillStyle = css("--text");
  for (const {text, x, y, chosen} of named) {
    const wide = ctx.measureText(text).width;
    const places = [-tall - 5 * ratio, 5 * ratio, -tall / 2, -2.2 * tall, 1.3 * tall].flatMap(dy =>
      [[x + away, y + dy], [x - away - wide, y + dy]]).map(([left, top]) => [left, top, left + wide, top + tall]);
    const cost = box => 100 * outside(box) + taken.reduce((sum, other) => sum + overlap(box, other), 0);
    const [hidden, best] = places.map(box => [cost(box), box]).reduce((a, b) => b[0] < a[0] ? b : a);
    if (hidden > wide * tall / 4 && !chosen) continue; // no room: the pointer tells
    taken.push(best);
    ctx.strokeText(text, best[0], best[1]);
    ctx.fillText(text, best[0], best[1]);
  }
  ctx.restore();
}

const nameOf = row => [...row.cells[0].childNodes].filter(node => node.nodeName !== "SMALL").map(node => node.textContent).join("").trim();

const bare = label => label.replace(/ \(.*\)$/, ""); // without what it was picked for

function markRow(label) {
  for (const row of document.querySelectorAll("#candidates-table tbody tr, #points-table tbody tr")) {
    row.classList.toggle("hit", nameOf(row) === bare(label));
  }
}

function scatter(place, data, width) {
  const spots = [...data.spots].sort((a, b) => a[0] - b[0]);
  const groups = Object.keys(SPOTS).filter(name => spots.some(spot => spot[3] === name));
  const xs = [...spots.map(spot => spot[0]), ...data.front.map(point => point[0])];
  const order = xs.map((_, i) => i).sort((a, b) => xs[a] - xs[b]);
  const series = pick => order.map(i => pick(i));
  const front = series(i => i < spots.length ? null : data.front[i - spots.length][1]);
  const columns = groups.map(name => series(i => i < spots.length && spots[i][3] === name ? spots[i][1] : null));
  const tip = makeTip(place);
  const near = plot => {
    const {left, top} = plot.cursor;
    if (left === undefined || left < 0) return null;
    let best = null, least = NEAR;
    for (const spot of spots) {
      const x = plot.valToPos(spot[0], "x"), y = plot.valToPos(spot[1], "y"), away = Math.hypot(x - left, y - top);
      if (away < least) [best, least] = [{spot, x, y}, away];
    }
    return best;
  };
  const say = plot => {
    const hit = near(plot);
    const words = hit && `${hit.spot[2]}: ${told(data.x.label, hit.spot[0])}, ${told(data.y.label, hit.spot[1])}`;
    showTip(plot, tip, hit?.x ?? 0, hit?.y ?? 0, words);
  };
  // Whiskers count for the axes, but for those of what is out of the question.
  const reach = (at, bar, log) => spots.flatMap(s => [s[at], ...(s[3] === "rejected" ? [] : s[bar] ?? [])]).filter(v => !log || v > 0);
  const plot = new uPlot({
    ...common(width),
    scales: {x: scale(reach(0, 5, data.x.log), data.x.log, data.x.limit), y: scale(reach(1, 6, data.y.log), data.y.log, data.y.limit)},
    axes: [axis(data.x.label, data.x.log, 2), axis(data.y.label, data.y.log, 3)],
    series: [
      {},
      {stroke: css("--front"), width: 1, alpha: 0.7, spanGaps: true, points: {show: false}, paths: uPlot.paths.stepped({align: data.step})},
      ...groups.map(name => ({paths: () => null, points: {show: true, ...SPOTS[name]()}})),
    ],
    hooks: {setCursor: [say], drawAxes: [p => drawBars(p, data)], draw: [p => { drawLimits(p, data); drawNames(p, data); }]},
  }, [series(i => xs[i]), front, ...columns], place);
  plot.over.addEventListener("click", () => { const hit = near(plot); if (hit) markRow(hit.spot[2]); });
  return plot;
}

const ROLES = ["--accent", "--second"];

function keys(place, series) {
  const list = document.createElement("ul");
  list.className = "keys";
  for (const {label, role} of series) {
    const item = document.createElement("li");
    item.className = `key line${role}`;
    item.textContent = label;
    list.append(item);
  }
  place.append(list);
}

// What the series say where the pointer is; `place` writes the x there.
function valuesAt(plot, columns, series, place) {
  const index = plot.cursor.idx;
  if (index === null || index === undefined || plot.cursor.left < 0) return null;
  const known = series.map(({label, unit}, i) => [label, columns[i + 1][index], unit]).filter(([, value]) => value !== null && value !== undefined);
  const words = known.map(([label, value, unit]) => unit ? `${label} ${short(value)} ${unit}` : told(label, value));
  return words.length ? `${place(columns[0][index])}: ${words.join(", ")}` : null;
}

function histogram(place, data, width) {
  const count = data.series[0].y.length;
  const edges = Array.from({length: count + 1}, (_, i) => data.low + i * data.step);
  const columns = [edges, ...data.series.map(({y}) => [...y, y[count - 1]])];
  const tip = makeTip(place);
  const top = Math.max(...data.series.flatMap(({y}) => y));
  const plot = new uPlot({
    ...common(width),
    scales: {x: {time: false, range: () => [edges[0], edges[count]]}, y: {range: () => [0, top * 1.08]}},
    axes: [axis("ms", false, 2), axis("% of runs", false, 3)],
    series: [{}, ...data.series.map(({role}) => ({
      stroke: css(ROLES[role]), fill: `color-mix(in srgb, ${css(ROLES[role])} 25%, transparent)`, width: 1.5,
      paths: uPlot.paths.stepped({align: 1}), points: {show: false},
    }))],
    hooks: {setCursor: [p => {
      const words = valuesAt(p, columns, data.series.map(s => ({...s, unit: "% of runs"})), x => `from ${short(x)} ms`);
      showTip(p, tip, p.cursor.left, 0, words);
    }]},
  }, columns, place);
  if (data.series.length > 1) keys(place, data.series);
  return plot;
}

function lines(place, data, width) {
  const columns = uPlot.join(data.series.map(({x, y}) => [x, y]));
  const left = data.series.filter(s => s.axis !== "right"), right = data.series.find(s => s.axis === "right");
  const tip = makeTip(place);
  const axes = [axis(data.x, false, 2), axis(data.y, data.log, 3)];
  if (right) axes.push({...axis(right.label, false, 1), scale: "right", grid: {show: false}});
  const plot = new uPlot({
    ...common(width),
    cursor: {...common(width).cursor, sync: data.sync ? {key: data.sync} : undefined},
    scales: {
      x: {time: false}, y: scale(left.flatMap(s => s.y), data.log),
      ...(right ? {right: scale(right.y, false)} : {}),
    },
    axes,
    series: [{}, ...data.series.map(s => ({
      stroke: css(ROLES[s.role]), width: s.faint ? 1 : 1.5, alpha: s.faint ? 0.35 : 1, spanGaps: true,
      scale: s.axis === "right" ? "right" : "y", points: {show: false},
    }))],
    hooks: {setCursor: [p => {
      const place = x => data.x === "s" ? `${short(x)} s` : `${data.x} ${x}`;
      const unit = data.y === "ms" ? "ms" : undefined; // other series bear their own
      showTip(p, tip, p.cursor.left, 0, valuesAt(p, columns, data.series.map(s => ({...s, unit})), place));
    }]},
  }, columns, place);
  const named = data.series.filter(s => !s.faint);
  if (named.length > 1) keys(place, named);
  return plot;
}

const KINDS = {scatter, histogram, lines};
let drawn = [];

function drawAll(all, width) {
  for (const plot of drawn) plot.destroy();
  drawn = [];
  for (const place of document.querySelectorAll("[data-chart]")) {
    const data = all[place.dataset.chart];
    if (!data) continue;
    place.replaceChildren();
    drawn.push(KINDS[data.kind](place, data, width ?? Math.floor(place.clientWidth)));
  }
}

// -------------------------------------------------------------------------------------------------------------- start

document.querySelectorAll("table.data").forEach(makeSortable);
document.querySelectorAll("[data-filter]").forEach(makeFilterable);

const all = JSON.parse(document.getElementById("charts").textContent);
const PRINTED = 335; // CSS pixels of half an A4 page: the layout of paper is not known before it is printed
const redraw = () => drawAll(all);
redraw();

let width = innerWidth;
addEventListener("resize", () => { if (innerWidth !== width) { width = innerWidth; redraw(); } });
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
let opened = []; // what is folded on the screen is open on paper, but for the licence
addEventListener("beforeprint", () => {
  opened = [...document.querySelectorAll("main details:not([open])")];
  for (const details of opened) details.open = true;
  document.documentElement.classList.add("printing");
  drawAll(all, PRINTED);
});
addEventListener("afterprint", () => {
  for (const details of opened) details.open = false;
  document.documentElement.classList.remove("printing");
  redraw();
});
})();
