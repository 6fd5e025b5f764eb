"use strict";
// Draws what the documents in the page hold: one run, or two laid over each other.

const byId = id => document.getElementById(id);
const read = id => byId(id) && JSON.parse(byId(id).textContent);
const settings = read("settings");
const names = read("names") || [""];
const runs = [read("report"), read("other")].filter(Boolean);
const symbols = ["circle", "square", "diamond", "triangle-up", "triangle-down", "pentagon", "star"];
const dashes = ["solid", "dash"];
const state = { tolerance: settings.opening, quantity: "delta_nll", scale: null, cells: "share", off: new Set(), paper: false };

// --- data

const key = entry => JSON.stringify([entry.method, Object.entries(entry.options).sort()]);
const finite = value => value !== null && value !== undefined;
const short = x => !finite(x) ? "–" : Math.abs(x) >= 1e5 || (x !== 0 && Math.abs(x) < 1e-4) ? x.toExponential(1) : String(+x.toPrecision(3));
const percent = x => finite(x) ? `${(100 * x).toFixed(1)} %` : "–";
// Plotly reads markup in every text that it shows.
const plain = text => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const distance = (axis, severity) => Math.abs(severity - axis.neutral) / Math.abs(axis.farthest - axis.neutral);
const unitOf = axis => axis.unit && !axis.unit.includes(" ") && axis.unit !== "fraction" ? ` ${axis.unit}` : "";
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

const least = (...values) => Math.min(...values.filter(value => value > 0));
const quantities = {
  delta_nll: { name: "ΔNLL", title: "ΔNLL, nats per token", scales: ["symlog", "log", "linear"], neutral: () => 0,
               value: d => d.delta_nll, interval: d => d.delta_nll_interval, floor: run => floorOf(run).delta_nll, unit: 1e-3 },
  perplexity: { name: "Perplexity", title: "perplexity", scales: ["log", "linear"], neutral: run => runs[run].baseline.perplexity,
                value: d => d.perplexity },
  kl: { name: "KL", title: "KL(unchanged ‖ changed), nats per token", scales: ["symlog", "log", "linear"], neutral: () => 0,
        value: d => d.kl.mean, floor: run => floorOf(run).kl, unit: 1e-3 },
  top1: { name: "Top-1 agreement", title: "share of tokens with the same first choice", scales: ["linear"], neutral: () => 1,
          value: d => d.top1_agreement, floor: null },
  index: { name: "Hemorrhage index", title: "hemorrhage index: 0 unchanged, 1 no better than counting words",
           scales: ["symlog", "linear"], neutral: () => 0, value: d => d.index, unit: 1e-2 },
};

// --- scales: what is drawn is linear in `to(value)`; ticks stand at round values

const decimals = value => String(+value.toPrecision(3));
function linearTicks(low, high, count = 5) {
  const raw = (high - low) / count, base = 10 ** Math.floor(Math.log10(raw));
  const step = base * [1, 2, 5, 10].find(m => m * base >= raw);
  const ticks = [];
  for (let i = Math.ceil(low / step); i * step <= high + step * 1e-6; ++i) ticks.push(i * step);
  return ticks;
}
function decadeTicks(low, high, unit, room) {
  const steps = room > 3.2 ? [1] : room > 1.4 ? [1, 3] : [1, 2, 5], ticks = [];
  for (let e = Math.floor(Math.log10(unit)); e <= Math.ceil(Math.log10(Math.max(high, -low, unit))); ++e) {
    for (const m of steps) {
      const tick = m * 10 ** e;
      if (tick <= high) ticks.push(tick);
      if (-tick >= low) ticks.push(-tick);
    }
  }
  return ticks;
}
function makeScale(kind, unit) {
  if (kind === "log") {
    const to = v => Math.log10(Math.max(v, unit)), from = Math.pow.bind(null, 10);
    return { to, from, ticks: (low, high) => high - low < 0.3 ? linearTicks(from(low), from(high))
                                                              : decadeTicks(from(low), from(high), from(low), high - low) };
  }
  if (kind === "symlog") { // linear up to `unit`, logarithmic beyond
    const to = v => Math.sign(v) * Math.log10(1 + Math.abs(v) / unit);
    const from = t => Math.sign(t) * unit * (10 ** Math.abs(t) - 1);
    return { to, from, ticks: (low, high) => high - low < 0.3 ? linearTicks(from(low), from(high))
      : [0, ...decadeTicks(from(low), from(high), unit * 1.5, high - low)].filter(v => to(v) >= low && to(v) <= high) };
  }
  return { to: v => v, from: t => t, ticks: linearTicks };
}

