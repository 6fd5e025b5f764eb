"use strict";
// What every picture is made of: numbers as the tables write them, scales, ticks and labels that stand clear of each
// other, heat maps, and Vega-Lite, which draws.

const byId = id => document.getElementById(id);
const finite = value => value !== null && value !== undefined;

// --- numbers, as the tables write them

const minus = text => text.replace("-", "−");
function number(value, digits = 4) {
  if (!finite(value)) return "–";
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-5 || size >= 1e6) return value.toExponential(digits - 2).replace("e+", "e").replace(/-/g, "−");
  const text = value.toFixed(Math.max(0, digits - 1 - Math.floor(Math.log10(size))));
  return minus(text.includes(".") ? text.replace(/\.?0+$/, "") : text);
}
const signed = value => !finite(value) ? "–" : minus((value < 0 ? "" : "+") + value.toFixed(Math.abs(value) < 10 ? 4 : 2));
const percent = value => finite(value) ? `${(100 * value).toFixed(1)} %` : "–";

// --- scales: pixels are linear in `to(value)`; ticks stand at round values

function linearTicks(low, high, count = 5) {
  const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
  const step = base * [1, 2, 5, 10].find(m => m * base >= raw * (1 - 1e-9));
  const ticks = [];
  for (let i = Math.ceil(low / step - 1e-6); i * step <= high + step * 1e-6; ++i) ticks.push(i * step);
  return ticks;
}
function decadeTicks(low, high, unit, room) {
  const steps = room > 3.2 ? [1] : room > 1.4 ? [1, 3] : [1, 2, 5], ticks = [];
  for (let e = Math.floor(Math.log10(unit)); e <= Math.ceil(Math.log10(Math.max(high, -low, unit))); ++e) {
    for (const m of steps) {
      const tick = Number(`${m}e${e}`);
      if (tick <= high && tick >= low) ticks.push(tick);
      if (-tick >= low && -tick <= high) ticks.push(-tick);
    }
  }
  return ticks;
}
function makeScale(kind, unit) {
  if (kind === "log") {
    const to = v => Math.log10(Math.max(v, unit)), from = t => 10 ** t;
    return { kind, unit, to, from, vega: { type: "log" },
             ticks: (low, high) => high - low < 0.3 ? linearTicks(from(low), from(high)) : decadeTicks(from(low), from(high), from(low), high - low) };
  }
  if (kind === "symlog") { // linear up to `unit`, logarithmic beyond
    const to = v => Math.sign(v) * Math.log10(1 + Math.abs(v) / unit);
    const from = t => Math.sign(t) * unit * (10 ** Math.abs(t) - 1);
    return { kind, unit, to, from, vega: { type: "symlog", constant: unit },
             ticks: (low, high) => high - low < 0.3 ? linearTicks(from(low), from(high))
               : [0, ...decadeTicks(from(low), from(high), unit * 1.5, high - low)].filter(v => to(v) >= low && to(v) <= high) };
  }
  return { kind, unit, to: v => v, from: t => t, vega: { type: "linear" }, ticks: linearTicks };
}

// Of ticks with a place in pixels, in order of importance: those that stand clear of the ones before.
function clear(ticks, size, gap) {
  const kept = [];
  for (const tick of ticks) {
    if (kept.every(other => Math.abs(other.at - tick.at) >= (size(other) + size(tick)) / 2 + gap)) kept.push(tick);
  }
  return kept;
}
// Vega's axis with these ticks, each {value, text}.
function axis(ticks, more) {
  const [values, texts] = [ticks.map(t => t.value), ticks.map(t => t.text)].map(list => JSON.stringify(list));
  return { values: ticks.map(t => t.value), labelExpr: `${texts}[indexof(${values}, datum.value)]`, ...more };
}

// --- colours and sizes of the page, for the plots

