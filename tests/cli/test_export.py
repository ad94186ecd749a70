"""`haina models export`: from a federation file to a model that another runtime votes with."""

import json

import numpy as np
import onnxruntime
import pytest
import treelite
from command import IRIS, haina
from sklearn.datasets import load_iris

from haina.learners.forest import read


@pytest.fixture
def cli(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    return lambda *args: haina(capsys, monkeypatch, *args)


@pytest.fixture
def forest(cli, tmp_path):
    (tmp_path / "iris.toml").write_text(IRIS.replace('"jax"\nkind = "logistic"', '"forest"\ntrees = 10'))
    assert cli("run", "iris.toml").code == 0
    (model,) = json.loads(cli("runs", "--json").out.splitlines()[-1])[:1]
    return model["path"]


def test_a_run_becomes_onnx_and_treelite(cli, forest, tmp_path):
    x = load_iris().data
    model = read((tmp_path / forest).read_bytes())
    assert model.names.labels == ("setosa", "versicolor", "virginica")
    assert model.trees == 40
    shares = model.votes(x) / 40
    for name in ("iris.onnx", "iris.treelite", "iris.json"):
        said = cli("models", "export", forest, "--out", name)
        assert said.code == 0, said.err
        assert said.out.split()[1] == name
    session = onnxruntime.InferenceSession(str(tmp_path / "iris.onnx"), providers=["CPUExecutionProvider"])
    found, label = session.run(None, {"x": x})
    assert np.abs(found - shares).max() <= 1e-15
    assert np.array_equal(label, shares.argmax(axis=1))
    loaded = treelite.Model.deserialize_bytes((tmp_path / "iris.treelite").read_bytes())
    assert np.abs(treelite.gtil.predict(loaded, x).reshape(150, 3) - shares).max() <= 1e-15
    assert (tmp_path / "iris.json").read_bytes() == (tmp_path / forest).read_bytes()
    again = cli("models", "export", forest, "--out", "other.json", "--json")
    assert json.loads(again.out)["trees"] == 40


def test_what_cannot_be_exported_is_one_sentence(cli, forest, tmp_path):
    (tmp_path / "there.onnx").write_bytes(b"")
    (tmp_path / "net.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")
    (tmp_path / "damaged").write_bytes(b"{")
    for file, out, code, words in (
        (forest, "iris.pmml", 2, "iris.pmml names no format. Allowed: FILE.onnx, FILE.treelite, FILE.json"),
        (forest, "there.onnx", 4, "there.onnx is there already"),
        ("gone", "iris.onnx", 2, "gone cannot be read"),
        ("net.safetensors", "iris.onnx", 2, "net.safetensors is no forest"),
        ("damaged", "iris.onnx", 1, "the forest is not JSON"),
    ):
        said = cli("models", "export", file, "--out", out)
        assert (said.code, said.out) == (code, "")
        assert words in " ".join(said.err.replace("│", " ").split())
        assert "Traceback" not in said.err
