"""Glossary: what the words and numbers of a record mean, once for the explanation, the page and its column headings.

Evidence differs from rule to rule. Names known here get words; others are shown as `name = value`, so a new rule is never hidden.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from haina.monitoring.text import known, number, plain, score
from haina.strategy.record import ClientRecord

#: One line for each word that a reader may not know.
MEANING: Mapping[str, str] = {
    "share": "how much of the new model comes from a client",
    "prior": "the share before trust and the combining rule",
    "equal clients": "clients of equal share that would weigh the same",
    "cosine": "direction against the group's, 1 the same, 0 unrelated, -1 opposite",
    "distance": "how far the update lies from the combined one",
    "Krum score": "sum of squared distances to its nearest neighbours",
    "norm": "length of the update, how far it wants to move the model",
    "agreement": "1 where an update is wholly explained as learning, -1 as the opposite, 0 tells nothing",
    "deviation": "how much longer its recent updates were than trusted ones, up to 1 is usual",
    "consistency": "how strongly it agreed over the rounds, compared with trusted clients, 0 to 1",
    "trust": "consistency / (1 + 0.3 deviation), 0 to 1",
    "gate": "what trust lets through of the prior, 0 to 1",
    "quarantined": "watched, but counts for nothing until it has behaved for some rounds",
    "on probation": "released from quarantine, counts half for some rounds",
    "damped": "counts less than it would if it were trusted in full",
    "clipped": "longer than the limit, so scaled down to it",
    "passed over": "usable, but the combining rule took others",
}

_REASONS: Mapping[str, Callable[[float], str]] = {
    "samples": lambda x: f"{number(x)} examples",
    "effective_samples": lambda x: f"worth {number(x)} effective examples (many, varied and well fitted)",
    "uniform": lambda x: "",
    "disco": lambda x: f"FedDisco weight {number(x)} (examples, less for one-sided labels)",
    "accuracy": lambda x: _times("accuracy", x),
    "convergence": lambda x: _times("speed of learning", x),
    "link": lambda x: _times("reliable delivery", x),
    "participation": lambda x: _times("frequency of taking part", x),
    "staleness": lambda x: _times("age of the model it started from", x),
    "staleness_hinge": lambda x: _times("age of the model it started from", x),
}


def factors(client: ClientRecord) -> list[str]:
    """What made a client's prior share, in words; multipliers of 1 and the gate of trust are left out."""
    said = []
    for name in client.factors:
        value = known(client.factors, name)
        if value is not None and name != "trust":
            said.append(_REASONS[name](value) if name in _REASONS else _times(plain(name, 40), value))
    return [words for words in said if words]


def evidence(client: ClientRecord, usual: Mapping[str, float]) -> list[str]:
    """The evidence on a client in words; `usual` holds the round's medians. Trust is left out: it goes with the verdict.

    The length of the update is added where it is at least twice, or at most half, the usual.
    """
    values = {name: value for name in client.evidence if (value := known(client.evidence, name)) is not None}
    if client.norm is not None:
        values["norm"] = client.norm
    words = [_EVIDENCE[name](values[name], usual.get(name, 0.0)) for name in _EVIDENCE if name in values]
    said = ", ".join(word for word in words if word)
    bare = [f"{plain(name, 40)} = {number(value)}" for name, value in values.items() if name not in _NAMED]
    if "consistency" in values:
        bare.append(f"consistency {score(values['consistency'])}")
    return ([f"its update {said}"] if said else []) + bare


def gloss(text: str, words: Iterable[str] = MEANING) -> str:
    """One line that explains those of `words` that occur in `text`; empty if none does."""
    used = [f"{word}: {MEANING[word]}" for word in words if re.search(rf"\b{word}\b", text)]
    return f"Words: {'; '.join(used)}." if used else ""


def _times(what: str, multiplier: float) -> str:
    return "" if multiplier == 1 else f"{what} ×{number(multiplier)}"


def _cosine(value: float, usual: float) -> str:
    if value < -0.1:
        way = "away from"
    elif value <= 0.1:
        way = "neither with nor against"
    else:
        way = "with"
    return f"points {way} the others (cosine {score(value)})"


def _distance(value: float, usual: float) -> str:
    if usual > 0 and value >= 1.5 * usual:
        return f"lies {number(value / usual)} times as far off as is usual (distance {number(value)})"
    return f"lies no farther off than is usual (distance {number(value)})"


def _krum(value: float, usual: float) -> str:
    if usual > 0 and value >= 1.5 * usual:
        return f"lies apart from its neighbours (Krum score {number(value)}, {number(usual)} is usual)"
    return f"has neighbours as others have (Krum score {number(value)})"


def _length(value: float, usual: float) -> str:
    if usual > 0 and value >= 2 * usual:
        return f"is {number(value / usual)} times as long as is usual (norm {number(value)})"
    return f"is far shorter than is usual (norm {number(value)})" if value <= usual / 2 else ""


def _agreement(value: float, usual: float) -> str:
    if value < -0.02:
        way = "looks like un-learning"
    elif value <= 0.02:
        way = "tells neither for nor against it"
    else:
        way = "looks like learning"
    return f"{way} (agreement {score(value)})"


def _deviation(value: float, usual: float) -> str:
    """Said only where it counts against the client: length within the usual is no news."""
    return f"and those before were longer than trusted ones (deviation {score(value)})" if value > 1 else ""


_EVIDENCE: Mapping[str, Callable[[float, float], str]] = {
    "cosine": _cosine,
    "distance": _distance,
    "krum_score": _krum,
    "norm": _length,
    "agreement": _agreement,
    "deviation": _deviation,
}
_NAMED = {*_EVIDENCE, "consistency", "trust"}
