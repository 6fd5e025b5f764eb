"use strict";
// Draws what two methods do together; page.js, which comes after, calls it and has what it calls.

function surfacesOf(runs) {
  return runs.flatMap((run, index) => (run.surfaces || []).map(entry => {
    const label = entry.methods.map(method => method.label).join(", then ");
    return { ...entry, id: `${index} ${label}`, name: names[index] ? `${label}, ${names[index]}` : label };
  }));
}

function severityName(axis, severity) {
  const name = axis.name.replace(/_/g, " ");
  return axis.unit === axis.name ? `${short(severity)} ${name}` : `${name} ${short(severity)}${unitOf(axis)}`;
}

function axisTitle(surface, which) {
  const axis = surface.axes[which];
  return plain(`${surface.methods[which].label}: ` + axis.name.replace(/_/g, " ") + (axis.unit && axis.unit !== axis.name ? `, ${axis.unit}` : ""));
}

// Damage that never falls along either axis, as the joint zones read it.
function monotone(z) {
  const result = [];
  z.forEach((row, i) => {
    result.push([]);
    row.forEach((value, j) => result[i].push(Math.max(finite(value) ? value : Infinity, i ? result[i - 1][j] : -Infinity, j ? result[i][j - 1] : -Infinity)));
  });
  return result;
}

function surfaceHover(surface, i, j) {
  const d = surface.damage[i][j], bounds = d.delta_nll_interval, sum = surface.additivity[i][j];
  const lines = [
    `<b>${plain(surface.methods[0].label)}</b> ${plain(severityName(surface.axes[0], surface.severities[0][i]))}${i ? "" : ", unchanged"}`,
    `<b>${plain(surface.methods[1].label)}</b> ${plain(severityName(surface.axes[1], surface.severities[1][j]))}${j ? "" : ", unchanged"}`,
    `ΔNLL ${short(d.delta_nll)}${bounds && finite(bounds[0]) && i + j ? ` (${short(bounds[0])} … ${short(bounds[1])})` : ""} nats`,
    `perplexity ${short(d.perplexity)}, KL ${short(d.kl.mean)}, top-1 agreement ${percent(d.top1_agreement)}`,
  ];
  if (finite(sum) && sum > 0) lines.push(`${(1 / sum).toFixed(1)} times the sum of each alone (${short(surface.damage[i][0].delta_nll)} and ${short(surface.damage[0][j].delta_nll)})`);
  if (d.within_noise_floor) lines.push("within the noise floor");
  return lines.join("<br>");
}

function drawTogether(surfaces) {
  const wash = css("wash"), heat = css("heat"), ink = css("ink"), soft = css("soft"), paper = css("paper");
  for (const surface of surfaces) {
    const div = figureOf("plots-together", surface.id, surface.name).querySelector(".plot");
    const [down, right] = surface.severities, height = 34 * down.length + 74;
    div.style.height = `${height}px`;
    const z = surface.damage.map(row => row.map(d => d.delta_nll)), never = monotone(z);
    const scale = makeScale("symlog", 0.01), colored = value => finite(value) ? Math.max(0, scale.to(value)) : null;
    const top = Math.max(scale.to(1), ...z.flat().filter(finite).map(scale.to)), ticks = scale.ticks(0, top);
    const places = list => list.map((_, index) => index);
    const room = state.paper ? 680 : div.clientWidth;
    const cells = {
      type: "heatmap", x: places(right), y: places(down), z: z.map(row => row.map(colored)), zmin: 0, zmax: top, xgap: 1, ygap: 1, hoverongaps: false,
      colorscale: [0, 0.25, 0.5, 0.75, 1].map(part => [part, mix(wash, heat, part)]),
      customdata: z.map((row, i) => row.map((_, j) => surfaceHover(surface, i, j))), hovertemplate: "%{customdata}<extra></extra>",
      text: z.map(row => row.map(value => finite(value) ? short(+value.toPrecision(2)).replace("-", "−") : "")),
      texttemplate: (room - 160) / right.length > 44 ? "%{text}" : "", textfont: { size: 12 },
      colorbar: { thickness: 10, len: 1, outlinewidth: 0, tickvals: ticks.map(scale.to), ticktext: ticks.map(decimals), tickfont: { size: 11, color: soft },
                  title: { text: "ΔNLL", side: "top", font: { size: 11, color: soft } } },
    };
    const flattest = 4 * Math.max(...settings.tolerances); // beyond it the lines' interpolation would be in the cells of a collapse
    const lines = settings.tolerances.map(t => ({
      type: "contour", x: places(right), y: places(down), z: never.map(row => row.map(value => Number.isFinite(value) ? value : flattest)), name: String(t),
      autocontour: false, contours: { start: t, end: t, size: 1, coloring: "none", showlabels: true, labelfont: { size: 11, color: ink } },
      line: { color: ink, width: t === state.tolerance ? 3 : 1.2, dash: t === state.tolerance ? "solid" : "dot", smoothing: 0 },
      showscale: false, hoverinfo: "skip",
    }));
    draw(div, [cells, ...lines], layout({
      height, margin: { l: 10, r: 6, t: 6, b: 40 }, plot_bgcolor: paper,
      xaxis: { title: { text: axisTitle(surface, 1) }, showgrid: false, zeroline: false, range: [-0.5, right.length - 0.5], tickvals: places(right), ticktext: right.map(decimals), tickangle: 0 },
      yaxis: { title: { text: axisTitle(surface, 0) }, showgrid: false, zeroline: false, range: [down.length - 0.5, -0.5], tickvals: places(down), ticktext: down.map(decimals) },
    }, 680));
  }
}
