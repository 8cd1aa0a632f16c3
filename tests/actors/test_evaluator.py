"""The evaluator against an in-memory hub, with the scripted engine; and how it asks prompts."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import LlamaForCausalLM

from actors.config import ActorsConfig
from actors.engine import Completion, EngineDiedError, EngineError, GenerateRequest
from actors.evaluation.evaluator import Evaluator
from actors.evaluation.measure import Examiner
from actors.evaluation.spec import EvalSpec
from actors.evaluation.summary import summarise
from actors.scripted_engine import ScriptedEngine
from actors.settings import RolloutSettings
from actors.text import ChatText
from protocol.config import ModelConfig, ScheduleConfig, WeightsConfig
from protocol.core_loan import EVALUATOR, CoreLoan
from protocol.messages import Drain, Phase
from protocol.version import PolicyVersion
from tasks.config import EvalConfig, TaskConfig
from telemetry import catalogue
from telemetry.config import TelemetryConfig
from telemetry.exporter import Exporter
from telemetry.timeline import Timeline, read_timeline
from tests.actors.fakes import CountingTask, FakeHub, FakePublisher, LengthRunner, make_llama, perturb
from tests.telemetry.scrape import scrape, value

V0, V10, V20, V30 = (PolicyVersion(1, step) for step in (0, 10, 20, 30))


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    folder = tmp_path_factory.mktemp("llama")
    return folder, make_llama(folder, tied=True)


class FewPrompts(CountingTask):
    """Six of the counting task's, every second one hard."""

    def __len__(self) -> int:
        return 6

    def difficulty(self, index: int) -> str:
        return "hard" if index % 2 else "easy"


