"use strict";
// pass@k of the held-out prompts: a picture for each k, with the interval as a band; all runs in one picture.

function buildEvaluations() {
  const place = document.getElementById("evaluation-charts");
  if (!place) return;
  place.before(...runLegend());
  const found = DATA.runs.flatMap((run) => Object.keys(run.evaluations.passAt)).map(Number);
  const ks = [...new Set(found)].sort((a, b) => a - b);
  for (const k of ks) {
    const box = figure(`pass@${k}`, "", "Share of held-out prompts; the band is the 95 % interval.", []);
    place.append(box);
    CURVES.drawings.push(picture(box, (target, width) => drawEvaluation(target, width, k)));
  }
}

function drawEvaluation(target, width, k) {
  const height = 190, edge = { left: 46, right: 10, top: 10, bottom: 22 }, column = CURVES.axis === "time" ? 1 : 0;
  sized(target, width, height, `pass@${k}`);
  const lines = DATA.runs.map((run, index) => ({ points: run.evaluations.passAt[k] || [], colour: HUES[index % HUES.length] }))
    .filter((line) => line.points.length);
  const all = lines.flatMap((line) => line.points);
  const places = all.map((point) => point[column]);
  const first = Math.min(0, ...places), last = Math.max(...places, first + 1);
  const high = Math.min(1, Math.max(...all.map((point) => point[4])) * 1.07 || 1), low = 0;
  const x = (value) => edge.left + (value - first) / (last - first || 1) * (width - edge.left - edge.right);
  const y = (value) => height - edge.bottom - (value - low) / (high - low || 1) * (height - edge.top - edge.bottom);
  drawAxes(target, { width, height, edge, low, high, first, last, x, y });
  for (const { points, colour } of lines) {
    const corners = [...points.map((one) => [one[column], one[4]]), ...[...points].reverse().map((one) => [one[column], one[3]])];
    target.append(svg("polygon", {
      points: corners.map(([at, value]) => `${x(at).toFixed(1)},${y(value).toFixed(1)}`).join(" "), fill: colour, opacity: 0.15,
    }));
    const middle = points.map((one) => `${x(one[column]).toFixed(1)},${y(one[2]).toFixed(1)}`).join(" ");
    target.append(svg("polyline", { points: middle, fill: "none", stroke: colour, "stroke-width": 2.2 }));
    for (const one of points) {
      const dot = svg("circle", { cx: x(one[column]), cy: y(one[2]), r: 3.5, fill: colour });
      dot.addEventListener("pointermove", (event) => showTip(
        event, `step ${number(one[0], 6)} · ${clock(one[1])}`,
        `${number(one[2])}, from ${number(one[3])} to ${number(one[4])}`,
      ));
      dot.addEventListener("pointerleave", hideTip);
      target.append(dot);
    }
  }
}
