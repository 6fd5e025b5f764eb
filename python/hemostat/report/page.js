"use strict";
// The page of what its documents hold: one run, or two laid over each other.

const read = id => byId(id) && JSON.parse(byId(id).textContent);
const settings = read("settings");
const names = read("names") || [""];
const runs = [read("report"), read("other")].filter(Boolean);
const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross"];
const dashes = [[1, 0], [5, 4]];
const state = { tolerance: settings.opening, quantity: "delta_nll", scale: null, cells: "share", off: new Set(), zoom: null, paper: false };
const PAPER = { page: 680, half: 325 }; // pixels

// --- data

const key = entry => JSON.stringify([entry.method, Object.entries(entry.options).sort()]);
const distance = (axis, severity) => Math.abs(severity - axis.neutral) / Math.abs(axis.farthest - axis.neutral);
const floorOf = run => runs[run].baseline.noise_floor || {};
const order = [...new Set(runs.flatMap(run => run.provenance.methods.map(key)))];
const curves = runs.flatMap((run, index) => run.provenance.methods.map(method => {
  const place = order.indexOf(key(method));
  const points = run.trials.filter(trial => key(trial) === key(method))
    .map(trial => ({ ...trial, distance: distance(method.axis, trial.severity) })).sort((a, b) => a.distance - b.distance);
  return {
    run: index, id: key(method), method, axis: method.axis, label: method.label, points,
    color: settings.palette[place % settings.palette.length],
    symbol: symbols[Math.floor(place / settings.palette.length) % symbols.length], dash: dashes[index],
    threshold: run.thresholds.find(entry => key(entry) === key(method)),
    localization: (run.localizations || []).find(entry => key(entry) === key(method)),
    name: names[index] ? `${method.label}, ${names[index]}` : method.label,
  };
}));

// Severities as the tables write them: "2 of 30 layers", "3 bits", "sparsity 0.3".
const blocksOf = curve => curve.axis.name === "layers" && runs[curve.run].provenance.model.blocks;
const amount = (curve, severity) => blocksOf(curve) ? number(severity * blocksOf(curve), 3) : number(severity, 3);
function at(curve, severity) {
  const { name, unit } = curve.axis, said = name.replace(/_/g, " "), shown = amount(curve, severity);
  if (blocksOf(curve)) return `${shown} of ${blocksOf(curve)} layers`;
  if (unit.startsWith("kept of")) return `${shown} ${unit}`;
  const text = unit && !unit.includes(" ") && unit !== "fraction" ? `${shown} ${unit}` : shown;
  return name === curve.method.method || (unit === said && text.endsWith(unit)) ? text : `${said} ${text}`;
}
function axisTitle(curve) {
  const { name, unit } = curve.axis, said = name.replace(/_/g, " ");
  if (blocksOf(curve)) return `layers, of ${blocksOf(curve)}`;
  return unit && unit !== name ? `${said}, ${unit}` : said;
}

const least = (...values) => Math.min(...values.filter(value => value > 0));
const quantities = {
  delta_nll: { name: "ΔNLL", title: "ΔNLL, nats per token", scales: ["symlog", "log", "linear"], neutral: () => 0, unit: 1e-3,
               value: d => d.delta_nll, interval: d => d.delta_nll_interval, floor: run => floorOf(run).delta_nll,
               text: v => v > 0 ? `+${number(v, 3)}` : number(v, 3) },
  perplexity: { name: "Perplexity", title: "perplexity", scales: ["log", "linear"], neutral: run => runs[run].baseline.perplexity,
                value: d => d.perplexity, text: v => number(v) },
  kl: { name: "KL", title: "KL(unchanged ‖ changed), nats per token", scales: ["symlog", "log", "linear"], neutral: () => 0, unit: 1e-3,
        value: d => d.kl.mean, floor: run => floorOf(run).kl, text: v => number(v, 3) },
  top1: { name: "Top-1 agreement", title: "share of tokens with the same first choice", scales: ["linear"], neutral: () => 1,
          value: d => d.top1_agreement, text: v => percent(v).replace(".0", "") },
  acceptance: { name: "Acceptance", title: "expected acceptance, Σ min(p, q): what speculative decoding would accept", scales: ["linear"], neutral: () => 1,
                value: d => d.acceptance, text: v => percent(v).replace(".0", "") },
  index: { name: "Hemorrhage index", title: "hemorrhage index: 0 unchanged, 1 no better than counting words", unit: 1e-2,
           scales: ["symlog", "linear"], neutral: () => 0, value: d => d.index, text: v => number(v, 3) },
};
for (const [id, quantity] of Object.entries(quantities)) {
  if (!curves.some(c => c.points.some(p => finite(quantity.value(p.damage))))) delete quantities[id];
}
const hasPoints = Object.keys(quantities).length > 0;
if (hasPoints && !quantities[state.quantity]) [state.quantity] = Object.keys(quantities);

