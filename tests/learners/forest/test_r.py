"""Forests across languages: what R's packages, R's reader and Python's say of the same rows, to the last bit."""

import gzip
import json

import numpy as np
import onnxruntime
import pytest
import treelite
from rsite import evaluate, needs_r

from haina.data.schema import Schema
from haina.data.table import Columns
from haina.errors import LayoutError
from haina.federation.learners import LEARNERS
from haina.learners.forest import merge, read, write
from haina.learners.forest.onnx import to_onnx
from haina.learners.forest.treelite import to_treelite
from haina.learners.learner import Training, Work
from haina.shards import Shards

COLUMNS = Columns(
    "outcome",
    features=("age", "ward", "dose", "sex"),
    categorical={"ward": tuple("abcdefghi"), "sex": ("F", "M")},
    classes=("dead", "ill", "well"),
)
# Two sites grow with randomForest, one with ranger in each of its ways; all say what they themselves predict of new rows.
GROW = r"""
suppressMessages({library(randomForest); library(ranger)})
table_of <- function(rows, seed) {
  set.seed(seed)
  d <- data.frame(
    age = rnorm(rows, 60, 15), ward = factor(sample(letters[1:9], rows, TRUE)), dose = rexp(rows), sex = factor(sample(c("F", "M"), rows, TRUE))
  )
  s <- (d$ward %in% c("b", "d", "i")) + (d$age > 55) + d$dose / 2 + (d$sex == "M") * (d$dose > 1) + rnorm(rows, 0, 0.4)
  d$outcome <- factor(cut(s, c(-Inf, 1, 2, Inf), c("well", "ill", "dead")), c("dead", "ill", "well"))
  d$days <- s * 10
  d
}
kept <- function(name, document) writeBin(document, paste0(name, ".json"))
hex <- function(name, x) writeLines(apply(as.matrix(x), 1, function(row) paste(sprintf("%a", row), collapse = " ")), paste0(name, ".txt"))
tables <- list(table_of(400, 1), table_of(260, 2), table_of(300, 3))
new <- table_of(900, 4)
exact <- function(d) { d[] <- lapply(d, function(x) if (is.numeric(x)) sprintf("%.17g", x) else as.character(x)); d }
write.csv(exact(new), "new.csv", row.names = FALSE, quote = FALSE)
for (k in 1:3) write.csv(exact(tables[[k]]), paste0("site", k, ".csv"), row.names = FALSE, quote = FALSE)
x <- c("age", "ward", "dose", "sex")
for (k in 1:2) {
  d <- tables[[k]]
  rf <- randomForest(d[x], d$outcome, ntree = 100, mtry = 4, importance = TRUE)
  kept(paste0("rf", k), forest_document(rf))
  hex(paste0("rf", k), predict(rf, new, type = "vote", norm.votes = FALSE))
  writeLines(as.character(predict(rf, new)), paste0("rf", k, ".class"))
}
rf <- randomForest(d[x], d$days, ntree = 100)
kept("rfdays", forest_document(rf)); hex("rfdays", predict(rf, new))
d <- tables[[3]]
for (mode in c("ignore", "order", "partition")) {
  grow <- function(y, ...) ranger(x = d[x], y = y, num.trees = 100, respect.unordered.factors = mode, num.threads = 1, seed = 5, ...)
  hard <- grow(d$outcome)
  kept(paste0("hard", mode), forest_document(hard, d))
  each <- predict(hard, new, predict.all = TRUE, num.threads = 1)$predictions
  hex(paste0("hard", mode), sapply(1:3, function(k) rowSums(each == k)))
  soft <- grow(d$outcome, probability = TRUE)
  kept(paste0("soft", mode), forest_document(soft, d)); hex(paste0("soft", mode), predict(soft, new, num.threads = 1)$predictions)
  days <- grow(d$days)
  kept(paste0("days", mode), forest_document(days, d)); hex(paste0("days", mode), predict(days, new, num.threads = 1)$predictions)
}
"""

VOTE = r"""
bytes <- function(name) readBin(paste0(name, ".json"), "raw", 1e8)
new <- read.csv("new.csv", colClasses = c("character", "character", "character", "character", "character", "character"))
for (name in c("age", "dose")) new[[name]] <- jsonlite::parse_json(paste0("[", paste(new[[name]], collapse = ","), "]"), simplifyVector = TRUE)
hex <- function(name, x) writeLines(apply(x, 1, function(row) paste(sprintf("%a", row), collapse = " ")), paste0(name, ".txt"))
hex("merged_votes", forest_votes(bytes("merged"), new))
writeLines(as.character(forest_predict(bytes("merged"), new)), "merged.class")
parts <- lapply(c("rf1", "softpartition", "python"), bytes)
writeBin(forest_merge(parts), "merged_in_r.json")
cat(identical(forest_votes(forest_merge(parts), new), forest_votes(bytes("merged"), new)))
"""


def learner(columns, trees=100):
    schema = Schema.table(columns, "float64")
    return schema, LEARNERS["forest"](schema, None)(trees=trees, max_features=4).learner()


def hexadecimal(path):
    return np.array(
        [[float.fromhex(word) for word in line.split()] for line in path.read_text().splitlines()]
    )


