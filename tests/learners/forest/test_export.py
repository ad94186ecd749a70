"""Forests as ONNX and treelite: the other runtime must find the same numbers, row by row."""

import json

import numpy as np
import onnx
import onnxruntime
import pytest
import treelite
from hypothesis import given
from hypothesis import strategies as st
from onnx.reference import ReferenceEvaluator
from sklearn.datasets import load_diabetes, load_wine
from sklearn.ensemble import RandomForestClassifier, RandomForestRegressor

from haina.errors import LayoutError
from haina.learners.forest import Column, Forest, Forests, Names, read, write
from haina.learners.forest.coded import Coded, in_doubles
from haina.learners.forest.onnx import to_onnx
from haina.learners.forest.treelite import to_treelite
from haina.learners.forest.trees import RULES, grown

NAMES = Names(
    (Column("age"), Column("ward", tuple("abcdefg")), Column("dose"), Column("sex", ("F", "M"))),
    ("no", "maybe", "yes"),
)
WIDTH = 11


def coded_rows(count, seed=0):
    """Rows with one number for each column; some numbers lie between two float32, and on thresholds."""
    rng = np.random.default_rng(seed)
    numbers = rng.choice(THRESHOLDS, (count, 2)) + rng.choice([0.0, 1e-17, -1e-9, 1e-9, 1.0], (count, 2))
    return np.stack(
        [numbers[:, 0], rng.integers(7, size=count), numbers[:, 1], rng.integers(2, size=count)], axis=1
    )


def one_hot(rows):
    return np.concatenate(
        [rows[:, :1], np.eye(7)[rows[:, 1].astype(int)], rows[:, 2:3], np.eye(2)[rows[:, 3].astype(int)]],
        axis=1,
    )


THRESHOLDS = np.concatenate(
    [np.random.default_rng(5).normal(size=40), [0.0, 0.1, float(np.float32(0.1)), 1 / 3]]
)


def a_forest(rng, rule, soft, classes, sets, trees=40):
    """Random trees: numbers at both rules, one-hot questions as Python asks them, sets as R asks them, and now and then a single leaf."""
    return Forest(
        "random",
        rule,
        soft,
        100,
        np.zeros(WIDTH),
        tuple(a_tree(rng, soft, classes, sets) for _ in range(trees)),
    )


def a_tree(rng, soft, classes, sets):
    inner = int(rng.integers(0, 30))
    count = 2 * inner + 1
    left, right = np.full(count, -1), np.full(count, -1)
    ends, free = [0], 1
    for _ in range(inner):
        node = ends.pop(int(rng.integers(len(ends))))
        left[node], right[node] = free, free + 1
        ends += [free, free + 1]
        free += 2
    # Nodes are numbered as they are split, so children come after their parent.
    feature = rng.choice([0, 8, *range(WIDTH)], count)
    threshold = np.where(
        np.isin(feature, (0, 8)), rng.choice(THRESHOLDS, count), rng.choice([0.5, 0.0, -0.5, 1.0], count)
    )
    start, goes = np.full(count, -1), []
    for node in np.flatnonzero(left >= 0):
        if sets and feature[node] not in (0, 8):
            first, width = (1, 7) if feature[node] < 8 else (9, 2)
            feature[node], start[node] = first, len(goes)
            goes += rng.integers(2, size=width).astype(bool).tolist()
    if not classes:
        votes = rng.normal(size=(count, 1))
    elif soft:
        votes = rng.dirichlet(np.ones(classes), count)
    else:
        votes = np.eye(classes)[rng.integers(classes, size=count)]
    return grown(left, right, feature, threshold, votes, start, np.array(goes, bool))


def mixed(classes, soft, seed=3):
    """Trees as scikit-learn grows them and trees as R grows them, merged."""
    rng = np.random.default_rng(seed)
    names = NAMES if classes else Names(NAMES.columns)
    made = (
        a_forest(rng, RULES[0], soft, classes, sets=False),
        a_forest(rng, RULES[1], False, classes, sets=True),
    )
    # Through bytes, so that what is exported is what a federation publishes.
    return read(write(Forests(classes, WIDTH, made, names)))


def in_onnx(model, rows, threads=1):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return session.run(None, {"x": rows})


