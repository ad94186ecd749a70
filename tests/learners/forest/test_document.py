import json

import numpy as np
import pytest

from haina.errors import LayoutError
from haina.learners.forest import Column, ForestLearner, Names, merge, read, write

# A forest of version 1 written by hand, with R's habits: hard votes, hexadecimal numbers, its own rule, and -1 and 0 at fields of leaves.
R_FOREST = {
    "format": "haina-forest", "version": 1, "kind": "classification", "classes": 2, "features": 2,
    "forests": [{
        "source": "R randomForest 4.7", "rule": "x<=thr", "soft": False, "examples": 30, "importance": [0.75, "0x1p-2"],
        "trees": [
            {"l": [1, -1, 3, -1, -1], "r": [2, -1, 4, -1, -1], "f": [0, -1, 1, -1, -1], "thr": ["0x1.999999999999ap-4", 0, -2, 0, 0],
             "v": [-1, 0, -1, 1, 0]},
            {"l": [-1], "r": [-1], "f": [-1], "thr": [0], "v": [1]},
        ],
    }],
}  # fmt: skip


def test_hard_votes_and_the_rule_in_double_precision():
    forests = read(json.dumps(R_FOREST).encode())
    # float32(0.1) > 0.1: in single precision the first row would go right.
    x = np.array([[0.1, -3.0], [0.2, -3.0], [0.2, 0.0]])
    assert forests.votes(x).tolist() == [[1, 1], [0, 2], [1, 1]]
    canonical = write(forests)
    assert write(read(canonical)) == canonical
    assert read(canonical).votes(x).tolist() == forests.votes(x).tolist()


def broken(path, value, document=R_FOREST):
    document = json.loads(json.dumps(document))
    place = document
    for key in path[:-1]:
        place = place[key]
    if value is None:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(document).encode()


TREE = ("forests", 0, "trees", 0)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[1]", "no forest"),
        (broken(("version",), 3), "no forest"),
        (broken(("version",), True), "no forest"),
        (broken(("version",), [1]), "no forest"),
        (broken(("classes",), 1), "1 classes"),
        (broken(("classes",), True), "'classes'"),
        (broken(("classes",), 0), "kind"),
        (broken(("features",), 10**9), "'features'"),
        (broken(("features",), 1), "entries"),
        (broken(("forests",), {}), "'forests' has dict"),
        (broken(("forests", 0), 3), "no JSON object"),
        (broken(("forests", 0, "rule"), "x<thr"), "rule"),
        (broken(("forests", 0, "soft"), 0), "soft"),
        (broken(("forests", 0, "examples"), -1), "'examples'"),
        (broken(("forests", 0, "importance"), [1.0]), "'importance' has 1 entries"),
        (broken(("forests", 0, "importance"), [1.0, -0.1]), "negative"),
        (broken(("forests", 0, "trees"), []), "without trees"),
        (broken(TREE, 1), "no JSON object"),
        (broken((*TREE, "l"), []), "without nodes"),
        (broken((*TREE, "l"), [1, -1, 0, -1, -1]), "do not make a tree"),  # a cycle
        (broken((*TREE, "l"), [0, -1, 3, -1, -1]), "do not make a tree"),  # its own child
        (broken((*TREE, "l"), [2, -1, 3, -1, -1]), "do not make a tree"),  # two parents, and one node lost
        (broken((*TREE, "l"), [7, -1, 3, -1, -1]), "do not make a tree"),
        (broken((*TREE, "r"), [2, -1, -1, -1, -1]), "do not make a tree"),  # half a node
        (broken((*TREE, "l"), [1, -1, 3.0, -1, -1]), "index is 3.0"),
        (broken((*TREE, "l"), [10**30, -1, 3, -1, -1]), "index"),
        (broken((*TREE, "r"), [2, -1]), "'r' has 2 entries"),
        (broken((*TREE, "f"), [2, -1, 1, -1, -1]), "index is 2"),
        (broken((*TREE, "f"), [-1, -1, 1, -1, -1]), "index is -1"),
        (broken((*TREE, "thr"), [float("nan"), 0, -2, 0, 0]), "not finite"),
        (broken((*TREE, "thr"), ["0x1p99999", 0, -2, 0, 0]), "not a number"),
        (broken((*TREE, "thr"), [[], 0, -2, 0, 0]), "not a number"),
        (broken((*TREE, "thr"), ["import os", 0, -2, 0, 0]), "not a number"),
        (broken((*TREE, "v"), [0, 2, 0, 1, 0]), "index is 2"),
        (broken((*TREE, "v"), None), "'v' has NoneType"),
        (broken(("forests", 0, "soft"), True), "a leaf votes"),
    ],
)
def test_documents_that_are_refused(data, words):
    with pytest.raises(LayoutError, match=words):
        read(data)