// --- colours of the page, for the plots

const probe = byId("probe");
function css(name) {
  probe.style.color = `var(--${name})`;
  return getComputedStyle(probe).color;
}
const channels = color => color.match(/[\d.]+/g).slice(0, 3).map(Number);
const faded = (color, alpha) => `rgba(${channels(color).join(",")},${alpha})`;
function mix(from, to, part) {
  const [a, b] = [channels(from), channels(to)];
  return `rgb(${a.map((v, i) => Math.round(v + (b[i] - v) * part)).join(",")})`;
}

const config = { responsive: true, displaylogo: false, displayModeBar: "hover",
                 modeBarButtons: [["zoom2d", "pan2d", "zoomIn2d", "zoomOut2d", "resetScale2d", "toImage"]] };
function layout(more, width) {
  const ink = css("ink"), soft = css("soft"), line = css("line"), paper = css("paper");
  const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, color: soft, automargin: true, tickfont: { size: 12 }, title: { font: { size: 12 }, standoff: 8 } };
  const { xaxis = {}, yaxis = {}, ...rest } = more;
  return {
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    paper_bgcolor: paper, plot_bgcolor: paper, margin: { l: 44, r: 12, t: 10, b: 42 }, showlegend: false,
    hovermode: "closest", hoverlabel: { bgcolor: paper, bordercolor: soft, font: { color: ink, size: 12 }, align: "left" },
    modebar: { bgcolor: "rgba(0,0,0,0)", color: soft, activecolor: ink },
    width: state.paper ? width : undefined, autosize: true, ...rest,
    xaxis: { ...axis, ...xaxis, title: { ...axis.title, ...xaxis.title } },
    yaxis: { ...axis, ...yaxis, title: { ...axis.title, ...yaxis.title } },
  };
}

// --- curves

function hover(curve, point) {
  const d = point.damage, bounds = d.delta_nll_interval;
  const lines = [
    `<b>${plain(curve.name)}</b>`,
    `${plain(curve.axis.name.replace(/_/g, " "))} <b>${short(point.severity)}</b>${plain(unitOf(curve.axis))}`,
    `ΔNLL ${short(d.delta_nll)}${bounds && finite(bounds[0]) ? ` (${short(bounds[0])} … ${short(bounds[1])})` : ""} nats`,
    `perplexity ${short(d.perplexity)}`,
    `KL ${short(d.kl.mean)}, top-1 agreement ${percent(d.top1_agreement)}`,
  ];
  if (finite(d.index)) lines.push(`hemorrhage index ${short(d.index)}`);
  if (d.within_noise_floor) lines.push("within the noise floor");
  return lines.join("<br>");
}

