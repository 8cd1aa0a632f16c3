"""What each clip, baseline and method adds in bias, measured where the true gradient can be summed.

    python -m bench.estimator_bias        prints the table, writes bench/results/estimator_bias.json; a minute or two

The policy is a table: completions of up to three tokens out of four, one of which ends them, with a logit for every
token after every beginning. There are 40 completions, so that the gradient of the expected reward is a sum. The policy
is moved by small noisy steps of gradient ascent; its last state is the trainer, and that of l steps before is the
generator of lag l. Groups of 8 completions are drawn from the generator, and the losses are the learner's own
(`learner.losses`), so that what is measured is what trains.

    bias        |E ĝ − g| / |g|, in per cent, with the noise of the sample taken off, and its standard error
    cosine      of the angle between E ĝ and g: Adam forgives a wrong length, and nothing forgives a wrong direction
    spread      √(trace of the covariance of ĝ over single groups) / |g|
    error       √(bias² + spread² / 24) of a batch of 24 groups, as a share of |g|

A second table has the baselines at several pass rates, with all groups and with those alone whose rewards differ, as
`buffer.filter_zero_signal` has it: the others then count as gradients of 0, so that a length can be told.
"""

from __future__ import annotations

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from learner.losses import Switches, Tokens, interpolate_proximal, kept_tokens, policy_loss

RESULT = Path(__file__).parent / "results" / "estimator_bias.json"
NUM_TOKENS, STOP, MAX_LENGTH, GROUP_SIZE, BATCH_GROUPS = 4, 0, 3, 8, 24
LAGS = (0, 1, 2, 4, 8, 16, 32)
STEP_SIZE, STEP_NOISE, SUCCESS = 0.1, 1.0, 0.3
CHUNK = 10_000
M2_THRESHOLD = 0.04

