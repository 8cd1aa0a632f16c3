"use strict";
// A lane for each process: what it did when.

const ACTIVITY = {
  generate: ["var(--orange)", "generates"], train: ["var(--green)", "trains"], publish: ["var(--blue)", "publishes weights"],
  load: ["var(--sky)", "loads weights"], checkpoint: ["var(--purple)", "writes a checkpoint"],
  start: ["var(--soft)", "starts"], wait: ["var(--idle)", "waits"], asleep: ["var(--sleep)", "asleep"],
  end: ["var(--ink)", "ends"],
};

function buildLanes() {
  const place = document.getElementById("lanes");
  if (!place) return;
  for (const run of DATA.runs) {
    if (!run.lanes) continue;
    const windows = run.lanes.windows;
    const used = new Set(windows.flatMap((window) => window.processes.flatMap((one) => one.spans.map((span) => span[2]))));
    const legend = Object.entries(ACTIVITY).filter(([what]) => used.has(what)).map(([, [colour, label]]) => [swatch(colour), label]);
    windows.forEach((window, index) => {
      const which = windows.length === 1 ? "The whole run" : index === 0 ? "The first minutes" : "The last minutes";
      const title = DATA.runs.length > 1 ? `${run.name}: ${which.toLowerCase()}` : which;
      const box = figure(title, "", "", legend, "strip");
      place.append(box);
      picture(box, (target, width) => drawLanes(target, width, window, title));
    });
  }
}

function drawLanes(target, width, window, label) {
  const laneHeight = window.processes.length > 12 ? 14 : window.processes.length > 4 ? 22 : 30, edge = { left: 74, right: 10, top: 4, bottom: 24 };
  const height = edge.top + window.processes.length * laneHeight + edge.bottom;
  sized(target, width, height, label);
  const x = (at) => edge.left + (at - window.start) / (window.end - window.start || 1) * (width - edge.left - edge.right);
  for (const at of timeTicks(window.start, window.end, Math.max(2, Math.floor(width / 90)))) {
    target.append(svg("line", { x1: x(at), x2: x(at), y1: edge.top, y2: height - edge.bottom + 4, stroke: "var(--grid)" }));
    target.append(svg("text", { x: x(at), y: height - 5, "text-anchor": "middle" }, clock(at)));
  }
  window.processes.forEach((process, lane) => {
    const top = edge.top + lane * laneHeight;
    target.append(svg("text", { x: edge.left - 8, y: top + laneHeight / 2 + 4, "text-anchor": "end", class: "name" }, process.name));
    for (const [start, end, what, of] of process.spans) {
      const [colour, word] = ACTIVITY[what] || ["var(--soft)", what];
      const rect = svg("rect", {
        x: x(start).toFixed(2), y: top + 2, width: Math.max(0.6, x(end) - x(start)).toFixed(2), height: laneHeight - 4,
        fill: colour, class: "span",
      });
      rect.addEventListener("pointermove", (event) => {
        const detail = of ? (what === "wait" || what === "asleep" ? `${word} for ${of}` : `${word}: ${of}`) : word;
        showTip(event, `${process.name} ${detail}`, `${clock(end - start)}, from ${clock(start)}`);
      });
      rect.addEventListener("pointerleave", hideTip);
      target.append(rect);
    }
  });
}
