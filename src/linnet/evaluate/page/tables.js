"use strict";

const data = JSON.parse(document.getElementById("data").textContent);
const metrics = Object.keys(data.metrics);
const codecs = [...new Set(data.summaries.map((summary) => summary.codec))];
const codecOf = new Map(data.summaries.map((summary) => [summary.label, summary.codec]));
const state = { metric: metrics[0], condition: data.conditions[0], clip: 0, version: 0 };
/** The means under the condition that is shown. */
const shown = () => data.summaries.filter((one) => one.condition === state.condition);

const $ = (id) => document.getElementById(id);

/** An element with attributes and children; text is never read as markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null) element.setAttribute(name, value);
  }
  element.append(...children);
  return element;
}

const color = (label) => `var(--c${codecs.indexOf(codecOf.get(label) ?? label) % 8})`;
const dot = (label) => make("span", { class: "dot", style: `background:${color(label)}` });
const better = (metric) => (data.metrics[metric].higher_is_better ? 1 : -1);
const title = (metric) => metric + (data.metrics[metric].unit ? `, ${data.metrics[metric].unit}` : "");
/** A path as nodes that may only be broken behind its slashes. */
const path = (name) => name.split(/(?<=\/)/).flatMap((part) => [part, make("wbr")]);
/** A column's title with what follows the comma, its unit, below it. */
const heading = (text) => text.split(", ").map((part, index) => (index ? make("span", { class: "interval" }, part) : part));
const range = (low, high) => make("span", { class: "interval" }, `${short(low)} … ${short(high)}`);

function short(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) >= 100 ? value.toFixed(0) : Math.abs(value) >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/* ---- tables that sort ---- */

/**
 * Columns are {title, value(row), cell(row), best: 1 | -1 | 0}: the value sorts, the cell is shown, and `best` is the
 * direction in which the first click sorts and in which the best value is bold.
 */
function table(element, columns, rows, sorted = -1) {
  let [column, direction] = [sorted, sorted < 0 ? 1 : -(columns[sorted].best || -1)];
  const missing = (value) => value === null || value === undefined;
  function draw() {
    const value = columns[Math.max(column, 0)].value;
    const order = column < 0 ? rows : [...rows].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y);
      return direction * (typeof x === "string" ? x.localeCompare(y, undefined, { numeric: true }) : x - y);
    });
    const tops = columns.map(({ best, value }) => {
      const known = best && rows.length > 1 ? rows.map(value).filter((one) => !missing(one)) : [];
      return known.length > 1 ? best * Math.max(...known.map((one) => best * one)) : undefined;
    });
    const head = columns.map((one, index) => make(
      "th", { scope: "col", "aria-sort": index !== column ? "none" : direction > 0 ? "ascending" : "descending" },
      make("button", { type: "button", onclick: () => {
        direction = index === column ? -direction : -(one.best || -1);
        column = index;
        draw();
      } }, ...heading(one.title)),
    ));
    const body = order.map((row) => make("tr", {}, ...columns.map((one, index) => {
      const cell = one.cell(row);
      if (tops[index] !== undefined && one.value(row) === tops[index]) cell.classList.add("best");
      return cell;
    })));
    element.replaceChildren(make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...body));
  }
  draw();
}

const named = (label) => make("th", { scope: "row" }, dot(label), label);

function drawMeans() {
  const plain = (text) => make("td", {}, text);
  table($("means"), [
    { title: "codec", value: (row) => row.label, cell: (row) => named(row.label), best: 0 },
    { title: "kbit/s", value: (row) => row.kbps, cell: (row) => plain(short(row.kbps)), best: 0 },
    { title: "band, kHz", value: (row) => row.bandwidth_hz, cell: (row) => plain(`${row.bandwidth_hz / 1000}`), best: 0 },
    ...metrics.map((metric) => ({
      title: title(metric),
      value: (row) => row.means[metric].value,
      best: better(metric),
      cell: (row) => {
        const mean = row.means[metric];
        const unscored = mean.unscored ? `, ${mean.unscored} without a score` : "";
        return make("td", { title: `${mean.files} files${unscored}` }, short(mean.value), ...(mean.files ? [range(mean.low, mean.high)] : []));
      },
    })),
  ], shown());
  const lines = data.skipped.map((one) => `${one.codec} is skipped: ${one.reason}`);
  for (const one of shown()) if (one.faults) lines.push(`${one.label}: ${one.faults} files are left out of its means (see below)`);
  for (const [condition, line] of data.oddities) if (condition === state.condition) lines.push(line);
  $("left-out").replaceChildren(...lines.map((line) => make("li", {}, line)));
}

/* ---- conditions ---- */