// --- curves

function hover(curve, point) {
  const d = point.damage, bounds = d.delta_nll_interval;
  const lines = [
    curve.name, at(curve, point.severity),
    `ΔNLL ${signed(d.delta_nll)}${bounds && finite(bounds[0]) ? ` (${signed(bounds[0])} … ${signed(bounds[1])})` : ""} nats`,
    `perplexity ${number(d.perplexity)}`, `KL ${number(d.kl.mean, 3)}, top-1 agreement ${percent(d.top1_agreement)}`,
  ];
  if (finite(d.acceptance)) lines.push(`acceptance ${percent(d.acceptance)}`);
  if (finite(d.index)) lines.push(`hemorrhage index ${number(d.index, 3)}`);
  if (d.within_noise_floor) lines.push("within the noise floor");
  return lines.join("\n");
}

// The vertical scale that all these curves share.
function vertical(some) {
  const quantity = quantities[state.quantity];
  const kind = quantity.scales.includes(state.scale) ? state.scale : quantity.scales[0];
  const floors = runs.map((_, run) => quantity.floor && quantity.floor(run)).filter(v => v > 0);
  const values = some.flatMap(c => c.points.map(p => quantity.value(p.damage))).filter(finite);
  const unit = kind === "log" ? least(...values, ...floors, quantity.unit || 1) / 1.5 : Math.max(...floors, quantity.unit || 1e-3);
  const scale = makeScale(kind, unit);
  const bounds = quantity.interval ? some.flatMap(c => c.points.flatMap(p => quantity.interval(p.damage) || [])).filter(finite) : [];
  const marks = [...floors, ...(state.quantity === "delta_nll" ? settings.tolerances : []),
                 ...(kind === "log" && state.quantity !== "perplexity" ? [] : some.map(c => quantity.neutral(c.run)))];
  const drawn = [...values, ...bounds, ...marks].map(scale.to), low = Math.min(...drawn), high = Math.max(...drawn);
  const pad = (high - low || 1) * 0.05, range = drawn.length ? [low - pad, high + pad] : [0, 1];
  const title = [
    quantity.title + { symlog: `, logarithmic beyond ±${number(unit, 2)}`, log: ", logarithmic", linear: "" }[kind],
    ...(floors.length ? [`grey: the noise floor (${floorOf(0).against})`] : []),
    ...(state.quantity === "delta_nll" ? [`dashed: the tolerance, +${state.tolerance}`] : []),
    ...(state.quantity === "perplexity" ? [`dotted: the unchanged model's, ${number(runs[0].baseline.perplexity)}`] : []),
  ].join("; ");
  return { quantity, scale, floors, range, title };
}

// Ticks of a vertical scale over a height in pixels: zero and what is drawn across the picture, then from small to large, those that stand clear
// of the ones before.
function verticalTicks(scale, [low, high], height, text, first = []) {
  const ticks = scale.ticks(low, high).sort((a, b) => (b === 0) - (a === 0) || Math.abs(Math.log10(Math.abs(b))) - Math.abs(Math.log10(Math.abs(a))));
  const placed = [...new Set([...ticks.filter(t => t === 0), ...first, ...ticks])]
    .map(value => ({ value, text: text(value), at: height * (high - scale.to(value)) / (high - low) }));
  return clear(placed.filter(t => t.at >= -1 && t.at <= height + 1), () => TEXT, 5);
}
const across = () => state.quantity === "delta_nll" ? [state.tolerance, ...settings.tolerances] : [];