// Traces, marks and a y axis for some curves; `x` says where a severity lies.
function picture(some, x, common) {
  const quantity = quantities[state.quantity];
  const kind = quantity.scales.includes(state.scale) ? state.scale : quantity.scales[0];
  const floors = runs.map((_, run) => quantity.floor && quantity.floor(run)).filter(v => v > 0);
  const values = some.flatMap(c => c.points.map(p => quantity.value(p.damage))).filter(finite);
  const unit = kind === "log" ? least(...values, ...floors, quantity.unit || 1) / 1.5
                              : Math.max(...floors, quantity.unit || 1e-3);
  const scale = makeScale(kind, unit);
  const soft = css("soft"), paper = css("paper");
  const drawn = [];
  const to = value => { const t = scale.to(value); drawn.push(t); return t; };

  const traces = some.map(c => {
    const points = c.points.filter(p => finite(quantity.value(p.damage)));
    const start = kind !== "log" && common && c.axis.continuous_at_neutral && points.length;
    const ys = points.map(p => to(quantity.value(p.damage)));
    const trace = {
      type: "scatter", mode: "lines+markers", name: plain(c.name), cliponaxis: false,
      x: points.map(p => x(c, p.severity)), y: ys, text: points.map(p => hover(c, p)), hovertemplate: "%{text}<extra></extra>",
      line: { color: c.color, width: 2, dash: c.dash },
      marker: { size: c.run ? 6 : 8, color: points.map(p => p.damage.within_noise_floor ? paper : c.color), symbol: c.symbol,
                line: { color: c.color, width: 1.5 } },
    };
    if (quantity.interval) {
      const bar = (end, sign) => points.map((p, i) => {
        const bounds = quantity.interval(p.damage);
        return bounds && finite(bounds[end]) ? Math.max(0, sign * (to(bounds[end]) - ys[i])) : 0;
      });
      trace.error_y = { type: "data", symmetric: false, array: bar(1, 1), arrayminus: bar(0, -1), color: c.color, thickness: 1.2, width: 3 };
    }
    if (start) {
      trace.x.unshift(0);
      trace.y.unshift(to(quantity.neutral(c.run)));
      trace.text.unshift("the unchanged model");
      trace.marker.color.unshift("rgba(0,0,0,0)");
      trace.marker.line = { ...trace.marker.line, width: [0, ...points.map(() => 1.5)] };
      if (trace.error_y) { trace.error_y.array.unshift(0); trace.error_y.arrayminus.unshift(0); }
    }
    return trace;
  });

  const shapes = [], annotations = [];
  const across = (y, more) => ({ type: "line", xref: "paper", x0: 0, x1: 1, y0: y, y1: y, layer: "below", ...more });
  const label = (y, text, more) => ({ xref: "paper", x: 1, xanchor: "right", y, yanchor: "bottom", text, showarrow: false, font: { size: 11, color: soft }, ...more });
  if (floors.length) {
    const top = scale.to(Math.max(...floors)), bottom = kind === "log" ? scale.to(unit) - 9 : scale.to(-Math.max(...floors));
    drawn.push(top);
    shapes.push({ type: "rect", xref: "paper", x0: 0, x1: 1, y0: bottom, y1: top, fillcolor: soft, opacity: 0.16, line: { width: 0 }, layer: "below" });
    if (common) annotations.push(label(kind === "symlog" ? bottom : top, `noise floor (${plain(floorOf(0).against)})`, { yanchor: "top" }));
  }
  if (state.quantity === "delta_nll") {
    let last = Infinity;
    const span = Math.max(...drawn, scale.to(0.1)) - Math.min(...drawn);
    for (const t of [...settings.tolerances].reverse()) {
      const chosen = t === state.tolerance, y = scale.to(t);
      drawn.push(y);
      shapes.push(across(y, { line: { color: soft, width: chosen ? 1.8 : 1, dash: chosen ? "dash" : "dot" } }));
      if (common && (last - y > span / 28 || chosen)) annotations.push(label(y, chosen ? `<b>${t}</b>` : String(t), { x: 0, xanchor: "left" }));
      last = y;
    }
  }
  if (state.quantity === "perplexity") {
    runs.forEach((run, i) => {
      shapes.push(across(to(run.baseline.perplexity), { line: { color: soft, width: 1, dash: i ? "dash" : "dot" } }));
      if (common && !i) annotations.push(label(scale.to(run.baseline.perplexity), `unchanged: ${short(run.baseline.perplexity)}`));
    });
  }
  const low = Math.min(...drawn), high = Math.max(...drawn), pad = (high - low || 1) * 0.05;
  const range = drawn.length ? [low - pad, high + pad] : [0, 1];
  const words = { symlog: `, logarithmic beyond ±${decimals(unit)}`, log: ", logarithmic", linear: "" }[kind];
  return { traces, shapes, annotations, scale, title: quantity.title + words, yaxis: { range, zeroline: false, ...tickLabels(scale, range, common ? 420 : 175) } };
}
function tickLabels(scale, range, height) {
  const low = Math.min(...range), high = Math.max(...range), gap = 15 * (high - low) / height;
  // Nearest to zero first, and then those that stand clear of the ones before.
  const ticks = scale.ticks(low, high).sort((a, b) => (b === 0) - (a === 0) || Math.abs(Math.log10(Math.abs(b))) - Math.abs(Math.log10(Math.abs(a))));
  const kept = [];
  for (const tick of ticks) if (kept.every(other => Math.abs(scale.to(other) - scale.to(tick)) >= gap)) kept.push(tick);
  return { tickmode: "array", tickvals: kept.map(scale.to), ticktext: kept.map(v => decimals(v).replace("-", "−")) };
}

