"""Audit: attacks on a federation as its file runs it, in simulation, and what they find beside what is promised.

* Canaries take part as clients do, through the same bounds, grids, noise and sums, each by a coin that nobody but the auditor knows; then every model
  that was released is searched for them (`haina.privacy.audit`).
* Membership inference trains shadow federations, each on a random half of every client's rows, and asks which rows a model was trained on.
* Inversion draws a row from the update of one step, as it would leave a client: plain, and as this federation has it sent.

Canaries are put in by replacing the data and the learner of the simulation, so that nothing of a round knows that it is audited.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Any, Literal, cast

import numpy as np
from numpy.typing import NDArray

from haina.artifact import Array
from haina.errors import ConfigError
from haina.federation.federation import Federation
from haina.layout import Layout
from haina.learners.learner import Learner, Work
from haina.privacy.audit import inversion, membership
from haina.privacy.audit.canary import Canaries
from haina.privacy.audit.finding import Finding, audit
from haina.privacy.policy import Policy
from haina.privacy.stream import Stream
from haina.report import Report
from haina.shards import Shards
from haina.simulation.simulation import Simulation
from haina.strategy.parts import Payload
from haina.strategy.select import Poisson
from haina.update import Result, Update

#: What a canary is called, before its number.
CANARY = "canary-"

#: Told of each finished round (or shadow) and of how many there will be.
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class CanaryAudit:
    """What canaries found.

    Args:
        federation: its name.
        seed: of the coins.
        finding: claim, estimate, bound, verdict.
        rounds: that were searched.
        canaries: that took part.
        clients: of the federation, beside them.
        mechanism: what was to hide them.
    """

    federation: str
    seed: int
    finding: Finding
    rounds: int
    canaries: int
    clients: int
    mechanism: str

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "attack": "canaries (one run)",
            "federation": self.federation,
            "seed": self.seed,
            **self.finding.to_json(),
            "rounds": self.rounds,
            "canaries_in": self.canaries,
            "clients": self.clients,
            "mechanism": self.mechanism,
        }


def with_canaries(
    federation: Federation,
    count: int,
    *,
    seed: int = 0,
    confidence: float = 0.95,
    on_round: Progress = lambda done, whole: None,
) -> CanaryAudit:
    """Run the federation with canaries in it, and look for them.

    Args:
        federation: whose file says what is promised; without `[privacy]` noise nothing is, and the claim is infinite.
        count: canaries, in or out.
        seed: of the coins and the canaries.
        confidence: of the bound.
        on_round: told of each round.

    Raises:
        ConfigError: the federation sends what canaries cannot imitate, or protects single examples, which other attacks are for.
    """
    _check(federation)
    policy, simulation = federation.privacy, federation.simulation()
    model = simulation.learner.initial(simulation.seed)
    norm: Literal[1, 2] = policy.mechanism.norm if policy is not None and policy.mechanism is not None else 2
    limit = simulation.strategy.instructions(simulation.strategy.init(model)).limit or _length(simulation)
    key = hashlib.sha256(f"haina audit {seed}".encode()).digest()
    # Under L1 a canary is a coordinate of its own, of which a model has so many.
    canaries = Canaries(min(count, len(model)) if norm == 1 else count, len(model), key, norm)
    audited = inhabited(simulation, canaries, limit)
    run, increments = audited.start(), []
    while run.round < audited.rounds and not run.finished:
        before = run.model
        run, _ = audited.advance(run)
        increments.append((run.model - before).astype(np.float32))
        on_round(run.round, audited.rounds)
    rounds = list(range(1, len(increments) + 1))
    finding = searched(federation, canaries, increments, rounds, len(simulation.data), confidence=confidence)
    inside = int(canaries.included.sum())
    words = "no noise" if policy is None else policy.words
    return CanaryAudit(federation.name, seed, finding, len(increments), inside, len(simulation.data), words)


def searched(
    federation: Federation,
    canaries: Canaries,
    increments: Sequence[Array],
    rounds: Sequence[int],
    clients: int,
    *,
    confidence: float = 0.95,
) -> Finding:
    """Look for canaries in what a federation has released, simulated or not, and hold what is found against what its file promises.

    Args:
        federation: of the file.
        canaries: those that were in it.
        increments: T vectors `[d]`, what each round changed in the model.
        rounds: their numbers.
        clients: of whom the rounds' clients are drawn.
        confidence: of the bound.

    Raises:
        ConfigError: the federation protects single examples or sends what canaries cannot imitate, which other attacks are for.
    """
    _check(federation)
    policy, select = federation.privacy, federation.strategy.select
    cohort = federation.settings.train.clients_per_round
    rate = 1.0 if cohort is None else min(1.0, cohort / clients)
    if isinstance(select, Poisson):
        rate = select.rate
    claimed, delta = _claim(policy, len(increments))
    gaussian = claimed < inf and canaries.norm == 2 and rate == 1
    return audit(
        canaries,
        increments,
        claimed,
        delta,
        claim="gaussian" if gaussian else "any",
        confidence=confidence,
        rounds=rounds,
        rate=rate,
        shift=_shift(policy),
    )


def inhabited(simulation: Simulation, canaries: Canaries, limit: float) -> Simulation:
    """The same simulation with the canaries that are in among its clients.

    Args:
        simulation: to be audited.
        canaries: see `Canaries`.
        limit: what a contribution is measured in, in units of the model.
    """
    data = simulation.data
    names = [data.name(k) for k in range(len(data))]
    guests = {f"{CANARY}{i:05d}": int(i) for i in np.flatnonzero(canaries.included)}
    # As heavy as the heaviest: a canary that counts for little is hidden by little.
    heaviest = int(np.argmax(data.clients.sizes))
    offsets = np.concatenate(
        [data.clients.offsets, np.tile(data.clients.offsets[heaviest], (len(guests), 1))]
    )
    shards = Shards([*names, *guests], data.clients.x, data.clients.y, offsets)
    learner = _Inhabited(simulation.learner, canaries, guests, limit)
    cohort = simulation.cohort
    if cohort is not None:
        cohort = max(1, round(cohort * len(shards) / len(names)))
    return replace(
        simulation, data=replace(data, clients=shards), learner=cast(Learner, learner), cohort=cohort
    )


class _Inhabited:
    """A learner whose canaries need not learn; of the others it knows nothing that it did not know before."""

    def __init__(self, learner: Learner, canaries: Canaries, guests: Mapping[str, int], limit: float) -> None:
        self._learner, self._canaries, self._guests, self._limit = learner, canaries, guests, limit

    def __getattr__(self, name: str) -> Any:
        return getattr(self._learner, name)

    def train(self, work: Work) -> Iterator[Result]:
        """Updates of all clients, in their order."""
        shards = work.shards
        own = [k for k, name in enumerate(shards.clients) if name not in self._guests]
        offsets = None if work.offsets is None else work.offsets[own]
        trained = (
            self._learner.train(replace(work, shards=shards.take(own), offsets=offsets)) if own else iter(())
        )
        for k, name in enumerate(shards.clients):
            if name not in self._guests:
                yield next(trained)
                continue
            size = int(shards.sizes[k])
            vector = self._canaries.contribution(self._guests[name], work.round, self._limit)
            yield Update(name, vector, Report(examples=size, steps=work.training.steps_of(size)))


def members(
    federation: Federation,
    shadows: int,
    *,
    seed: int = 0,
    on_model: Progress = lambda done, whole: None,
) -> dict[str, Any]:
    """Membership inference against the federation's final model: loss threshold, and LiRA with `shadows` - 1 models against each.

    Models come in pairs, each trained on the rows that the other was not, so that every row is in half of them.

    Raises:
        ConfigError: an odd number of shadows or fewer than 6; the federation has no classes, or its learner says no probabilities.
    """
    if shadows < 6 or shadows % 2:
        raise ConfigError(
            f"{shadows} shadow models are asked for",
            allowed="an even number, 6 or more; 16 and up for a clear answer",
        )
    simulation = federation.simulation()
    if simulation.data.classes is None or simulation.strategy.combine.payload is Payload.COLLECT:
        raise ConfigError(
            f"{federation.file}: membership inference asks for the probability of each row's class, and there are none",
            allowed="classification, with a learner that averages or sums",
        )
    clients, (x, y) = simulation.data.clients, (simulation.data.clients.x, simulation.data.clients.y)
    first, last = int(clients.offsets.min()), int(clients.offsets.max())
    losses, inside = [], []
    for k in range(shadows):
        rng = np.random.default_rng([seed, k // 2, 301])
        taken = np.zeros(last - first, bool)
        kept, offsets, at = [], [], 0
        for start, stop in clients.offsets:
            order, middle = rng.permutation(np.arange(start, stop)), (stop - start + 1) // 2
            rows = order[middle:] if k % 2 else order[:middle]
            taken[rows - first] = True
            kept.append(np.sort(rows))
            offsets.append([at, at + len(rows)])
            at += len(rows)
        index = np.concatenate(kept)
        shards = Shards(clients.clients, x[index], y[index], np.array(offsets))
        shadow = replace(
            simulation, data=replace(simulation.data, clients=shards), seed=simulation.seed + 1000 * (k + 1)
        )
        if shadow.veil is not None:
            shadow = replace(shadow, veil=replace(shadow.veil, seed=shadow.seed))
        run = shadow.start()
        while run.round < shadow.rounds and not run.finished:
            run, _ = shadow.advance(run)
        chances = simulation.learner.predict(run.model, x[first:last])
        of_class = chances[np.arange(last - first), y[first:last].astype(np.intp)]
        losses.append(-np.log(np.clip(of_class, 1e-12, 1.0)))
        inside.append(taken)
        on_model(k + 1, shadows)
    table, truth = np.maximum(np.array(losses), 0.0), np.array(inside)
    found = {"loss threshold": membership.attack(membership.threshold(table), truth).to_json()}
    way: Literal["row", "shared"] = "row" if shadows >= 64 else "shared"
    scores = membership.lira(membership.confidence(table), truth, way)
    found["LiRA"] = membership.attack(scores, truth).to_json()
    return {
        "attack": "membership inference",
        "seed": seed,
        "models": shadows,
        "rows": int(last - first),
        **found,
    }


def inverted(federation: Federation, *, examples: int = 20, seed: int = 0) -> dict[str, Any]:
    """How much of one row can be read off the update of one step of training on it: sent plainly, and as this federation sends it.

    Returns:
        The mean likeness (correlation beyond what all rows share; 1 is the row itself) of the best reconstruction, over some rows.

    Raises:
        ConfigError: the model has no dense first layer with a bias, or rows are no vectors of numbers.
    """
    simulation = federation.simulation()
    learner, data = simulation.learner, simulation.data
    layout = getattr(learner, "layout", None)
    x, y = data.clients.x, data.clients.y
    layer = None if not isinstance(layout, Layout) or x.ndim != 2 else _dense(layout, x.shape[1])
    if layout is None or layer is None:
        raise ConfigError(
            f"{federation.file}: inversion reads a dense first layer with a bias, and this model has none",
            allowed="the kinds logistic and mlp, on rows of numbers",
        )
    rng = np.random.default_rng([seed, 302])
    first, last = int(data.clients.offsets.min()), int(data.clients.offsets.max())
    rows = rng.choice(np.arange(first, last), size=min(examples, last - first), replace=False)
    mean = x[first:last].mean(axis=0)
    bounds = (float(x[first:last].min()), float(x[first:last].max()))
    run, policy = simulation.start(), federation.privacy
    instructions = simulation.strategy.instructions(run.state)
    found: dict[str, list[float]] = {"plain": []}
    for k, row in enumerate(rows):
        one = Shards(("victim",), x[row : row + 1], y[row : row + 1], np.array([[0, 1]]))
        training = replace(simulation.training, epochs=1, steps=1, batch_size=1, measure=frozenset())
        work = Work(run.model, 1, one, training, instructions.learning_rate, seed=simulation.seed)
        (update,) = learner.train(work)
        assert isinstance(update, Update)
        sent: dict[str, Array] = {"plain": update.vector}
        if policy is not None:
            sent |= _as_sent(policy, update.vector, instructions.limit, max(3, len(data)), k)
        for way, vector in sent.items():
            weight, bias = layer(vector)
            match = inversion.best(weight, bias, x[row], mean, bounds)
            found.setdefault(way, []).append(match.similarity)
    return {
        "attack": "gradient inversion",
        "rows": len(rows),
        **{f"likeness_{way}": round(float(np.mean(values)), 4) for way, values in found.items()},
    }


def _as_sent(policy: Policy, vector: Array, limit: float | None, clients: int, k: int) -> dict[str, Array]:
    """The update as others see it: a client's own words, or the aggregate that it goes into alone (the others send zeros: the worst case)."""
    stream = Stream.derived(hashlib.sha256(b"haina inversion").digest(), str(k))
    if policy.hidden is not None:
        size = min(policy.hidden.group or clients, clients)
        total = policy.seal(vector, policy.most or 1.0, limit, size, stream)
        names = [f"c{i}" for i in range(size)]
        for i in range(1, size):
            other = Stream.derived(hashlib.sha256(b"haina inversion").digest(), f"{k} other {i}")
            total = total + policy.seal(np.zeros_like(vector), policy.most or 1.0, limit, size, other)
        pool = policy.unseal(total, len(vector), names, limit, size, stream)
        return {f"in a sum of {size}": pool.vector.astype(np.float32)}
    if limit is None or policy.mechanism is None:
        return {}
    if policy.noise == "local":
        return {"with local noise": policy.privatise(vector, limit, stream)}
    covered = policy.cover(policy.bound(vector, limit)[0] / clients, limit / clients, stream)
    return {f"in a mean of {clients} with noise": covered.astype(np.float32)}