def test_shares_must_be_shares():
    tree = {"l": [-1], "r": [-1], "f": [0], "thr": [0], "v": [[0.7, 0.7]]}
    document = json.loads(json.dumps(R_FOREST))
    document["forests"][0] |= {"soft": True, "trees": [tree]}
    with pytest.raises(LayoutError, match="sum to 1"):
        read(json.dumps(document).encode())


def test_a_chain_that_is_too_deep(monkeypatch):
    depth = 1001
    inner = list(range(0, 2 * depth, 2))
    left, right = [-1] * (2 * depth + 1), [-1] * (2 * depth + 1)
    for i in inner:
        left[i], right[i] = i + 1, i + 2
    chain = {"l": left, "r": right, "f": [0] * len(left), "thr": [0] * len(left), "v": [0] * len(left)}
    with pytest.raises(LayoutError, match="1001 levels deep"):
        read(broken(TREE, chain))
    monkeypatch.setattr("haina.learners.forest.document.MAX_BYTES", 10)
    with pytest.raises(LayoutError, match="at most 10"):
        read(json.dumps(R_FOREST).encode())


# A table of a number, a factor of three levels and another number, and one tree that splits all three.
FACTORS = {
    "format": "haina-forest", "version": 2, "kind": "classification", "classes": 2, "features": 5,
    "columns": [{"name": "age"}, {"name": "ward", "levels": ["a", "b", "c"]}, {"name": "dose"}], "labels": ["no", "yes"],
    "forests": [{
        "source": "by hand", "rule": "x<=thr", "soft": False, "examples": 30, "importance": [0.5, 0.1, 0.1, 0.1, 0.2],
        "trees": [{"l": [1, 3, -1, -1, -1], "r": [2, 4, -1, -1, -1], "f": [1, 0, 0, 0, 0], "thr": [0, 50, 0, 0, 0],
                   "set": ["101", "", "", "", ""], "v": [0, 0, 1, 0, 1]}],
    }],
}  # fmt: skip
WARDS = np.array(
    [[40, 1, 0, 0, 9], [60, 1, 0, 0, 9], [40, 0, 1, 0, 9], [60, 0, 0, 1, 9], [50, 0, 0, 1, 9]], float
)


def factors(path, value, document=FACTORS):
    return broken(path, value, document)


def test_a_set_of_levels_is_asked_of_one_hot_rows():
    forests = read(json.dumps(FACTORS).encode())
    assert forests.votes(WARDS).argmax(axis=1).tolist() == [0, 1, 1, 1, 0]
    canonical = write(forests)
    assert write(read(canonical)) == canonical
    assert read(canonical).votes(WARDS).tolist() == forests.votes(WARDS).tolist()
    assert json.loads(canonical)["forests"][0]["trees"][0]["set"] == ["101", "", "", "", ""]
    assert forests.names == Names(
        (Column("age"), Column("ward", ("a", "b", "c")), Column("dose")), ("no", "yes")
    )


def test_one_hot_trees_and_factor_trees_vote_together():
    # What scikit-learn asks of one-hot columns: is it not "b"? The document that says no names takes those of the other.
    plain = json.loads(json.dumps(FACTORS))
    del plain["columns"], plain["labels"]
    plain["forests"][0] |= {"rule": "float32(x)<=thr", "soft": True}
    plain["forests"][0]["trees"] = [
        {
            "l": [1, -1, -1],
            "r": [2, -1, -1],
            "f": [2, 0, 0],
            "thr": [0.5, 0, 0],
            "v": [0, [0.75, 0.25], [0, 1]],
        }
    ]
    both = read(merge([json.dumps(plain).encode(), json.dumps(FACTORS).encode()]))
    assert both.names.columns[1].levels == ("a", "b", "c")
    assert both.votes(WARDS).tolist() == [[1.75, 0.25], [0.75, 1.25], [0, 2], [0.75, 1.25], [1.75, 0.25]]


