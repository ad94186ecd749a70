import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import ConfigError, DataError
from haina.report import Report
from haina.shards import Shards
from haina.simulation.attacks import (
    ALIE,
    ATTACKS,
    IPM,
    Gaussian,
    LabelFlip,
    LyingReports,
    Mimic,
    MinMax,
    NaNSender,
    ScaledCopy,
    SignFlip,
    on_off,
    sleeper,
)
from haina.update import Update

VECTORS = {
    vector["id"]: vector
    for vector in json.loads(Path(__file__).parents[1].joinpath("vectors/aggregation.json").read_text())[
        "vectors"
    ]
}
RNG = np.random.default_rng(0)
HONEST = np.random.default_rng(1).normal(size=(8, 5))
OWN = np.random.default_rng(2).normal(size=(3, 5))


def published(name):
    vector = VECTORS[name]
    return np.array(vector["inputs"]["vectors"]), np.array(vector["expected"])


@pytest.mark.parametrize(
    ("name", "attack"),
    [
        ("byz_attack_signflip", IPM(1.0)),
        ("byz_attack_ipm_tau2", IPM(2.0)),
        ("byz_attack_alie_tau1.5", ALIE(-1.5)),
    ],
)
def test_published_vectors(name, attack):
    honest, expected = published(name)
    forged = attack.forge(honest, np.zeros((2, honest.shape[1])), RNG)
    np.testing.assert_allclose(forged, [expected, expected], rtol=0, atol=1e-9)


def test_a_sign_flip_of_the_honest_mean_is_the_published_vector():
    honest, expected = published("byz_attack_signflip")
    forged = SignFlip().forge(honest, honest.mean(axis=0)[None], RNG)
    np.testing.assert_allclose(forged[0], expected, rtol=0, atol=1e-9)


def test_attacks_on_own_rows():
    np.testing.assert_array_equal(SignFlip(3).forge(HONEST, OWN, RNG), -3 * OWN)
    np.testing.assert_allclose(ScaledCopy(10).forge(HONEST, OWN, RNG), np.tile(10 * OWN.mean(axis=0), (3, 1)))
    assert np.isnan(NaNSender().forge(HONEST, OWN, RNG)).all()


def test_mimics_are_their_victim():
    np.testing.assert_array_equal(Mimic(2).forge(HONEST, OWN, RNG), HONEST[[2, 2, 2]])
    np.testing.assert_array_equal(Mimic(9).forge(HONEST, OWN, RNG), HONEST[[1, 1, 1]])


def test_gaussian_noise_has_the_norm_it_promises():
    honest = np.random.default_rng(3).normal(1, 1, (10, 20_000))
    noise = Gaussian(3).forge(honest, np.zeros((2, 20_000)), np.random.default_rng(4))
    norm = np.linalg.norm(honest.mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(noise, axis=1), 3 * norm, rtol=5 / np.sqrt(2 * 20_000))
    assert abs(np.corrcoef(noise)[0, 1]) < 0.05


@given(st.integers(2, 12), st.integers(1, 8), st.integers(0, 2**32))
def test_min_max_goes_exactly_as_far_as_honest_rows_lie_apart(h, d, seed):
    honest = np.random.default_rng(seed).normal(size=(h, d))
    sent = MinMax().forge(honest, np.zeros((1, d)), RNG)[0]
    widest = max(np.linalg.norm(a - b) for a in honest for b in honest)
    farthest = np.linalg.norm(sent - honest, axis=1).max()
    assert farthest == pytest.approx(widest, rel=1e-7)
    moved = sent - honest.mean(axis=0)
    deviation = honest.std(axis=0, ddof=1)
    assert moved @ deviation <= 0
    np.testing.assert_allclose(
        np.abs(moved @ deviation), np.linalg.norm(moved) * np.linalg.norm(deviation), rtol=1e-7
    )


@pytest.mark.parametrize("attack", [ALIE(), MinMax(), IPM(-1.0)])
def test_a_single_honest_client_has_no_spread_and_is_copied(attack):
    np.testing.assert_allclose(attack.forge(HONEST[:1], OWN, RNG), np.tile(HONEST[0], (3, 1)))


def shards():
    y = np.array([0, 1, 2, 3, 3, 2, 1, 0])
    return Shards(("a", "b", "c"), np.zeros((8, 1), np.float32), y, np.array([[0, 3], [3, 5], [5, 8]]))


def test_label_flip_falsifies_the_attackers_rows_and_no_others():
    clean = shards()
    poisoned = LabelFlip().poison(clean, {"b", "elsewhere"}, 4)
    np.testing.assert_array_equal(poisoned.y, [0, 1, 2, 0, 0, 2, 1, 0])
    np.testing.assert_array_equal(clean.y, [0, 1, 2, 3, 3, 2, 1, 0])
    np.testing.assert_array_equal(poisoned.x, clean.x)
    np.testing.assert_array_equal(LabelFlip().poison(poisoned, {"b"}, 4).y, clean.y)


def test_labels_are_left_alone_by_other_attacks_and_other_clients():
    clean = shards()
    assert SignFlip().poison(clean, {"b"}, 4) is clean
    assert LabelFlip().poison(clean, {"elsewhere"}, 4) is clean