// Layers that draw some curves. `x`: where a severity lies; `across`: the horizontal axis; `common`: with words in the picture.
function curveLayers(some, { quantity, scale, floors, range }, { x, horizontal, ticks, height, common }) {
  const soft = css("soft"), paper = css("paper"), clip = Boolean(common && state.zoom);
  const X = { type: "quantitative", ...horizontal };
  const Y = { type: "quantitative", scale: { ...scale.vega, domain: range.map(scale.from), nice: false, ...(scale.kind === "log" ? {} : { zero: false }) }, axis: axis(ticks, { title: null }) };
  const safe = value => scale.kind === "log" ? Math.max(value, scale.unit) : value;
  const px = value => height * (range[1] - scale.to(value)) / (range[1] - range[0]);
  const points = some.flatMap(c => {
    const measured = c.points.filter(p => finite(quantity.value(p.damage))).map(p => {
      const bounds = quantity.interval && quantity.interval(p.damage);
      return { id: c.name, x: x(c, p.severity), y: safe(quantity.value(p.damage)), tip: hover(c, p), color: c.color, symbol: c.symbol, size: c.run ? 22 : 50, dash: c.dash,
               fill: p.damage.within_noise_floor ? paper : c.color,
               ...(bounds && finite(bounds[0]) && finite(bounds[1]) ? { low: safe(bounds[0]), high: safe(bounds[1]) } : {}) };
    });
    const starts = scale.kind !== "log" && common && c.axis.continuous_at_neutral && measured.length;
    return [...(starts ? [{ id: c.name, x: 0, y: quantity.neutral(c.run), color: c.color, dash: c.dash, start: true }] : []), ...measured];
  });
  const measured = points.filter(p => !p.start);
  const both = { x: { ...X, field: "x" }, y: { ...Y, field: "y" } }, color = { field: "color", ...fixed };
  const layers = [];
  const rule = (value, mark) => layers.push({ data: { values: [{ y: value }] }, mark: { type: "rule", clip: true, color: soft, ...mark }, encoding: { y: { ...Y, field: "y" } } });
  if (floors.length) {
    const top = Math.max(...floors), bottom = scale.kind === "log" ? scale.unit / 1e9 : -top;
    layers.push({ name: "floor", data: { values: [{ low: scale.from(Math.max(scale.to(bottom), range[0])), high: top }] }, mark: { type: "rect", color: soft, opacity: 0.16, clip: true },
                  encoding: { y: { ...Y, field: "low" }, y2: { field: "high" } } });
  }
  if (state.quantity === "delta_nll") for (const t of settings.tolerances) rule(t, t === state.tolerance ? { strokeDash: [6, 4], strokeWidth: 1.8 } : { strokeDash: [1, 3] });
  if (state.quantity === "perplexity") runs.forEach((run, i) => rule(run.baseline.perplexity, { strokeDash: i ? [6, 4] : [1, 3] }));
  layers.push(
    { name: "intervals", data: { values: measured.filter(p => finite(p.low)) }, mark: { type: "rule", strokeWidth: 1.3, clip },
      encoding: { x: { ...X, field: "x" }, y: { ...Y, field: "low" }, y2: { field: "high" }, color } },
    { name: "lines", data: { values: points }, mark: { type: "line", strokeWidth: 2, clip },
      ...(common && !state.paper && matchMedia("(pointer: fine)").matches
        ? { params: [{ name: "brush", select: { type: "interval", mark: { fill: soft, fillOpacity: 0.15, stroke: soft } } }] } : {}),
      encoding: { ...both, detail: { field: "id" }, color, strokeDash: { field: "dash", ...fixed } } },
    { name: "points", data: { values: measured }, mark: { type: "point", shape: { expr: "datum.symbol" }, filled: false, size: { expr: "datum.size" }, strokeWidth: 1.6, opacity: 1, clip },
      encoding: { ...both, color, fill: { field: "fill", ...fixed } } },
    { name: "targets", data: { values: measured }, mark: { type: "point", filled: true, size: 420, opacity: 0, clip }, encoding: { ...both, tooltip: { field: "tip" } } },
  );
  return { layers, px };
}

const shown = () => curves.filter(c => !state.off.has(c.id) && c.points.length);
const room = (place, paper) => state.paper ? paper : Math.max(240, place.parentNode.clientWidth);
const marginLeft = ticks => Math.ceil(Math.max(20, ...ticks.map(t => widthOf(t.text))) + 8);

// Names at the ends of curves: how wide they are, and the layers that write them.
function namesOf(some, width, ends, height) {
  const most = Math.min(170, 0.3 * width), list = [];
  for (const c of some) {
    const end = ends(c);
    if (end && !list.some(entry => entry.id === c.id)) list.push({ ...end, id: c.id, color: c.color, lines: wrapped(c.label, most) });
  }
  const wide = Math.max(0, ...list.flatMap(entry => entry.lines.map(line => widthOf(line))));
  return { list, margin: list.length ? Math.ceil(wide) + 28 : 12, least: list.reduce((sum, entry) => sum + LINE * entry.lines.length + 2, 0), height };
}