RECOMPUTED = "recomputed"
"""Not a switch: how far back the proximal policy lies, as a share of the lag. At 0 it is the one that trains, as it is
at a broadcast every step, which a run refuses; at 1 the one that generated."""
UNCLIPPED = {"loss": "rapid", "weight_clip": None, "baseline": "leave_one_out"}
ESTIMATORS: dict[str, dict] = {
    # The clip, with a baseline that adds nothing unless the weights are clipped.
    "sequence, no clip": UNCLIPPED,
    "sequence, clip 5": {**UNCLIPPED, "weight_clip": 5.0},
    "sequence, clip 3": {**UNCLIPPED, "weight_clip": 3.0},
    "sequence, clip 2": {**UNCLIPPED, "weight_clip": 2.0},
    "sequence, clip 1.5": {**UNCLIPPED, "weight_clip": 1.5},
    "sequence, clip 1.2": {**UNCLIPPED, "weight_clip": 1.2},
    "sequence, clip 0.5 to 2": {**UNCLIPPED, "weight_clip": 2.0, "weight_clip_low": 0.5},
    "sequence, clip 2, tighter by lag": {**UNCLIPPED, "weight_clip": 2.0, "clip_lag_factor": 0.9},
    # The level.
    "token, no clip": {**UNCLIPPED, "weight_level": "token"},
    "token, clip 2": {**UNCLIPPED, "weight_level": "token", "weight_clip": 2.0},
    "length-normalised, no clip": {**UNCLIPPED, "weight_level": "length_normalised"},
    "no weight (policy_gradient)": {"loss": "policy_gradient", "baseline": "leave_one_out"},
    # The baseline, without a clip.
    "clip 2, no baseline": {**UNCLIPPED, "weight_clip": 2.0, "baseline": "none"},
    "no clip, no baseline": {**UNCLIPPED, "baseline": "none"},
    "no clip, plain baseline": {**UNCLIPPED, "baseline": "plain"},
    "no clip, weighted baseline": {**UNCLIPPED, "baseline": "weighted"},
    "no clip, self-normalised baseline": {**UNCLIPPED, "baseline": "self_normalised"},
    # The default, and what else changes the target.
    "RAPID: clip 2, weighted baseline": {"loss": "rapid"},
    "RAPID, divided by the deviation": {"loss": "rapid", "advantage_scale": "std"},
    "RAPID, divided by the length": {"loss": "rapid", "normaliser": "length"},
    # Other methods.
    "PPO / GRPO clip 0.2": {"loss": "grpo", "baseline": "leave_one_out"},
    "DAPO clip 0.2 / 0.28": {"loss": "grpo", "baseline": "leave_one_out", "clip_high": 0.28},
    "GSPO clip 0.0003 / 0.0004": {
        "loss": "gspo",
        "baseline": "leave_one_out",
        "clip_low": 3e-4,
        "clip_high": 4e-4,
    },
    "CISPO, TIS: token, clip 2": {"loss": "cispo", "baseline": "leave_one_out"},
    "IcePop 0.5 to 5": {"loss": "icepop", "baseline": "leave_one_out", "mask_low": 0.5},
    "decoupled PPO, interpolated, s = 1": {"loss": "decoupled_ppo", "baseline": "leave_one_out"},
    "decoupled PPO, recomputed, H = 1": {"loss": "decoupled_ppo", "baseline": "leave_one_out", RECOMPUTED: 0.0},
    "decoupled PPO, recomputed, s = lag/2": {"loss": "decoupled_ppo", "baseline": "leave_one_out", RECOMPUTED: 0.5},
    "decoupled PPO, recomputed, s = lag": {"loss": "decoupled_ppo", "baseline": "leave_one_out", RECOMPUTED: 1.0},
    "M2PO 0.04": {"loss": "m2po", "baseline": "leave_one_out"},
}
PASS_RATES, PASS_RATE_LAG = ((8, 1.0), (32, 1.0), (32, 2.0), (32, 2.5), (32, 3.0)), 8
"""Where the baselines are compared: steps of the line, and what its logits are multiplied by. A factor raises the pass
rate and leaves the KL of a lag as it is; a longer line would take it down, too."""
BASELINES: dict[str, tuple[dict, float]] = {
    "weighted (RAPID)": ({"loss": "rapid"}, 0.0),
    "weighted, rewards + 1": ({"loss": "rapid"}, 1.0),
    "leave-one-out": ({"loss": "rapid", "baseline": "leave_one_out"}, 0.0),
    "self-normalised": ({"loss": "rapid", "baseline": "self_normalised"}, 0.0),
    "plain": ({"loss": "rapid", "baseline": "plain"}, 0.0),
    "none": ({"loss": "rapid", "baseline": "none"}, 0.0),
}
"""All with sequence weights clipped at 2, and what is added to every reward, which leaves the true gradient alone."""


@dataclass(frozen=True)
class Task:
    """All completions of the table and their rewards. S completions, L tokens at most, X beginnings."""

    contexts: torch.Tensor
    """int64 (S, L), the beginning that each token comes after; 0 behind the end."""
    tokens: torch.Tensor
    """int64 (S, L); 0 behind the end."""
    is_token: torch.Tensor
    """bool (S, L)."""
    rewards: torch.Tensor
    """float64 (S,), 0 or 1."""
    num_contexts: int

    def logprobs(self, logits: torch.Tensor) -> torch.Tensor:
        """log π of each token, float64 (S, L); 0 behind the end."""
        return logits.log_softmax(-1)[self.contexts, self.tokens] * self.is_token

    def expected_reward(self, logits: torch.Tensor) -> torch.Tensor:
        """The sum over all completions, with gradient."""
        return (self.logprobs(logits).sum(1).exp() * self.rewards).sum()

    def gradient(self, logits: torch.Tensor) -> torch.Tensor:
        """The true gradient, (X, tokens)."""
        leaf = logits.detach().requires_grad_()
        return torch.autograd.grad(self.expected_reward(leaf), leaf)[0]


