"use strict";
// Curves over steps or time: single steps thin, trailing means thick, all runs in one picture.

const CURVES = { axis: "step", smoothing: 5, drawings: [] };

function smooth(values, window) {
  return values.map((_, end) => {
    let sum = 0, count = 0;
    for (let at = Math.max(0, end - window + 1); at <= end; at++) {
      if (values[at] !== null) { sum += values[at]; count++; }
    }
    return count ? sum / count : null;
  });
}

// What a chart draws: one entry a run and line, in the colour of the run, or of the line where there is one run.
function chartSeries(chart) {
  const found = [];
  DATA.runs.forEach((run, runIndex) => chart.lines.forEach((line, lineIndex) => {
    const column = run.columns[line.key];
    if (!column || column.every((value) => value === null)) return;
    const alone = DATA.runs.length === 1;
    found.push({
      run, colour: HUES[(alone ? lineIndex : runIndex) % HUES.length], dash: alone ? "" : ["", "5 4", "1 4"][lineIndex] || "",
      label: alone ? line.label : chart.lines.length > 1 ? `${run.name}, ${line.label}` : run.name, exact: line.is_exact,
      values: column.map((value) => value === null ? null : value * chart.scale),
    });
  }));
  return found;
}

function buildCurves() {
  const place = document.getElementById("charts");
  if (!place) return;
  document.getElementById("curve-controls").append(...runLegend());
  for (const chart of DATA.charts) {
    const series = chartSeries(chart);
    if (!series.length) continue;
    const legend = lineLegend(chart, series);
    const box = figure(chart.title, chart.unit, chart.tells, legend, chart.is_wide ? "wide" : "");
    place.append(box);
    CURVES.drawings.push(picture(box, (target, width) => drawCurve(target, width, chart, series)));
  }
  const slider = document.getElementById("smoothing"), output = document.getElementById("smoothing-value");
  const steps = Math.max(...DATA.runs.map((run) => run.columns.step.length));
  slider.max = Math.max(2, Math.min(50, Math.floor(steps / 2)));
  const react = () => {
    CURVES.smoothing = Number(slider.value);
    output.textContent = CURVES.smoothing > 1 ? `${CURVES.smoothing} steps` : "off";
    CURVES.drawings.forEach((drawing) => drawing.width && drawing.redraw());
  };
  slider.addEventListener("input", react);
  for (const button of document.querySelectorAll("[data-axis]")) {
    button.addEventListener("click", () => {
      CURVES.axis = button.dataset.axis;
      document.querySelectorAll("[data-axis]").forEach((one) => one.setAttribute("aria-pressed", one === button));
      react();
    });
  }
  react();
}

function lineLegend(chart, series) {
  if (chart.lines.length === 1) return [];
  if (DATA.runs.length === 1) return series.map((one) => [swatch(one.colour, one.dash), one.label]);
  const first = series.filter((one) => one.run === series[0].run);
  return first.map((one, index) => [swatch("var(--soft)", one.dash), chart.lines[index].label]);
}

function reach(chart, series, means) {
  const known = series.flatMap((one) => one.values.filter((value) => value !== null)).sort((a, b) => a - b);
  // A single wild step must not flatten everything else.
  const at = (share) => known[Math.round(share * (known.length - 1))];
  const trimmed = known.length >= 50 ? [at(0.01), at(0.99)] : [known[0], known[known.length - 1]];
  const all = [...trimmed, ...means.flat().filter((value) => value !== null)];
  if (chart.mark) all.push(...marks(chart));
  let low = Math.min(...all), high = Math.max(...all);
  if (chart.from_zero) low = Math.min(0, low);
  // Means of a constant differ in their last digits.
  if (high - low <= 1e-9 * Math.max(Math.abs(low), Math.abs(high))) { high += Math.abs(high) * 0.1 || 1; low -= chart.from_zero ? 0 : Math.abs(low) * 0.1; }
  const room = (high - low) * 0.07;
  return [chart.from_zero && low === 0 ? 0 : low - room, high + room];
}

function marks(chart) {
  return chart.mark === "bound" ? [...new Set(DATA.runs.map((run) => run.bound))] : [Number(chart.mark)];
}