@pytest.mark.parametrize("row", [[40, 1, 1, 0, 9], [40, 0, 0, 0, 9], [40, 0.5, 0.5, 0, 9], [40, 2, -1, 0, 9]])
def test_rows_that_are_not_one_hot_are_counted_and_refused(row):
    with pytest.raises(LayoutError, match="in 1 of 6 rows"):
        read(json.dumps(FACTORS).encode()).votes(np.vstack([WARDS, row]))


SPLIT = (*TREE, "set")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (factors(SPLIT, ["10", "", "", "", ""]), "3 digits"),
        (factors(SPLIT, ["1010", "", "", "", ""]), "3 digits"),
        (factors(SPLIT, ["102", "", "", "", ""]), "3 digits"),
        (factors(SPLIT, ["1 1", "", "", "", ""]), "3 digits"),
        (factors(SPLIT, ["١٠١", "", "", "", ""]), "3 digits"),
        (factors(SPLIT, [5, "", "", "", ""]), "3 digits"),
        (factors(SPLIT, [["1", "0", "1"], "", "", "", ""]), "3 digits"),
        (factors(SPLIT, ["101", "1", "", "", ""]), "no factor begins"),
        (factors(SPLIT, ["101"]), "'set' has 1 entries"),
        (factors(SPLIT, "101"), "'set' has str"),
        (factors((*TREE, "f"), [2, 0, 0, 0, 0]), "no factor begins"),
        (factors(("columns",), None), "no factor begins"),
        (factors(("version",), 1), "no factor begins"),
        (factors(("columns",), {}), "columns, levels or labels are dict"),
        (factors(("columns", 0), "age"), "a column is no JSON object"),
        (factors(("columns", 0, "name"), 3), "is no text"),
        (factors(("columns", 0, "name"), "dose"), "a column has no name"),
        (factors(("columns", 0, "name"), ""), "a column has no name"),
        (factors(("columns", 0, "name"), "x" * 1001), "a column has no name"),
        (factors(("columns", 1, "levels"), ["a", "b"]), "4 features"),
        (factors(("columns", 1, "levels"), ["a", "b", "a"]), "a level has no name"),
        (factors(("columns", 1, "levels"), ["a", "b", None]), "is no text"),
        (factors(("columns", 1, "levels"), "abc"), "str"),
        (factors(("labels",), ["no"]), "1 classes have names"),
        (factors(("labels",), ["no", "no"]), "a class has no name"),
    ],
)
def test_names_and_sets_that_are_refused(data, words):
    with pytest.raises(LayoutError, match=words):
        read(data)


def test_other_levels_or_another_order_do_not_merge():
    good = json.dumps(FACTORS).encode()
    other = factors(("columns", 1, "levels"), ["a", "c", "b"])
    with pytest.raises(LayoutError, match=r"other columns or levels.*ward \(a, b, c\)"):
        merge([good, other])
    learner = ForestLearner("classification", features=5, classes=2, names=read(good).names)
    assert learner.merge([good]) == write(read(good))
    with pytest.raises(LayoutError, match="other columns or levels"):
        learner.merge([other])


def test_forests_of_other_features_or_classes_do_not_merge():
    learner = ForestLearner("classification", features=13, classes=3)
    with pytest.raises(LayoutError, match="2 classes and 2 features"):
        learner.merge([json.dumps(R_FOREST).encode()])
    with pytest.raises(LayoutError, match="2 classes and 5 features"):
        merge([json.dumps(R_FOREST).encode(), json.dumps(FACTORS).encode()])
    with pytest.raises(LayoutError, match="at least one"):
        merge([])
    with pytest.raises(LayoutError, match="at most 1 from one client"):
        merge([json.dumps(R_FOREST).encode()], most=1)