const scales = new Map(); // of each plot, for its ticks after a zoom
function draw(div, traces, description) {
  const first = !div.classList.contains("js-plotly-plot");
  Plotly.react(div, traces, description, config);
  if (first) {
    div.on("plotly_relayout", change => {
      if (!scales.has(div) || "yaxis.tickvals" in change) return;
      if (Object.keys(change).some(name => name.startsWith("yaxis"))) {
        const { tickvals, ticktext } = tickLabels(scales.get(div), div.layout.yaxis.range, div.clientHeight - 60);
        Plotly.relayout(div, { "yaxis.tickvals": tickvals, "yaxis.ticktext": ticktext });
      }
    });
  }
}

const shown = () => curves.filter(c => !state.off.has(c.id) && c.points.length);
function drawCurves() {
  const p = picture(shown(), (c, severity) => distance(c.axis, severity), true);
  const div = byId("plot-curves");
  byId("curves-axis").textContent = p.title;
  scales.set(div, p.scale);
  draw(div, p.traces, layout({
    shapes: p.shapes, annotations: p.annotations, yaxis: p.yaxis,
    xaxis: { title: { text: "distance from the unchanged model" }, range: [-0.015, 1.015], zeroline: false },
  }, 680));
}

function drawOwn() {
  byId("own-axis").textContent = "";
  for (const id of order) {
    const some = curves.filter(c => c.id === id && c.points.length);
    const figure = byId("plots-own").querySelector(`[data-id="${CSS.escape(id)}"]`);
    if (!some.length) continue;
    const p = picture(some, (c, severity) => severity, false), axis = some[0].axis, div = figure.querySelector(".plot");
    byId("own-axis").textContent = p.title;
    const xs = some.flatMap(c => c.points.map(point => point.severity));
    const back = axis.farthest < axis.neutral, low = Math.min(...xs), high = Math.max(...xs);
    const pad = (high - low || Math.abs(high) || 1) * 0.05;
    const range = back ? [high + pad, low - pad] : [low - pad, high + pad];
    const zones = state.quantity !== "delta_nll" || some.length > 1 ? [] : [...settings.tolerances].reverse().flatMap(t => {
      const edge = some[0].threshold && some[0].threshold.zone[t];
      return !finite(edge) || edge === axis.neutral ? [] : [{
        type: "rect", yref: "paper", y0: 0, y1: 1, x0: axis.neutral, x1: edge, layer: "below",
        fillcolor: faded(css("safe"), 0.1), line: { width: 0 } }];
    });
    scales.set(div, p.scale);
    const unit = axis.unit && axis.unit !== axis.name ? `, ${axis.unit}` : "";
    draw(div, p.traces, layout({
      shapes: [...zones, ...p.shapes], annotations: p.annotations, yaxis: p.yaxis,
      xaxis: { title: { text: plain(axis.name.replace(/_/g, " ") + unit) }, range, zeroline: false, ...severityTicks(some[0], xs) },
    }, 325));
  }
}