function drawCurves() {
  const some = shown(), shape = vertical(some), place = byId("plot-curves"), width = room(place, PAPER.page);
  const x = (c, severity) => distance(c.axis, severity);
  byId("curves-axis").textContent = shape.title;
  const span = state.zoom ? state.zoom.x : [-0.015, 1.015], range = state.zoom ? state.zoom.y : shape.range;
  const inside = p => p.distance >= span[0] && p.distance <= span[1] && finite(shape.quantity.value(p.damage))
    && shape.scale.to(shape.quantity.value(p.damage)) >= range[0] - 1e-9 && shape.scale.to(shape.quantity.value(p.damage)) <= range[1] + 1e-9;
  const last = c => c.points.filter(inside).pop();
  const labels = namesOf(some, width, last);
  const height = Math.max(width < 600 ? 360 : 430, labels.least);
  const ticks = verticalTicks(shape.scale, range, height, shape.quantity.text, across());
  const left = marginLeft(ticks), inner = width - left - labels.margin;
  const place_x = value => inner * (value - span[0]) / (span[1] - span[0]);
  const bottom = clear(linearTicks(...span, 6).map(value => ({ value, text: number(value, 3), at: place_x(value) })), t => widthOf(t.text), 8);
  const { layers, px } = curveLayers(some, { ...shape, range }, {
    x, height, ticks, common: true,
    horizontal: { scale: { domain: span, nice: false, zero: false }, axis: axis(bottom, { title: "distance from the unchanged model", grid: false }) },
  });
  const ends = labels.list.map(entry => ({ ...entry, x: place_x(entry.distance), y: px(shape.quantity.value(entry.damage)) }));
  draw(place, { width: inner, height, margin: { left, right: labels.margin, top: 10, bottom: 44 }, layers: [...layers, ...endLabels(ends, inner, height)] }, view => {
    place.onpointerup = () => {
      const { brush_x: xs, brush_y: ys } = view.getState().signals; // in the data's values; none on paper or on a touch screen
      if (!xs || !ys || !xs.length || !ys.length) return;
      const [x, y] = [xs, ys.map(shape.scale.to)].map(ends => ends.sort((a, b) => a - b));
      if (x[1] - x[0] < 0.01 * (span[1] - span[0]) || y[1] - y[0] < 0.01 * (range[1] - range[0])) return;
      state.zoom = { x, y };
      drawCurves();
    };
  });
  place.ondblclick = unzoom;
  byId("unzoom").hidden = !state.zoom;
}
function unzoom() {
  state.zoom = null;
  drawCurves();
}

function drawOwn() {
  const all = curves.filter(c => c.points.length), shape = vertical(all);
  const shaded = state.quantity === "delta_nll" && runs.length === 1;
  byId("own-axis").textContent = `${shape.title}; the same range in every picture${shaded ? "; shaded: the robust zones, the strictest darkest" : ""}`;
  for (const id of order) {
    const some = all.filter(c => c.id === id);
    if (!some.length) continue;
    const first = some[0], { axis: own } = first, place = figureOf("plots-own", id, first.label, first.color).querySelector(".plot");
    const width = room(place, PAPER.half), height = 170, ticks = verticalTicks(shape.scale, shape.range, height, shape.quantity.text, across());
    const left = marginLeft(ticks), inner = width - left - 16;
    const xs = [...new Set(some.flatMap(c => c.points.map(point => point.severity)))].sort((a, b) => distance(own, a) - distance(own, b));
    const [low, high] = [Math.min(...xs), Math.max(...xs)], pad = (high - low || Math.abs(high) || 1) * 0.05;
    const domain = own.farthest < own.neutral ? [high + pad, low - pad] : [low - pad, high + pad];
    const bottom = clear(xs.map(value => ({ value, text: amount(first, value), at: inner * (value - domain[0]) / (domain[1] - domain[0]) })), t => widthOf(t.text), 6);
    const horizontal = { scale: { domain, nice: false, zero: false }, axis: axis(bottom, { title: axisTitle(first), grid: false }) };
    const zones = !shaded ? [] : [...settings.tolerances].reverse().flatMap(t => {
      const edge = first.threshold && first.threshold.zone[t];
      return !finite(edge) || edge === own.neutral ? [] : [{ x: domain[0], x2: edge }];
    });
    const { layers } = curveLayers(some, shape, { x: (c, severity) => severity, horizontal, ticks, height, common: false });
    if (zones.length) layers.unshift({ name: "zones", data: { values: zones }, mark: { type: "rect", color: css("safe"), opacity: 0.1, clip: true },
                                       encoding: { x: { type: "quantitative", ...horizontal, field: "x" }, x2: { field: "x2" } } });
    draw(place, { width: inner, height, margin: { left, right: 16, top: 8, bottom: 44 }, layers });
  }
}

