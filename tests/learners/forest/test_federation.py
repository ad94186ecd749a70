"""One federation of forests: a site with randomForest, one with ranger, and a Python node, over mutual TLS."""

import json

import numpy as np
import pytest
from processes import Ledger
from rsite import RSite, needs_r
from served import Served

from haina.federation import Federation
from haina.learners.forest import read

pytestmark = pytest.mark.slow

FILE = """\
name = "wards"
[model]
learner = "forest"
trees = 40
max_features = 2
[data]
target = "outcome"
features = ["age", "ward", "stay"]
categorical = {ward = ["a", "b", "c", "d"]}
classes = ["well", "ill"]
test = 0
[train]
rounds = 1
[serve]
nodes = 3
"""


def table(path, rows, seed):
    rng = np.random.default_rng(seed)
    age, stay, ward = rng.normal(60, 12, rows), rng.gamma(2.0, 3.0, rows), rng.choice(list("abcd"), rows)
    ill = np.isin(ward, ["b", "d"]) & (age > 55) | (stay > 10)
    lines = [
        f"{a!r},{w},{s!r},{'ill' if y else 'well'}"
        for a, w, s, y in zip(age.tolist(), ward, stay.tolist(), ill, strict=True)
    ]
    path.write_text("\n".join(["age,ward,stay,outcome", *lines]) + "\n")
    return path


@pytest.fixture
def house(tmp_path):
    needs_r("randomForest", "ranger")
    served = Served(tmp_path, FILE)
    yield served
    served.close()


def test_r_sites_and_a_python_node_grow_one_forest(house):
    folder = house.folder
    rows = {"r1": 211, "r2": 173, "p1": 157}
    for seed, (name, count) in enumerate(rows.items()):
        house.haina("invite", name)
        table(folder / f"{name}.csv", count, seed)
    sites = [
        RSite(name, f'train_random_forest(read.csv("{name}.csv"), {how})', folder).start()
        for name, how in (
            ("r1", "ntree = 40"),
            ("r2", 'outcome ~ ., ntree = 40, engine = "ranger", probability = TRUE'),
        )
    ]
    try:
        node = house.join("p1.invite", "--data", "p1.csv")
        assert [site.ends(120) for site in sites] == [0, 0], [site.text() for site in sites]
        assert node.wait(60) == 0
    finally:
        for site in sites:
            site.kill()
    house.haina("models", "fetch", "--out", "wards.json")
    document = (folder / "wards.json").read_bytes()
    forests = read(document)
    assert sorted(forest.source.split()[0] for forest in forests.forests) == ["R", "R", "scikit-learn"]
    assert {forest.examples for forest in forests.forests} == set(rows.values())
    assert sum(forest.asks_factors for forest in forests.forests) >= 1
    assert forests.trees == 120
    assert not {211, 173, 157} & {
        len(v)
        for forest in json.loads(document)["forests"]
        for tree in forest["trees"]
        for v in tree.values()
    }

    # It knows the wards of a fourth site.
    x, y = Federation.of(FILE).schema.read(table(folder / "new.csv", 400, 9))
    assert np.mean(forests.votes(x).argmax(axis=1) == y) > 0.95
    # The coordinator heard counts of at least ten rows and the importance of columns, and the site was shown its own diagnosis.
    ledger = Ledger(folder / "state" / "coordinator.sqlite")
    (record,) = [
        json.loads(text) for (text,) in ledger.rows("SELECT record FROM round WHERE state = 'closed'")
    ]
    said = json.dumps(record)
    assert "importance/ward" in said
    assert "Out-of-bag confusion (this site only)" in sites[0].text()
    assert len(record["clients"]) == 3
    house.haina("models", "export", "wards.json", "--out", "wards.onnx")
    assert (folder / "wards.onnx").stat().st_size > 10_000


def test_python_nodes_alone_grow_one_over_the_wire(tmp_path):
    """A document has no length in numbers, and is announced so."""
    house = Served(tmp_path, FILE.replace("nodes = 3", "nodes = 2"))
    try:
        for seed, name in enumerate(("p1", "p2")):
            house.haina("invite", name)
            table(tmp_path / f"{name}.csv", 120, seed)
        nodes = [house.join(f"{name}.invite", "--data", f"{name}.csv") for name in ("p1", "p2")]
        assert [node.wait(60) for node in nodes] == [0, 0]
        house.haina("models", "fetch", "--out", "wards.json")
        assert read((tmp_path / "wards.json").read_bytes()).trees == 80
    finally:
        house.close()
