"""Privacy: `[privacy]` into a policy, and into what it asks of the strategy. Each refusal says why, and names the way out.

Imported where a file has the section and nowhere else, for it needs the `node` extra (and `composition = "pld"` the `privacy` extra).
"""

from __future__ import annotations

import inspect
import math
from dataclasses import replace
from typing import Any, cast

from haina.errors import HainaError
from haina.federation.names import BOUNDS
from haina.federation.parts import Place, part
from haina.federation.schema import FederationFile, PrivacySection, SecureSection
from haina.privacy.accounting import EVERYONE, Sampling, calibrated, rho_of
from haina.privacy.correlated import Banded
from haina.privacy.mechanisms import MECHANISMS, Gaussian, Mechanism
from haina.privacy.policy import Allowance, Hidden, Policy, Rows
from haina.strategy.parts import Cover, Payload, Seen
from haina.strategy.spacing import Spacing
from haina.strategy.strategy import Strategy
from haina.strategy.weigh import Samples

_COVERS = {
    "none": Cover.NONE,
    "central": Cover.SERVER,
    "local": Cover.CLIENT,
    "distributed": Cover.CLIENT,
}


def policy_of(file: FederationFile, strategy: Strategy, place: Place) -> Policy | None:
    """What a federation promises; None where its file has no `[privacy]`.

    Args:
        file: all sections.
        strategy: the one that runs (`guarded`).
        place: of the file, for messages.

    Raises:
        ConfigError: the section contradicts itself, or cannot be kept.
    """
    section = file.privacy
    if section is None:
        return None
    place, summed = place / "privacy", strategy.combine.payload is Payload.SUM
    weighs = any(isinstance(factor, Samples) for factor in strategy.weigh.factors)
    hidden = section.secure_aggregation is not False
    try:
        allowance = None if section.budget is None else Allowance(**section.budget.model_dump())
        policy = Policy(
            noise="none" if section.unit == "example" else section.noise,
            mechanism=None
            if section.noise == "none" or section.unit == "example"
            else mechanism_of(file, allowance, place),
            hidden=_hidden(section, summed=summed),
            allowance=allowance,
            most=section.max_examples if hidden and weighs and not summed else None,
            adaptive=isinstance(section.clip, dict) and "adaptive" in section.clip,
            summed=summed,
            rounds=file.train.rounds,
            correlated=_correlated(file),
            rows=_rows(file, place),
        )
        affordable = policy.affordable
    except HainaError as error:
        if error.what.startswith(place.file):
            raise
        raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error
    if affordable == 0:
        assert allowance is not None
        part_of = f"its {policy.rounds} rounds together cost" if policy.whole else "one round costs"
        raise (place / "budget").error(
            f"of epsilon {allowance.epsilon:g} pays for no round: {part_of} epsilon {policy.spent(1):.4g}",
            remedy="Leave the strength of the mechanism out, so that it is made from the budget; or give more noise, or a larger budget",
        )
    pressed = [codec for codec in file.serve.codecs if codec != "float32"]
    euclidean = policy.mechanism is None or policy.mechanism.norm == 2
    if pressed and policy.noise == "central" and not hidden and not euclidean:
        # Error feedback adds to a bounded update what earlier ones left behind, and the coordinator bounds its length in L2.
        raise (place / "mechanism").error(
            f"covers updates up to a length in L1, and {pressed[0]} adds what it left out of earlier ones to an update",
            remedy='Write [serve] codecs = ["float32"], or mechanism = "gaussian"',
        )
    return policy