def test_values_have_no_labels_to_flip():
    with pytest.raises(DataError, match="no labels"):
        LabelFlip().poison(shards(), {"a"}, 0)


def updates():
    rows = np.vstack([HONEST, OWN]).astype(np.float32)
    return [
        Update(
            f"c{i:02d}",
            row,
            Report(examples=10, accuracy=0.5, label_counts=(8, 2), loss_after=1.0, seconds=4.0),
        )
        for i, row in enumerate(rows)
    ]


HOSTILE = frozenset({"c08", "c09", "c10"})


def test_only_attackers_send_something_else():
    before = updates()
    after = SignFlip(2).corrupt(before, HOSTILE, RNG)
    assert [u.client for u in after] == [u.client for u in before]
    for old, new in zip(before, after, strict=True):
        if old.client in HOSTILE:
            np.testing.assert_allclose(new.vector, -2 * old.vector, rtol=1e-6)
            assert new.vector.dtype == np.float32
            assert new.report == old.report
        else:
            assert new is old


def test_attackers_see_honest_rows_only():
    after = IPM(1.0).corrupt(updates(), HOSTILE, RNG)
    np.testing.assert_allclose(after[-1].vector, -HONEST.mean(axis=0), rtol=1e-5)


def test_cohorts_without_attackers_and_of_attackers_only():
    before = updates()
    assert all(old is new for old, new in zip(before, IPM().corrupt(before, frozenset(), RNG), strict=True))
    alone = IPM(1.0).corrupt(before[8:], HOSTILE, RNG)
    np.testing.assert_allclose(alone[0].vector, -OWN.mean(axis=0), rtol=1e-5)
    assert IPM().corrupt([], HOSTILE, RNG) == []


def test_liars_say_what_raises_a_share_and_nothing_impossible():
    lie = LyingReports(exaggerate=10).lie(updates()[0].report)
    assert lie == Report(examples=100, accuracy=1.0, label_counts=(50, 50), loss_after=0.0, seconds=0.4)
    assert lie.fault() is None
    assert LyingReports().lie(Report(examples=3)) == Report(examples=30)
    assert SignFlip().lie(updates()[0].report) == updates()[0].report


def test_any_attack_can_exaggerate_as_well():
    after = SignFlip(exaggerate=5).corrupt(updates(), HOSTILE, RNG)
    assert [u.report.examples for u in after] == [10] * 8 + [50] * 3
    np.testing.assert_allclose(after[-1].vector, -OWN[-1], rtol=1e-6)
    honest_vectors = LyingReports().corrupt(updates(), HOSTILE, RNG)
    np.testing.assert_array_equal(honest_vectors[-1].vector, updates()[-1].vector)


def test_when_attacks_act():
    assert [r for r in range(1, 100) if not sleeper(start=30).active(r)] == list(range(1, 30))
    assert [r for r in range(1, 21) if on_off(period=5).active(r)] == [1, 2, 3, 4, 5, 11, 12, 13, 14, 15]
    assert [r for r in range(1, 12) if SignFlip(start=4, period=2).active(r)] == [4, 5, 8, 9]
    assert all(SignFlip().active(r) for r in range(1, 10))


@given(st.integers(3, 60), st.floats(0.2, 0.6), st.integers(0, 2**32))
def test_attackers_are_the_fraction_of_distinct_clients(n, fraction, seed):
    clients = [f"c{i}" for i in range(n)]
    hostile = SignFlip(fraction=fraction).attackers(clients, np.random.default_rng(seed))
    assert abs(len(hostile) - fraction * n) <= 0.5
    assert hostile < set(clients)
    assert hostile == SignFlip(fraction=fraction).attackers(clients, np.random.default_rng(seed))


def test_an_attack_of_nobody_or_everybody_is_refused():
    for fraction, clients in ((0.01, 30), (0.99, 10), (0.5, 0)):
        with pytest.raises(ConfigError, match="attackers"):
            SignFlip(fraction=fraction).attackers([f"c{i}" for i in range(clients)], RNG)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SignFlip(fraction=0), "fraction of the attack is 0"),
        (lambda: SignFlip(fraction=1.0), "fraction"),
        (lambda: SignFlip(start=0), "start"),
        (lambda: SignFlip(period=0), "period"),
        (lambda: SignFlip(exaggerate=0), "exaggerate"),
        (lambda: SignFlip(float("nan")), "scale of the attack is nan"),
        (lambda: ALIE(float("inf")), "z of the attack is inf"),
        (lambda: LyingReports(exaggerate=-1), "exaggerate"),
    ],
)
def test_impossible_settings_are_refused(make, words):
    with pytest.raises(ConfigError, match=words):
        make()


def test_every_name_of_the_federation_file_makes_an_attack():
    for name, make in ATTACKS.items():
        attack = make(fraction=0.3)
        assert attack.fraction == 0.3
        changed = attack.corrupt(updates(), HOSTILE, RNG)[-1]
        poisoned = attack.poison(shards(), {"b"}, 4)
        honest = updates()[-1]
        same = np.array_equal(changed.vector, honest.vector) and changed.report == honest.report
        assert not same or (poisoned.y != shards().y).any(), name