// Ticks at the severities measured, where they stand apart.
function severityTicks(curve, xs) {
  const values = [...new Set(xs)].sort((a, b) => a - b), span = values[values.length - 1] - values[0];
  if (values.length > 10 || values.some((v, i) => i && v - values[i - 1] < span / 12)) return { nticks: 7 };
  const blocks = curve.axis.name === "layers" && runs[curve.run].provenance.model.blocks;
  return { tickvals: values, ticktext: values.map(v => blocks ? `${Math.round(v * blocks)}/${blocks}` : decimals(v)) };
}

const surfaces = surfacesOf(runs);

// --- layers

const cellViews = { share: "share of the sum", nats: "nats per token" };
const localized = curves.filter(c => c.localization && c.localization.sites.length)
  .sort((a, b) => order.indexOf(a.id) - order.indexOf(b.id) || a.run - b.run);
const blocksOf = c => c.localization.sites.filter(site => finite(site.block) && !finite(site.linear));
const sumOf = sites => sites.reduce((sum, site) => sum + Math.max(0, site.delta_nll || 0), 0);
const rowName = c => runs.length > 1 ? c.name : `${c.name} at ${short(c.localization.severity)}${unitOf(c.axis)}`;

// Each heat map: rows of {name, cells: [{x, z, text}]}, and how z is coloured.
function heatMaps() {
  const share = state.cells === "share";
  const maps = [];
  const perBlock = (id, title, value, text) => {
    const rows = localized.map(c => ({ name: rowName(c), cells: blocksOf(c).map(site => ({ x: site.block, z: value(c, site), text: `<b>${plain(c.name)}</b><br>block ${site.block}<br>${text(c, site)}` })) }));
    if (rows.some(row => row.cells.some(cell => finite(cell.z)))) maps.push({ id, title, rows });
  };
  const part = (c, v) => finite(v) ? (share ? Math.max(0, v) / (sumOf(blocksOf(c)) || 1) : v) : null;
  const both = (c, site) => `alone ${short(site.delta_nll)} nats${share ? `, ${percent(part(c, site.delta_nll))} of the sum` : ""}<br>noise of equal norm ${short(site.noise_delta_nll)} nats`;
  perBlock("alone", `Each block alone: ΔNLL, ${cellViews[state.cells]}`, (c, site) => part(c, site.delta_nll), both);
  perBlock("noise", `Noise of equal norm there, same colours`, (c, site) => part(c, site.noise_delta_nll), both);
  if (maps.length === 2) maps[0].top = maps[1].top = Math.max(...maps.flatMap(m => m.rows.flatMap(r => r.cells.map(cell => cell.z))).filter(finite));
  for (const c of localized) {
    const linears = c.localization.sites.filter(site => finite(site.linear)), total = sumOf(linears) || 1;
    if (!linears.length) continue;
    const kinds = [...new Set(linears.map(site => site.linear.split(".").pop()))];
    maps.push({ id: `linears-${c.id}`, title: `Each linear layer alone, ${rowName(c)}: ΔNLL, ${cellViews[state.cells]}`, rows: kinds.map(kind => ({
      name: kind,
      cells: linears.filter(site => site.linear.split(".").pop() === kind).map(site => ({
        x: site.block, z: finite(site.delta_nll) ? (share ? Math.max(0, site.delta_nll) / total : site.delta_nll) : null,
        text: `<b>${plain(site.name)}</b><br>alone ${short(site.delta_nll)} nats<br>noise of equal norm ${short(site.noise_delta_nll)} nats` })),
    })) });
  }
  const series = (id, title, list, more) => {
    const rows = localized.map(c => ({ name: rowName(c), cells: (list(c) || []).map((z, i) => ({ ...more(z, i), text: `<b>${plain(c.name)}</b><br>${more(z, i).text}` })) }));
    if (rows.some(row => row.cells.some(cell => finite(cell.z)))) maps.push({ id, title, rows, gain: id === "gain" });
  };
  series("error", "Whole model changed: relative error of the hidden state after each block", c => (c.localization.layer_error || []).slice(1),
         (z, i) => ({ x: i, z, text: `after block ${i}: relative error ${short(z)}` }));
  series("gain", "Whole model changed: cascade gain of each block, error out / error in", c => c.localization.cascade_gain,
         (z, i) => ({ x: i, z: z > 0 ? Math.log2(z) : null, text: `block ${i}: error × ${short(z)}` }));
  return maps;
}