const surfaces = surfacesOf(runs);

// --- layers

const cellViews = { share: "share of the sum", nats: "nats per token" };
const localized = curves.filter(c => c.localization && c.localization.sites.length)
  .sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id) || a.run - b.run);
const blockSites = c => c.localization.sites.filter(site => finite(site.block) && !finite(site.linear));
const sumOf = sites => sites.reduce((sum, site) => sum + Math.max(0, site.delta_nll || 0), 0);
const rowName = c => runs.length > 1 ? c.name : `${c.name} at ${at(c, c.localization.severity)}`;

// Each heat map: rows of {name, cells: [{column, z, tip}]}, and how z is told and coloured.
function heatMaps() {
  const share = state.cells === "share", maps = [];
  const told = share ? v => `${number(100 * v, 2)} %` : v => number(v, 2);
  const part = (v, total) => !finite(v) ? null : share ? Math.max(0, v) / (total || 1) : v;
  const sites = site => `alone ${signed(site.delta_nll)} nats\nnoise of equal norm ${signed(site.noise_delta_nll)} nats`;
  const perBlock = (id, title, value) => {
    const rows = localized.map(c => ({ name: rowName(c), cells: blockSites(c).map(site => ({
      column: site.block, z: part(value(site), sumOf(blockSites(c))), tip: `${c.name}\nblock ${site.block}\n${sites(site)}` })) }));
    const measured = rows.filter(row => row.cells.some(cell => finite(cell.z)));
    if (measured.length) maps.push({ id, title, rows: measured, told });
  };
  perBlock("alone", `Each block alone: ΔNLL, ${cellViews[state.cells]}`, site => site.delta_nll);
  perBlock("noise", "Noise of equal norm there, same colours", site => site.noise_delta_nll);
  const every = maps.flatMap(m => m.rows.flatMap(r => r.cells.map(cell => cell.z))).filter(finite);
  for (const map of maps) map.top = Math.max(...every, 1e-9);
  for (const c of localized) {
    const linears = c.localization.sites.filter(site => finite(site.linear)), last = site => site.linear.split(".").pop();
    if (!linears.length) continue;
    maps.push({ id: `linears-${c.id}`, title: `Each linear layer alone, ${rowName(c)}: ΔNLL, ${cellViews[state.cells]}`, told,
                rows: [...new Set(linears.map(last))].map(kind => ({ name: kind, cells: linears.filter(site => last(site) === kind).map(site => ({
                  column: site.block, z: part(site.delta_nll, sumOf(linears)), tip: `${site.name}\n${sites(site)}` })) })) });
  }
  const series = (id, title, list, entry, how) => {
    const rows = localized.map(c => ({ name: rowName(c), cells: (list(c) || []).map((z, i) => ({ column: i, ...entry(z), tip: `${c.name}\nblock ${i}\n${entry(z).tip}` })) }));
    const measured = rows.filter(row => row.cells.some(cell => finite(cell.z)));
    if (measured.length) maps.push({ id, title, rows: measured, ...how });
  };
  series("error", "Whole model changed: relative error of the hidden state after each block", c => (c.localization.layer_error || []).slice(1),
         z => ({ z, tip: `relative error ${number(z, 3)}` }), { told: v => number(v, 2) });
  series("gain", "Whole model changed: cascade gain of each block, error out / error in", c => c.localization.cascade_gain,
         z => ({ z: z > 0 ? Math.log2(z) : null, tip: `error × ${number(z, 3)}` }), { told: v => `× ${number(2 ** v, 2)}`, gain: true });
  return maps;
}

