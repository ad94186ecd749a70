"""Serving: what `[serve]` asks of a strategy, and what cannot hold together. Each refusal says why, and names the way out."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import cast

from haina.errors import HainaError
from haina.federation.learners import EXACT
from haina.federation.names import FACTORS
from haina.federation.parts import Place, part
from haina.federation.schema import FederationFile
from haina.strategy.factors import Staleness, StalenessHinge
from haina.strategy.parts import Factor, Payload
from haina.strategy.strategy import Strategy

#: How a late update may be discounted.
DISCOUNTS = {name: FACTORS[name] for name in ("staleness", "staleness_hinge")}


def discounted(strategy: Strategy, file: FederationFile, place: Place) -> Strategy:
    """The strategy as it serves: where late updates may count, they weigh less.

    Args:
        strategy: as `[strategy]` gives it.
        file: all sections.
        place: of the file.

    Raises:
        ConfigError: `[serve]` contradicts itself, `[train]` or the strategy.
    """
    serve, place = file.serve, place / "serve"
    has_own = any(isinstance(factor, Staleness | StalenessHinge) for factor in strategy.weigh.factors)
    for key, what, remedy in _contradictions(file, strategy, has_own=has_own):
        raise (place / key).error(what, remedy=remedy)
    if not serve.late or has_own:
        return strategy
    discount = serve.discount
    if isinstance(discount, int | float):
        discount = {"staleness": {"exponent": discount}}
    factor = cast(Factor, part(discount, DISCOUNTS, place / "discount"))
    try:
        return replace(strategy, weigh=replace(strategy.weigh, factors=(*strategy.weigh.factors, factor)))
    except HainaError as error:
        raise (place / "max_staleness").error(
            error.what, allowed=error.allowed, remedy=error.remedy
        ) from error


def _contradictions(
    file: FederationFile, strategy: Strategy, *, has_own: bool
) -> Iterator[tuple[str, str, str]]:
    serve, cohort, payload = file.serve, file.train.clients_per_round, strategy.combine.payload
    given, buffered = serve.model_fields_set, serve.mode == "buffered"
    rule = type(strategy.combine).__name__
    if buffered and serve.buffer is None:
        yield (
            "buffer",
            "is missing: in buffered mode it says how many updates make a version",
            "Write: buffer = 10",
        )
    if serve.buffer is not None and not buffered:
        yield "buffer", "has no meaning in rounds", 'Write mode = "buffered", or leave it out'
    for key in ("quorum", "every", "over_selection"):
        if buffered and key in given:
            yield (
                key,
                "has no meaning in buffered mode, where every `buffer` updates make a version",
                "Leave it out",
            )
    if buffered and not serve.late:
        yield (
            "max_staleness",
            "is 0, and in buffered mode most updates are late",
            "Write 1 or more, or leave it out",
        )
    if not serve.late and "discount" in given:
        yield "discount", "is of late updates, and max_staleness = 0 refuses them", "Write max_staleness = 5"
    if has_own and "discount" in given:
        yield (
            "discount",
            "would count age twice, as [strategy] weighs by it already",
            "Leave one of the two out",
        )
    if serve.late and payload is not Payload.AVERAGE:
        done = "summed at one model" if payload is Payload.SUM else "collected in one round"
        yield (
            "max_staleness",
            f"the learner {file.model.learner!r} is exact: what clients send is {done}, and late answers belong to another",
            'Leave out max_staleness and mode = "buffered"',
        )
    elif serve.late and not strategy.combine.uses_shares:
        yield (
            "max_staleness",
            f"late updates weigh less, and {rule} counts every client once",
            'Write max_staleness = 0, or combine = "geometric_median", which honours weights',
        )
    if payload is not Payload.AVERAGE and "codecs" in given and serve.codecs != ["raw"]:
        yield (
            "codecs",
            f"the learner {file.model.learner!r} is exact, and {serve.codecs[0]} would round what clients send",
            'Leave codecs out, or write ["raw"]',
        )
    if payload is Payload.AVERAGE and "raw" in serve.codecs and file.model.learner not in EXACT:
        yield (
            "codecs",
            "raw is for exact statistics and coefficients in float64, and this model is float32",
            'Write codecs = ["float32"]',
        )
    if len(set(serve.codecs)) < len(serve.codecs):
        yield "codecs", "names a codec twice", "Name each once"
    for key in ("deadline_min", "deadline_max"):
        if key in given and serve.deadline != "adaptive":
            yield (
                key,
                f"bounds an adaptive deadline, and the deadline is {serve.deadline:g} s",
                'Write deadline = "adaptive"',
            )
    if serve.deadline_min > serve.deadline_max:
        yield (
            "deadline_min",
            f"is {serve.deadline_min:g} s, above deadline_max, {serve.deadline_max:g} s",
            "Swap them",
        )
    if serve.over_selection > 1 and cohort is None:
        yield (
            "over_selection",
            "invites more than train.clients_per_round, and all are invited",
            "Give clients_per_round",
        )
    most = serve.nodes if cohort is None else math.ceil(cohort * serve.over_selection)
    if isinstance(serve.quorum, int) and serve.quorum > most:
        invited = "serve.nodes nodes" if cohort is None else "the clients of a round"
        yield (
            "quorum",
            f"is {serve.quorum} updates, and {most} are all that {invited} can send",
            f"Write at most {most}",
        )
