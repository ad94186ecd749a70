"""What a site was promised first is held against what it is told later."""

import pytest

from haina.errors import TrustError
from haina.node.promise import hold

PLAIN = """
name = "wards"
[model]
learner = "jax"
kind = "logistic"
[data]
shape = [3]
classes = ["a", "b"]
[train]
rounds = 5
[strategy]
weigh = ["uniform"]
[serve]
nodes = 6
"""
PRIVATE = (
    PLAIN
    + '[privacy]\nnoise = "distributed"\nclip = 1.0\nsecure_aggregation = true\nbudget = {epsilon = 4.0, delta = 1e-5}\n'
)


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (PLAIN, r"\[privacy\] is gone"),
        (
            PRIVATE.replace('"distributed"', '"central"'),
            r"\[privacy\] noise was 'distributed', and is 'central'",
        ),
        (
            PRIVATE.replace("secure_aggregation = true\n", ""),
            r"\[privacy\] secure_aggregation was True, and is False",
        ),
        (PRIVATE.replace("epsilon = 4.0", "epsilon = 400.0"), r"\[privacy\] budget was"),
        (PRIVATE.replace("rounds = 5", "rounds = 500"), r"\[train\] rounds was 5, and is 500"),
        (PRIVATE.replace("nodes = 6", "nodes = 3"), r"\[serve\] nodes was 6, and is 3"),
        (PRIVATE.replace('weigh = ["uniform"]', 'weigh = ["samples"]'), r"\[strategy\] weigh was"),
    ],
)
def test_a_promise_is_not_changed_behind_a_sites_back(tmp_path, now, words):
    folder = tmp_path / "wards"
    hold(folder, PRIVATE, "wards")
    hold(folder, "# A remark.\n" + PRIVATE.replace("nodes = 6", 'nodes = 6\ndeadline = "90s"'), "wards")
    for _ in range(2):
        with pytest.raises(TrustError, match=words) as refused:
            hold(folder, now, "wards")
    assert str(folder / "promised.toml") in refused.value.remedy
    hold(folder, PRIVATE, "wards")
    # A person agrees.
    (folder / "promised.toml").unlink()
    hold(folder, now, "wards")


def test_where_nothing_was_promised_a_promise_is_welcome(tmp_path):
    hold(tmp_path, PLAIN, "wards")
    hold(tmp_path, PLAIN.replace("rounds = 5", "rounds = 9"), "wards")
    hold(tmp_path, PRIVATE, "wards")
    with pytest.raises(TrustError, match="promised something else"):
        hold(tmp_path, PLAIN, "wards")


def test_what_was_kept_and_cannot_be_read_is_not_forgotten(tmp_path):
    (tmp_path / "promised.toml").write_text("not = [toml")
    with pytest.raises(TrustError, match="does not hold"):
        hold(tmp_path, PRIVATE, "wards")