/** Every codec under every condition, in the metric chosen: shown where there is more than one condition. */
function drawConditions() {
  const metric = state.metric, labels = [...new Set(data.summaries.map((one) => one.label))];
  const found = new Map(data.summaries.map((one) => [`${one.label}\n${one.condition}`, one.means[metric]]));
  table($("conditions"), [
    { title: title(metric), value: (label) => label, cell: named, best: 0 },
    ...data.conditions.map((condition) => ({
      title: condition, value: (label) => found.get(`${label}\n${condition}`)?.value, best: better(metric),
      cell: (label) => {
        const mean = found.get(`${label}\n${condition}`);
        return make("td", {}, short(mean?.value), ...(mean?.files ? [range(mean.low, mean.high)] : []));
      },
    })),
  ], labels);
}

/* ---- listening tests ---- */

/** A table for each test, with a bar from the low to the high end of every interval. */
function drawListening() {
  $("listening").hidden = !data.listening.length;
  $("verdicts").replaceChildren(...data.listening.flatMap((test) => {
    const [low, high] = test.ends, share = (value) => `${(100 * (value - low) / (high - low)).toFixed(1)}%`;
    const left = Object.entries(test.excluded).map(([name, reason]) => `${name} is left out: ${reason}`);
    const element = make("table");
    table(element, [
      { title: test.title, value: (row) => row.system, cell: (row) => (codecOf.has(row.system) ? named(row.system) : make("th", { scope: "row" }, row.system)), best: 0 },
      { title: "mean", value: (row) => row.mean, best: 1, cell: (row) => make("td", {}, short(row.mean), range(row.low, row.high)) },
      { title: `${low} to ${high}`, value: (row) => row.mean, best: 0, cell: (row) => make("td", { class: "ruler" },
        make("span", { style: `left:${share(Math.max(low, row.low))};right:calc(100% - ${share(row.high)})` }), make("i", { style: `left:${share(row.mean)}` })) },
      { title: "ratings", value: (row) => row.ratings, best: 0, cell: (row) => make("td", {}, `${row.ratings}`) },
      ...Object.keys(test.systems[0]?.features ?? {}).map((feature) => ({
        title: feature, value: (row) => row.features[feature], best: 1, cell: (row) => make("td", {}, short(row.features[feature])),
      })),
    ], test.systems);
    const heard = make("p", { class: "hint" }, `${test.title}: ${test.listeners} listeners. ${left.join("; ")}`);
    return [heard, make("div", { class: "scroll" }, element)];
  }));
}

/* ---- rate and quality ---- */

function svg(tag, attributes, text) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  if (text !== undefined) element.textContent = text;
  return element;
}

function ticks(low, high, count) {
  const raw = (high - low) / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= raw);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(at);
  return found.map((at) => ({ at, text: String(Number(at.toPrecision(6))) }));
}

function drawCurves() {
  const metric = state.metric, width = $("curves").clientWidth || 900, height = Math.max(240, Math.min(380, width * 0.5));
  const edge = { left: 48, right: 14, top: 10, bottom: 40 };
  const points = shown().filter((one) => one.means[metric].files);
  const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": `${title(metric)} over kbit/s` });
  $("curves").replaceChildren(root);
  $("blind").textContent = `${better(metric) > 0 ? "Higher" : "Lower"} is better. Blind to ${data.metrics[metric].blind_to}.`;
  if (!points.length) return;
  const rates = points.map((one) => one.kbps), lows = points.map((one) => one.means[metric].low), highs = points.map((one) => one.means[metric].high);
  const [xLow, xHigh] = [Math.min(...rates) / 1.2, Math.max(...rates) * 1.2];
  const margin = 0.06 * (Math.max(...highs) - Math.min(...lows)) || 0.5;
  const [yLow, yHigh] = [Math.min(...lows) - margin, Math.max(...highs) + margin];
  const x = (kbps) => edge.left + (width - edge.left - edge.right) * Math.log(kbps / xLow) / Math.log(xHigh / xLow);
  const y = (value) => height - edge.bottom - (height - edge.top - edge.bottom) * (value - yLow) / (yHigh - yLow);
  for (const { at, text } of ticks(yLow, yHigh, 6)) {
    root.append(svg("line", { class: "grid", x1: edge.left, x2: width - edge.right, y1: y(at), y2: y(at) }));
    root.append(svg("text", { x: edge.left - 6, y: y(at) + 4, "text-anchor": "end" }, text));
  }
  for (const kbps of [0.25, 0.5, 1, 2, 4, 8, 16, 32, 64, 128]) {
    if (kbps < xLow || kbps > xHigh) continue;
    root.append(svg("line", { class: "grid", x1: x(kbps), x2: x(kbps), y1: edge.top, y2: height - edge.bottom }));
    root.append(svg("text", { x: x(kbps), y: height - edge.bottom + 16, "text-anchor": "middle" }, kbps));
  }
  root.append(svg("text", { x: width - edge.right, y: height - 6, "text-anchor": "end" }, "kbit/s on the wire, logarithmic"));
  for (const codec of codecs) {
    const own = points.filter((one) => one.codec === codec).sort((a, b) => a.kbps - b.kbps);
    const stroke = `stroke:${color(codec)}`, dash = codecs.indexOf(codec) >= 8 ? "5 4" : "none";
    const path = own.map((one, index) => `${index ? "L" : "M"}${x(one.kbps).toFixed(1)} ${y(one.means[metric].value).toFixed(1)}`).join("");
    if (own.length > 1) root.append(svg("path", { d: path, style: `${stroke};fill:none;stroke-width:2`, "stroke-dasharray": dash }));
    for (const one of own) {
      const mean = one.means[metric], at = x(one.kbps).toFixed(1);
      const bar = `M${at} ${y(mean.low)}V${y(mean.high)}M${at - 4} ${y(mean.low)}h8M${at - 4} ${y(mean.high)}h8`;
      const point = svg("g", {});
      point.append(svg("path", { d: bar, style: `${stroke};stroke-width:1.3` }));
      point.append(svg("circle", { cx: at, cy: y(mean.value), r: 4.5, style: `fill:${color(codec)}` }));
      point.append(svg("title", {}, `${one.label}: ${short(mean.value)} [${short(mean.low)}, ${short(mean.high)}] at ${short(one.kbps)} kbit/s`));
      root.append(point);
    }
  }
  $("legend").replaceChildren(...codecs.map((codec) => make("span", {}, dot(codec), codec)));
}