function drawLayers() {
  const heat = css("heat"), wash = css("wash"), cold = css("link");
  for (const map of heatMaps()) {
    const figure = figureOf("plots-layers", map.id, map.title), place = figure.querySelector(".plot");
    const all = map.rows.flatMap(row => row.cells.map(cell => cell.z)).filter(finite);
    const top = map.gain ? Math.max(0.5, ...all.map(Math.abs)) : map.top || Math.max(...all, 1e-9);
    const fill = map.gain ? z => mix(wash, z < 0 ? cold : heat, Math.min(1, Math.abs(z) / top)) : z => mix(wash, heat, Math.min(1, Math.max(0, z) / top));
    legend(figure, map.gain ? [cold, wash, heat] : [wash, heat], map.gain ? [map.told(-top), map.told(0), map.told(top)] : [map.told(0), map.told(top)]);
    const columns = [...new Set(map.rows.flatMap(row => row.cells.map(cell => cell.column)))].sort((a, b) => a - b);
    drawHeat(place, {
      room: room(place, PAPER.page), fill, strip: 22, title: "block", columns: columns.map(value => ({ value, text: String(value) })),
      rows: map.rows.map(row => ({ ...row, cells: row.cells.map(cell => ({ ...cell, text: finite(cell.z) ? map.told(cell.z).replace(/^× | %$/, "") : "–" })) })),
    });
  }
}

// --- generation

const generating = curves.filter(c => c.points.some(p => p.damage.generation));
const generated = [
  { id: "divergence", title: "First divergence, tokens", value: g => g.first_divergence, top: g => g.new_tokens, base: g => g.new_tokens, interval: g => g.first_divergence_interval, text: v => number(v, 3) },
  { id: "same", title: "Prompts continued the same to the end", value: g => g.exact_match, top: () => 1, base: () => 1, text: percent },
  { id: "repetition", title: "Repetition: 4-grams seen before", value: g => g.repetition, base: g => g.repetition_baseline, text: percent },
  { id: "distinct", title: "Distinct 2-grams", value: g => g.distinct_2, base: g => g.distinct_2_baseline, top: () => 1, text: percent },
];
function drawGeneration() {
  const soft = css("soft"), some = generating.filter(c => !state.off.has(c.id)), own = new Set(generating.map(c => c.axis.name)).size === 1;
  const x = (c, p) => own ? p.severity : p.distance;
  for (const part of generated) {
    const place = figureOf("plots-generation", part.id, part.title).querySelector(".plot"), width = room(place, PAPER.half), height = 190;
    const points = some.flatMap(c => c.points.filter(p => p.damage.generation && finite(part.value(p.damage.generation))).map(p => {
      const g = p.damage.generation, bounds = part.interval && part.interval(g);
      return { id: c.id, name: c.name, x: x(c, p), y: part.value(g), top: part.top ? part.top(g) : 0, base: part.base(g), color: c.color, symbol: c.symbol, dash: c.dash,
               ...(bounds && finite(bounds[0]) ? { low: bounds[0], high: bounds[1] } : {}),
               tip: `${c.name}\n${at(c, p.severity)}\n${part.title}: ${part.text(part.value(g))}\n${g.prompts} prompts, ${g.new_tokens} new tokens each` };
    }));
    const top = Math.max(1e-3, ...points.flatMap(p => [p.y, p.top, p.base || 0, p.high || 0])), range = [-0.04 * top, 1.08 * top];
    const scale = makeScale("linear", 1), short = v => part.text(v).replace(".0 %", " %");
    const ticks = verticalTicks(scale, range, height, short), left = marginLeft(ticks);
    const labels = namesOf(some, width, c => points.filter(p => p.id === c.id).pop());
    const inner = width - left - labels.margin, xs = [...new Set(points.map(p => p.x))].sort((a, b) => a - b);
    const [low, high] = [Math.min(...xs), Math.max(...xs)], pad = (high - low || 1) * 0.05, back = own && generating[0].axis.farthest < generating[0].axis.neutral;
    const domain = back ? [high + pad, low - pad] : [low - pad, high + pad], place_x = v => inner * (v - domain[0]) / (domain[1] - domain[0]);
    const bottom = clear((own ? xs : linearTicks(low, high)).map(value => ({ value, at: place_x(value), text: own ? amount(generating[0], value) : number(value, 3) })), t => widthOf(t.text), 8);
    const X = { type: "quantitative", scale: { domain, nice: false, zero: false }, axis: axis(bottom, { grid: false, title: own ? axisTitle(generating[0]) : "distance from the unchanged model" }) };
    const Y = { type: "quantitative", scale: { domain: range, nice: false, zero: false }, axis: axis(ticks, { title: null }) };
    const both = { x: { ...X, field: "x" }, y: { ...Y, field: "y" } }, color = { field: "color", ...fixed };
    const base = points.map(p => p.base).find(finite), px = v => height * (range[1] - v) / (range[1] - range[0]);
    draw(place, { width: inner, height, margin: { left, right: labels.margin, top: 8, bottom: 44 }, layers: [
      ...(finite(base) ? [{ data: { values: [{ y: base }] }, mark: { type: "rule", color: soft, strokeDash: [6, 4] }, encoding: { y: { ...Y, field: "y" } } }] : []),
      { data: { values: points.filter(p => finite(p.low)) }, mark: { type: "rule", strokeWidth: 1.3 }, encoding: { x: { ...X, field: "x" }, y: { ...Y, field: "low" }, y2: { field: "high" }, color } },
      { name: "lines", data: { values: points }, mark: { type: "line", strokeWidth: 2 }, encoding: { ...both, detail: { field: "name" }, color, strokeDash: { field: "dash", ...fixed } } },
      { name: "points", data: { values: points }, mark: { type: "point", shape: { expr: "datum.symbol" }, filled: true, size: 45, opacity: 1 }, encoding: { ...both, color } },
      { name: "targets", data: { values: points }, mark: { type: "point", filled: true, size: 420, opacity: 0 }, encoding: { ...both, tooltip: { field: "tip" } } },
      ...endLabels(labels.list.map(entry => ({ ...entry, x: place_x(entry.x), y: px(entry.y) })), inner, height),
    ] });
  }
}