def make_task(seed: int = 0) -> Task:
    """Completions by counting, rewards by drawing."""
    beginnings: list[tuple[int, ...]] = [()]
    rows: list[tuple[int, ...]] = []
    for beginning in beginnings:
        for token in range(NUM_TOKENS):
            longer = (*beginning, token)
            if token == STOP or len(longer) == MAX_LENGTH:
                rows.append(longer)
            else:
                beginnings.append(longer)
    number = {beginning: index for index, beginning in enumerate(beginnings)}

    def padded(values: list[int]) -> list[int]:
        return values + [0] * (MAX_LENGTH - len(values))

    generator = torch.Generator().manual_seed(seed)
    return Task(
        contexts=torch.tensor([padded([number[row[:place]] for place in range(len(row))]) for row in rows]),
        tokens=torch.tensor([padded(list(row)) for row in rows]),
        is_token=torch.tensor([[place < len(row) for place in range(MAX_LENGTH)] for row in rows]),
        rewards=(torch.rand(len(rows), generator=generator) < SUCCESS).double(),
        num_contexts=len(beginnings),
    )


def make_line(task: Task, num_steps: int, seed: int = 1) -> list[torch.Tensor]:
    """Logits of successive policies, oldest first: steps of one length, half gradient and half noise."""
    generator = torch.Generator().manual_seed(seed)
    shape = (task.num_contexts, NUM_TOKENS)
    line = [0.5 * torch.randn(shape, generator=generator, dtype=torch.float64)]
    for _ in range(num_steps):
        gradient = task.gradient(line[-1])
        noise = torch.randn(shape, generator=generator, dtype=torch.float64)
        line.append(line[-1] + STEP_SIZE * (gradient / gradient.norm() + STEP_NOISE * noise / noise.norm()))
    return line


def make_sharp_line(task: Task, num_steps: int, factor: float, seed: int = 1) -> list[torch.Tensor]:
    """The same with all logits multiplied, which makes policies surer of what is right."""
    return [factor * logits for logits in make_line(task, num_steps, seed)]


@dataclass(frozen=True)
class Sample:
    """N groups of completions drawn from a generator."""

    task: Task
    line: Sequence[torch.Tensor]
    """Logits of successive policies, oldest first; the newest trains."""
    lag: int
    drawn: torch.Tensor
    """int64 (N, G), which completions."""

    @property
    def trainer(self) -> torch.Tensor:
        """Logits of the policy that trains."""
        return self.line[-1]

    @property
    def generator(self) -> torch.Tensor:
        """Logits of the policy that drew."""
        return self.line[-1 - self.lag]

    @property
    def has_signal(self) -> torch.Tensor:
        """bool (N,), whether the rewards of a group differ."""
        rewards = self.task.rewards[self.drawn]
        return (rewards != rewards[:, :1]).any(1)

    @property
    def kl(self) -> float:
        """KL(μ‖π), in nats a token."""
        mu, pi = self.task.logprobs(self.generator), self.task.logprobs(self.trainer)
        shares = mu.sum(1).exp()
        return float((shares * (mu - pi).sum(1)).sum() / (shares * self.task.is_token.sum(1)).sum())

    def tokens(self, **extras: torch.Tensor) -> tuple[Tokens, torch.Tensor]:
        """What the losses take, and the row of the task's tables for each token, as (T, 2) places."""
        chosen = self.drawn.flatten()
        is_token = self.task.is_token[chosen]
        places = is_token.nonzero()
        table = torch.stack([chosen[places[:, 0]], places[:, 1]], 1)
        pi, mu = (self.task.logprobs(logits)[table[:, 0], table[:, 1]] for logits in (self.trainer, self.generator))
        tokens = Tokens(
            trainer=pi.clone().requires_grad_(),
            held=pi,
            generator=mu,
            completion_of=places[:, 0],
            group_of=torch.arange(len(self.drawn)).repeat_interleave(self.drawn.shape[1]),
            rewards=self.task.rewards[chosen],
            lags=torch.full_like(places[:, 0], self.lag),
            **extras,
        )
        return tokens, table


