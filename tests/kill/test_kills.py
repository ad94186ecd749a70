"""100 kills: 20 + 16 + 20 + 20 + 12 + 12."""

import pytest
from files import NETWORK, PATH
from postgres import running as postgresql
from reaper import Reaper

from federation import running, sites

pytestmark = pytest.mark.slow


def killed(folder, text, doors, seed, trials, victims, **options):
    """The final model of a federation with so many kills."""
    with running(folder, text, sites(folder, doors), **options) as federation:
        Reaper(federation, seed, **victims).reap(trials)
        federation.end()
        federation.check()
        return federation.ledger.model


def test_one_coordinator(tmp_path, undisturbed):
    doors = ("http", "http", "http")
    assert killed(tmp_path, PATH, doors, 1, 20, {"coordinator": 1, "node": 1}) == undisturbed(PATH, doors)


def test_grpc(tmp_path, undisturbed):
    doors = ("grpc", "grpc", "http")
    model = killed(tmp_path, PATH, doors, 2, 16, {"coordinator": 1, "node": 1})
    assert model == undisturbed(PATH, ("http", "http", "http"))


@pytest.mark.parametrize("replicas", [1, 3])
def test_postgresql(replicas, tmp_path, undisturbed):
    doors = ("http", "http", "http")
    with postgresql() as postgres:
        victims = {"coordinator": 2, "node": 1, "postgres": 2}
        options = {"postgres": postgres, "replicas": replicas}
        model = killed(tmp_path, PATH, doors, 2 + replicas, 20, victims, **options)
    assert model == undisturbed(PATH, doors)


@pytest.mark.parametrize(("preset", "codec"), [("scaffold", "float32"), ("fedavg", "int8")])
def test_nodes_that_remember(preset, codec, tmp_path, undisturbed):
    text, doors = NETWORK % (preset, codec), ("http", "grpc")
    model = killed(tmp_path, text, doors, 10, 12, {"coordinator": 1, "node": 2})
    assert model == undisturbed(text, doors)