// --- the page around the plots

function figureOf(grid, id, title, color) {
  let figure = byId(grid).querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.id = id;
    const [place, picture, scrolling] = ["div", "div", "div"].map(tag => document.createElement(tag));
    place.className = "plot";
    place.setAttribute("aria-hidden", "true"); // Vega gives it words of its own; the picture around it has ours
    picture.setAttribute("role", "img");
    picture.append(place);
    scrolling.className = "wide";
    scrolling.append(picture);
    scrolling.addEventListener("scroll", () => mark(scrolling), { passive: true });
    figure.append(document.createElement("h3"), scrolling);
    byId(grid).append(figure);
  }
  const heading = figure.querySelector("h3");
  heading.textContent = title;
  figure.querySelector("[role=img]").setAttribute("aria-label", `${title}. Every number is in the tables.`);
  if (color) heading.prepend(dot(color));
  return figure;
}
function dot(color) {
  const span = document.createElement("span");
  span.className = "swatch";
  span.style.background = color;
  return span;
}
// What colours mean: the ramp, and its ends in words.
function legend(figure, colors, texts) {
  let line = figure.querySelector(".legend");
  if (!line) {
    line = document.createElement("p");
    line.className = "legend axis";
    figure.querySelector("h3").after(line);
  }
  const ramp = document.createElement("span");
  ramp.className = "ramp";
  ramp.style.background = `linear-gradient(to right, ${colors.join(", ")})`;
  line.replaceChildren(texts[0], ramp, texts[texts.length - 1]);
}

// A choice in the bar; changed by the mouse and by the keyboard like any other.
function fill(select, entries, chosen, choose) {
  select.replaceChildren(...entries.map(([value, name]) => new Option(name, value, false, value === chosen)));
  select.parentNode.hidden = entries.length < 2;
  select.onchange = () => { choose(select.value); refresh(); };
}
function fillBar() {
  const { scales = [] } = quantities[state.quantity] || {};
  fill(byId("quantity"), Object.entries(quantities).map(([id, q]) => [id, q.name]), state.quantity, value => { state.quantity = value; state.zoom = null; fillBar(); });
  fill(byId("scale"), scales.map(s => [s, s]), scales.includes(state.scale) ? state.scale : scales[0],
       value => { state.scale = value; state.zoom = null; });
}
function makeChips() {
  for (const id of order) {
    const curve = curves.find(c => c.id === id), chip = document.createElement("button");
    chip.type = "button";
    chip.append(dot(curve.color), curve.label);
    chip.setAttribute("aria-pressed", "true");
    chip.onclick = () => {
      state.off.has(id) ? state.off.delete(id) : state.off.add(id);
      chip.setAttribute("aria-pressed", String(!state.off.has(id)));
      refresh();
    };
    document.querySelector(".chips").append(chip);
  }
  if (names.length > 1) byId("runs").textContent = `Solid: ${names[0]}. Dashed: ${names[1]}.`;
}

