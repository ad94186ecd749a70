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
from haina.strategy.parts import Payload
from haina.strategy.server import FedDyn, Scaffold
from haina.strategy.weigh import Uniform

if TYPE_CHECKING:
    from haina.strategy.strategy import Strategy


def check(strategy: Strategy) -> None:
    """Refuse a composition whose parts contradict each other.

    Raises:
        StrategyError: the first contradiction found.
    """
    for what, remedy in _contradictions(strategy):
        raise StrategyError(what, remedy=remedy)


def _contradictions(strategy: Strategy) -> Iterator[tuple[str, str]]:
    combine, server, local = strategy.combine, strategy.server, strategy.local
    rule, payload = type(combine).__name__, combine.payload
    done = {Payload.AVERAGE: "averaged", Payload.SUM: "summed", Payload.COLLECT: "collected"}
    if server.accepts is not payload:
        yield (
            f"{rule} makes a payload to be {done[payload]}, and the server step {type(server).__name__} expects one to be {done[server.accepts]}",
            "Sum goes with Newton or ElasticNetPath, Collect with Merge, every other combiner with a server optimiser",
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
    if strategy.trust is not None and strategy.clip is not None:
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


def _factors(strategy: Strategy) -> str:
    return ", ".join(type(factor).__name__ for factor in strategy.weigh.factors)