function drawLayers() {
  const paper = css("paper"), line = css("line"), heat = css("heat"), wash = css("wash");
  for (const map of heatMaps()) {
    const figure = figureOf("plots-layers", map.id, map.title);
    const div = figure.querySelector(".plot"), height = 26 * map.rows.length + 62;
    div.style.height = `${height}px`;
    const xs = [...new Set(map.rows.flatMap(row => row.cells.map(cell => cell.x)))].sort((a, b) => a - b);
    const at = (row, x) => row.cells.find(cell => cell.x === x) || { z: null, text: "not measured" };
    const all = map.rows.flatMap(row => row.cells.map(cell => cell.z)).filter(finite);
    const top = map.gain ? Math.max(0.5, ...all.map(Math.abs)) : map.top || Math.max(...all, 1e-9);
    const colors = map.gain
      ? [[0, css("link")], [0.5, wash], [1, heat]]
      : [0, 0.25, 0.5, 0.75, 1].map(v => [v, mix(wash, heat, v)]);
    const ticks = map.gain ? linearTicks(-top, top, 3) : linearTicks(0, top, 3);
    const percents = state.cells === "share" && ("top" in map || map.id.startsWith("linears"));
    const tick = v => map.gain ? `× ${+(2 ** v).toPrecision(2)}` : percents ? `${decimals(100 * v)} %` : decimals(v);
    const rowNames = map.rows.map(row => row.name), room = state.paper ? 325 : div.clientWidth, longest = room < 420 ? 16 : 30;
    const label = z => !finite(z) ? "" : map.gain ? decimals(+(2 ** z).toPrecision(2)) : percents ? `${Math.round(100 * z)}` : decimals(+z.toPrecision(2));
    draw(div, [{
      type: "heatmap", x: xs, y: map.rows.map((_, i) => i), z: map.rows.map(row => xs.map(x => at(row, x).z)),
      customdata: map.rows.map(row => xs.map(x => at(row, x).text)), hovertemplate: "%{customdata}<extra></extra>", hoverongaps: false,
      text: map.rows.map(row => xs.map(x => label(at(row, x).z))), texttemplate: xs.length <= 12 && !state.paper ? "%{text}" : "", textfont: { size: 11 },
      zmin: map.gain ? -top : 0, zmax: top, colorscale: colors, xgap: xs.length > 60 ? 0 : 1, ygap: 2,
      colorbar: { thickness: 9, len: 1, outlinewidth: 0, tickvals: ticks, ticktext: ticks.map(tick), tickfont: { size: 11, color: css("soft") } },
    }], layout({
      height, margin: { l: 10, r: 6, t: 4, b: 40 }, plot_bgcolor: paper,
      xaxis: { title: { text: "block" }, showgrid: false, zeroline: false, range: [xs[0] - 0.5, xs[xs.length - 1] + 0.5], tick0: 0, dtick: Math.ceil(24 * xs.length / (room - 160)), tickangle: 0 },
      yaxis: { showgrid: false, zeroline: false, autorange: "reversed", tickvals: rowNames.map((_, i) => i),
               ticktext: rowNames.map(name => plain(name.length > longest ? `${name.slice(0, longest / 2)}…${name.slice(1 - longest / 2)}` : name)), ticklabelposition: "outside", linecolor: line },
    }, 325));
  }
}