@pytest.fixture(autouse=True)
def given_way(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How far evaluators gave way to others; not this process, in which they run here."""
    asked: list[int] = []
    monkeypatch.setattr("actors.evaluation.evaluator.give_way", asked.append)
    return asked


def make_settings(folder: Path, hub_address: str, run_dir: Path) -> RolloutSettings:
    return RolloutSettings(
        name="eval-0",
        hub_address=hub_address,
        model_path=folder,
        model=ModelConfig(path="tiny", max_context=64),
        actors=ActorsConfig(engine="scripted", group_size=3, max_tokens=5, concurrent_groups=4, heartbeat_s=0.05),
        schedule=ScheduleConfig(),
        weights=WeightsConfig(chunk_bytes=65536),
        task=TaskConfig(name="tests.actors.fakes:CountingTask", eval=EvalConfig(every=10)),
        telemetry=TelemetryConfig(),
        loan=CoreLoan(file=run_dir / "loans", seat=EVALUATOR, lent=[]),
        run_dir=run_dir,
    )


class World:
    """A hub, a publisher and an evaluator."""

    def __init__(self, folder: Path, module, run_dir: Path, spec: EvalSpec) -> None:
        self.module = module
        self.hub, self.publisher, self.runner = FakeHub(100), FakePublisher(), LengthRunner()
        self.settings = make_settings(folder, self.hub.server.address, run_dir)
        text = ChatText(folder)
        self.engine = ScriptedEngine(folder, self.settings.actors, text.stop_token_ids)
        self.exporter = Exporter("eval-0", self.settings.telemetry)
        self.timeline = Timeline(run_dir, "eval-0")
        self.examiner = Examiner(spec, self.settings, FewPrompts(), text, self.engine, self.runner)
        self.evaluator = Evaluator(self.settings, spec, self.examiner, self.engine, self.exporter, self.timeline)
        self.stop = asyncio.Event()

    async def publish(self, version: PolicyVersion) -> None:
        await self.hub.push(self.publisher.publish(version, self.module))

    def told(self) -> list[tuple[int, bool]]:
        """Steps in the order in which the hub heard of them, and whether they were evaluated."""
        return [(message.version.step, message.result is not None) for message in self.hub.evaluated]


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[World]:
    """The evaluator at work; stopped at the end, and its error raised."""
    task = asyncio.create_task(world.evaluator.run(world.stop))
    try:
        await world.hub.until(lambda: world.hub.hellos)
        yield world
    finally:
        world.stop.set()
        await asyncio.wait_for(task, 20)
        world.exporter.close()
        world.timeline.close()
        await world.publisher.close()
        await world.hub.close()


SPEC = EvalSpec((1, 2), 3, 1.0, True)


def test_weights_that_are_due_are_evaluated_and_told_with_their_version(model, tmp_path, given_way) -> None:
    async def scenario() -> None:
        world = World(*model, tmp_path, SPEC)
        async with running(world):
            await world.publish(V10)
            await world.hub.until(lambda: world.hub.evaluated)
            assert given_way == [10], "it shares the actors' cores"
            (message,) = world.hub.evaluated
            assert message.version == V10
            assert message.result is not None
            assert (message.result["n_prompts"], message.result["n_samples"]) == (6, 3)
            assert set(message.result["by_difficulty"]) == {"easy", "hard"}
            page = scrape(world.exporter)
            assert value(page, catalogue.EVAL_VERSION) == 10
            assert value(page, catalogue.EVAL_PASS, k="1") == pytest.approx(message.result["pass_at"]["1"]["mean"])
            assert world.hub.hellos[0].role == "evaluator"
            assert world.hub.leases == world.hub.groups == []
        assert world.hub.goodbyes == ["eval-0"]
        spans = read_timeline(tmp_path / "timeline" / "eval-0.jsonl")
        assert {"start", "load", "generate", "end"} <= {span.what for span in spans}

    asyncio.run(scenario())


def test_it_is_done_with_some_weights_before_it_loads_others_and_takes_the_newest_then(model, tmp_path) -> None:
    async def scenario() -> None:
        world = World(*model, tmp_path, SPEC)
        async with running(world):
            world.runner.gate.clear()
            await world.publish(V0)
            await world.hub.until(lambda: world.hub.last_beat.version == V0)
            for version in (V10, V20, V30):
                perturb(world.module, seed=version.step)
                await world.publish(version)
                # Fetched while it is busy, so that the learner may go on and forget them.
                await asyncio.wait_for(has_fetched(world, version), 20)
            assert world.engine.version == V0
            world.runner.gate.set()
            await world.hub.until(lambda: len(world.hub.evaluated) == 4)
            done = [step for step, is_evaluated in world.told() if is_evaluated]
            left_out = [step for step, is_evaluated in world.told() if not is_evaluated]
            assert (done, left_out) == ([0, 30], [10, 20])
            assert "step 30 was due before" in next(one.reason for one in world.hub.evaluated if one.version == V10)
            assert value(scrape(world.exporter), catalogue.EVAL_LEFT_OUT) == 2

    asyncio.run(scenario())


async def has_fetched(world: World, version: PolicyVersion) -> None:
    while not any(fetch.version == version for fetch in world.publisher.fetches):
        await asyncio.sleep(0.01)
    while world.evaluator._receiver._done != version:
        await asyncio.sleep(0.01)


def test_weights_that_are_gone_are_told_and_the_next_are_evaluated(model, tmp_path) -> None:
    async def scenario() -> None:
        world = World(*model, tmp_path, SPEC)
        async with running(world):
            manifest = world.publisher.publish(V10, world.module)
            del world.publisher.data[V10]
            await world.hub.push(manifest)
            await world.hub.until(lambda: world.hub.evaluated)
            assert world.told() == [(10, False)]
            assert "not served" in world.hub.evaluated[0].reason
            await world.publish(V20)
            await world.hub.until(lambda: len(world.hub.evaluated) == 2)
            assert world.told() == [(10, False), (20, True)]

    asyncio.run(scenario())


def test_the_turns_and_the_drain_of_actors_are_nothing_to_it(model, tmp_path) -> None:
    async def scenario() -> None:
        world = World(*model, tmp_path, SPEC)
        async with running(world):
            await world.hub.push(Phase(generating=False))
            await world.hub.push(Drain(reason="the run is over"))
            await world.publish(V10)
            await world.hub.until(lambda: world.hub.evaluated)
            # Told again after a hello, weights are not evaluated again, nor told to be left out.
            assert world.hub.manifest is not None
            await world.hub.push(world.hub.manifest)
            await world.publish(V20)
            await world.hub.until(lambda: len(world.hub.evaluated) == 2)
            assert world.told() == [(10, True), (20, True)]

    asyncio.run(scenario())


# --- how prompts are asked --------------------------------------------------------------------------


class NotingEngine:
    """Answers every request with one token, and keeps it."""

    def __init__(self, failing: str = "", error: type[EngineError] = EngineError) -> None:
        self.requests: list[GenerateRequest] = []
        self._failing, self._error = failing, error

    async def generate(self, request: GenerateRequest) -> list[Completion]:
        self.requests.append(request)
        if request.entry_id == self._failing:
            raise self._error("no room")
        token = np.array([5], np.int32)
        one = Completion(token, np.zeros(1, np.float32), [(V0, 1)], "stop")
        return [one] * request.num_completions


def ask(model, tmp_path, spec: EvalSpec, engine: NotingEngine, runner_failing: tuple[int, ...] = (), task=None):
    settings = make_settings(model[0], "", tmp_path)

    async def scenario():
        runner = LengthRunner(runner_failing)
        return await Examiner(spec, settings, task or FewPrompts(), ChatText(model[0]), engine, runner).ask_all()

    return asyncio.run(scenario())


def test_each_prompt_is_asked_at_the_temperature_and_once_greedily(model, tmp_path) -> None:
    engine = NotingEngine()
    outcomes = ask(model, tmp_path, EvalSpec((1,), 3, 0.7, True), engine)
    asked = {(one.entry_id, one.num_completions, one.temperature) for one in engine.requests}
    assert asked == {(f"eval:{i}", 3, 0.7) for i in range(6)} | {(f"greedy:{i}", 1, 0.0) for i in range(6)}
    temperatures = [one.temperature for one in engine.requests]
    assert temperatures == sorted(temperatures, reverse=True), "the greedy ones after all others"
    assert [len(outcome.sampled) for outcome in outcomes] == [3] * 6
    assert all(outcome.greedy is not None for outcome in outcomes)
    assert [outcome.difficulty for outcome in outcomes] == ["easy", "hard"] * 3


def test_only_the_first_prompts_and_no_greedy_answers_where_so_asked(model, tmp_path) -> None:
    engine = NotingEngine()
    outcomes = ask(model, tmp_path, EvalSpec((1,), 2, 1.0, False, prompts=4), engine)
    assert [one.entry_id for one in engine.requests] == [f"eval:{i}" for i in range(4)]
    assert [outcome.greedy for outcome in outcomes] == [None] * 4


def test_prompts_and_rewards_that_fail_are_counted_with_their_reason(model, tmp_path) -> None:
    spec = EvalSpec((1,), 2, 1.0, True)
    found = summarise(ask(model, tmp_path, spec, NotingEngine(failing="eval:1"), runner_failing=(4,)), spec)
    # Prompt 1 has no answer but the greedy one, and prompt 4 no rewards: two completions and three.
    assert found["unjudged"] == 5
    assert found["unjudged_reason"] == "prompt 1: no room"
    assert found["pass_at"]["1"]["prompts"] == 4
    longer = EvalSpec((1,), 2, 1.0, False, prompts=14)
    too_long = summarise(ask(model, tmp_path, longer, NotingEngine(), task=CountingTask()), longer)
    assert too_long["unjudged"] == 2
    assert "prompt 13 has 500 tokens" in too_long["unjudged_reason"]


def test_a_difficulty_that_cannot_be_told_costs_no_answer(model, tmp_path, caplog: pytest.LogCaptureFixture) -> None:
    class Unsure(FewPrompts):
        def difficulty(self, index: int) -> str:
            if index in (2, 3):
                raise KeyError("level")
            return super().difficulty(index)

    spec = EvalSpec((1,), 2, 1.0, False)
    outcomes = ask(model, tmp_path, spec, NotingEngine(), task=Unsure())
    assert [outcome.difficulty for outcome in outcomes] == ["easy", "hard", None, None, "easy", "hard"]
    assert summarise(outcomes, spec)["n_prompts"] == 6
    assert "2 prompts are left out of the difficulties: difficulty(2) raised KeyError: 'level'" in caplog.text


def test_a_dead_engine_ends_the_evaluation_rather_than_scoring_nothing(model, tmp_path) -> None:
    with pytest.raises(EngineDiedError):
        ask(model, tmp_path, SPEC, NotingEngine(failing="eval:1", error=EngineDiedError))


def test_the_scripted_engine_answers_greedily_with_the_likeliest_token(model, tmp_path) -> None:
    folder, _ = model
    text = ChatText(folder)
    prompt = text.encode([{"role": "user", "content": "3 4 5"}])

    async def scenario() -> list[Completion]:
        config = ActorsConfig(engine="scripted", max_tokens=5)
        engine = ScriptedEngine(folder, config, text.stop_token_ids)
        await engine.start(V0)
        request = GenerateRequest("greedy:0", prompt, 1, 3, 0.0, 0)
        try:
            first = await engine.generate(request)
            return [*first, *await engine.generate(dataclasses.replace(request, seed=99, entry_id="greedy:1"))]
        finally:
            await engine.close()

    first, second = asyncio.run(scenario())
    # As saved: other tests change the module.
    module = LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits = module(input_ids=torch.from_numpy(prompt.astype("int64"))[None]).logits[0, -1]
    assert first.token_ids[0] == int(logits.argmax())
    assert first.token_ids.tolist() == second.token_ids.tolist()
    assert first.logprobs.tolist() == [0.0] * len(first.token_ids)
