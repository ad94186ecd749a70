import numpy as np
import pytest

from haina.errors import ConfigError
from haina.simulation.faults import Devices, Dropout, Stragglers

CLIENTS = [f"client-{i:03d}" for i in range(200)]

DRAWS = [
    lambda seed, number, clients: Dropout(0.3).absent(seed, number, clients),
    lambda seed, number, clients: Stragglers(0.5).epochs(seed, number, clients, 20),
]


@pytest.mark.parametrize("draw", DRAWS)
def test_a_fault_follows_from_seed_round_and_client(draw):
    values = draw(1, 1, CLIENTS)
    np.testing.assert_array_equal(values, draw(1, 1, CLIENTS))
    np.testing.assert_array_equal(values[::-1], draw(1, 1, CLIENTS[::-1]))
    assert (values != draw(1, 2, CLIENTS)).any()
    assert (values != draw(2, 1, CLIENTS)).any()
    assert len(draw(1, 1, [])) == 0


def test_dropouts_come_with_their_probability_and_do_not_depend_on_the_cohort():
    absent = np.array([Dropout(0.3).absent(0, r, CLIENTS) for r in range(50)])
    assert absent.mean() == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / absent.size))
    np.testing.assert_array_equal(Dropout(0.3).absent(0, 7, CLIENTS[50:60]), absent[7, 50:60])
    assert not Dropout().absent(0, 1, CLIENTS).any()
    assert Dropout(1.0).absent(0, 1, CLIENTS).all()


@pytest.mark.parametrize("fraction", [0.0, 0.5, 0.9, 1.0])
def test_an_exact_fraction_does_part_of_the_work(fraction):
    epochs = np.concatenate([Stragglers(fraction).epochs(0, r, CLIENTS[:10], 20) for r in range(100)])
    slow = epochs.reshape(100, 10) < 20
    assert (slow.sum(axis=1) == round(fraction * 10)).all()
    if fraction:
        few = epochs[epochs < 20]
        assert set(few.tolist()) == set(range(1, 20))
        assert few.mean() == pytest.approx(10, abs=4 * np.sqrt(30 / len(few)))


def test_faults_are_not_tied_to_each_other():
    absent = Dropout(0.5).absent(0, 1, CLIENTS)
    slow = Stragglers(0.5).epochs(0, 1, CLIENTS, 2) < 2
    assert abs(np.corrcoef(absent, slow)[0, 1]) < 4 / np.sqrt(len(CLIENTS))


def test_devices_keep_their_speed_and_are_log_normally_spread():
    devices = Devices(0.02, 0.5)
    seconds = np.array([devices.seconds(0, client, 10) for client in CLIENTS])
    logs = np.log(seconds / 0.2)
    assert logs.mean() == pytest.approx(0, abs=4 * 0.5 / np.sqrt(200))
    assert logs.std() == pytest.approx(0.5, rel=4 / np.sqrt(400))
    assert devices.seconds(0, "client-003", 20) == pytest.approx(2 * seconds[3])
    assert Devices(0.02, 0).seconds(0, "anyone", 10) == pytest.approx(0.2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Dropout(-0.1),
        lambda: Dropout(1.1),
        lambda: Dropout(float("nan")),
        lambda: Stragglers(1.5),
        lambda: Devices(0),
        lambda: Devices(1, -1),
        lambda: Stragglers(0.5).epochs(0, 1, CLIENTS, 1),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ConfigError, match="Allowed"):
        make()


def test_no_stragglers_need_no_second_epoch():
    assert Stragglers().epochs(0, 1, CLIENTS, 1).tolist() == [1] * 200