def guarded(strategy: Strategy, file: FederationFile, place: Place) -> Strategy:
    """The strategy with what `[privacy]` asks of it: a limit, what is seen, where noise is added.

    Raises:
        ConfigError: it asks for what a private strategy cannot have; the message names the way out.
    """
    section = file.privacy
    if section is None:
        return strategy
    summed = strategy.combine.payload is Payload.SUM
    for key, what, remedy in _contradictions(file, section, summed=summed):
        raise (place / "privacy" / key).error(what, remedy=remedy)
    changes: dict[str, Any] = {}
    if section.unit == "client":
        changes["cover"] = _COVERS[section.noise]
        if section.clip is not None:
            clip: Any = section.clip if not isinstance(section.clip, float | int) else {"fixed": section.clip}
            if strategy.clip is not None:
                raise (place / "privacy" / "clip").error(
                    "and [strategy] clip both bound updates", remedy="Leave [strategy] clip out"
                )
            changes["clip"] = part(clip, BOUNDS, place / "privacy" / "clip")
    if section.correlated is not None:
        changes["spacing"] = Spacing(section.correlated.separation, section.correlated.participations)
    secure = section.secure_aggregation
    if secure is not False:
        group = secure.group if isinstance(secure, SecureSection) else None
        changes["seen"] = Seen.SUM if group is None else Seen.GROUPS
    try:
        return replace(strategy, **changes)
    except HainaError as error:
        raise (place / "privacy").error(error.what, allowed=error.allowed, remedy=error.remedy) from error


def mechanism_of(file: FederationFile, allowance: Allowance | None, place: Place) -> Mechanism:
    """The noise of one round: as given, or as much as keeps the budget for all rounds.

    Nothing is gained by sampling clients: that a round was made of nobody shows, for then there is no new model, and rosters are shown to viewers. An
    accountant of secret sampling would promise too much.
    """
    section = file.privacy
    assert section is not None
    said: Any = section.mechanism
    if said is None:
        said = "gaussian"
    kind = said if isinstance(said, str) else next((name for name in said if name in MECHANISMS), "")
    settings = {} if isinstance(said, str) else said.get(kind, said)
    if (isinstance(said, str) and kind in MECHANISMS) or settings == {}:
        if allowance is None:
            setting = next(iter(inspect.signature(MECHANISMS[kind]).parameters))
            raise (place / "mechanism").error(
                f"{kind} is given without its strength, and there is no budget to make it from",
                remedy=f"Write mechanism = {{{kind} = {{{setting} = 1.0}}}}, or budget = {{epsilon = 8.0, delta = 1e-5}}",
            )
        rounds = 1 if section.correlated is not None else file.train.rounds
        return for_rounds(kind, allowance, rounds, EVERYONE, place)
    return cast(Mechanism, part(said, MECHANISMS, place / "mechanism"))


def for_rounds(
    kind: str, allowance: Allowance, rounds: int, sampling: Sampling, place: Place | None = None
) -> Mechanism:
    """The least noise a round with which a data set can take part in `rounds` rounds."""
    laplace = "laplace" in kind
    if allowance.composition == "pld":
        return calibrated(kind, allowance.epsilon, allowance.delta, rounds, sampling)
    if allowance.composition == "pure":
        if not laplace:
            message = f"{kind} noise has no epsilon without a delta, and pure composition adds epsilons"
            remedy = 'Write composition = "zcdp" with a delta, or mechanism = "laplace"'
            if place is None:
                raise HainaError(message, remedy=remedy)
            raise (place / "mechanism").error(message, remedy=remedy)
        return MECHANISMS[kind](_down(allowance.epsilon / rounds))
    rho = rho_of(allowance.epsilon, allowance.delta) / rounds
    if laplace:
        return MECHANISMS[kind](_down(math.sqrt(2 * rho)))
    return MECHANISMS[kind](_up(1 / math.sqrt(2 * rho)))


def _rows(file: FederationFile, place: Place) -> Rows | None:
    section = file.privacy
    if section is None or section.unit == "client":
        return None
    said = section.mechanism
    mechanism = None if said is None or isinstance(said, str) else part(said, MECHANISMS, place / "mechanism")
    if not isinstance(mechanism, Gaussian):
        raise (place / "mechanism").error(
            "must say how strong the noise of a step is: what it costs depends on how many rows a client has, so it cannot be made from a budget",
            remedy="Write mechanism = {gaussian = 1.1}",
        )
    assert isinstance(section.clip, float)
    return Rows(section.clip, mechanism.noise_multiplier)


def _correlated(file: FederationFile) -> Banded | None:
    said = None if file.privacy is None else file.privacy.correlated
    return None if said is None else Banded(file.train.rounds, said.separation, said.participations)