// --- generation

const generating = curves.filter(c => c.points.some(p => p.damage.generation));
const generated = [
  { id: "divergence", title: "First divergence, tokens", value: g => g.first_divergence, top: g => g.new_tokens, base: g => g.new_tokens, interval: g => g.first_divergence_interval },
  { id: "same", title: "Prompts continued the same to the end", value: g => g.exact_match, top: () => 1, base: () => 1 },
  { id: "repetition", title: "Repetition: 4-grams seen before", value: g => g.repetition, base: g => g.repetition_baseline },
  { id: "distinct", title: "Distinct 2-grams", value: g => g.distinct_2, base: g => g.distinct_2_baseline, top: () => 1 },
];
function drawGeneration() {
  const soft = css("soft"), own = new Set(generating.map(c => c.axis.name)).size === 1;
  for (const part of generated) {
    const div = figureOf("plots-generation", part.id, part.title).querySelector(".plot");
    const values = [], shapes = [];
    const traces = generating.filter(c => !state.off.has(c.id)).map(c => {
      const points = c.points.filter(p => p.damage.generation && finite(part.value(p.damage.generation)));
      for (const p of points) {
        const g = p.damage.generation;
        values.push(part.value(g), ...(part.top ? [part.top(g)] : []), ...(finite(part.base(g)) ? [part.base(g)] : []));
      }
      const bar = (end, sign) => points.map(p => {
        const g = p.damage.generation, bounds = part.interval && part.interval(g);
        return bounds && finite(bounds[end]) ? Math.max(0, sign * (bounds[end] - part.value(g))) : 0;
      });
      const base = points.length && part.base(points[0].damage.generation);
      if (finite(base) && !shapes.length) shapes.push({ type: "line", xref: "paper", x0: 0, x1: 1, y0: base, y1: base, line: { color: soft, width: 1.2, dash: "dash" }, layer: "below" });
      return {
        type: "scatter", mode: "lines+markers", name: plain(c.name), x: points.map(p => own ? p.severity : p.distance),
        y: points.map(p => part.value(p.damage.generation)), line: { color: c.color, width: 2, dash: c.dash },
        marker: { color: c.color, size: 7, symbol: c.symbol },
        error_y: part.interval ? { type: "data", symmetric: false, array: bar(1, 1), arrayminus: bar(0, -1), color: c.color, thickness: 1.2, width: 3 } : undefined,
        hovertemplate: "%{text}<extra></extra>",
        text: points.map(p => `<b>${plain(c.name)}</b> at ${short(p.severity)}${plain(unitOf(c.axis))}<br>${part.title}: ${short(part.value(p.damage.generation))}` +
          `<br>${p.damage.generation.prompts} prompts, ${p.damage.generation.new_tokens} new tokens each`),
      };
    });
    const top = Math.max(...values, 1e-3);
    draw(div, traces, layout({ shapes, yaxis: { range: [-0.04 * top, 1.08 * top], zeroline: false, nticks: 6 },
      xaxis: { title: { text: own ? plain(generating[0].axis.name) : "distance from the unchanged model" }, zeroline: false, nticks: 8 } }, 325));
  }
}

// --- the page around the plots