/* ---- two by two ---- */

function drawPairs() {
  const labels = shown().map((one) => one.label), found = new Map();
  for (const [one, other, difference, low, high, p, files] of data.pairs[state.condition]?.[state.metric] ?? []) {
    found.set(`${one}\n${other}`, { difference, low, high, p, files });
    found.set(`${other}\n${one}`, { difference: -difference, low: -high, high: -low, p, files });
  }
  const head = make("tr", {}, make("th", {}, title(state.metric)), ...labels.map((label) => make("th", { scope: "col" }, label)));
  const body = labels.map((row) => make("tr", {}, named(row), ...labels.map((column) => {
    const pair = found.get(`${row}\n${column}`);
    if (!pair || !pair.files) return make("td", {}, row === column ? "" : "–");
    const sign = (value) => (value > 0 ? "+" : "") + short(value);
    const interval = make("span", { class: "interval" }, `${sign(pair.low)} … ${sign(pair.high)}`);
    return make("td", { class: pair.p < 0.05 ? "sure" : null, title: `p = ${pair.p}, ${pair.files} files` }, sign(pair.difference), interval);
  })));
  $("pairs").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

/* ---- metrics against each other ---- */

/** Rank correlations over clips and, below them, over the codecs' means; the more two agree, the stronger the ground. */
function drawAgreements() {
  const found = new Map();
  for (const { condition, metrics: [one, other], clips, codecs } of data.agreements) {
    if (condition !== state.condition) continue;
    for (const pair of [`${one}\n${other}`, `${other}\n${one}`]) found.set(pair, { clips, codecs });
  }
  const head = make("tr", {}, make("th", {}, ""), ...metrics.map((metric) => make("th", { scope: "col" }, metric)));
  const body = metrics.map((row) => make("tr", {}, make("th", { scope: "row" }, row), ...metrics.map((column) => {
    const pair = found.get(`${row}\n${column}`);
    if (!pair) return make("td", {});
    const strength = `background:color-mix(in srgb, var(--accent) ${(35 * Math.max(0, pair.clips ?? 0)).toFixed(0)}%, transparent)`;
    return make("td", { style: strength }, short(pair.clips), make("span", { class: "interval" }, short(pair.codecs)));
  })));
  $("agreements").replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
}

/* ---- every file ---- */

const byFile = new Map();
for (const row of data.rows) {
  if (!byFile.has(row.file)) byFile.set(row.file, new Map());
  byFile.get(row.file).set(row.label, row);
}
const clipOf = new Map(data.clips.map((clip, index) => [clip.file, index]));

function drawFiles() {
  const metric = state.metric, files = data.worst[state.condition]?.[metric] ?? [], all = data.counts[state.condition];
  const remarks = (file) => [...byFile.get(file).values()].flatMap((row) => [
    ...(row.problem ? [`${row.label || "file"}: ${row.problem}`] : []), ...row.notes.map((note) => `${row.label}: ${note}`),
  ]).join("; ");
  const score = (file, label) => {
    const row = byFile.get(file).get(label);
    return row && !row.problem ? row.scores[metric] : null;
  };
  table($("files"), [
    { title: "file", value: (file) => file, best: 0, cell: (file) => clipOf.has(file)
      ? make("td", {}, make("button", { type: "button", class: "link", onclick: () => { showClip(clipOf.get(file)); $("listen").scrollIntoView(); } }, "▶ ", ...path(file)))
      : make("td", {}, ...path(file)) },
    ...shown().map(({ label }) => ({
      title: label, value: (file) => score(file, label), best: 0,
      cell: (file) => byFile.get(file).get(label)?.problem ? make("td", { class: "bad" }, "left out") : make("td", {}, short(score(file, label))),
    })),
    { title: "remarks", value: (file) => -remarks(file).length, best: 0, cell: (file) => make("td", { class: "text" }, remarks(file)) },
  ], files);
  $("files-more").textContent = files.length < all ? `${files.length} of ${all} are shown; all are in results.csv.` : "";
}
