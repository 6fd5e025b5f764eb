"use strict";
// Draws what two methods do together; page.js, which comes after, calls it and has what it calls.

function surfacesOf(runs) {
  return runs.flatMap((run, index) => (run.surfaces || []).map(entry => {
    const label = entry.methods.map(method => method.label).join(", then ");
    const sides = entry.methods.map((method, i) => ({ run: index, method, axis: entry.axes[i] }));
    return { ...entry, sides, id: `${index} ${label}`, name: names[index] ? `${label}, ${names[index]}` : label };
  }));
}

function surfaceHover(surface, i, j) {
  const d = surface.damage[i][j], bounds = d.delta_nll_interval, sum = surface.additivity[i][j];
  const side = (which, index) => `${surface.methods[which].label}: ${index ? at(surface.sides[which], surface.severities[which][index]) : "unchanged"}`;
  const lines = [
    side(0, i), side(1, j),
    `ΔNLL ${signed(d.delta_nll)}${bounds && finite(bounds[0]) && i + j ? ` (${signed(bounds[0])} … ${signed(bounds[1])})` : ""} nats`,
    `perplexity ${number(d.perplexity)}, KL ${number(d.kl.mean, 3)}, top-1 agreement ${percent(d.top1_agreement)}`,
  ];
  if (finite(sum) && sum > 0) lines.push(`${(1 / sum).toFixed(1)} times the sum of each alone (${signed(surface.damage[i][0].delta_nll)} and ${signed(surface.damage[0][j].delta_nll)})`);
  if (d.within_noise_floor) lines.push("within the noise floor");
  return lines.join("\n");
}

// Where a severity lies between the columns, as a fraction of an index.
function columnOf(severities, severity) {
  for (let i = 1; i < severities.length; ++i) {
    const part = (severity - severities[i - 1]) / (severities[i] - severities[i - 1]);
    if (part <= 1 + 1e-9) return i - 1 + part;
  }
  return severities.length - 1;
}

function drawTogether(surfaces) {
  const wash = css("wash"), heat = css("heat"), ink = css("ink"), scale = makeScale("symlog", 0.01);
  for (const surface of surfaces) {
    const figure = figureOf("plots-together", surface.id, surface.name), place = figure.querySelector(".plot");
    const [down, right] = surface.severities, values = surface.damage.flat().map(d => d.delta_nll).filter(finite);
    const top = Math.max(1, ...values);
    legend(figure, [wash, heat], ["0", `+${number(top, 2)}`]);
    const severityText = (which, index) => index ? at(surface.sides[which], surface.severities[which][index]) : "unchanged";
    drawHeat(place, {
      room: room(place, PAPER.page), strip: 34, least: 54, fill: z => mix(wash, heat, Math.max(0, scale.to(z)) / scale.to(top)),
      title: `${surface.methods[1].label}: ${axisTitle(surface.sides[1])}`, columns: right.map((_, j) => ({ value: j, text: j ? amount(surface.sides[1], right[j]) : "unchanged" })),
      rows: down.map((_, i) => ({ name: severityText(0, i), cells: right.map((_, j) => {
        const z = surface.damage[i][j].delta_nll;
        return { column: j, z, text: signed(z), tip: surfaceHover(surface, i, j) };
      }) })),
      over: ({ across, pitch, top: begin, X, Y }) => settings.tolerances.map(t => ({
        name: `zone-${String(t).replace(".", "_")}`,
        data: { values: surface.zone[t].flatMap((edge, i) => {
          const censored = surface.zone_censored[t][i];
          const x = !finite(edge) ? across(-0.5) : censored ? across(right.length - 0.5) : across(columnOf(right, edge));
          return [{ x, y: begin(i) - 1 }, { x, y: begin(i) + pitch - 1 }];
        }) },
        mark: { type: "line", color: ink, strokeWidth: t === state.tolerance ? 3 : 1.4, strokeDash: t === state.tolerance ? [1, 0] : [2, 3] },
        encoding: { x: { ...X, field: "x" }, y: { ...Y, field: "y" }, order: { value: null } },
      })),
    });
  }
}
