"use strict";
// What all pictures share. Text reaches the page by textContent alone, so that no completion can be markup.

const DATA = JSON.parse(document.getElementById("data").textContent);
const HUES = ["blue", "orange", "green", "red", "purple", "sky"].map((name) => `var(--${name})`);
const SVG = "http://www.w3.org/2000/svg";

function html(tag, properties = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

function swatch(colour, dash) {
  const mark = html("i", { className: dash === undefined ? "swatch" : "swatch line" });
  if (dash === undefined) mark.style.background = colour;
  else Object.assign(mark.style, { borderColor: colour, borderTopStyle: dash ? "dashed" : "solid" });
  return mark;
}

// --- numbers ---

function number(value, digits = 3) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) < 1e-12) return "0";
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e7)) return value.toExponential(Math.min(digits, 2) - 1);
  const places = size >= 100 ? 0 : Math.max(0, digits - 1 - Math.floor(Math.log10(size || 1)));
  return value.toLocaleString("en", { maximumFractionDigits: Math.min(places, 6) });
}

function clock(seconds) {
  if (seconds < 60) return `${number(seconds, 3)} s`;
  const whole = Math.round(seconds), rest = String(whole % 60).padStart(2, "0");
  if (whole < 3600) return `${Math.floor(whole / 60)}:${rest}`;
  return `${Math.floor(whole / 3600)}:${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${rest}`;
}

// Round numbers from low to high, about as many as asked for.
function ticks(low, high, count, steps = [1, 2, 2.5, 5, 10]) {
  const raw = (high - low) / Math.max(count, 1) || 1, power = 10 ** Math.floor(Math.log10(raw));
  const stride = steps.map((step) => step * power).find((step) => step >= raw * 0.999) || 10 * power;
  // Counted beforehand: where rounding is larger than the stride, a loop up to `high` would never get there.
  const first = Math.ceil(low / stride - 1e-9), last = Math.min(Math.floor(high / stride + 1e-9), first + 50);
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, index) => (first + index) * stride);
}

function timeTicks(low, high, count) {
  const strides = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 21600, 43200, 86400];
  const stride = strides.find((one) => (high - low) / one <= count) || 86400 * Math.ceil((high - low) / count / 86400);
  const found = [];
  for (let at = Math.ceil(low / stride) * stride; at <= high; at += stride) found.push(at);
  return found;
}

// --- the tip that follows the pointer ---

const TIP = html("div", { id: "tip", hidden: true });
document.body.append(TIP);

function showTip(event, ...lines) {
  TIP.replaceChildren(...lines.map((line) => html("div", {}, ...[line].flat())));
  TIP.hidden = false;
  const box = TIP.getBoundingClientRect(), gap = 14;
  const left = event.clientX + gap + box.width > innerWidth ? event.clientX - gap - box.width : event.clientX + gap;
  const top = event.clientY + gap + box.height > innerHeight ? event.clientY - gap - box.height : event.clientY + gap;
  TIP.style.left = `${Math.max(4, left)}px`;
  TIP.style.top = `${Math.max(4, top)}px`;
}

function hideTip() { TIP.hidden = true; }

// --- pictures that are drawn anew when their width changes ---

const PICTURES = [];

function picture(parent, draw) {
  const place = svg("svg", { role: "img" });
  parent.append(place);
  const drawing = { width: 0, redraw: () => { place.replaceChildren(); hideTip(); draw(place, drawing.width); } };
  drawing.fit = () => {
    const width = Math.floor(place.getBoundingClientRect().width);
    if (width <= 0 || width === drawing.width) return;
    drawing.width = width;
    drawing.redraw();
  };
  // Not at once: drawing changes the height, which the observer would call a loop.
  new ResizeObserver(() => requestAnimationFrame(drawing.fit)).observe(parent);
  PICTURES.push(drawing);
  return drawing;
}

function sized(place, width, height, label) {
  place.setAttribute("viewBox", `0 0 ${width} ${height}`);
  place.setAttribute("height", height);
  place.setAttribute("aria-label", label);
}

// Which colour is which run; said once a section, not in every picture.
function runLegend() {
  if (DATA.runs.length === 1) return [];
  const names = DATA.runs.map((run, index) => html("li", {}, swatch(HUES[index % HUES.length]), run.name));
  return [html("ul", { className: "legend key" }, ...names)];
}

function figure(title, unit, tells, legend, className = "") {
  const head = html("figcaption", {}, html("b", {}, title + " ", html("span", { className: "unit", textContent: unit })));
  if (legend.length) {
    head.append(html("ul", { className: "legend" }, ...legend.map(([mark, label]) => html("li", {}, mark, label))));
  }
  return html("figure", { className }, head, html("p", { textContent: tells }));
}
