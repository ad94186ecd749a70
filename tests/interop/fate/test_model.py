import json
from pathlib import Path

import numpy as np
import pytest
from fate import judged
from hypothesis import given
from hypothesis import strategies as st

from haina.errors import LayoutError
from haina.interop.fate.model import HomoLrModel, read_json, write_json

FIXTURE = Path(__file__).parents[1] / "fixtures" / "homo_lr_model.json"
finite = st.floats(allow_nan=False, allow_infinity=False)


def test_a_model_that_fate_made_is_read():
    model = read_json(FIXTURE.read_bytes(), ["age", "bmi", "grpb", "grpc", "lab"])
    assert model.intercept == -0.2580931484699249
    assert model.weights[0] == 1.3075495958328247
    assert model.weights[4] == -0.2604252099990845
    assert model.names[2] == "grpb"


@given(st.lists(finite, min_size=1, max_size=8), finite)
def test_what_is_written_is_read_bit_for_bit(weights, intercept):
    model = HomoLrModel(tuple(weights), intercept)
    back = read_json(write_json(model))
    assert [w.hex() for w in back.weights] == [w.hex() for w in weights]
    assert back.intercept.hex() == intercept.hex()


def test_it_is_found_wherever_fate_puts_it():
    state = {"models.0.weight": [[1, 2.5]], "models.0.bias": [0.5]}
    for document in (state, {"param": {"model": {"state_dict": state}}}, [{"data": [state]}]):
        assert read_json(json.dumps(document)) == HomoLrModel((1.0, 2.5), 0.5)
    assert read_json(json.dumps({"models.0.weight": [[1, 2]]})).intercept == 0.0


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "0 states"),
        ('{"a": {"models.0.weight": [[1]]}, "b": {"models.0.weight": [[1]]}}', "2 states"),
        ('{"models.0.weight": [[1]], "models.0.bias": [1], "models.1.weight": [[1]]}', "several classes"),
        ('{"models.0.weight": [[1], [2]], "models.0.bias": [1]}', "one row"),
        ('{"models.0.weight": [1], "models.0.bias": [1]}', "no list of numbers"),
        ('{"models.0.weight": [[true]], "models.0.bias": [1]}', "no list of numbers"),
        ('{"models.0.weight": [[1]], "models.0.bias": [1, 2]}', "2 numbers"),
        ('{"models.0.weight": [[NaN]], "models.0.bias": [1]}', "not finite"),
        ('{"models.0.weight": [[1e999]], "models.0.bias": [1]}', "not finite"),
        ('{"models.0.weight": [[]], "models.0.bias": [1]}', "0 weights"),
    ],
)
def test_what_is_no_model_is_refused(document, words):
    with pytest.raises(LayoutError) as refused:
        read_json(document)
    assert words in str(refused.value)


def test_names_must_fit():
    with pytest.raises(LayoutError, match="one name for each"):
        HomoLrModel((1.0, 2.0), names=("a", "a"))
    with pytest.raises(LayoutError, match="one name for each"):
        HomoLrModel((1.0, 2.0)).named(["a"])


@pytest.mark.fate
@pytest.mark.slow
def test_fate_predicts_with_what_is_written(tmp_path):
    model = HomoLrModel((1.5, -0.25, 0.1), -0.75)
    rows = [[0.2, 1.0, -3.0], [4.0, -2.0, 0.5]]
    (tmp_path / "model.json").write_text(write_json(model))
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    said = judged(
        "venv", Path(__file__).parent / "read_model.py", tmp_path / "model.json", tmp_path / "rows.json"
    )
    assert said.returncode == 0, said.stderr[-2000:]
    wanted = 1 / (1 + np.exp(-(np.array(rows) @ model.weights + model.intercept)))
    assert np.abs(json.loads(said.stdout.splitlines()[-1]) - wanted).max() < 1e-6