def _dense(layout: Layout, features: int) -> Callable[[Array], tuple[Array, Array]] | None:
    """What takes a vector apart into the weights `[units, features]` and biases of the first dense layer."""
    fields = [field for field in layout.fields if field.shared]
    for field in fields:
        if len(field.shape) != 2 or features not in field.shape:
            continue
        turned = field.shape[0] == features
        units = field.shape[1] if turned else field.shape[0]
        stem = field.name.rpartition(".")[0] or field.name.rpartition("/")[0]
        near = [f for f in fields if f.shape == (units,) and f.name.startswith(stem)] if stem else []
        bias = next(iter(near or [f for f in fields if f.shape == (units,)]), None)
        if bias is None:
            continue

        def split(
            vector: Array, weight: str = field.name, own: str = bias.name, turn: bool = turned
        ) -> tuple[Array, Array]:
            tensors = layout.unpack(vector)
            matrix = np.asarray(tensors[weight])
            return matrix.T if turn else matrix, np.asarray(tensors[own])

        return split
    return None


def _check(federation: Federation) -> None:
    if federation.strategy.combine.payload is not Payload.AVERAGE:
        raise ConfigError(
            f"{federation.file}: canaries send increments, and the learner {federation.settings.model.learner!r} sends something else",
            allowed="learners whose updates are averaged (jax, torch)",
            remedy="Ask for membership inference: haina audit FILE --shadows 16",
        )
    section = federation.settings.privacy
    if section is not None and section.unit == "example":
        raise ConfigError(
            f'{federation.file}: privacy.unit is "example", and canaries are clients',
            remedy="Ask for membership inference: haina audit FILE --shadows 16",
        )


def _claim(policy: Policy | None, rounds: int) -> tuple[float, float]:
    if policy is None or policy.mechanism is None:
        return inf, 1e-5
    delta = 1e-5 if policy.allowance is None else policy.allowance.delta or 1e-6
    return policy.claim(rounds, delta), delta


def _shift(policy: Policy | None) -> float:
    if policy is None or policy.mechanism is None:
        return 1.0
    return 1 / policy.mechanism.std(1.0)


def _length(simulation: Simulation) -> float:
    """How long updates are in a federation without a limit: the first round's median."""
    run = simulation.start()
    norms: NDArray[np.float64] = np.array(
        [
            float(np.linalg.norm(result.vector))
            for result in simulation.train(simulation.turn(run))
            if isinstance(result, Update)
        ]
    )
    return float(np.median(norms)) if len(norms) else 1.0
