"""A hub without a ledger, for tests and benchmarks of the learner: it hands out the batches that it is given.

It checks what the learner asks of it, as the real one does: pulls for the version that comes next, commits of the
batch that was pulled, settlements of what was committed.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn

from protocol.endpoint import Server
from protocol.errors import RefusedError
from protocol.group import Group
from protocol.messages import (
    Acknowledge,
    AnyMessage,
    Batch,
    Commit,
    EvaluateLast,
    Heartbeat,
    Hello,
    LedgerState,
    Pull,
    Records,
    Settle,
    Snapshot,
    WeightManifest,
)
from protocol.status import ClientStatus, FleetStatus, Inspect, Status
from protocol.version import Lineage, PolicyVersion


class ScriptedHub:
    """Serves one learner from a thread of its own.

    Args:
        make_groups: the groups of the batch for a version; None when no batch will come any more.
        start: the version at which the learner begins.
    """

    def __init__(
        self,
        make_groups: Callable[[PolicyVersion], list[Group] | None],
        start: PolicyVersion = PolicyVersion(1, 0),  # noqa: B008, a frozen value
    ) -> None:
        self._make_groups = make_groups
        self._version = start
        self._pulled: dict[PolicyVersion, Batch] = {}
        self.events: list[tuple[str, str]] = []
        """What the learner asked for, in order: ("pull", "1.0"), ("commit", "1.1"), ..."""
        self.manifests: list[WeightManifest] = []
        """What it published."""
        self.records: list[dict[str, Any]] = []
        """The step records that it handed over."""
        self.evaluations: list[dict[str, Any]] = []
        """Those that its Status tells; set by the test."""
        self.evaluation_due: PolicyVersion | None = None
        """The weights that are being evaluated; set by the learner's EvaluateLast, and by the test."""
        self.fleet: FleetStatus | None = None
        """The launcher's account; set by the test."""
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="scripted-hub", daemon=True)
        self._thread.start()
        self._server, self._serving = asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()

    async def _open(self) -> tuple[Server, asyncio.Task[None]]:
        server = Server("tcp://127.0.0.1:*", self._answer)
        return server, asyncio.get_running_loop().create_task(server.serve())

    @property
    def address(self) -> str:
        """Where it listens."""
        return self._server.address

    async def _answer(self, peer: bytes, message: AnyMessage) -> AnyMessage:
        match message:
            case Pull():
                return self._pull(message)
            case Commit():
                self._commit(message)
            case WeightManifest():
                self.events.append(("publish", str(message.version)))
                self.manifests.append(message)
            case Snapshot():
                self.events.append(("snapshot", str(self._version)))
                return LedgerState(state={"version": str(self._version)})
            case Settle():
                if message.version != self._version:
                    raise RefusedError("bad_version", f"settled {message.version}, committed {self._version}")
                self.events.append(("settle", str(message.version)))
            case EvaluateLast():
                self.events.append(("evaluate last", str(message.version)))
                self.evaluation_due = message.version
            case Records():
                self.records += message.records
            case Inspect():
                return self._status()
            case Hello() | Heartbeat():
                pass
            case _:
                raise RefusedError("bad_message", f"a learner does not send {type(message).__name__}")
        return Acknowledge()

    def _pull(self, message: Pull) -> Batch:
        version = message.version
        if version.step > self._version.step + 1:
            raise RefusedError("bad_version", f"pull for {version}, committed {self._version}")
        if version not in self._pulled:
            self.events.append(("pull", str(version)))
            groups = self._make_groups(version)
            if groups is None:
                raise RefusedError("exhausted", "the script has ended")
            self._pulled[version] = Batch(
                batch_id=f"batch-{version}",
                version=version,
                groups=groups,
                lags=[0] * len(groups),
                groups_filtered=0,
                generated_tokens=sum(group.num_tokens for group in groups),
                reward_mean=float(np.mean([group.rewards.mean() for group in groups])),
            )
        return self._pulled[version]

    def _commit(self, message: Commit) -> None:
        batch = self._pulled.get(self._version)
        expected = PolicyVersion(self._version.incarnation, self._version.step + 1)
        if batch is None or message.batch_id != batch.batch_id or message.version != expected:
            raise RefusedError("bad_commit", f"commit of {message.batch_id} to {message.version}, expected {expected}")
        self._version = expected
        self.events.append(("commit", str(expected)))

    def _status(self) -> Status:
        actor = ClientStatus(
            name="actor-0", role="actor", version=self._version, waiting_for="", num_leases=0, seen_s=0.0, metrics={}
        )
        return Status(
            version=self._version,
            lineage=Lineage(),
            published=None,
            ledger={},
            opened=0,
            total=None,
            lags={},
            events={},
            clients=[actor],
            draining=False,
            fleet=self.fleet,
            evaluations=self.evaluations,
            evaluation_due=self.evaluation_due,
        )

    def close(self) -> None:
        """Close the socket and end the thread."""
        asyncio.run_coroutine_threadsafe(self._shut(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _shut(self) -> None:
        self._serving.cancel()
        await asyncio.gather(self._serving, return_exceptions=True)
        self._server.close()


@torch.no_grad()
def sample_group(
    model: nn.Module,
    entry_id: str,
    prompt: list[int],
    lengths: list[int],
    *,
    version: PolicyVersion,
    seed: int,
    temperature: float = 1.0,
) -> Group:
    """A group drawn from `model` token by token, with its true log-probabilities.

    Completion i has lengths[i] tokens; its reward is the share of even tokens, which a policy can learn to raise.
    """
    generator = torch.Generator().manual_seed(seed)
    tokens: list[int] = []
    logprobs: list[float] = []
    for length in lengths:
        context = list(prompt)
        for _ in range(length):
            logits = model(input_ids=torch.tensor([context]), use_cache=False).logits[0, -1].float() / temperature
            token = int(torch.multinomial(logits.softmax(-1), 1, generator=generator))
            logprobs.append(float(logits.log_softmax(-1)[token]))
            context.append(token)
        tokens += context[len(prompt) :]
    token_ids = np.array(tokens, dtype=np.int32)
    parts = np.split(token_ids, np.cumsum(lengths)[:-1])
    count = len(lengths)
    return Group(
        entry_id=entry_id,
        prompt_token_ids=np.array(prompt, dtype=np.int32),
        token_ids=token_ids,
        generator_logprobs=np.array(logprobs, dtype=np.float32),
        lengths=np.array(lengths, dtype=np.int32),
        span_counts=np.ones(count, dtype=np.int32),
        span_lengths=np.array(lengths, dtype=np.int32),
        span_incarnations=np.full(count, version.incarnation, dtype=np.int32),
        span_steps=np.full(count, version.step, dtype=np.int32),
        rewards=np.array([(part % 2 == 0).mean() for part in parts], dtype=np.float32),
        stop_reasons=["length"] * count,
    )
