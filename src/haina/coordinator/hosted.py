"""A federation as its coordinator holds it: the objects made from its file, without a row of anybody's data.

The coordinator never imports a learning framework. The model is an envelope (a fixed header and a flat vector), and what needs the learner (the
first model, the evaluation on test rows, the judge's opinion) is asked of a bench: a child process, started when first needed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from haina.artifact import Array, dump, load, sha256
from haina.coordinator.pace import Pace
from haina.federation.bench import Bench
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.privacy.policy import Correlating, Covering, Policy
from haina.privacy.stream import Stream
from haina.report import Report
from haina.strategy.parts import Judge, Needs, Payload, Release
from haina.strategy.strategy import Instructions, Strategy, StrategyState
from haina.wire.codecs import Stored, decode
from haina.wire.messages import Task


@dataclass(frozen=True)
class Standing:
    """Where a federation stands after a closed round: what a round is opened on.

    Args:
        version: version of the newest model.
        model: `[d]` the model.
        state: what the strategy remembers.
    """

    version: int
    model: Array
    state: StrategyState


@dataclass(frozen=True)
class Hosted:
    """One federation, hosted.

    Args:
        federation: the objects of its file.
        envelope: how the model's vector becomes bytes.
        pace: how its rounds run.
        bench: has the coordinator's own rows, and the learner.
    """

    federation: Federation
    envelope: Envelope
    pace: Pace
    bench: Bench

    @property
    def name(self) -> str:
        """Its name."""
        return self.federation.name

    @property
    def strategy(self) -> Strategy:
        """What becomes of updates."""
        return self.federation.strategy

    @property
    def payload(self) -> Payload:
        """What becomes of the vectors."""
        return self.strategy.combine.payload

    @cached_property
    def dimension(self) -> int:
        """Length of an update's vector; 0 where it is free (collected payloads)."""
        return self.federation.update_size(self.envelope)

    @property
    def policy(self) -> Policy | None:
        """What is promised of updates."""
        return self.federation.privacy

    @cached_property
    def brief(self) -> str:
        """What nodes are told that read no TOML."""
        return self.federation.brief(self.envelope)

    @cached_property
    def length(self) -> int:
        """Length of what is uploaded: of an update's vector, or the words of a secure sum; 0 where it is free."""
        policy = self.policy
        hidden = policy is not None and policy.hidden is not None
        return policy.size(self.dimension) if policy is not None and hidden else self.dimension

    @property
    def rounds(self) -> int:
        """Rounds of the whole federation."""
        return self.federation.settings.train.rounds

    @property
    def codecs(self) -> tuple[str, ...]:
        """How updates may be written, the preferred one first."""
        policy = self.policy
        if policy is not None and policy.hidden is not None:
            return ("masked" if policy.word == 32 else "masked64",)
        return self.federation.codecs

    def vector(self, codec: str, body: Path, length: int) -> Array | Stored:
        """The vector of an update, from the file with its bytes; read block by block where the strategy folds, and else where the codec allows."""
        return Stored(codec, body, length) if self.strategy.streams else decode(codec, body, length)

    def rest(self, standing: Standing) -> bytes:
        """The strategy's state as bytes."""
        return dump(standing.state.to_arrays())

    def standing(self, version: int, model: Path, state: bytes | None, secret: bytes = bytes(32)) -> Standing:
        """Where a federation stands, from its stored model and state (None: before the first round; `secret` is then what correlated noise is
        drawn from).
        """
        vector = self.envelope.vector(model)
        if state is None:
            return Standing(version, vector, self.strategy.init(vector, secret))
        arrays, _ = load(state)
        return Standing(version, vector, self.strategy.restore(arrays))

    def task(self, standing: Standing, model_sha256: str) -> tuple[Task, bytes | None]:
        """What the clients of the next round must do, and the control vector they need beside the model (SCAFFOLD)."""
        instructions = self.strategy.instructions(standing.state)
        control = None if instructions.control is None else dump({"control": instructions.control})
        task = self.federation.task(
            instructions,
            version=standing.version,
            model=model_sha256,
            bytes=self.envelope.size(standing.model),
            control=None if control is None else sha256(control),
            codec=self.codecs[0],
        )
        return task.model_copy(update={"limit": instructions.limit}), control

    def release(self, standing: Standing, entropy: Callable[[int], bytes]) -> Release:
        """Noise for the aggregate of the next round: drawn afresh, or this round's part of noise over all rounds."""
        instructions = self.strategy.instructions(standing.state)
        assert self.policy is not None
        assert instructions.limit is not None
        if self.policy.correlated is None:
            return Covering(self.policy, instructions.limit, Stream.fresh(entropy))
        settings, secret = self.federation.settings, standing.state.parts["release"]["secret"].tobytes()
        expected = float(settings.train.clients_per_round or settings.serve.nodes)
        return Correlating(self.policy, instructions.limit, expected, instructions.round, secret)

    def announced(self, examples: int) -> Report | None:
        """What a node's share is made from before it has trained; None for a node without rows."""
        if self.strategy.needs is not Needs.COUNTS or examples < 1:
            return None
        return Report(examples=examples, steps=self.federation.training.steps_of(examples))

    def judge(self, standing: Standing, instructions: Instructions) -> Judge | None:
        """The opinion of the samples that the coordinator holds, if it holds any."""
        if not self.federation.has_rows("held"):
            return None
        return self.bench.judge(standing.model, instructions.round, instructions.learning_rate)

    def evaluate(self, model: Array) -> dict[str, float]:
        """Loss, accuracy and the like on the test rows; empty where there are none."""
        metrics = self.bench.evaluate(model) if self.federation.has_rows("test") else None
        if metrics is None:
            return {}
        accuracy = {} if metrics.accuracy is None else {"accuracy": metrics.accuracy}
        return finite({"loss": metrics.loss, **accuracy, **metrics.extra})

    def tell(self, standing: Standing) -> str:
        """What an exact learner says of the finished fit; empty for the others."""
        return self.bench.tell(standing.model, standing.state.to_arrays(), finished=True) or ""

    def close(self) -> None:
        """End the bench."""
        self.bench.close()


def finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """The metrics that are numbers."""
    return {name: float(value) for name, value in metrics.items() if np.isfinite(value)}