class Ward:
    """What the R sites grew, and a Python site beside them."""

    def __init__(self, folder):
        needs_r("randomForest", "ranger")
        self.folder = folder
        evaluate(GROW, folder)
        self.schema, self.learner = learner(COLUMNS)
        self.x, _ = self.schema.read(folder / "new.csv")

    def document(self, name):
        return (self.folder / f"{name}.json").read_bytes()

    def said(self, name):
        return hexadecimal(self.folder / f"{name}.txt")

    def grown_here(self):
        x, y = self.schema.read(self.folder / "site3.csv")
        rows = Shards(("python",), x, y, np.array([[0, len(x)]]))
        (update,) = self.learner.train(Work(self.learner.initial(0), 1, rows, Training(), 1.0, seed=2))
        return update.vector.tobytes()


@pytest.fixture(scope="module")
def ward(tmp_path_factory):
    return Ward(tmp_path_factory.mktemp("ward"))


@pytest.mark.parametrize("name", ["rf1", "rf2", "hardignore", "hardorder", "hardpartition"])
def test_votes_of_r_are_the_same_on_every_row(ward, name):
    forests = read(ward.document(name), names=ward.learner.names)
    assert forests.forests[0].asks_factors
    votes = forests.votes(ward.x)
    assert np.array_equal(votes, ward.said(name))
    assert votes.sum(axis=1).tolist() == [100] * 900


@pytest.mark.parametrize("name", ["rf1", "rf2"])
def test_classes_of_r_are_the_same_but_where_r_draws_lots(ward, name):
    votes = read(ward.document(name)).votes(ward.x)
    tied = (votes == votes.max(axis=1, keepdims=True)).sum(axis=1) > 1
    theirs = (ward.folder / f"{name}.class").read_text().split()
    ours = np.array(COLUMNS.classes)[votes.argmax(axis=1)]
    assert (ours == theirs)[~tied].all()
    assert 0 < tied.sum() < 30


@pytest.mark.parametrize(
    "name", ["softignore", "softorder", "softpartition", "rfdays", "daysignore", "daysorder", "dayspartition"]
)
def test_shares_and_values_of_r_are_the_same_to_the_last_bit(ward, name):
    forests = read(ward.document(name))
    assert np.array_equal(forests.votes(ward.x) / 100, ward.said(name))


def test_three_languages_of_trees_are_one_forest_in_python_and_r(ward):
    parts = [ward.document("rf1"), ward.document("softpartition"), ward.grown_here()]
    (ward.folder / "python.json").write_bytes(parts[2])
    merged = ward.learner.merge(parts)
    (ward.folder / "merged.json").write_bytes(merged)
    assert evaluate(VOTE, ward.folder) == "TRUE"
    forests = read(merged)
    assert [forest.source.split()[0] for forest in forests.forests] == ["R", "R", "scikit-learn"]
    votes = forests.votes(ward.x)
    assert np.array_equal(ward.said("merged_votes"), votes)
    assert np.array_equal(votes, sum(read(part).votes(ward.x) for part in parts))
    classes = np.array(COLUMNS.classes)[(votes / 300).argmax(axis=1)]
    assert classes.tolist() == (ward.folder / "merged.class").read_text().split()
    # What R merged is, once Python has written it again, the same document.
    assert write(read((ward.folder / "merged_in_r.json").read_bytes())) == merged
    truth = ward.schema.read(ward.folder / "new.csv")[1]
    assert np.mean(votes.argmax(axis=1) == truth) > 0.7

    # And two other programs say the same of rows with level numbers.
    codes = np.stack(
        [ward.x[:, 0], ward.x[:, 1:10].argmax(axis=1), ward.x[:, 10], ward.x[:, 11:].argmax(axis=1)], axis=1
    )
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(to_onnx(forests), options, providers=["CPUExecutionProvider"])
    shares, label = session.run(None, {"x": codes})
    assert np.array_equal(shares, votes / 300)
    assert np.array_equal(label, (votes / 300).argmax(axis=1))
    loaded = treelite.Model.deserialize_bytes(to_treelite(forests))
    assert np.abs(treelite.gtil.predict(loaded, codes).reshape(900, 3) - votes / 300).max() <= 1e-15


def test_a_site_whose_levels_are_in_another_order_is_refused(ward):
    turned = json.loads(ward.document("rf1"))
    turned["columns"][3]["levels"].reverse()
    with pytest.raises(LayoutError, match="other columns or levels"):
        ward.learner.merge([json.dumps(turned).encode()])


def test_a_document_is_small_and_says_nothing_of_rows(ward):
    document = ward.document("rf1")
    keys, lists = set(), []

    def walk(value):
        if isinstance(value, dict):
            keys.update(value)
            for inner in value.values():
                walk(inner)
        elif isinstance(value, list):
            lists.append(len(value))
            for inner in value:
                walk(inner)

    walk(json.loads(document))
    assert keys == {
        "format", "version", "kind", "classes", "features", "columns", "name", "levels", "labels", "forests",
        "source", "rule", "soft", "examples", "importance", "trees", "l", "r", "f", "thr", "set", "v",
    }  # fmt: skip
    # 400 rows: no list holds one entry for each.
    assert 400 not in lists
    assert len(document) < 1_000_000
    assert len(gzip.compress(document)) < 150_000
    print(f"100 trees on 400 rows: {len(document)} bytes, {len(gzip.compress(document))} compressed")
    assert read(merge([document])).trees == 100
