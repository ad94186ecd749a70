import json

import numpy as np
import pytest
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from haina.errors import LayoutError, LearnerError
from haina.learners.forest import Column, ForestLearner, Names, merge, read, write
from haina.learners.learner import Training, Work, client_rng
from haina.shards import Shards
from haina.strategy.combine import Collect
from haina.strategy.parts import Aggregate, Payload
from haina.strategy.server.merge import Merge
from haina.update import Cohort, Update

WINE = load_wine(return_X_y=True)


def shards(x, y, sizes, seed=0):
    order = np.random.default_rng(seed).permutation(len(x))[: sum(sizes)]
    ends = np.cumsum(sizes)
    return Shards(
        tuple(f"c{k}" for k in range(len(sizes))), x[order], y[order], np.stack([ends - sizes, ends], axis=1)
    )


def work(data, seed=7):
    return Work(np.zeros(0, np.uint8), 1, data, Training(), 1.0, seed=seed)


def theirs(learner, data, k, seed=7):
    grower = RandomForestClassifier if learner.classes else RandomForestRegressor
    return grower(
        learner.trees,
        max_features=learner.max_features,
        min_samples_leaf=learner.min_leaf,
        random_state=int(client_rng(seed, 1, data.clients[k]).integers(2**31)),
    ).fit(*data.of(k))


@pytest.fixture(scope="module")
def grown():
    learner = ForestLearner("classification", features=13, classes=3, trees=25, max_features=4)
    data = shards(*WINE, (60, 40, 78))
    return learner, data, list(learner.train(work(data)))


def test_ntree_100_and_mtry_4_can_be_said():
    learner = ForestLearner("classification", features=13, classes=3, trees=100, max_features=4)
    data = shards(*WINE, (90,))
    (update,) = learner.train(work(data))
    assert read(update.vector.tobytes()).trees == 100
    assert update.vector.dtype == np.uint8
    assert learner.payload is Payload.COLLECT


def test_each_part_votes_as_scikit_learn_does(grown):
    learner, data, updates = grown
    for k, update in enumerate(updates):
        reference = theirs(learner, data, k).predict_proba(WINE[0])
        assert np.abs(learner.predict(update.vector, WINE[0]) - reference).max() < 1e-12


def test_the_merged_model_votes_exactly_as_its_parts_together(grown):
    learner, _, updates = grown
    cohort = Cohort(
        tuple(u.client for u in updates), tuple(u.report for u in updates), [u.vector for u in updates]
    )
    vector = Collect().combine(cohort, np.ones(3)).vector
    stepped = Merge(learner.merge).step(learner.initial(0), Aggregate(vector, 1), {})
    assert stepped.finished
    parts = [learner.votes(u.vector, WINE[0]) for u in updates]
    assert np.array_equal(learner.votes(stepped.model, WINE[0]), parts[0] + parts[1] + parts[2])
    assert learner.votes(stepped.model, WINE[0]).sum(axis=1) == pytest.approx(75)
    # Merging in two steps is the same document.
    two = merge(
        [merge([updates[0].vector.tobytes(), updates[1].vector.tobytes()]), updates[2].vector.tobytes()]
    )
    assert two == stepped.model.tobytes()
    assert learner.evaluate(stepped.model, *WINE).accuracy > 0.95
    importance = np.mean([learner.importance(u.vector) for u in updates], axis=0)
    assert learner.importance(stepped.model) == pytest.approx(importance, abs=1e-15)
    assert importance.sum() == pytest.approx(1)


def test_importance_counts_each_forest_by_its_trees(grown):
    learner, data, updates = grown
    more = ForestLearner("classification", features=13, classes=3, trees=50, max_features=4)
    (other,) = more.train(work(data.take([1])))
    whole = merge([updates[0].vector.tobytes(), other.vector.tobytes()])
    expected = (25 * learner.importance(updates[0].vector) + 50 * more.importance(other.vector)) / 75
    assert read(whole).importance == pytest.approx(expected, abs=1e-15)


def test_regression():
    x, y = load_diabetes(return_X_y=True)
    learner = ForestLearner("regression", features=10, trees=20, max_features=None, min_leaf=3)
    data = shards(x, y, (200, 242))
    updates = list(learner.train(work(data)))
    for k, update in enumerate(updates):
        assert learner.predict(update.vector, x) == pytest.approx(
            theirs(learner, data, k).predict(x), rel=1e-12
        )
        assert update.report.extra["oob_mse"] < y.var()
    merged = np.frombuffer(learner.merge([u.vector.tobytes() for u in updates]), np.uint8)
    assert np.array_equal(learner.votes(merged, x), sum(learner.votes(u.vector, x) for u in updates))
    assert learner.evaluate(merged, x, y).loss < 0.5 * y.var()


