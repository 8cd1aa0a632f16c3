"""A run's whole configuration: the sections of all folders, composed, and the rules that span sections."""

from __future__ import annotations

from pydantic import Field, field_validator

from actors.config import ActorsConfig
from buffer.config import BufferConfig, Sampler
from learner.config import AlgorithmConfig, LearnerConfig
from protocol.config import ModelConfig, ScheduleConfig, ScheduleMode, Section, WeightsConfig
from tasks.config import LEAN_TIMEOUT_S, TaskConfig
from tasks.sandbox import Limits
from telemetry.config import TelemetryConfig, check_dialable


class RunConfig(Section):
    """`[run]`: this run's name, place and randomness."""

    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    """Name of the run and of its folder. None takes the recipe's name and the time."""
    directory: str = "runs"
    """Folder that holds the runs, relative to where the command is given."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of prompt order, sampling and training."""
    host: str = "auto"
    """Address on which the hub and the weight publisher listen, and at which the other parts dial them. "auto" takes
    loopback on one machine and on a cluster the address of each one's node."""
    start_timeout_s: float = Field(600.0, gt=0)
    """Seconds that Ray may take to place the parts before the run is given up."""
    lend_cores: bool = True
    """Whether, in "async" on one machine, engines compute on the learner's cores, too, while it waits for a batch, and
    the learner on theirs while the staleness bound holds all actors up. Otherwise, and with a bound of 0, each part
    keeps to its own, and its number of threads, on which the last bits of its sums depend, stays the same."""

    @field_validator("host")
    @classmethod
    def _refuse_wildcards(cls, value: str) -> str:
        return check_dialable(value, "the other parts")


