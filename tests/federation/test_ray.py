import os
import socket
import threading
from dataclasses import replace

import pytest

from haina.errors import ConfigError, RunError, Unreachable
from haina.federation import Federation
from haina.federation.ray import Cluster
from haina.federation.runner import play
from haina.federation.workers import Workers
from haina.simulation.rundir import RunDir

pytestmark = pytest.mark.slow

#: Seconds until a share is killed: it is on its way by then, and far from done.
_SOON = 0.05

IRIS = """\
name = "iris"
[model]
learner = "{}"
kind = "logistic"
[data]
source = "sklearn:iris"
partition = {{iid = 6}}
[train]
rounds = 3
batch_size = 8
learning_rate = 0.05
[strategy]
preset = "fedadam"
"""
TORCH = IRIS.format("torch")
FOREST = (
    '[model]\nlearner = "forest"\ntrees = 60\n[data]\nsource = "sklearn:digits"\npartition = {iid = 6}\n'
    "[train]\nrounds = 1\n"
)


@pytest.fixture(scope="module")
def cluster():
    pytest.importorskip("ray", reason="ray is not installed: pip install 'haina[ray]'")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("RAY_ADDRESS", raising=False)
        with Cluster(2) as cluster:
            yield cluster


def told(records):
    return [replace(record, timing={}, cost={}) for record in records]


def test_actors_learn_the_bytes_of_local_workers_and_of_none(cluster, tmp_path):
    federation = Federation.of(TORCH)
    runs = {
        name: list(play(federation, RunDir(tmp_path / name), workers=workers, engine=engine))
        for name, workers, engine in (("alone", 1, "local"), ("two", 2, "local"), ("actors", 2, "ray"))
    }
    assert told(runs["actors"]) == told(runs["two"]) == told(runs["alone"])
    files = {name: (tmp_path / name / "state.safetensors").read_bytes() for name in runs}
    assert files["actors"] == files["two"] == files["alone"]
    assert runs["actors"][-1].cost["workers"] == 2
    assert runs["actors"][-1].cost["busy_seconds"] > 0


def test_a_killed_actor_is_replaced_and_nobody_notices(cluster):
    import ray

    federation = Federation.of(FOREST)
    simulation = federation.simulation()
    turn = simulation.turn(simulation.start())
    expected = {result.client: result.vector.tobytes() for result in simulation.train(turn)}
    with Workers(federation, 2, cluster.hire, simulation.data.digest()) as workers:
        for _ in range(2):
            before = [seat.handle for seat in workers.seats]
            if before[0] is not None:
                threading.Timer(_SOON, ray.kill, (before[0],)).start()
            found = {result.client: result.vector.tobytes() for result in workers.train(turn)}
            assert found == expected
        assert workers.seats[0].handle is not before[0]
        assert workers.seats[1].handle is before[1]
        assert len(workers.usage) == 3


def test_a_share_that_keeps_killing_its_actor_is_given_up(cluster, tmp_path):
    (tmp_path / "task.py").write_text(
        "import os\n"
        "import jax.numpy as jnp\n"
        "def build_model():\n"
        f"    if os.getpid() != {os.getpid()}:\n"
        "        os._exit(3)\n"
        "    return (lambda key: {'w': jnp.zeros((4, 3))}), (lambda params, x: x @ params['w'])\n"
    )
    text = IRIS.format("jax").replace('kind = "logistic"', 'build = "task:build_model"')
    federation = Federation.of(text, folder=tmp_path)
    simulation = federation.simulation()
    turn = simulation.turn(simulation.start())
    with (
        Workers(federation, 1, cluster.hire) as workers,
        pytest.raises(RunError, match="a worker died 3 times on the same 6 clients"),
    ):
        list(workers.train(turn))


def test_files_that_are_not_on_a_machine_are_asked_for_in_one_sentence(cluster, tmp_path):
    (tmp_path / "task.py").write_text(
        "import jax.numpy as jnp\n"
        "def build_model():\n"
        "    return (lambda key: {'w': jnp.zeros((4, 3))}), (lambda params, x: x @ params['w'])\n"
    )
    text = IRIS.format("jax").replace('kind = "logistic"', 'build = "task:build_model"')
    federation = Federation.of(text, folder=tmp_path)
    simulation = federation.simulation()
    turn = simulation.turn(simulation.start())
    (tmp_path / "task.py").unlink()
    with Workers(federation, 1, cluster.hire) as workers, pytest.raises(ConfigError) as error:
        list(workers.train(turn))
    assert "there is no file" in error.value.what
    assert "On a cluster every machine needs the federation's folder" in error.value.remedy


def test_more_workers_than_processors_are_refused(cluster):
    with pytest.raises(ConfigError, match="the Ray cluster has 2 processors"), Cluster(3):
        pass


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "nonsense"])
def test_a_cluster_that_is_not_there_is_said_at_once(address, monkeypatch):
    ray = pytest.importorskip("ray", reason="ray is not installed: pip install 'haina[ray]'")
    # The cluster of this module would be used in its place.
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        monkeypatch.setenv("RAY_ADDRESS", address.format(nobody.getsockname()[1]))
        with pytest.raises(Unreachable, match="there is no Ray at RAY_ADDRESS="), Cluster(2):
            pass