def test_bytes_round_trip_and_repeat(grown):
    learner, data, updates = grown
    for update in updates:
        data_bytes = update.vector.tobytes()
        assert write(read(data_bytes)) == data_bytes
        assert learner.to_bytes(learner.from_bytes(data_bytes)) == data_bytes
    again = list(learner.train(work(data)))
    assert [u.vector.tobytes() for u in again] == [u.vector.tobytes() for u in updates]
    # A client's forest does not depend on who else is in the call, and differs from its neighbour's.
    (alone,) = learner.train(work(data.take([1])))
    assert alone.vector.tobytes() == updates[1].vector.tobytes()
    (other,) = learner.train(work(data.take([1]), seed=8))
    assert other.vector.tobytes() != updates[1].vector.tobytes()


def test_clients_may_lack_classes_and_have_but_one():
    x, y = WINE
    order = np.argsort(y, kind="stable")
    data = Shards(("one", "two"), x[order], y[order], np.array([[0, 59], [59, 178]]))
    learner = ForestLearner("classification", features=13, classes=3, trees=10)
    updates = list(learner.train(work(data)))
    assert learner.predict(updates[0].vector, x).tolist() == [[1, 0, 0]] * 178
    assert not learner.predict(updates[1].vector, x)[:, 0].any()
    assert not learner.importance(updates[0].vector).any()


def test_diagnosis_is_counts_above_the_least_cell_and_no_rows():
    x, y = load_breast_cancer(return_X_y=True)
    learner = ForestLearner("classification", features=30, classes=2, trees=100, min_cell=10)
    data = shards(x, y, (300,))
    (update,) = learner.train(work(data))
    extra = dict(update.report.extra)
    reference = RandomForestClassifier(
        100, min_samples_leaf=5, oob_score=True, random_state=int(client_rng(7, 1, "c0").integers(2**31))
    ).fit(*data.of(0))
    voted, truth = reference.oob_decision_function_.argmax(1), data.of(0)[1]
    counts = {
        f"confusion/{i}/{j}": int(((truth == i) & (voted == j)).sum()) for i in range(2) for j in range(2)
    }
    assert extra == {name: count for name, count in counts.items() if count >= 10}
    assert 0 < min(counts.values()) < 10
    document = json.loads(update.vector.tobytes())
    assert set(document) == {"format", "version", "kind", "classes", "features", "forests"}
    assert set(document["forests"][0]) == {"source", "rule", "soft", "examples", "importance", "trees"}
    assert set(document["forests"][0]["trees"][0]) == {"l", "r", "f", "thr", "v"}


def test_names_travel_with_the_trees_and_must_agree(grown):
    _, data, updates = grown
    names = Names(tuple(Column(f"x{j}") for j in range(13)), ("red", "white", "rosé"))
    learner = ForestLearner("classification", features=13, classes=3, trees=25, max_features=4, names=names)
    told = next(iter(learner.train(work(data)))).vector.tobytes()
    assert read(told).names == names
    assert learner.describe()["labels"] == ["red", "white", "rosé"]
    # Who says nothing of names is believed, who says others is not.
    assert read(learner.merge([updates[0].vector.tobytes(), told])).names == names
    with pytest.raises(LayoutError, match=r"other classes.*Allowed: red, white, rosé"):
        learner.merge([told.replace(b'["red","white"', b'["white","red"')])
    with pytest.raises(LearnerError, match="12 features"):
        ForestLearner("classification", features=13, classes=3, names=Names(names.columns[:12]))


def test_few_trees_leave_rows_without_out_of_bag_votes_and_no_warning():
    (update,) = ForestLearner("classification", features=13, classes=3, trees=1).train(
        work(shards(*WINE, (100,)))
    )
    assert sum(update.report.extra.values()) < 60


def test_small_and_broken_clients_say_why_and_the_others_answer():
    x, y = WINE
    data = shards(x, y.copy(), (9, 0, 60, 60))
    data.y[80] = 3
    results = list(ForestLearner("classification", features=13, classes=3, trees=2).train(work(data)))
    assert [r.client for r in results] == ["c0", "c1", "c2", "c3"]
    assert [isinstance(r, Update) for r in results] == [False, False, True, False]
    assert "fewer than 10 rows" in results[0].reason
    assert "class numbers 0 to 2" in results[3].reason


def test_the_model_before_the_first_round():
    learner = ForestLearner("classification", features=13, classes=3)
    assert learner.predict(learner.initial(0), WINE[0]) == pytest.approx(np.full((178, 3), 1 / 3))
    assert (
        not ForestLearner("regression", features=13)
        .predict(ForestLearner("regression", features=13).initial(0), WINE[0])
        .any()
    )


@pytest.mark.parametrize(
    "setting",
    [
        {"kind": "ranking"},
        {"classes": 1},
        {"kind": "regression"},
        {"trees": 0},
        {"max_features": 14},
        {"max_features": 1.5},
        {"min_leaf": 0},
    ],
)
def test_impossible_settings(setting):
    with pytest.raises(LearnerError):
        ForestLearner(**{"kind": "classification", "features": 13, "classes": 3, **setting})