class RapidConfig(Section):
    """Everything that a recipe can say, one field for each section."""

    run: RunConfig = RunConfig()
    """This run's name, place and randomness."""
    model: ModelConfig
    """The language model that learns."""
    task: TaskConfig
    """What it learns: prompts and rewards."""
    actors: ActorsConfig = ActorsConfig()
    """Who generates."""
    buffer: BufferConfig = BufferConfig()
    """What lies between generation and training."""
    schedule: ScheduleConfig = Field(default_factory=lambda: ScheduleConfig.model_validate({}))
    """Who waits for whom."""
    algorithm: AlgorithmConfig = AlgorithmConfig()
    """The estimator of the policy gradient."""
    learner: LearnerConfig = LearnerConfig()
    """How the weights are trained."""
    weights: WeightsConfig = WeightsConfig()
    """How new weights reach the actors."""
    telemetry: TelemetryConfig = TelemetryConfig()
    """What is measured and shown."""

    def problems(self) -> list[str]:
        """What cannot work although each field is right by itself. Each line: field, value, bound, remedy."""
        return [
            *self._schedule_problems(),
            *self._batch_problems(),
            *self._proximal_problems(),
            *self._scaling_problems(),
            *self._reward_problems(),
            *self._transport_problems(),
            *self._evaluation_problems(),
        ]

    def _proximal_problems(self) -> list[str]:
        algorithm, every = self.algorithm, self.schedule.broadcast_every
        if algorithm.proximal == "none" or algorithm.proximal_lag is not None or every > 1:
            return []
        return [
            f'algorithm.proximal = "{algorithm.proximal}" with schedule.broadcast_every = {every}, where the weights '
            "of the last broadcast are those that train, so that every ratio is 1 and nothing is clipped: expected "
            'algorithm.proximal = "interpolated" with algorithm.proximal_lag = 1, or schedule.broadcast_every of at '
            "least 2"
        ]

    def _evaluation_problems(self) -> list[str]:
        every = self.task.eval.every if self.task.eval is not None else None
        if every is None or self.weights.transport == "zmq":
            return []
        return [
            f'task.eval.every = {every} with weights.transport = "{self.weights.transport}", whose receivers all take '
            'every version together, so that an evaluator would hold up the actors: choose weights.transport = "zmq", '
            "or learner.snapshot_every and `rapid eval RUN --snapshots`"
        ]

    def _reward_problems(self) -> list[str]:
        """A worker that is killed at its limit voids the group; a program or a proof that takes too long gets 0."""
        limits, reward_s = Limits(time_s=self.task.time_limit_s), self.actors.reward_timeout_s
        if self.task.is_code and limits.wall_s >= reward_s:
            return [
                f"task.time_limit_s = {limits.time_s:g}, which allows {limits.wall_s:g} s of wall time: expected less "
                f"than actors.reward_timeout_s = {reward_s:g}, so that a program that waits gets 0 "
                "and costs no worker; lower one or raise the other"
            ]
        proof_s = self.task.params.get("timeout_s", LEAN_TIMEOUT_S) if self.task.kind == "minif2f" else 0.0
        if isinstance(proof_s, int | float) and proof_s >= reward_s:
            return [
                f"task.params.timeout_s = {proof_s:g}, the seconds that Lean has for a proof: expected less than "
                f"actors.reward_timeout_s = {reward_s:g}, so that a proof that takes too long gets 0 and costs no "
                f"worker; lower it, or set actors.reward_timeout_s to {3 * proof_s:g}"
            ]
        return []

    def _scaling_problems(self) -> list[str]:
        scaling, found = self.actors.scaling, []
        if scaling != "fixed" and self.weights.transport != "zmq":
            found.append(
                f'actors.scaling = "{scaling}" with weights.transport = "{self.weights.transport}", whose receivers '
                'are as many throughout as at the start: expected "fixed"; or choose weights.transport = "zmq"'
            )
        if scaling == "advice" and self.schedule.mode is not ScheduleMode.ASYNC:
            found.append(
                f'actors.scaling = "advice" with schedule.mode = "{self.schedule.mode.value}", where actors and '
                'learner take turns and there is nothing to balance: expected "fixed" or "cluster", or mode "async"'
            )
        return found

    def _transport_problems(self) -> list[str]:
        transport, found = self.weights.transport, []
        if transport != "zmq" and self.actors.engine == "scripted":
            found.append(
                f'weights.transport = "{transport}" with actors.engine = "scripted", which takes weights by "zmq" '
                'only: expected weights.transport = "zmq"'
            )
        if transport != "zmq" and self.learner.ranks > 1:
            found.append(
                f'weights.transport = "{transport}" with learner.ranks = {self.learner.ranks}: expected one rank, or '
                'weights.transport = "zmq"'
            )
        reach = self.schedule.broadcast_every - 1
        if transport != "zmq" and self.schedule.mode is ScheduleMode.ALTERNATE and self.schedule.max_staleness > reach:
            # A round full of the last one's groups lets the engine sleep on, and these transports wait for it.
            found.append(
                f'weights.transport = "{transport}" with schedule.max_staleness = {self.schedule.max_staleness} in '
                f'"alternate": expected {reach}; leave it out, or choose weights.transport = "zmq"'
            )
        return found

    def _schedule_problems(self) -> list[str]:
        mode, every, bound = self.schedule.mode, self.schedule.broadcast_every, self.schedule.max_staleness
        if self.schedule.hold_staleness and (mode, every) != (ScheduleMode.ASYNC, 1):
            # Between two broadcasts actors may not fill the buffer up to the bound, so that nobody would ever go on.
            return [
                f'schedule.hold_staleness with schedule.mode = "{mode.value}" and schedule.broadcast_every = {every}: '
                'expected mode "async" and 1; leave hold_staleness out'
            ]
        if self.schedule.hold_staleness and self.buffer.sampler is not Sampler.FIFO:
            return [
                f'schedule.hold_staleness with buffer.sampler = "{self.buffer.sampler.value}": expected "fifo", which '
                "takes the oldest groups, so that all have the lag; leave sampler out"
            ]
        if mode is ScheduleMode.SYNC and (every, bound) != (1, 0):
            return [
                f'schedule.broadcast_every = {every} and schedule.max_staleness = {bound}: mode "sync" expects '
                'exactly 1 and 0; leave both out, or choose mode "async"'
            ]
        if bound < every - 1:
            return [
                f"schedule.max_staleness = {bound}: expected at least schedule.broadcast_every - 1 = {every - 1}, for "
                f"the last update before a broadcast trains on tokens that are {every - 1} steps old; raise "
                f"max_staleness to {every - 1}, or lower broadcast_every to {bound + 1}"
            ]
        if mode is ScheduleMode.ALTERNATE and bound > 2 * every - 1:
            return [
                f'schedule.max_staleness = {bound}: mode "alternate" expects broadcast_every - 1 = {every - 1}, or '
                f"up to 2 * broadcast_every - 1 = {2 * every - 1} for groups that go on in the next round; "
                'leave it out, or choose mode "async"'
            ]
        return []

    def _batch_problems(self) -> list[str]:
        found = []
        if self.actors.max_tokens >= self.model.max_context:
            found.append(
                f"actors.max_tokens = {self.actors.max_tokens}: expected less than model.max_context = "
                f"{self.model.max_context}, so that a prompt fits too; lower one or raise the other"
            )
        if self.actors.group_size < 2:
            found.append(
                f"actors.group_size = {self.actors.group_size}: expected at least 2, for a completion is compared "
                "with the others of its group"
            )
        return found