def in_treelite(model, rows, outcomes):
    loaded = treelite.Model.deserialize_bytes(model)
    return treelite.gtil.predict(loaded, rows, nthread=1).reshape(len(rows), outcomes)


@given(
    st.floats(allow_nan=False, allow_infinity=False),
    st.integers(-3, 3),
    st.floats(allow_nan=False, allow_infinity=False),
)
def test_the_rule_in_doubles_is_the_rule_in_float32(threshold, steps, far):
    (bound,) = in_doubles(np.array([threshold]))
    near = bound
    for _ in range(abs(steps)):
        near = np.nextafter(near, np.copysign(np.inf, steps))
    for x in (near, far, threshold, -threshold):
        if np.isfinite(x):
            with np.errstate(over="ignore"):
                assert (np.float64(np.float32(x)) <= threshold) == (x <= bound)


@pytest.mark.parametrize(("classes", "soft"), [(3, False), (3, True), (0, False)])
def test_onnx_finds_the_same_numbers(classes, soft):
    forests, rows = mixed(classes, soft), coded_rows(2000)
    votes = forests.votes(one_hot(rows)) / forests.trees
    model = to_onnx(forests)
    found = in_onnx(model, rows)
    assert np.array_equal(found[0], votes)
    if classes:
        assert np.array_equal(found[1], votes.argmax(axis=1))
        assert len({tuple(row) for row in votes.tolist()}) > 100
    # In parallel, sums of shares may be rounded otherwise.
    parallel = in_onnx(model, rows[:5], threads=2)[0]
    assert np.abs(parallel - votes[:5]).max() <= (0 if classes and not soft else 1e-15)


def test_onnx_in_its_own_reference():
    forests, rows = mixed(3, soft=True), coded_rows(40)
    found = ReferenceEvaluator(onnx.load_from_string(to_onnx(forests))).run(None, {"x": rows})
    assert found[0] == pytest.approx(forests.votes(one_hot(rows)) / forests.trees, abs=1e-15)


def test_onnx_says_what_its_numbers_are():
    model = onnx.load_from_string(to_onnx(mixed(3, soft=False)))
    told = {entry.key: json.loads(entry.value) for entry in model.metadata_props}
    assert told["labels"] == ["no", "maybe", "yes"]
    assert told["columns"][3] == {"name": "sex", "levels": ["F", "M"]}
    assert [output.name for output in model.graph.output] == ["shares", "label"]


@pytest.mark.parametrize(("classes", "soft"), [(3, False), (3, True), (0, False)])
def test_treelite_finds_the_same_numbers(classes, soft):
    forests, rows = mixed(classes, soft), coded_rows(2000)
    votes = forests.votes(one_hot(rows)) / forests.trees
    found = in_treelite(to_treelite(forests), rows, classes or 1)
    # Hard votes are whole numbers; other sums are rounded in another order.
    assert np.abs(found - votes).max() <= (0 if classes and not soft else 1e-15)
    if classes:
        assert np.array_equal(found.argmax(axis=1), votes.argmax(axis=1))


@pytest.mark.parametrize("task", ["classification", "regression"])
def test_a_forest_of_scikit_learn_all_the_way(task):
    classify = task == "classification"
    x, y = (load_wine if classify else load_diabetes)(return_X_y=True)
    grower = (RandomForestClassifier if classify else RandomForestRegressor)(30, random_state=1).fit(x, y)
    trees = []
    for member in grower.estimators_:
        tree = member.tree_
        votes = tree.value[:, 0, :]
        votes = votes / votes.sum(axis=1, keepdims=True) if classify else votes
        trees.append(grown(tree.children_left, tree.children_right, tree.feature, tree.threshold, votes))
    p = x.shape[1]
    forests = Forests(
        3 if classify else 0,
        p,
        (Forest("scikit-learn", RULES[0], classify, len(x), np.zeros(p), tuple(trees)),),
    )
    theirs = grower.predict_proba(x) if classify else grower.predict(x)[:, None]
    scale = max(1.0, np.abs(theirs).max())
    assert np.abs(in_onnx(to_onnx(forests), x)[0] - theirs).max() <= 1e-14 * scale
    assert np.abs(in_treelite(to_treelite(forests), x, theirs.shape[1]) - theirs).max() <= 1e-14 * scale


def test_no_trees_no_model():
    with pytest.raises(LayoutError, match="no trees yet"):
        Coded.of(Forests(3, 4))
