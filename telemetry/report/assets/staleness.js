"use strict";
// Lag over steps as a heatmap, and what each lag did to the importance weights.

function buildStaleness() {
  const maps = document.getElementById("heatmaps"), bars = document.getElementById("by-lag");
  if (!maps) return;
  for (const run of DATA.runs) {
    if (!run.heatmap) continue;
    const title = DATA.runs.length > 1 ? `Lag over steps: ${run.name}` : "Lag over steps";
    const tells = "Share of each lag in the tokens of a step, from none (empty) to all (full). The dashed line is the bound.";
    const box = figure(title, "", tells, [], "strip");
    maps.append(box);
    picture(box, (target, width) => drawHeatmap(target, width, run.heatmap));
  }
  bars.before(...runLegend());
  const quantities = [
    ["share", "Tokens", "% of all", 100, "Where the tokens were."],
    ["ratio_mean", "Ratio", "π / μ", 1, "Mean, and 5 % to 95 % of all."],
    ["ess_fraction", "Effective", "%", 100, "Sample size left by the weights."],
    ["clipped_fraction", "Clipped", "%", 100, "Weights beyond the clip."],
    ["kl_behaviour", "KL", "nats", 1, "From the generating policy."],
  ];
  for (const [key, title, unit, scale, tells] of quantities) {
    const box = figure(`${title} by lag`, unit, tells, []);
    bars.append(box);
    picture(box, (target, width) => drawByLag(target, width, key, scale, title));
  }
}

function drawHeatmap(target, width, map) {
  const lags = map.shares[0].length, rowHeight = Math.max(8, Math.min(26, 200 / lags));
  const edge = { left: 46, right: 10, top: 4, bottom: 22 }, height = edge.top + lags * rowHeight + edge.bottom;
  sized(target, width, height, "share of each lag in the tokens of each step");
  const cell = (width - edge.left - edge.right) / map.columns.length;
  const top = (lag) => edge.top + (lags - 1 - lag) * rowHeight;
  map.shares.forEach((shares, column) => shares.forEach((share, lag) => {
    const rect = svg("rect", {
      x: (edge.left + column * cell).toFixed(2), y: top(lag), width: (cell + 0.3).toFixed(2), height: rowHeight - 1,
      fill: share > 0 ? "var(--blue)" : "var(--grid)", "fill-opacity": share > 0 ? (0.12 + 0.88 * share).toFixed(3) : 0.6,
    });
    const [first, last] = map.columns[column];
    rect.addEventListener("pointermove", (event) => showTip(
      event, first === last ? `step ${first}` : `steps ${first} to ${last}`, `lag ${lag}: ${number(100 * share)} % of the tokens`));
    rect.addEventListener("pointerleave", hideTip);
    target.append(rect);
  }));
  const every = Math.ceil(14 / rowHeight);
  for (let lag = 0; lag < lags; lag += every) {
    target.append(svg("text", { x: edge.left - 7, y: top(lag) + rowHeight / 2 + 3, "text-anchor": "end" }, `lag ${lag}`));
  }
  const stride = Math.ceil(60 / cell);
  for (let column = 0; column < map.columns.length; column += stride) {
    target.append(svg("text", { x: edge.left + (column + 0.5) * cell, y: height - 6, "text-anchor": "middle" },
      number(map.columns[column][0], 6)));
  }
  const bound = top(map.bound) - 0.5;
  target.append(svg("line", {
    x1: edge.left, x2: width - edge.right, y1: bound, y2: bound, stroke: "var(--red)", "stroke-dasharray": "5 4",
  }));
}

function drawByLag(target, width, key, scale, title) {
  const height = 150, edge = { left: 40, right: 6, top: 10, bottom: 22 };
  sized(target, width, height, `${title} by lag`);
  const lags = 1 + Math.max(0, ...DATA.runs.flatMap((run) => run.byLag.map((row) => row.lag)));
  const isRatio = key === "ratio_mean";
  const rows = DATA.runs.flatMap((run, index) => run.byLag.map((row) => ({ ...row, index })))
    .filter((row) => row[key] !== null);
  const values = rows.flatMap((row) => isRatio ? [row[key], row.ratio_p05, row.ratio_p95] : [row[key]])
    .filter((value) => value !== null).map((value) => value * scale);
  let low = isRatio ? Math.min(1, ...values) : 0, high = Math.max(isRatio ? 1 : 0, ...values);
  high += (high - low) * 0.08 || 1;
  if (isRatio) low -= (high - low) * 0.08;
  const y = (value) => height - edge.bottom - (value - low) / (high - low) * (height - edge.top - edge.bottom);
  const slot = (width - edge.left - edge.right) / lags, bar = Math.min(34, slot * 0.72 / DATA.runs.length);
  for (const level of ticks(low, high, 3)) {
    target.append(svg("line", { x1: edge.left, x2: width - edge.right, y1: y(level), y2: y(level), stroke: "var(--grid)" }));
    target.append(svg("text", { x: edge.left - 6, y: y(level) + 4, "text-anchor": "end" }, number(level)));
  }
  const every = Math.ceil(22 / slot);
  for (let lag = 0; lag < lags; lag += every) {
    target.append(svg("text", { x: edge.left + (lag + 0.5) * slot, y: height - 6, "text-anchor": "middle" }, String(lag)));
  }
  if (isRatio) {
    target.append(svg("line", { x1: edge.left, x2: width - edge.right, y1: y(1), y2: y(1), stroke: "var(--soft)", "stroke-dasharray": "2 3" }));
  }
  for (const row of rows) {
    const middle = edge.left + (row.lag + 0.5) * slot + (row.index - (DATA.runs.length - 1) / 2) * bar;
    const colour = HUES[row.index % HUES.length], group = svg("g");
    if (isRatio) {
      if (row.ratio_p05 !== null) {
        group.append(svg("line", { x1: middle, x2: middle, y1: y(row.ratio_p05), y2: y(row.ratio_p95), stroke: colour,
          "stroke-width": Math.min(10, bar * 0.5), "stroke-opacity": 0.3, "stroke-linecap": "round" }));
      }
      group.append(svg("circle", { cx: middle, cy: y(row[key]), r: 4.5, fill: colour }));
    } else {
      const top = y(row[key] * scale);
      group.append(svg("rect", { x: middle - bar * 0.45, y: top, width: bar * 0.9, height: Math.max(1, y(0) - top), rx: 2, fill: colour }));
    }
    group.addEventListener("pointermove", (event) => {
      const name = DATA.runs.length > 1 ? `${DATA.runs[row.index].name}, ` : "";
      const range = isRatio && row.ratio_p05 !== null ? [`${number(row.ratio_p05)} to ${number(row.ratio_p95)}`] : [];
      showTip(event, `${name}lag ${row.lag}: ${number(row[key] * scale, 4)}`, ...range, `${number(row.tokens, 7)} tokens`);
    });
    group.addEventListener("pointerleave", hideTip);
    target.append(group);
  }
}