const probe = byId("probe");
function css(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
const channels = color => color.match(/[\d.]+/g).slice(0, 3).map(Number);
function mix(from, to, part) {
  const [a, b] = [channels(from), channels(to)];
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * part)).join(",")})`;
}
const light = color => channels(color).map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
  .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
const contrast = (a, b) => (Math.max(light(a), light(b)) + 0.05) / (Math.min(light(a), light(b)) + 0.05);
const font = getComputedStyle(document.body).fontFamily;
const SMALL = 11, TEXT = 12, LINE = 14; // pixels: annotations, ticks, from one line of text to the next
const canvas = document.createElement("canvas").getContext("2d");
function widthOf(text, size = TEXT, weight = "") {
  canvas.font = `${weight} ${size}px ${font}`;
  return canvas.measureText(text).width;
}
// Lines no wider than `most`, broken where names have joints, else anywhere.
function wrapped(text, most, size = TEXT) {
  const parts = text.match(/[^:,=_.+\s]+[:,=_.+\s]*|[:,=_.+\s]+/g) || [text], lines = [""];
  for (let part of parts) {
    if (lines[lines.length - 1] && widthOf(lines[lines.length - 1] + part.trimEnd(), size) > most) lines.push("");
    while (part.length > 1 && widthOf(part.trimEnd(), size) > most) {
      let cut = part.length - 1;
      while (cut > 1 && widthOf(part.slice(0, cut), size) > most) --cut;
      lines[lines.length - 1] = part.slice(0, cut);
      lines.push("");
      part = part.slice(cut);
    }
    lines[lines.length - 1] += part;
  }
  return lines.map(line => line.trim());
}

// --- drawing

const tip = byId("tip");
function showTip(_, event, item, value) {
  if (!finite(value) || value === "") {
    tip.hidden = true;
    return;
  }
  tip.textContent = String(value);
  tip.hidden = false;
  const { clientX: x, clientY: y } = event, { offsetWidth: width, offsetHeight: height } = tip;
  tip.style.left = `${Math.max(4, Math.min(x + 14, document.documentElement.clientWidth - width - 4))}px`;
  tip.style.top = `${y + height + 18 < innerHeight ? y + 14 : Math.max(4, y - height - 10)}px`;
}

const views = new Map(); // of each place, what is drawn there
function draw(place, { width, height, margin, layers }, then = () => {}) {
  const soft = css("soft"), line = css("line");
  const spec = {
    width, height, padding: margin, autosize: { type: "none", contains: "content" }, background: null, layer: layers,
    config: {
      font, view: { stroke: null }, text: { color: soft, fontSize: SMALL },
      axis: { domain: false, ticks: false, gridColor: line, labelColor: soft, labelFontSize: TEXT, labelLimit: 0, labelOverlap: false, labelPadding: 6,
              titleColor: soft, titleFontSize: TEXT, titleFontWeight: "normal", titlePadding: 8, titleLimit: 0 },
    },
  };
  vegaEmbed(place, spec, { mode: "vega-lite", renderer: "svg", actions: false, defaultStyle: false, tooltip: showTip }).then(result => {
    if (views.has(place)) views.get(place).finalize();
    views.set(place, result);
    place.querySelector("svg").setAttribute("aria-hidden", "true"); // the place says in words what it shows
    then(result.view);
  });
}

const one = { data: { values: [{}] }, encoding: {} };
const fixed = { scale: null, legend: null };

// Names at the right of the curves' ends, moved apart. Each end is {x, y, lines, color}, in pixels; the layers that write them.
function endLabels(ends, width, height) {
  const placed = ends.map(end => ({ ...end, at: end.y, size: LINE * end.lines.length + 2 })).sort((a, b) => a.at - b.at);
  let edge = -SMALL;
  for (const label of placed) {
    label.at = Math.max(label.at, edge + label.size / 2);
    edge = label.at + label.size / 2;
  }
  edge = height + SMALL;
  for (const label of [...placed].reverse()) {
    label.at = Math.min(label.at, edge - label.size / 2);
    edge = label.at - label.size / 2;
  }
  return placed.flatMap(({ x, y, at, lines, color }, i) => [
    { ...one, mark: { type: "rule", color, opacity: 0.6, strokeWidth: 1 }, encoding: { x: { value: Math.min(x + 6, width) }, y: { value: y }, x2: { value: width + 11 }, y2: { value: at } } },
    { ...one, mark: { type: "point", x: width + 15, y: at, color, fill: color, size: 26, opacity: 1 } },
    { ...one, name: `end-label-${i}`,
      mark: { type: "text", text: lines, x: width + 22, y: at - (LINE * (lines.length - 1)) / 2, align: "left", baseline: "middle", lineHeight: LINE, fontSize: TEXT, color: css("ink") } },
  ]);
}

// Rows of cells. `rows`: {name, cells: [{column, z, text, tip}]}; `columns`: {value, text}, no narrower than `least` pixels; `fill`: the colour of a
// value; `over`: layers under the numbers, given where a column and a row lie.
function drawHeat(place, { room, rows, columns, fill, title, strip, least = 0, over }) {
  const ink = css("ink"), paper = css("paper");
  const names = rows.map(row => row.name), longest = Math.max(...names.map(name => widthOf(name)));
  const above = longest > Math.max(110, 0.22 * room); // names that long stand above their rows
  const pitch = strip + (above ? 22 : 3), left = above ? 2 : longest + 10;
  const width = Math.max(room - left - 4, columns.length * least), height = rows.length * pitch, cell = width / columns.length;
  const top = row => row * pitch + (above ? 18 : 0), gap = cell > 8 ? 1 : 0;
  const cells = rows.flatMap((row, i) => row.cells.map(entry => ({ ...entry, x: columns.findIndex(c => c.value === entry.column) * cell, y: top(i) })))
    .map(entry => ({ x: entry.x, x2: entry.x + cell - gap, y: entry.y, y2: entry.y + strip, tip: entry.tip, text: entry.text,
                     fill: finite(entry.z) ? fill(entry.z) : "transparent" }))
    .map(entry => ({ ...entry, middle: (entry.x + entry.x2) / 2, ink: entry.fill === "transparent" || contrast(entry.fill, ink) >= contrast(entry.fill, paper) ? ink : paper }));
  const fits = cells.every(entry => widthOf(entry.text || "", SMALL) <= cell - 4);
  const all = columns.map((column, i) => ({ value: (i + 0.5) * cell, at: (i + 0.5) * cell, text: column.text }));
  const step = Math.ceil((Math.max(...all.map(t => widthOf(t.text))) + 8) / cell), every = [1, 2, 5, 10, 20, 50, 100].find(n => n >= step) || step;
  const ticks = clear(all, t => widthOf(t.text), 6).length === all.length ? all : all.filter((_, i) => i % every === 0);
  const X = { type: "quantitative", scale: { domain: [0, width], nice: false }, axis: axis(ticks, { title, grid: false, orient: "bottom" }) };
  const rowAxis = axis(rows.map((row, i) => ({ value: top(i) + strip / 2, text: row.name })), { title: null, grid: false });
  const Y = { type: "quantitative", scale: { domain: [height, 0], nice: false }, axis: above ? null : rowAxis };
  draw(place, {
    width, height, margin: { left, right: 4, top: 4, bottom: 44 },
    layers: [
      { name: "cells", data: { values: cells }, mark: { type: "rect", cornerRadius: cell > 8 ? 2 : 0 },
        encoding: { x: { ...X, field: "x" }, x2: { field: "x2" }, y: { ...Y, field: "y" }, y2: { field: "y2" }, fill: { field: "fill", ...fixed }, tooltip: { field: "tip" } } },
      ...(above ? rows.map((row, i) => ({ ...one, mark: { type: "text", text: row.name, x: 0, y: top(i) - 4, align: "left", baseline: "bottom", fontSize: TEXT, color: ink } })) : []),
      ...(over ? over({ across: index => (index + 0.5) * cell, down: row => top(row) + strip / 2, pitch, strip, top, width, height, X, Y }) : []),
      ...(fits ? [true, false].map(halo => ({ name: halo ? "halos" : "numbers", data: { values: cells.map(entry => ({ ...entry, y: (entry.y + entry.y2) / 2 })) },
        mark: { type: "text", fontSize: SMALL, baseline: "middle", ...(halo ? { strokeWidth: 4, strokeJoin: "round" } : {}) },
        encoding: { x: { ...X, field: "middle" }, y: { ...Y, field: "y" }, text: { field: "text" }, tooltip: { field: "tip" },
                    ...(halo ? { stroke: { field: "fill", ...fixed }, fill: { field: "fill", ...fixed } } : { color: { field: "ink", ...fixed } }) } })) : []),
    ],
  });
}
