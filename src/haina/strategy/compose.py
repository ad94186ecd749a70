"""Which parts hold together. Each refusal says why, and names the way out.

Checked once, when a strategy is made: a federation that cannot work must not start.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from haina.errors import StrategyError
from haina.strategy.combine import Nova, QFair
from haina.strategy.local import Control
from haina.strategy.members import Members
from haina.strategy.parts import Cover, Needs, Payload, Seen
from haina.strategy.select import Poisson
from haina.strategy.server import FedDyn, FedExP, Scaffold
from haina.strategy.weigh import Samples, Uniform

if TYPE_CHECKING:
    from haina.strategy.strategy import Strategy


def check(strategy: Strategy) -> None:
    """Refuse a composition whose parts contradict each other.

    Raises:
        StrategyError: the first contradiction found.
    """
    for what, remedy in _indiscretions(strategy) if strategy.private else ():
        raise StrategyError(what, remedy=remedy)
    for what, remedy in _contradictions(strategy):
        raise StrategyError(what, remedy=remedy)


def _contradictions(strategy: Strategy) -> Iterator[tuple[str, str]]:
    combine, server, local = strategy.combine, strategy.server, strategy.local
    rule, payload = type(combine).__name__, combine.payload
    done = {Payload.AVERAGE: "averaged", Payload.SUM: "summed", Payload.COLLECT: "collected"}
    if server.accepts is not payload:
        yield (
            f"{rule} makes a payload to be {done[payload]}, and the server step {type(server).__name__} expects one to be {done[server.accepts]}",
            "Sum goes with Newton, ElasticNetPath, CrossValidation or Inquiry, Collect with Merge, every other combiner with a server optimiser",
        )
    if payload is not Payload.AVERAGE:
        if strategy.trust is not None or strategy.clip is not None:
            yield (
                f"a {done[payload]} payload is not an increment, so its length and direction cannot be screened",
                "Leave out trust and clip",
            )
        if strategy.weigh.factors != (Uniform(),):
            yield (
                f"a {done[payload]} payload counts every client once, so weights would be ignored",
                'Set weigh = ["uniform"]',
            )
    elif not combine.uses_shares and strategy.weigh.factors != (Uniform(),):
        yield (
            f"{rule} counts every client once, so the weights {_factors(strategy)} would be ignored",
            'Set weigh = ["uniform"], or combine with geometric_median, which honours weights',
        )
    if server.uses_drift and not combine.gives_coefficients:
        yield (
            f"{type(server).__name__} needs to know each client's share, and {rule} works coordinate by coordinate",
            "Combine with mean, geometric_median or nnm over geometric_median",
        )
    for kind, control in ((Scaffold, Control.SCAFFOLD), (FedDyn, Control.FEDDYN)):
        if isinstance(server, kind) is not (local.control is control):
            yield (
                f"{kind.__name__} is half on the server and half on the client, and only one half is set",
                f'Use preset = "{control}", which sets both',
            )
    if isinstance(server, FedDyn) and server.alpha != local.proximal:
        yield (
            f"FedDyn has alpha {server.alpha} on the server and {local.proximal} on the client",
            "Make them equal",
        )
    if isinstance(combine, Nova) and local.control is not Control.NONE:
        yield (
            "FedNova normalises plain local steps, and SCAFFOLD's or FedDyn's corrections change what a step is",
            "Use one of the two",
        )
    if strategy.trust is not None and strategy.clips:
        yield (
            "trust shortens updates itself, by the lengths of those it admits, and judges them by the lengths they came with",
            "Leave out clip, or set trust = {clip = 1.0}",
        )
    if isinstance(combine, QFair) and strategy.trust is not None:
        yield (
            "q-FedAvg listens most to clients with a high loss, and attackers report high losses: trust cannot make that safe",
            "Use trust with a mean or a robust rule",
        )
    column = getattr(strategy.select, "column", None)
    if column is not None and column not in Members.empty(strategy.columns).columns:
        yield (
            f"{type(strategy.select).__name__} looks at {column!r}, which no step remembers of clients",
            "Add trust, which keeps consistency and trust, or select in another way",
        )


def _indiscretions(strategy: Strategy) -> Iterator[tuple[str, str]]:
    """What a private strategy asks for that it cannot have: to look at what is hidden, or to let one client count without bound."""
    hidden, noisy = strategy.seen is not Seen.UPDATE, strategy.cover is not Cover.NONE
    rule, payload = type(strategy.combine).__name__, strategy.combine.payload
    why = "secure aggregation hides" if hidden else "differential privacy does not cover"
    if payload is not Payload.AVERAGE:
        if noisy or payload is Payload.COLLECT:
            yield (
                f"a payload to be {payload}ed is no bounded increment, so it cannot be hidden in a mean or covered by noise",
                "Leave out [privacy] noise, or perturb the finished coefficients (haina.privacy.output); collected trees travel as they are",
            )
        return
    told = sorted(set(strategy.measure) | _read_from_reports(strategy))
    if told:
        yield (
            f"{_readers(strategy, told)} looks at {', '.join(told)}, numbers of single clients, which {why}",
            'Weigh by "samples" or "uniform", with a learning rate and a selection that do not look at losses',
        )
    others = [f for f in strategy.weigh.factors if not isinstance(f, Uniform | Samples)]
    if hidden and others:
        yield (
            f"weights by {type(others[0]).__name__} are made by the server for single clients, and inside a secure sum each client weighs itself",
            'Weigh by "samples" (up to [privacy] max_examples) or "uniform"',
        )
    if strategy.cover is Cover.SERVER and (strategy.trust is not None or strategy.needs is Needs.VECTORS):
        what = "trust" if strategy.trust is not None else rule
        yield (
            f"{what} makes of one client's update more than its bounded share, so noise on the aggregate would not cover it",
            'Use combine = "mean" without trust; or noise = "local", which covers each update before any rule sees it',
        )
    if noisy and isinstance(strategy.select, Poisson) and strategy.weigh.factors != (Uniform(),):
        yield (
            f"weights by {_factors(strategy)} divide by what those who came weigh, and Poisson sampling hides who came",
            'Write weigh = ["uniform"], or select = "uniform"',
        )
    if strategy.spacing is not None and (
        strategy.cover is not Cover.SERVER or hidden or strategy.weigh.factors != (Uniform(),)
    ):
        yield (
            "correlated noise is the server's, on sums of updates that it sees and that all weigh alike",
            'Use noise = "central", weigh = ["uniform"] and no secure aggregation; or leave correlated out',
        )
    if noisy and strategy.clip is None:
        yield ("noise covers an update up to a limit, and there is none", "Give [privacy] clip = 1.0")
    if (hidden or strategy.cover is Cover.SERVER) and (
        strategy.server.uses_drift or isinstance(strategy.server, FedExP)
    ):
        # The server would make the next model, or what it sends with it, of more than the covered mean.
        yield (
            f"{type(strategy.server).__name__} needs each update's own steps or length, which {why}",
            'Use server = "sgd", "adam", "yogi" or "adagrad"',
        )
    if not hidden:
        return
    if strategy.seen is Seen.SUM and (strategy.trust is not None or strategy.needs is Needs.VECTORS):
        what = "trust" if strategy.trust is not None else rule
        yield (
            f"{what} compares updates, and secure aggregation of the whole cohort shows one sum",
            "Write secure_aggregation = {group = 10}: then sums of random groups of ten are compared; or bound each update with [privacy] clip",
        )
    if (strategy.trust is None and strategy.needs is Needs.REPORTS) or rule in ("Nova", "QFair"):
        yield (
            f"{rule} divides each update by what its client reports, and inside a secure sum there is nothing to divide",
            'Use combine = "mean", and the same [train] steps for every client in place of FedNova',
        )


def _read_from_reports(strategy: Strategy) -> set[str]:
    """Numbers of reports that the strategy reads beside the counts that every client announces."""
    parts = (*strategy.weigh.factors, strategy.combine, strategy.select, strategy.rate)
    read = {name for part in parts for name in getattr(part, "reads", ())}
    return read - {"examples", "steps", "normalizer", "staleness"}


def _readers(strategy: Strategy, names: list[str]) -> str:
    parts = (*strategy.weigh.factors, strategy.combine, strategy.select, strategy.rate)
    who = [type(part).__name__ for part in parts if set(getattr(part, "reads", ())) & set(names)]
    return ", ".join(who) or "the strategy"


def _factors(strategy: Strategy) -> str:
    return ", ".join(type(factor).__name__ for factor in strategy.weigh.factors)
