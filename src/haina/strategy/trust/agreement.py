"""Agreement: is an update better explained as learning, or as un-learning?

A few witnesses are updates known, or believed, to be learning. Honest clients with unlike data do not all point the same way, but each is close
to a mix of witnesses with non-negative weights; a flipped or poisoned update is closer to the opposite of one. With

    R+(u) = length of the projection of u on the cone { sum_j a_j s_j, a >= 0 }        R-(u) = R+(-u)

a client's agreement is x = (R+ - R-) / ||u||, in [-1, 1]. The projections are small non-negative least squares in Gram space (accelerated
projected gradient, Beck and Teboulle 2009), so nothing here grows with the length of the vectors.

Measured on digits at Dirichlet 0.1, 40 % attackers, rounds 10 to 20: a plain cosine with the server's own update tells sign flips from honest clients
with AUC 0.90 and ALIE with 0.72; the cone of one witness a class tells both with AUC 1.00 in a single round.

The trap is privacy: the weights a estimate a client's mix of classes. They stay inside these functions.
"""

from __future__ import annotations

import numpy as np

from haina.errors import RoundError
from haina.strategy.robust import NNM, GeometricMedian
from haina.update import Vector

#: Above this cosine two uploads count as one voice, and are no witnesses for each other.
COPY = 0.9
#: Added to the witnesses' Gram matrix when they are other clients: nearly parallel ones share the explanation instead of cancelling.
RIDGE = 0.05
#: Clients trusted less than this are no witnesses.
WITNESS = 0.1

_ITERATIONS = 60
_TINY = 1e-12


def with_witnesses(witnesses: Vector, inner: Vector, norms: Vector) -> Vector:
    """Agreement `[n]` with updates that the server trusts.

    Args:
        witnesses: `[c, c]` Gram matrix of the witnesses.
        inner: `[n, c]` inner products of clients and witnesses.
        norms: `[n]` lengths of the clients' updates.
    """
    return _learning(witnesses, inner, np.ones_like(inner)) / np.maximum(norms, _TINY)


def with_peers(gram: Vector, gate: Vector, hostile: float) -> Vector:
    """Agreement `[n]` with the other clients, as far as they are trusted so far.

    Half of it is the cone of the others; half is the cosine with the robust centre of the others, which settles in the first rounds who "we" are.
    Clients count equally here, whatever their samples: with sample weights, attackers with 48 % of the mass turned the centre round.

    Args:
        gram: `[n, n]` inner products of the updates.
        gate: `[n]` how far each client is trusted, in [0, 1].
        hostile: largest share of hostile clients to stand, in [0, 0.5); those shut out already count against it.
    """
    n = len(gram)
    norms = np.sqrt(np.maximum(np.diag(gram), 0.0)) + _TINY
    cosine = gram / np.outer(norms, norms)
    copies = cosine > COPY
    np.fill_diagonal(copies, val=True)
    trusted = gate if gate.sum() > _TINY else np.ones(n)
    centre = robust_centre(
        gram, trusted / copies.sum(axis=1), max(0, int(hostile * n) - int((gate < WITNESS).sum()))
    )
    products, squares = gram @ centre, np.diag(gram)
    # The centre without the client itself: own weight must not vouch for it.
    others = products - centre * squares
    length = np.sqrt(np.maximum(centre @ products - 2 * centre * products + centre**2 * squares, _TINY**2))
    trusted = trusted / trusted.max()
    witnesses = cosine * np.outer(trusted, trusted) + RIDGE * np.eye(n)
    allowed = (~copies & (trusted > WITNESS)).astype(np.float64)
    return (np.clip(others / (norms * length), -1, 1) + _learning(witnesses, cosine * trusted, allowed)) / 2


def robust_centre(gram: Vector, weights: Vector, hostile: int) -> Vector:
    """Coefficients `[n]` of the geometric median after nearest-neighbour mixing, over clients with a weight worth the name.

    Args:
        gram: `[n, n]` inner products.
        weights: `[n]` >= 0.
        hostile: clients to stand; lowered to what the number of clients allows.

    Raises:
        RoundError: no weight is positive.
    """
    present = np.where(weights > 1e-4 * weights.max(initial=0.0), weights, 0.0)
    count = int(np.count_nonzero(present))
    if not count:
        raise RoundError("no client has a positive weight")
    rule = NNM(min(hostile, (count - 1) // 2), GeometricMedian(iterations=200, tolerance=1e-9))
    return rule.coefficients(gram, present)


def _learning(witnesses: Vector, inner: Vector, allowed: Vector) -> Vector:
    return _explained(witnesses, inner, allowed) - _explained(witnesses, -inner, allowed)


def _explained(witnesses: Vector, inner: Vector, allowed: Vector) -> Vector:
    """`[n]` lengths of the projections on the cone of the allowed witnesses."""
    step = 1 / (float(np.linalg.eigvalsh(witnesses)[-1]) + _TINY)
    weights = ahead = np.zeros_like(inner)
    momentum = 1.0
    for _ in range(_ITERATIONS):
        new = np.maximum(0.0, ahead + (inner - ahead @ witnesses) * step) * allowed
        grown = (1 + np.sqrt(1 + 4 * momentum**2)) / 2
        ahead = new + (momentum - 1) / grown * (new - weights)
        weights, momentum = new, grown
    lengths: Vector = np.sqrt(np.maximum(((weights @ witnesses) * weights).sum(axis=1), 0.0))
    return lengths
