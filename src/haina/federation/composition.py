"""Composition: `[strategy]` and `[train]` into the five steps of a round: a learner's own method, or a preset with parts put in their places."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from haina.errors import HainaError
from haina.federation.names import CLIPS, COMBINERS, FACTORS, SCHEDULES, SELECTORS, SERVERS
from haina.federation.parts import Place, build, part, parts
from haina.federation.schema import FederationFile, Part, StrategySection
from haina.strategy.combine import Nova
from haina.strategy.local import Local
from haina.strategy.presets import PRESETS
from haina.strategy.strategy import Strategy
from haina.strategy.trust import Trust
from haina.strategy.weigh import Weigh


def composed(file: FederationFile, own: Strategy | None, place: Place) -> Strategy:
    """The strategy of a federation file.

    Args:
        file: all sections.
        own: the strategy that the learner brings along, or None.
        place: of the file, for messages.

    Raises:
        ConfigError: parts that are unknown or contradict each other, or a learner's own strategy is to be changed.
    """
    section, train = file.strategy, file.train
    top, place = place, place / "strategy"
    if own is not None:
        given = {name for name, value in section.model_dump().items() if value is not None}
        if given:
            raise (place / sorted(given)[0]).error(
                f"the learner {file.model.learner!r} brings its own strategy: its results are exact sums or collected trees, "
                "which no weighting or robust rule may change",
                remedy="Leave [strategy] out",
            )
        return own
    base = (
        part(section.preset, PRESETS, place / "preset") if section.preset is not None else PRESETS["fedavg"]()
    )
    changes: dict[str, Any] = {}
    if section.clip is not None:
        changes["clip"] = part(section.clip, CLIPS, place / "clip")
    if section.trust is not None:
        changes["trust"] = build(Trust, section.trust, place / "trust")
    if section.weigh is not None or section.cap is not None or section.quality_clip is not None:
        changes["weigh"] = _weigh(section, base.weigh, place)
    for key, registry in (("combine", COMBINERS), ("server", SERVERS), ("select", SELECTORS)):
        value: Part | None = getattr(section, key)
        if value is not None:
            changes[key] = part(value, registry, place / key)
    if changes:
        changes["name"] = "custom" if section.preset is None else f"{base.name} with own {', '.join(changes)}"
    rate = train.learning_rate
    rate_place = top / "train" / "learning_rate"
    changes["rate"] = part({"constant": rate} if isinstance(rate, float) else rate, SCHEDULES, rate_place)
    try:
        if train.proximal is not None:
            changes["local"] = Local(train.proximal, base.local.control)
            if isinstance(base.combine, Nova) and train.proximal > 0:
                changes.setdefault("combine", Nova("steps"))
        return cast(Strategy, replace(base, **changes))
    except HainaError as error:
        raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error


def _weigh(section: StrategySection, base: Weigh, place: Place) -> Weigh:
    settings: dict[str, Any] = {}
    if section.weigh is not None:
        settings["factors"] = parts(section.weigh, FACTORS, place / "weigh")
    if section.quality_clip is not None:
        settings["clip"] = section.quality_clip
    if section.cap is not None:
        settings["cap"] = None if section.cap == "none" else section.cap
    try:
        return replace(base, **settings)
    except HainaError as error:
        raise (place / "weigh").error(error.what, allowed=error.allowed, remedy=error.remedy) from error
