import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import nnls

from haina.errors import RoundError
from haina.strategy.trust.agreement import robust_centre, with_peers, with_witnesses


def cone(witnesses, u):
    """R+ by scipy's non-negative least squares."""
    weights, _ = nnls(witnesses.T, u)
    return float(np.linalg.norm(weights @ witnesses))


@settings(max_examples=25)
@given(st.integers(0, 2**32), st.integers(1, 6), st.integers(1, 8))
def test_agreement_is_the_difference_of_two_projections(seed, witnesses, clients):
    rng = np.random.default_rng(seed)
    S, U = rng.normal(size=(witnesses, 20)), rng.normal(size=(clients, 20))
    got = with_witnesses(S @ S.T, U @ S.T, np.linalg.norm(U, axis=1))
    expected = [(cone(S, u) - cone(S, -u)) / np.linalg.norm(u) for u in U]
    np.testing.assert_allclose(got, expected, atol=2e-3)


def test_a_mix_of_witnesses_agrees_whatever_its_skew_and_its_opposite_does_not():
    rng = np.random.default_rng(0)
    classes = rng.normal(size=(10, 500))
    mixes = rng.dirichlet(np.full(10, 0.1), 12) @ classes
    inner = np.vstack([mixes, -mixes]) @ classes.T
    agreement = with_witnesses(classes @ classes.T, inner, np.linalg.norm(np.vstack([mixes, mixes]), axis=1))
    assert (agreement[:12] > 0.85).all()
    np.testing.assert_allclose(agreement[12:], -agreement[:12], atol=1e-9)


@pytest.mark.parametrize("hostile", [0, 4, 8])
def test_flippers_among_peers_disagree_from_the_first_round(hostile):
    rng = np.random.default_rng(1)
    U = rng.normal(1, 1.5, size=(20, 400))
    U[:hostile] *= -1
    agreement = with_peers(U @ U.T, np.full(20, 0.5), 0.4)
    assert (agreement[:hostile] < 0).all()
    assert (agreement[hostile:] > 0.1).all()


def test_copies_are_one_voice():
    rng = np.random.default_rng(2)
    U = rng.normal(1, 1.5, size=(12, 400))
    U[:7] = -rng.normal(1, 1.5, size=400) + rng.normal(0, 0.05, size=(7, 400))
    agreement = with_peers(U @ U.T, np.ones(12), 0.4)
    assert (agreement[7:] > agreement[:7].max()).all()


def test_the_mistrusted_bear_no_witness():
    rng = np.random.default_rng(3)
    U = rng.normal(1, 1.0, size=(10, 300))
    U[:6] *= -1
    gate = np.r_[np.zeros(6), np.ones(4)]
    agreement = with_peers(U @ U.T, gate, 0.4)
    assert (agreement[:6] < 0).all()
    assert (agreement[6:] > 0).all()


@given(st.integers(1, 6), st.integers(0, 2**32))
def test_few_clients_and_empty_updates_give_numbers(clients, seed):
    rng = np.random.default_rng(seed)
    U = rng.normal(size=(clients, 5)) * (rng.random(clients) < 0.5)[:, None]
    for gate in (np.zeros(clients), np.ones(clients)):
        agreement = with_peers(U @ U.T, gate, 0.4)
        assert np.isfinite(agreement).all()
        assert (np.abs(agreement) <= 1 + 1e-9).all()


def test_nobody_has_no_centre():
    with pytest.raises(RoundError, match="positive weight"):
        robust_centre(np.eye(3), np.zeros(3), 1)