function refresh() {
  if (hasPoints) {
    drawCurves();
    drawOwn();
  }
  if (surfaces.length) drawTogether(surfaces);
  if (localized.length) drawLayers();
  if (generating.length) drawGeneration();
}
function choose(tolerance) {
  state.tolerance = tolerance;
  for (const part of document.querySelectorAll("[data-tolerance]")) part.hidden = +part.dataset.tolerance !== tolerance;
}

function sortable(table) {
  const body = table.tBodies[0], first = [...body.rows];
  table.querySelectorAll("thead th").forEach((head, column) => {
    head.firstChild.onclick = () => {
      const before = head.getAttribute("aria-sort"), next = { ascending: "descending", descending: null }[before];
      const way = before ? next : "ascending";
      table.querySelectorAll("[aria-sort]").forEach(other => other.removeAttribute("aria-sort"));
      if (way) head.setAttribute("aria-sort", way);
      const by = row => row.cells[column].dataset.by, sign = way === "descending" ? -1 : 1;
      const compare = (a, b) => {
        const [p, q] = [by(a), by(b)];
        if (p === "" || q === "") return (p === "") - (q === "");
        return sign * (isNaN(p) || isNaN(q) ? p.localeCompare(q) : p - q);
      };
      const rows = way ? [...first].sort(compare) : first;
      table.classList.toggle("sorted", Boolean(way));
      body.append(...rows);
    };
  });
}
// What is wider than the page scrolls by the keyboard too, and says on which side there is more.
function mark(wide) {
  const more = wide.scrollWidth - wide.clientWidth;
  wide.classList.toggle("more-left", wide.scrollLeft > 1);
  wide.classList.toggle("more-right", wide.scrollLeft < more - 1);
  if (more > 1) wide.tabIndex = 0;
  else wide.removeAttribute("tabindex");
}

const root = document.documentElement, dark = matchMedia("(prefers-color-scheme: dark)"), printed = matchMedia("print");
const isDark = () => (root.dataset.theme || (dark.matches ? "dark" : "light")) === "dark";
const theme = byId("theme");
function showTheme() {
  theme.textContent = isDark() ? "Light" : "Dark";
  theme.setAttribute("aria-label", `${theme.textContent} colours`);
}
theme.onclick = () => {
  const wanted = isDark() ? "light" : "dark", system = dark.matches ? "dark" : "light";
  if (wanted === system) delete root.dataset.theme; // follows the system again
  else root.dataset.theme = wanted;
  showTheme();
  refresh();
};
dark.addEventListener("change", () => { showTheme(); refresh(); });

let before; // what paper changes
function onPaper(yes) {
  if (yes === state.paper) return;
  state.paper = yes;
  const folded = document.querySelectorAll("details.table");
  if (yes) {
    before = { theme: root.dataset.theme, open: [...folded].map(part => part.open) };
    root.dataset.theme = "light";
    for (const part of folded) part.open = true;
  } else {
    if (before.theme) root.dataset.theme = before.theme;
    else delete root.dataset.theme;
    folded.forEach((part, i) => { part.open = before.open[i]; });
  }
  refresh();
}
addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));
printed.addEventListener("change", event => onPaper(event.matches));

byId("curves").hidden = byId("own").hidden = !hasPoints;
byId("together").hidden = !surfaces.length;
byId("layers").hidden = !localized.length;
byId("generation").hidden = !generating.length;
for (const id of ["curves", "own", "together", "layers", "generation"]) document.querySelector(`nav a[href="#${id}"]`).parentNode.hidden = byId(id).hidden;
for (const input of document.querySelectorAll("input[name=tolerance]")) input.onchange = () => { choose(+input.value); refresh(); };
document.querySelectorAll("table.sortable").forEach(sortable);
const wides = () => document.querySelectorAll(".wide");
for (const wide of wides()) wide.addEventListener("scroll", () => mark(wide), { passive: true });
byId("unzoom").onclick = unzoom;
fill(byId("cells"), Object.entries(cellViews), state.cells, value => { state.cells = value; });
theme.hidden = false;
showTheme();
fillBar();
byId("bar").hidden = !byId("bar").querySelector(":scope > :not([hidden])");
makeChips();
let width = 0; // of the page: a picture itself is as wide as it was drawn
new ResizeObserver(([{ contentRect }]) => {
  wides().forEach(mark);
  if (state.paper || width === contentRect.width) return;
  width = contentRect.width;
  refresh();
}).observe(document.querySelector("main"));
