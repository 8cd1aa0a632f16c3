"use strict";
// The browser of completions: pick a step and a group, see what was said and by which policy.

function buildBrowser() {
  const place = document.getElementById("browser");
  if (!place) return;
  const runs = DATA.runs.filter((run) => run.said.length);
  const state = { run: 0, step: runs[0].said.length - 1, group: 0 };
  const choice = html("select", { title: "Run" }, ...runs.map((run, index) => html("option", { value: index, textContent: run.name })));
  const back = html("button", { type: "button", textContent: "←", title: "Earlier step" });
  const forth = html("button", { type: "button", textContent: "→", title: "Later step" });
  const slider = html("input", { type: "range", min: 0, title: "Step" });
  const at = html("span", { className: "at" }), groups = html("span", { className: "controls" }), page = html("div");
  const go = (changes) => {
    Object.assign(state, changes);
    const said = runs[state.run].said;
    state.step = Math.max(0, Math.min(said.length - 1, state.step));
    const step = said[state.step];
    state.group = Math.min(state.group, step.groups.length - 1);
    slider.max = said.length - 1;
    slider.value = state.step;
    slider.disabled = said.length < 2;
    back.disabled = state.step === 0;
    forth.disabled = state.step === said.length - 1;
    at.textContent = `step ${step.step}`;
    groups.replaceChildren(...step.groups.map((group, index) => {
      const button = html("button", { type: "button", textContent: `group ${group.entry}` });
      button.setAttribute("aria-pressed", index === state.group);
      button.addEventListener("click", () => go({ group: index }));
      return button;
    }));
    page.replaceChildren(...showGroup(step.groups[state.group]));
  };
  choice.addEventListener("change", () => go({ run: Number(choice.value), step: 1e9, group: 0 }));
  back.addEventListener("click", () => go({ step: state.step - 1 }));
  forth.addEventListener("click", () => go({ step: state.step + 1 }));
  slider.addEventListener("input", () => go({ step: Number(slider.value) }));
  place.addEventListener("keydown", (event) => {
    if (event.target === slider || event.target === choice) return;
    if (event.key === "ArrowLeft") go({ step: state.step - 1 });
    if (event.key === "ArrowRight") go({ step: state.step + 1 });
  });
  place.append(html("div", { className: "browser-bar" }, ...(runs.length > 1 ? [choice] : []), back, forth, at, slider, groups), page);
  go({});
}

function showGroup(group) {
  const lags = [...new Set([group.best, group.worst].flatMap((one) => one.spans.map((span) => `${span[2]} ${span[1]}`)))].sort();
  const legend = lags.map((text) => {
    const [lag, version] = text.split(" ");
    const mark = html("i", { className: "swatch" });
    mark.style.background = shade(Number(lag));
    return html("li", {}, mark, `policy ${version}, lag ${lag}`);
  });
  const mean = `mean reward of the group ${number(group.reward_mean)}, ${group.num_completions} completions, ${group.actor}`;
  return [
    html("p", { className: "said prompt", textContent: group.prompt }),
    html("div", { className: "pair" }, showCompletion("Best", group.best), showCompletion("Worst", group.worst)),
    html("ul", { className: "legend" }, ...legend, html("li", { textContent: mean })),
  ];
}

// Lag 0 is hardly tinted: what stands out is what is old.
function shade(lag) {
  const hue = ["blue", "orange", "red", "purple", "green", "sky"][lag % 6];
  return `color-mix(in srgb, var(--${hue}) ${lag === 0 ? 14 : 38}%, transparent)`;
}

function showCompletion(title, completion) {
  const parts = Object.entries(completion.parts).map(([name, value]) => `${name} ${number(value)}`);
  const length = completion.tokens.length < completion.num_tokens
    ? `the first ${completion.tokens.length} of ${completion.num_tokens} tokens` : `${completion.num_tokens} tokens`;
  const stop = completion.stop === "stop" ? "ended by itself" : "cut at the limit";
  const said = html("p", { className: "said" });
  let index = 0;
  for (const [count, version, lag] of completion.spans) {
    for (const end = Math.min(index + count, completion.tokens.length); index < end; index++) {
      said.append(showToken(completion.tokens[index], index, version, lag));
    }
  }
  return html("div", { className: "completion" },
    html("h3", {}, title, html("span", { className: "reward", textContent: `reward ${number(completion.reward)}` })),
    html("p", { className: "facts", textContent: [...parts, length, stop].join(" · ") }), said);
}

function showToken(text, index, version, lag) {
  const shown = text.replaceAll("\n", "↵\n");
  const token = html("span", { className: /^<[^ ]*>$/.test(text) ? "token special" : "token", textContent: shown });
  token.style.background = shade(lag);
  token.addEventListener("pointermove", (event) => showTip(event, `token ${index + 1}`, `policy ${version}, lag ${lag}`));
  token.addEventListener("pointerleave", hideTip);
  return token;
}
