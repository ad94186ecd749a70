import pytest
from resets import Resets

from federation import running, sites

pytestmark = pytest.mark.slow

#: A model of 650 kB, so that most connections break inside of one upload or download.
TEXT = """\
name = "wide"
seed = 3
[model]
learner = "jax"
kind = "mlp"
hidden = [400, 400]
[data]
shape = [6]
classes = ["0", "1"]
[train]
rounds = 8
learning_rate = 0.01
[serve]
nodes = 2
deadline = "100s"
"""


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_connections_that_are_reset_in_the_middle(door, tmp_path, undisturbed):
    doors, proxies = (door, door), []

    def between(here, there):
        proxies.append(Resets(here, there, seed=4, bytes=3_000_000, seconds=4.0))

    with running(tmp_path, TEXT, sites(tmp_path, doors), between=between) as federation:
        try:
            federation.end()
        finally:
            for proxy in proxies:
                proxy.close()
                print(
                    f"{proxy.count} connections; reset (number, after, bytes up, bytes down): {proxy.broken}"
                )
        federation.check()
        model = federation.ledger.model
    broken = [reset for proxy in proxies for reset in proxy.broken]
    up, down = ([r for r in broken if r[way] % 650_000 > 10_000] for way in (2, 3))
    assert min(len(up), len(down)) >= 3, broken
    assert model == undisturbed(TEXT, ("http", "http"))