function figureOf(grid, id, title, color) {
  let figure = byId(grid).querySelector(`[data-id="${CSS.escape(id)}"]`);
  if (!figure) {
    figure = document.createElement("figure");
    figure.dataset.id = id;
    figure.append(document.createElement("h3"), document.createElement("div"));
    const div = figure.lastChild;
    div.className = "plot";
    div.setAttribute("role", "img");
    byId(grid).append(figure);
  }
  const heading = figure.firstChild;
  heading.textContent = title;
  figure.lastChild.setAttribute("aria-label", `${title}. Every number is in the tables.`);
  if (color) {
    const dot = document.createElement("span");
    dot.className = "swatch";
    dot.style.background = color;
    heading.prepend(dot);
  }
  return figure;
}

function buttons(place, entries, chosen, choose, what) {
  const group = document.createElement("div");
  group.setAttribute("role", "group");
  group.setAttribute("aria-label", what);
  for (const [value, name] of entries) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.dataset.value = value;
    button.setAttribute("aria-pressed", String(value === chosen));
    button.onclick = () => choose(value);
    group.append(button);
  }
  place.append(group);
}
function drawControls() {
  const quantity = quantities[state.quantity];
  for (const place of document.querySelectorAll("[data-controls]")) {
    const focus = place.contains(document.activeElement) && document.activeElement.dataset.value;
    place.replaceChildren();
    buttons(place, Object.entries(quantities).map(([id, q]) => [id, q.name]), state.quantity, value => { state.quantity = value; refresh(); }, "Quantity");
    if (quantity.scales.length > 1) {
      const kind = quantity.scales.includes(state.scale) ? state.scale : quantity.scales[0];
      buttons(place, quantity.scales.map(s => [s, s]), kind, value => { state.scale = value; refresh(); }, "Scale");
    }
    const again = focus && place.querySelector(`[data-value="${focus}"]`);
    if (again) again.focus();
  }
  if (localized.length) {
    const place = byId("layer-controls");
    place.replaceChildren();
    buttons(place, Object.entries(cellViews), state.cells, value => { state.cells = value; refresh(); }, "Cells");
  }
}
function makeChips() {
  const place = document.querySelector(".chips");
  for (const id of order) {
    const curve = curves.find(c => c.id === id), chip = document.createElement("button"), dot = document.createElement("span");
    chip.type = "button";
    dot.className = "swatch";
    dot.style.background = curve.color;
    chip.append(dot, curve.label);
    chip.setAttribute("aria-pressed", "true");
    chip.onclick = () => {
      state.off.has(id) ? state.off.delete(id) : state.off.add(id);
      chip.setAttribute("aria-pressed", String(!state.off.has(id)));
      refresh();
    };
    place.append(chip);
    if (curves.some(c => c.id === id && c.points.length)) figureOf("plots-own", id, curve.label, curve.color);
  }
  if (names.length > 1) {
    const note = document.createElement("span");
    note.className = "axis soft";
    note.textContent = `solid: ${names[0]} · dashed: ${names[1]}`;
    place.append(note);
  }
}

function refresh() {
  drawControls();
  drawCurves();
  drawOwn();
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

let chosenTheme;
function onPaper(yes) {
  if (yes === state.paper) return;
  state.paper = yes;
  if (yes) chosenTheme = root.dataset.theme;
  if (yes) root.dataset.theme = "light";
  else if (chosenTheme) root.dataset.theme = chosenTheme;
  else delete root.dataset.theme;
  refresh();
}
addEventListener("beforeprint", () => onPaper(true));
addEventListener("afterprint", () => onPaper(false));
printed.addEventListener("change", event => onPaper(event.matches));

byId("together").hidden = !surfaces.length;
byId("layers").hidden = !localized.length;
byId("generation").hidden = !generating.length;
for (const id of ["together", "layers", "generation"]) document.querySelector(`nav a[href="#${id}"]`).parentNode.hidden = byId(id).hidden;
for (const input of document.querySelectorAll("input[name=tolerance]")) input.onchange = () => { choose(+input.value); refresh(); };
document.querySelectorAll("table.sortable").forEach(sortable);
theme.hidden = false;
showTheme();
makeChips();
refresh();
