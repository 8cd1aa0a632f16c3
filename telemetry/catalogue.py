"""Every metric of Rapid, declared once. `python -m telemetry.catalogue > docs/metrics.md` prints the reference.

The exporter, dashboards, alert rules, docs and tests read this file; a metric is named by its constant, and its
name as a string stands nowhere else.
"""

from __future__ import annotations

from telemetry.evaluations import KEYS as EVALUATION_KEYS
from telemetry.metric import PARTS, Kind, Metric, Reduction
from telemetry.record import DIAGNOSTICS, KEYS

METRICS: dict[str, Metric] = {}
"""All metrics by name, in the order of declaration."""

_SHORT_S = (0.005, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_LONG_S = (0.05, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 60.0, 180.0, 600.0)
_LAGS = (0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 12.0, 16.0, 24.0, 32.0, 64.0)
_TOKENS = (8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0, 2048.0, 4096.0, 8192.0, 16384.0)


def _add(metric: Metric) -> Metric:
    if metric.name in METRICS:
        raise ValueError(f"metric {metric.name} is declared twice")
    METRICS[metric.name] = metric
    return metric


def _name(part: str, what: str, unit: str) -> str:
    return "_".join(word for word in ("rapid", part, what, unit) if word)


def _gauge(
    part: str,
    what: str,
    unit: str,
    help: str,
    *,
    labels: tuple[str, ...] = (),
    reduction: Reduction = Reduction.LAST,
    record_key: str | None = None,
) -> Metric:
    name = _name(part, what, unit)
    return _add(Metric(name, Kind.GAUGE, help, unit, labels, reduction, record_key=record_key))


def _counter(
    part: str, what: str, unit: str, help: str, *, labels: tuple[str, ...] = (), record_key: str | None = None
) -> Metric:
    name = _name(part, what, unit) + "_total"
    return _add(Metric(name, Kind.COUNTER, help, unit, labels, Reduction.SUM, record_key=record_key))


def _histogram(
    part: str, what: str, unit: str, help: str, buckets: tuple[float, ...], *, record_key: str | None = None
) -> Metric:
    name = _name(part, what, unit)
    return _add(Metric(name, Kind.HISTOGRAM, help, unit, (), Reduction.SUM, buckets, record_key))


# --- hub --------------------------------------------------------------------------------------------

HUB_ENTRIES = _gauge("hub", "ledger", "entries", "Prompts of the ledger by state.", labels=("state",))
HUB_OPENED = _gauge("hub", "opened", "entries", "Prompts that the ledger has opened: what its states must add up to.")
HUB_BUFFERED = _gauge("hub", "buffered", "groups", "Groups waiting in the buffer, by lag.", labels=("lag",))
HUB_HELD_LEASES = _gauge("hub", "held", "leases", "Leases that actors hold.")
HUB_VERSION = _gauge("hub", "version", "steps", "Optimizer step committed last.")
HUB_BOUND = _gauge("hub", "staleness_bound", "steps", "Largest lag that a trained token may have.")
HUB_SCHEDULE = _gauge("hub", "schedule", "", "1 for the schedule that the run follows.", labels=("mode",))
HUB_PROGRESS = _gauge(
    "hub", "progress_timestamp", "seconds", "Unix time at which an entry, the version or the weights last moved."
)
HUB_STALL_LIMIT = _gauge("hub", "stall_limit", "seconds", "Time without progress after which a run counts as stalled.")
HUB_CLIENTS = _gauge("hub", "connected", "clients", "Clients heard of lately, by role.", labels=("role",))
HUB_ACTIVITY = _gauge(
    "hub", "activity", "clients", "Learner and actors, by what they do or wait for.", labels=("activity",)
)
LEARNER_STARVES = "learner waits for a batch"
"""The activity that means that generation is the bottleneck."""
HUB_LEASES_GRANTED = _counter("hub", "granted", "leases", "Leases granted to actors.")
HUB_LEASES_EXPIRED = _counter("hub", "expired", "leases", "Leases that ran out before their group came.")
HUB_LEASES_RETURNED = _counter(
    "hub", "returned", "leases", "Leases handed back: failed, or drained.", labels=("reason",)
)
HUB_GROUPS_SUBMITTED = _counter("hub", "submitted", "groups", "Groups accepted from actors.")
HUB_GROUPS_REFUSED = _counter("hub", "refused", "groups", "Groups refused because their lease had run out.")
HUB_GROUPS_STALE = _counter(
    "hub", "stale", "groups", "Groups beyond the staleness bound, by what became of them.", labels=("outcome",)
)
HUB_GROUPS_FILTERED = _counter("hub", "filtered", "groups", "Groups whose rewards were all equal.")
HUB_DEAD_LETTERS = _counter("hub", "dead_letter", "entries", "Prompts given up after too many failed attempts.")
HUB_TOKENS = _counter("hub", "received", "tokens", "Tokens of all groups accepted.")
HUB_GROUP_LAG = _histogram("hub", "group_lag", "steps", "Largest lag of each group that went to the learner.", _LAGS)
HUB_BATCH_WAIT = _histogram("hub", "batch_wait", "seconds", "Time from the pull of a batch to its answer.", _LONG_S)

# --- actor ------------------------------------------------------------------------------------------

ACTOR_TOKENS = _counter("actor", "generated", "tokens", "Tokens generated.")
ACTOR_TOKEN_RATE = _gauge(
    "actor", "generated", "tokens_per_second", "Tokens generated a second, lately.", reduction=Reduction.SUM
)
ACTOR_GROUPS = _counter("actor", "finished", "groups", "Groups generated, rewarded and accepted.")
ACTOR_GROUPS_FAILED = _counter("actor", "failed", "groups", "Groups handed back as failed.")
ACTOR_TRUNCATED = _counter("actor", "truncated", "completions", "Completions that met the token limit.")
ACTOR_COMPLETION_TOKENS = _histogram("actor", "completion", "tokens", "Length of completions.", _TOKENS)
ACTOR_BUSY = _gauge(
    "actor", "busy", "fraction", "Share of time in which the engine had requests.", reduction=Reduction.MIN
)
ACTOR_RUNNING = _gauge("actor", "running", "requests", "Completions in the engine.", reduction=Reduction.SUM)
ACTOR_WAITING = _gauge(
    "actor", "waiting", "requests", "Completions that wait in vLLM for a place in a step.", reduction=Reduction.SUM
)
ACTOR_KV_CACHE = _gauge(
    "actor", "kv_cache", "fraction", "Share of the engine's key-value cache in use.", reduction=Reduction.MAX
)
ACTOR_VERSION = _gauge("actor", "version", "steps", "Optimizer step of the weights loaded.", reduction=Reduction.MIN)
ACTOR_LOADED = _gauge(
    "actor",
    "weights_loaded_timestamp",
    "seconds",
    "Unix time at which the newest weights were loaded.",
    reduction=Reduction.MIN,
)
ACTOR_WEIGHT_FETCH = _histogram("actor", "weight_fetch", "seconds", "Time to fetch and verify weights.", _LONG_S)
ACTOR_WEIGHT_BYTES = _counter("actor", "weight_fetched", "bytes", "Bytes of weights fetched.")
ACTOR_STALL = _histogram("actor", "stall", "seconds", "Time that a weight update stopped generation.", _SHORT_S)
ACTOR_REWARD = _histogram("actor", "reward", "seconds", "Time to reward a group.", _SHORT_S)
ACTOR_REWARD_FAILURES = _counter(
    "actor", "reward", "failures", "Completions whose reward function raised, hung or returned no number."
)

# --- learner ----------------------------------------------------------------------------------------

LEARNER_STEP = _gauge("learner", "committed", "steps", "Optimizer steps done.", record_key="step")
LEARNER_INCARNATION = _gauge("learner", "incarnation", "", "Life of the learner.", record_key="incarnation")
LEARNER_SETTLED = _gauge("learner", "settled", "steps", "Optimizer step of the newest checkpoint.")
LEARNER_REWARD = _gauge(
    "learner", "reward_mean", "", "Mean reward of the groups that came in.", record_key="reward_mean"
)
LEARNER_TOKENS = _counter("learner", "trained", "tokens", "Completion tokens trained.", record_key="tokens_trained")
LEARNER_GROUPS = _counter("learner", "trained", "groups", "Groups trained.", record_key="groups")
LEARNER_GENERATED_RATE = _gauge(
    "learner",
    "generated",
    "tokens_per_second",
    "Tokens generated a second by all actors, over the last step.",
    record_key="generated_tokens_per_s",
)
LEARNER_TRAINED_RATE = _gauge(
    "learner",
    "trained",
    "tokens_per_second",
    "Tokens trained a second, over the last step.",
    record_key="trained_tokens_per_s",
)
LEARNER_COMPLETION_TOKENS = _gauge(
    "learner", "completion_mean", "tokens", "Mean length of a completion.", record_key="completion_tokens_mean"
)
LEARNER_LOSS = _gauge("learner", "loss", "", "Surrogate loss.", record_key="loss")
LEARNER_GRAD_NORM = _gauge("learner", "grad_norm", "", "Gradient norm before clipping.", record_key="grad_norm")
LEARNER_LR = _gauge("learner", "learning_rate", "", "Learning rate.", record_key="lr")
LEARNER_LAG_MEAN = _gauge("learner", "lag_mean", "steps", "Mean lag of the trained tokens.", record_key="lag_mean")
LEARNER_LAG_MAX = _gauge(
    "learner",
    "lag_max",
    "steps",
    "Largest lag of a trained token.",
    reduction=Reduction.MAX,
    record_key="lag_max",
)
LEARNER_RATIO = _gauge("learner", "ratio_mean", "", "Mean importance weight before clipping.", record_key="ratio_mean")
LEARNER_CLIPPED = _gauge(
    "learner", "clipped", "fraction", "Share of importance weights clipped.", record_key="clipped_fraction"
)
LEARNER_ESS = _gauge("learner", "ess", "fraction", "Effective sample size, as a share.", record_key="ess_fraction")
LEARNER_KL = _gauge(
    "learner", "kl_behaviour", "nats", "KL divergence from the generating policy.", record_key="kl_behaviour"
)
LEARNER_LOGPROB_DIFF = _gauge(
    "learner",
    "logprob_diff_mean",
    "nats",
    "Mean |generator - trainer| logprob at equal version.",
    record_key="logprob_diff_mean",
)
LEARNER_WAIT = _histogram("learner", "wait", "seconds", "Time waited for a batch.", _LONG_S, record_key="wait_s")
LEARNER_TRAIN = _histogram("learner", "train", "seconds", "Time of an update.", _LONG_S, record_key="train_s")
LEARNER_PUBLISH = _histogram(
    "learner", "publish", "seconds", "Time that publishing kept training waiting.", _SHORT_S, record_key="publish_s"
)
LEARNER_PUBLISHED_BYTES = _counter("learner", "published", "bytes", "Bytes of weights served to actors.")
LEARNER_CHECKPOINT = _histogram("learner", "checkpoint", "seconds", "Time to write a checkpoint.", _LONG_S)
LEARNER_LAG_TOKENS = _counter("learner", "lag", "tokens", "Tokens trained, by lag.", labels=("lag",))
LEARNER_LAG_ESS = _gauge("learner", "lag_ess", "fraction", "Effective sample size, by lag.", labels=("lag",))
LEARNER_LAG_CLIPPED = _gauge("learner", "lag_clipped", "fraction", "Share clipped, by lag.", labels=("lag",))
LEARNER_LAG_KL = _gauge("learner", "lag_kl_behaviour", "nats", "KL divergence, by lag.", labels=("lag",))
LEARNER_LAG_RATIO = _gauge("learner", "lag_ratio_mean", "", "Mean importance weight, by lag.", labels=("lag",))
LEARNER_LAG_QUANTILE = _gauge(
    "learner",
    "lag_ratio_quantile",
    "",
    "Quantile of the importance weights before clipping, by lag.",
    labels=("lag", "quantile"),
)
LEARNER_GRADIENT_COSINE = _gauge(
    "learner", "gradient_cosine", "", "Cosine between the gradients of a batch's fresher and staler half."
)
LEARNER_KL_REFERENCE = _gauge(
    "learner", "kl_reference", "nats", "KL divergence from the model that the run began with."
)
LEARNER_ENTROPY = _gauge("learner", "entropy", "nats", "Mean entropy of the policy at a token.")

# --- evaluator --------------------------------------------------------------------------------------

EVAL_VERSION = _gauge("eval", "version", "steps", "Optimizer step of the weights evaluated last.")
EVAL_PASS = _gauge("eval", "pass", "fraction", "pass@k of the held-out prompts.", labels=("k",))
EVAL_PASS_LOW = _gauge("eval", "pass_low", "fraction", "Lower end of the 95 % interval of pass@k.", labels=("k",))
EVAL_PASS_HIGH = _gauge("eval", "pass_high", "fraction", "Upper end of the 95 % interval of pass@k.", labels=("k",))
EVAL_GREEDY = _gauge("eval", "greedy", "fraction", "Held-out prompts whose likeliest completion is right.")
EVAL_REWARD = _gauge("eval", "reward_mean", "", "Mean reward of the held-out prompts.")
EVAL_TRUNCATED = _gauge("eval", "truncated", "fraction", "Completions drawn that met the token limit.")
EVAL_DURATION = _histogram("eval", "duration", "seconds", "Time to evaluate one version.", _LONG_S)
EVAL_UNJUDGED = _counter("eval", "unjudged", "completions", "Completions that could not be judged, and were left out.")
EVAL_LEFT_OUT = _counter("eval", "left_out", "versions", "Versions due whose evaluation was left out.")

# --- launcher ---------------------------------------------------------------------------------------

LAUNCHER_WANTED = _gauge("launcher", "wanted", "actors", "Actors that the run was asked to have.")
LAUNCHER_RUNNING = _gauge("launcher", "running", "actors", "Actors whose process lives.")
LAUNCHER_PENDING = _gauge("launcher", "pending", "actors", "Actors that wait for a place on the cluster.")
LAUNCHER_ADVISED = _gauge("launcher", "advised", "actors", "Actors that would balance the learner.")
LAUNCHER_RESTARTED = _counter("launcher", "restarted", "actors", "Actors started anew after their process died.")
LAUNCHER_DISK_FREE = _gauge("launcher", "disk_free", "bytes", "Free on the disk of the run's folder.")
LAUNCHER_DISK_SIZE = _gauge("launcher", "disk_size", "bytes", "Size of the disk of the run's folder.")

LAG_DIAGNOSTICS: dict[str, Metric] = {
    "tokens": LEARNER_LAG_TOKENS,
    "ess_fraction": LEARNER_LAG_ESS,
    "clipped_fraction": LEARNER_LAG_CLIPPED,
    "kl_behaviour": LEARNER_LAG_KL,
    "ratio_mean": LEARNER_LAG_RATIO,
}
"""Keys of `diagnostics["by_lag"]["0"]`, `["1"]`, ... in a metrics record, and the metric that each feeds."""

LAG_QUANTILES: dict[str, str] = {"ratio_p05": "0.05", "ratio_p50": "0.5", "ratio_p95": "0.95"}
"""More keys there: the quantiles of LEARNER_LAG_QUANTILE, and its label for each."""

OPTIONAL_DIAGNOSTICS: dict[str, Metric] = {
    "gradient_cosine": LEARNER_GRADIENT_COSINE,
    "kl_reference": LEARNER_KL_REFERENCE,
    "entropy": LEARNER_ENTROPY,
}
"""Keys of `diagnostics` that a record has where the run measures them, and the metric that each feeds."""


# --- reference --------------------------------------------------------------------------------------

_HEAD = """# Metrics

Generated from `telemetry/catalogue.py` and `telemetry/record.py` by `python -m telemetry.catalogue`; a test keeps it
current. Each process serves its part over HTTP at the address in the run's `exporters/PROCESS.json`. The launcher
keeps the addresses of all processes of a run in `runs/.targets/NAME.json`, so that Prometheus follows all runs with the
`file_sd_configs` pattern `runs/.targets/*.json` (`deploy/prometheus/prometheus.yml`).
"""


def render_reference() -> str:
    """The reference of all metrics and of metrics.jsonl, as markdown."""
    parts = [_HEAD]
    for part in PARTS:
        parts.append(f"## {part}\n\n| metric | kind | labels | over processes | meaning |\n|---|---|---|---|---|")
        parts.extend(_row(metric) for metric in METRICS.values() if metric.part == part)
        parts.append("")
    parts.append("## metrics.jsonl\n\nOne JSON object an optimizer step.\n\n| key | type | meaning |\n|---|---|---|")
    for key in KEYS:
        kind = {int: "integer", float: "number", dict: "map"}[key.kind] + (" or null" if key.nullable else "")
        parts.append(f"| `{key.name}` | {kind} | {key.help.replace('|', chr(92) + '|')} |")
    lag_keys = ", ".join(f"`{name}`" for name in (*LAG_DIAGNOSTICS, *LAG_QUANTILES))
    others = ", ".join(f"`{name}`" for name in OPTIONAL_DIAGNOSTICS)
    parts.append(
        f"| `{DIAGNOSTICS}` | map, optional | Whatever else, such as {others} where they are measured; `by_lag` holds, "
        f"for each lag, {lag_keys}. |\n"
    )
    parts.append(
        "## eval.jsonl\n\nOne JSON object for each version that was evaluated.\n\n| key | meaning |\n|---|---|"
    )
    parts.extend(f"| `{name}` | {meaning} |" for name, meaning in EVALUATION_KEYS.items())
    return "\n".join(parts) + "\n"


def _row(metric: Metric) -> str:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    meaning = metric.help.replace("|", "\\|")
    return f"| `{metric.name}` | {metric.kind.value} | {labels} | {metric.reduction.value} | {meaning} |"


if __name__ == "__main__":
    print(render_reference(), end="")
