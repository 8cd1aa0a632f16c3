"""report.html: what a run did, in one file that needs nothing else, neither scripts nor a network."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from telemetry.plots import write_plots
from telemetry.record import DIAGNOSTICS, Record
from telemetry.run_dir import RunDirectory, write_atomically
from telemetry.summary import (
    STATES,
    WINDOW,
    Figures,
    compute_figures,
    format_duration,
    format_number,
    ledger_line,
)

_RECENT = 20
"""Steps at the end of the run over which the table by lag is taken."""
_LAG_COLUMNS = {
    "share": "share of tokens",
    "ratio_mean": "mean ratio",
    "clipped_fraction": "clipped",
    "ess_fraction": "effective sample",
    "kl_behaviour": "KL, nats",
}
_CSS = """
:root { color-scheme: light dark; --ink: #1f2937; --soft: #6b7280; --line: #e5e7eb; --card: #f9fafb; --page: #fff;
  --good: #007a5a; --bad: #b3400a; }
@media (prefers-color-scheme: dark) { :root { --ink: #e5e7eb; --soft: #9ca3af; --line: #374151; --card: #1f2937;
  --page: #111827; --good: #34d399; --bad: #fb923c; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 2.5rem 1.25rem 4rem; max-width: 68rem; background: var(--page); color: var(--ink);
  font: 16px/1.5 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.7rem; } h2 { margin: 2.5rem 0 .75rem; font-size: 1.15rem; }
p { margin: .25rem 0; } .soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .75rem; margin-top: 1.5rem; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: .8rem 1rem; }
.card b { display: block; font-size: 1.5rem; font-variant-numeric: tabular-nums; line-height: 1.3; }
.card small { color: var(--soft); }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 30rem), 1fr)); gap: 1rem; }
.plots img { width: 100%; border: 1px solid var(--line); border-radius: .6rem; background: #fff; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-size: .92rem; font-variant-numeric: tabular-nums; }
th, td { padding: .35rem .75rem .35rem 0; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
th { color: var(--soft); font-weight: 500; } td.number, th.number { text-align: right; }
code { font: .9em ui-monospace, monospace; overflow-wrap: anywhere; }
details > summary { cursor: pointer; } details { margin: .5rem 0; }
"""


def write_report(run_dir: RunDirectory, status: Mapping[str, Any] | None = None) -> Path:
    """Draw the plots anew and write the run's report.html.

    Args:
        run_dir: the run's folder.
        status: the ledger at the end, as in the hub's Status: "ledger" (entries by state), "opened", "events". None
            leaves it out.

    Returns:
        Its path.

    Raises:
        RunDirectoryError: the folder's configuration is missing or damaged.
    """
    config = run_dir.read_config()
    bound = config["schedule"]["max_staleness"]
    plots = write_plots(run_dir, max_staleness=bound)
    page = render_report(run_dir.name, config, run_dir.read_metrics(), status, plots)
    write_atomically(run_dir.report_path, page)
    return run_dir.report_path


def render_report(
    name: str,
    config: Mapping[str, Any],
    records: Sequence[Record],
    status: Mapping[str, Any] | None,
    plots: Iterable[Path],
) -> str:
    """The page. `config` is the run's whole configuration, `status` as in `write_report`."""
    figures = compute_figures(records)
    schedule = config["schedule"]
    intro = f"{schedule['mode']} · {config['model']['path']} · {config['task']['name']}"
    sections = [
        f"<h1>{escape(name)}</h1><p class='soft'>{escape(intro)}</p>",
        _cards(figures, schedule["max_staleness"]),
        _section("Pictures", _images(plots)) if records else "<p>No optimizer step was completed.</p>",
        _section("By lag", _lag_table(records)),
        _section("Ledger", _ledger(status)),
        _section("Evaluations", _evaluations(records)),
        _section("Configuration", "".join(_config_table(key, value) for key, value in config.items())),
    ]
    head = f"<meta charset='utf-8'><meta name='viewport' content='width=device-width'><title>{escape(name)}</title>"
    body = "\n".join(section for section in sections if section)
    return f"<!doctype html><html lang='en'><head>{head}<style>{_CSS}</style></head>\n<body>{body}</body></html>\n"


def _section(title: str, content: str) -> str:
    return f"<h2>{title}</h2>{content}" if content else ""


def _cards(figures: Figures, bound: int) -> str:
    is_within = figures.lag_max <= bound
    busy = figures.wait_s + figures.train_s + figures.publish_s
    waiting = f"learner waited {100 * figures.wait_s / busy:.0f} % of its time" if busy else ""
    filtered = figures.groups_filtered / max(figures.groups + figures.groups_filtered, 1)
    cards = [
        (format_number(figures.reward_last), f"reward at last, {format_number(figures.reward_first)} at first", ""),
        (format_number(figures.reward_best), f"best reward (means of {WINDOW} steps)", ""),
        (format_duration(figures.elapsed_s), f"for {figures.steps:,} steps; {waiting}", ""),
        (f"{figures.lag_max} of {bound}", "largest lag of a token, and its bound", "good" if is_within else "bad"),
        (format_number(figures.generated_tokens_per_s, 0), "tokens/s generated", ""),
        (format_number(figures.trained_tokens_per_s, 0), f"tokens/s trained; {figures.tokens_trained:,} in all", ""),
        (_percent(figures.ess_fraction), "effective sample size", ""),
        (_percent(filtered), f"of {figures.groups + figures.groups_filtered:,} groups had no signal", ""),
        (format_number(figures.logprob_diff_mean, 4), "nats between generator and trainer at equal version", ""),
    ]
    items = (
        f"<div class='card'><b class='{kind}'>{escape(big)}</b><small>{escape(small)}</small></div>"
        for big, small, kind in cards
    )
    return f"<div class='cards'>{''.join(items)}</div>"


def _images(plots: Iterable[Path]) -> str:
    images = []
    for path in plots:
        data = base64.b64encode(path.read_bytes()).decode()
        images.append(f"<img alt='{escape(path.stem)}' src='data:image/png;base64,{data}'>")
    return f"<div class='plots'>{''.join(images)}</div>"


def _lag_table(records: Sequence[Record]) -> str:
    rows = lag_rows([record for record in records if record.get(DIAGNOSTICS)][-_RECENT:])
    if not rows:
        return ""
    cells = [
        [
            row["lag"],
            _percent(row["share"]),
            format_number(row["ratio_mean"], 3),
            _percent(row["clipped_fraction"], 1),
            _percent(row["ess_fraction"], 1),
            format_number(row["kl_behaviour"], 4),
        ]
        for row in rows
    ]
    return f"<p class='soft'>The last {min(len(records), _RECENT)} steps.</p>" + _table(
        ["lag", *_LAG_COLUMNS.values()], cells
    )


def lag_rows(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Diagnostics by lag over these records, each step weighed by its tokens of that lag."""
    sums: dict[int, dict[str, tuple[float, float]]] = {}
    tokens: dict[int, int] = {}
    for record in records:
        for label, values in (record[DIAGNOSTICS].get("by_lag") or {}).items():
            lag, count = int(label), values.get("tokens") or 0
            tokens[lag] = tokens.get(lag, 0) + count
            for key in _LAG_COLUMNS:
                if values.get(key) is not None:
                    total, weight = sums.setdefault(lag, {}).get(key, (0.0, 0.0))
                    sums[lag][key] = (total + count * values[key], weight + count)
    everything = sum(tokens.values())
    rows = []
    for lag in sorted(tokens):
        means = {key: total / weight for key, (total, weight) in sums.get(lag, {}).items() if weight}
        share = tokens[lag] / everything if everything else None
        rows.append({**dict.fromkeys(_LAG_COLUMNS), **means, "lag": str(lag), "share": share})
    return rows


def _ledger(status: Mapping[str, Any] | None) -> str:
    if status is None:
        return ""
    counts = status["ledger"]
    kind = "good" if sum(counts.values()) == status["opened"] else "bad"
    rows = [[state.replace("_", "-"), f"{counts[state]:,}"] for state in STATES if counts.get(state)]
    events = [[name.replace("_", " "), f"{count:,}"] for name, count in sorted(status["events"].items()) if count]
    text = f"<p class='{kind}'>{escape(ledger_line(status))}</p>"
    text += _table(["state", "prompts"], rows)
    return text + (_table(["event", "times"], events) if events else "")


def _evaluations(records: Sequence[Record]) -> str:
    done = [record for record in records if record["eval"]]
    if not done:
        return ""
    names = sorted({name for record in done for name in record["eval"]})
    cells = [[str(record["step"]), *(_value(record["eval"].get(name)) for name in names)] for record in done]
    return _table(["step", *names], cells)


def _config_table(section: str, values: Any) -> str:
    fields = values.items() if isinstance(values, Mapping) else [("", values)]
    rows = "".join(
        f"<tr><td><code>{escape(str(key))}</code></td><td><code>{escape(_value(value))}</code></td></tr>"
        for key, value in fields
    )
    title = f"<summary><code>[{escape(section)}]</code></summary>"
    return f"<details>{title}<div class='scroll'><table>{rows}</table></div></details>"


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)


def _percent(share: float | None, digits: int = 0) -> str:
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column names and whose others count."""
    kinds = ["", *["number"] * (len(head) - 1)]
    top = "".join(f"<th class='{kind}'>{escape(text)}</th>" for text, kind in zip(head, kinds, strict=True))
    body = "".join(
        "<tr>"
        + "".join(f"<td class='{kind}'>{escape(text)}</td>" for text, kind in zip(row, kinds, strict=True))
        + "</tr>"
        for row in rows
    )
    return f"<div class='scroll'><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"