def draw(task: Task, line: list[torch.Tensor], lag: int, num_groups: int, seed: int = 2) -> Sample:
    """Groups of the generator that lies `lag` steps before the newest policy of the line."""
    random = torch.Generator().manual_seed(1000 * seed + lag)
    shares = task.logprobs(line[-1 - lag]).sum(1).exp()
    drawn = torch.multinomial(shares, num_groups * GROUP_SIZE, replacement=True, generator=random)
    return Sample(task, line, lag, drawn.view(num_groups, GROUP_SIZE))


def group_gradients(sample: Sample, options: dict) -> torch.Tensor:
    """The estimate of each group alone, as ascent: (N, X · tokens)."""
    switches = Switches(**{name: value for name, value in options.items() if name != RECOMPUTED})
    tokens, table = sample.tokens()
    extras = {}
    if switches.loss == "m2po":
        extras["kept"] = kept_tokens(tokens, switches, M2_THRESHOLD)
    if switches.loss == "decoupled_ppo":
        extras["proximal"] = _proximal(sample, tokens, table, options.get(RECOMPUTED))
    if extras:
        tokens, table = sample.tokens(**extras)
    # With a count of one the loss is the sum over groups, each of which is an estimate.
    loss = policy_loss(tokens, switches, num_groups=1, num_tokens=len(tokens.trainer)).loss
    (coefficients,) = torch.autograd.grad(-loss, tokens.trainer)
    contexts, chosen = (values[table[:, 0], table[:, 1]] for values in (sample.task.contexts, sample.task.tokens))
    # ∂ log π(token | beginning) / ∂ logits = onehot − p
    slopes = -sample.trainer.softmax(-1)[contexts] * coefficients[:, None]
    slopes[torch.arange(len(chosen)), chosen] += coefficients
    owners = tokens.group_of[tokens.completion_of] * sample.task.num_contexts + contexts
    total = torch.zeros(len(sample.drawn) * sample.task.num_contexts, NUM_TOKENS, dtype=torch.float64)
    return total.index_add(0, owners, slopes).view(len(sample.drawn), -1)


def _proximal(sample: Sample, tokens: Tokens, table: torch.Tensor, share: float | None) -> torch.Tensor:
    """log π_prox of each token: that of a policy of the line, or without a share interpolated one step back."""
    if share is None:
        assert tokens.lags is not None
        return interpolate_proximal(tokens.held, tokens.generator, tokens.lags, 1)
    steps = int(share * sample.lag)
    return sample.task.logprobs(sample.line[-1 - steps])[table[:, 0], table[:, 1]]


def measure(sample: Sample, options: dict, *, is_filtered: bool = False) -> dict[str, float]:
    """Bias, its standard error, direction and spread of an estimator; see the top of this file.

    `is_filtered` counts groups whose rewards are all equal as gradients of 0.
    """
    truth = sample.task.gradient(sample.trainer).flatten()
    size = float(truth.norm())
    count, total, squares = len(sample.drawn), torch.zeros_like(truth), 0.0
    # M2PO's mask belongs to the whole sample; all else is by group, and can be cut.
    chunk = count if options["loss"] == "m2po" else CHUNK
    for start in range(0, count, chunk):
        part = replace(sample, drawn=sample.drawn[start : start + chunk])
        found = group_gradients(part, options)
        if is_filtered:
            found = found * part.has_signal[:, None]
        total, squares = total + found.sum(0), squares + float(found.square().sum())
    mean = total / count
    variance = (squares / count - float(mean.square().sum())) * count / (count - 1)
    noise = variance / count
    distance = float((mean - truth).square().sum())
    bias = math.sqrt(max(distance - noise, 0.0)) / size
    spread = math.sqrt(variance) / size
    return {
        "bias": bias,
        "bias_standard_error": math.sqrt(noise) / size,
        "is_seen": distance > 4 * noise,
        "cosine": float(mean @ truth) / (float(mean.norm()) * size),
        "spread": spread,
        "error": math.sqrt(bias**2 + spread**2 / BATCH_GROUPS),
    }