function drawCurve(target, width, chart, series) {
  const height = 190, edge = { left: 46, right: 10, top: 10, bottom: 22 };
  sized(target, width, height, chart.title);
  const means = series.map((one) => one.exact ? one.values : smooth(one.values, CURVES.smoothing));
  const [low, high] = reach(chart, series, means);
  const places = series.map((one) => one.run.columns[CURVES.axis]);
  const first = Math.min(...places.map((list) => list[0])), last = Math.max(...places.map((list) => list[list.length - 1]));
  const x = (value) => edge.left + (value - first) / (last - first || 1) * (width - edge.left - edge.right);
  const y = (value) => height - edge.bottom - (value - low) / (high - low) * (height - edge.top - edge.bottom);
  drawAxes(target, { width, height, edge, low, high, first, last, x, y });
  for (const level of chart.mark ? marks(chart) : []) {
    target.append(svg("line", {
      x1: edge.left, x2: width - edge.right, y1: y(level), y2: y(level), stroke: "var(--red)", "stroke-dasharray": "5 4",
    }));
  }
  // A name of its own: the page may hold many pictures.
  const clip = `clip-${chart.title.replace(/\W+/g, "-")}`;
  target.append(svg("clipPath", { id: clip }, svg("rect", {
    x: edge.left, y: edge.top - 6, width: width - edge.left - edge.right + 6, height: height - edge.top - edge.bottom + 7,
  })));
  const inside = svg("g", { "clip-path": `url(#${clip})` });
  target.append(inside);
  series.forEach((one, index) => {
    const draw = (values, attributes) => inside.append(svg("path", {
      d: path(places[index], values, x, y), fill: "none", stroke: one.colour, "stroke-linejoin": "round",
      "stroke-linecap": "round", ...attributes,
    }));
    if (CURVES.smoothing > 1 && !one.exact) draw(one.values, { "stroke-width": 1, opacity: series.length > 3 ? 0.16 : 0.3 });
    draw(means[index], { "stroke-width": one.exact ? 1.4 : 2.2, ...(one.dash ? { "stroke-dasharray": one.dash } : {}) });
  });
  if (chart.lines[0].key === "reward_mean") drawEvaluations(inside, x, y);
  addHover(target, { width, height, edge, x, series, means, places, y });
}

function path(places, values, x, y) {
  let text = "", pen = "M";
  values.forEach((value, index) => {
    if (value === null) { pen = "M"; return; }
    // A value alone among gaps is a dot of its own, not nothing.
    text += `${pen}${x(places[index]).toFixed(1)} ${y(value).toFixed(1)}`;
    if (pen === "M") text += "h0";
    pen = "L";
  });
  return text;
}

function drawAxes(target, { width, height, edge, low, high, first, last, x, y }) {
  for (const level of ticks(low, high, 4)) {
    target.append(svg("line", { x1: edge.left, x2: width - edge.right, y1: y(level), y2: y(level), stroke: "var(--grid)" }));
    target.append(svg("text", { x: edge.left - 7, y: y(level) + 4, "text-anchor": "end" }, number(level)));
  }
  const count = Math.max(2, Math.floor((width - edge.left) / 70)), isTime = CURVES.axis === "time";
  const levels = isTime ? timeTicks(first, last, count) : ticks(first, last, count, [1, 2, 5, 10]).filter(Number.isInteger);
  for (const level of levels) {
    target.append(svg("text", { x: x(level), y: height - 6, "text-anchor": "middle" }, isTime ? clock(level) : number(level, 6)));
  }
}

function drawEvaluations(target, x, y) {
  DATA.runs.forEach((run, index) => run.evaluations.rewards.forEach(([step, time, value]) => {
    const left = x(CURVES.axis === "time" ? time : step), top = y(value);
    target.append(svg("path", {
      d: `M${left} ${top - 5}l5 5l-5 5l-5 -5z`, fill: DATA.runs.length > 1 ? HUES[index % HUES.length] : "var(--orange)",
    }));
  }));
}

function addHover(target, { width, height, edge, x, series, means, places, y }) {
  const line = svg("line", { y1: edge.top, y2: height - edge.bottom, stroke: "var(--soft)", visibility: "hidden" });
  const dots = series.map((one) => svg("circle", { r: 3.5, fill: one.colour, stroke: "var(--page)", visibility: "hidden" }));
  const area = svg("rect", {
    x: edge.left, y: 0, width: Math.max(0, width - edge.left - edge.right), height, fill: "transparent", class: "hover",
  });
  target.append(line, ...dots, area);
  const hide = () => { hideTip(); [line, ...dots].forEach((one) => one.setAttribute("visibility", "hidden")); };
  area.addEventListener("pointerleave", hide);
  area.addEventListener("pointermove", (event) => {
    const box = target.getBoundingClientRect(), wanted = (event.clientX - box.left) * width / box.width;
    const nearest = places.map((list) => closest(list, wanted, x));
    const at = nearest.reduce((best, index, which) =>
      Math.abs(x(places[which][index]) - wanted) < Math.abs(best - wanted) ? x(places[which][index]) : best, -1e9);
    line.setAttribute("x1", at); line.setAttribute("x2", at); line.setAttribute("visibility", "visible");
    const rows = series.map((one, which) => {
      const index = nearest[which], value = one.values[index], mean = means[which][index];
      const isNear = Math.abs(x(places[which][index]) - at) < 8 && mean !== null;
      dots[which].setAttribute("visibility", isNear ? "visible" : "hidden");
      if (isNear) { dots[which].setAttribute("cx", x(places[which][index])); dots[which].setAttribute("cy", y(mean)); }
      const label = series.length > 1 ? `${one.label} ` : "";
      const tail = CURVES.smoothing > 1 && !one.exact ? `  (mean ${number(mean, 4)})` : "";
      return [swatch(one.colour), `${label}${number(value, 4)}${tail}`];
    });
    const columns = series[0].run.columns, index = nearest[0];
    showTip(event, `step ${number(columns.step[index], 6)} · ${clock(columns.time[index])}`, ...rows);
  });
}

function closest(list, wanted, x) {
  let low = 0, high = list.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (x(list[middle]) < wanted) low = middle; else high = middle;
  }
  return Math.abs(x(list[low]) - wanted) <= Math.abs(x(list[high]) - wanted) ? low : high;
}