def _hidden(section: PrivacySection, *, summed: bool) -> Hidden | None:
    said = section.secure_aggregation
    if said is False:
        return None
    given = said if isinstance(said, SecureSection) else SecureSection()
    # Statistics are sums over rows, of any size that rows give them: as far as their two words reach.
    wide = 2.0**40 if summed else 4.0
    return Hidden(
        given.group,
        given.corrupt,
        given.dropout,
        wide if given.range is None else given.range,
        given.patience,
    )


def _contradictions(file: FederationFile, section: PrivacySection, *, summed: bool) -> Any:
    hidden, noisy = section.secure_aggregation is not False, section.noise != "none"
    given = section.model_fields_set
    if section.unit == "example":
        if file.model.learner not in ("torch", "auto"):
            yield (
                "unit",
                f'is "example", which needs the gradient of each example, and the learner is {file.model.learner!r}',
                'Write learner = "torch", or unit = "client"',
            )
        if section.noise != "local":
            yield (
                "noise",
                f'is "{section.noise}", and for single examples noise is part of local training',
                "Leave noise out",
            )
        if section.clip is None or isinstance(section.clip, dict):
            yield "clip", "must be a number: the longest gradient of an example", "Write clip = 1.0"
    if not noisy and "mechanism" in given:
        yield (
            "mechanism",
            "is given, and no noise is asked for",
            'Write noise = "central", "local" or "distributed"',
        )
    if not noisy and section.budget is not None:
        yield (
            "budget",
            "has nothing to count: no noise is asked for",
            'Write noise = "central", "local" or "distributed"',
        )
    if not noisy and not hidden:
        yield (
            "noise",
            "is none, and updates are not hidden either, so nothing is promised",
            'Write secure_aggregation = true, or noise = "central" with a clip; or leave [privacy] out',
        )
    if noisy and section.clip is None and section.unit == "client":
        yield "clip", "is missing: noise covers updates up to a limit", "Write clip = 1.0"
    if noisy and summed:
        yield (
            "noise",
            f"cannot cover what the learner {file.model.learner!r} sends: exact statistics have no limit",
            "Leave noise out, keep secure_aggregation, and cover the coefficients at the end (docs/privacy.md)",
        )
    if section.noise == "distributed" and not hidden:
        yield (
            "noise",
            "is distributed, so no single update is covered, and updates are sent in the clear",
            'Write secure_aggregation = true, or noise = "local"',
        )
    if section.noise == "local" and hidden and section.unit == "client":
        yield (
            "noise",
            "is local: each update is covered by itself, and a secure sum of them needs n times less",
            'Write noise = "distributed", or leave secure_aggregation out',
        )
    if section.noise == "local" and isinstance(section.clip, dict) and "adaptive" in section.clip:
        yield (
            "clip",
            "is adaptive, and whether a client was within the limit would be told in the clear",
            'Write clip = 1.0, or noise = "central" or "distributed"',
        )
    if file.train.noise and noisy:
        yield (
            "noise",
            "and [train] noise both blur updates, and only the first is counted",
            "Leave [train] noise out",
        )
    if hidden and file.serve.late:
        yield (
            "secure_aggregation",
            "hides the clients of one round in one sum, and late updates belong to another",
            'Leave out [serve] max_staleness and mode = "buffered"',
        )
    if section.correlated is None:
        return
    if section.noise != "central":
        yield (
            "correlated",
            f'is made by the coordinator, and noise is "{section.noise}"',
            'Write noise = "central"',
        )
    if file.train.clients_per_round is None:
        yield (
            "correlated",
            "is for clients that come seldom, and all take part in every round",
            "Give [train] clients_per_round, at most clients / separation",
        )
    if isinstance(section.clip, dict) and "adaptive" in section.clip:
        yield "clip", "is adaptive, and correlated noise needs one limit for all rounds", "Write clip = 1.0"


def _up(value: float) -> float:
    """Rounded up where people read it, so that the budget holds what was planned."""
    return math.ceil(value * 1e6) / 1e6


def _down(value: float) -> float:
    places = 10.0 ** (9 - math.floor(math.log10(value)))
    return math.floor(value * places) / places