def main() -> None:
    """Measure all estimators at all lags, and the baselines at all pass rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--groups", type=int, default=100_000, help="groups drawn for each lag")
    parser.add_argument("--seed", type=int, default=2, help="of rewards, policies and draws")
    options = parser.parse_args()
    task = make_task(options.seed)
    line = make_line(task, max(LAGS), options.seed + 1)
    rows = []
    for lag in LAGS:
        sample = draw(task, line, lag, options.groups, options.seed + 2)
        for name, switches in ESTIMATORS.items():
            rows.append({"lag": lag, "kl": sample.kl, "estimator": name, **measure(sample, switches)})
        print(f"lag {lag}: KL {sample.kl:.4f} nats a token", flush=True)
    print_table(rows)
    pass_rates = measure_pass_rates(task, options.groups, options.seed)
    print_pass_rates(pass_rates)
    RESULT.parent.mkdir(exist_ok=True)
    command = f"python -m bench.estimator_bias --groups {options.groups} --seed {options.seed}"
    result = {"command": command, "group_size": GROUP_SIZE, "rows": rows, "pass_rates": pass_rates}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")


def measure_pass_rates(task: Task, num_groups: int, seed: int) -> list[dict]:
    """The baselines at one lag before several policies of the line, with all groups and with the filter."""
    rows = []
    for steps, factor in PASS_RATES:
        sample = draw(task, make_sharp_line(task, steps, factor, seed + 1), PASS_RATE_LAG, num_groups, seed + 2)
        place = {
            "pass_rate": float(task.expected_reward(sample.trainer)),
            "kl": sample.kl,
            "groups_with_signal": float(sample.has_signal.double().mean()),
        }
        for name, (switches, shift) in BASELINES.items():
            shifted = replace(sample, task=replace(task, rewards=task.rewards + shift))
            for is_filtered in (False, True):
                found = measure(shifted, switches, is_filtered=is_filtered)
                rows.append({**place, "baseline": name, "is_filtered": is_filtered, **found})
    return rows


def print_table(rows: list[dict]) -> None:
    """Markdown: an estimator a line, "bias % (cosine, spread)" for each lag."""
    kls = {row["lag"]: row["kl"] for row in rows}
    print("| estimator | " + " | ".join(f"lag {lag}" for lag in kls) + " |")
    print("|---" * (len(kls) + 1) + "|")
    print("| KL, nats a token | " + " | ".join(f"{kl:.3f}" for kl in kls.values()) + " |")
    for name in dict.fromkeys(row["estimator"] for row in rows):
        cells = [_cell(row) for row in rows if row["estimator"] == name]
        print(f"| {name} | " + " | ".join(cells) + " |")


def print_pass_rates(rows: list[dict]) -> None:
    """Markdown: a baseline a line, with all groups and with the filter, and the cells of the table above."""
    places = {row["pass_rate"]: row for row in rows}
    print("| baseline | groups | " + " | ".join(f"pass rate {rate:.3f}" for rate in places) + " |")
    print("|---" * (len(places) + 2) + "|")
    print("| KL, nats a token | | " + " | ".join(f"{place['kl']:.3f}" for place in places.values()) + " |")
    shares = [f"{100 * place['groups_with_signal']:.0f} %" for place in places.values()]
    print("| groups with signal | | " + " | ".join(shares) + " |")
    for name in BASELINES:
        for is_filtered in (False, True):
            cells = [_cell(row) for row in rows if (row["baseline"], row["is_filtered"]) == (name, is_filtered)]
            print(f"| {name} | {'filtered' if is_filtered else 'all'} | " + " | ".join(cells) + " |")


def _cell(row: dict) -> str:
    bias = f"{100 * row['bias']:.1f}" if row["is_seen"] else f"<{200 * row['bias_standard_error']:.1f}"
    return f"{bias} ({row['cosine']:.3f}, {row['spread']:.1f})"


if __name__ == "__main__":
    main()
