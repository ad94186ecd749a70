"""Haina's own FedAvg under the settings of `recipe`, against a model that FATE 2.2.0 made of the same rows, and against FATE's rule in NumPy."""

import csv
from pathlib import Path

import numpy as np
import pytest
from homo_lr import trained

from haina.federation.federation import Federation
from haina.interop.fate.job import HomoLr
from haina.interop.fate.model import read_json
from haina.interop.fate.recipe import federation

FIXTURES = Path(__file__).parents[1] / "fixtures"


def rows(path):
    with path.open() as file:
        table = np.array(list(csv.reader(file))[1:], np.float64)
    return table[:, 2:], table[:, 1]


def reference(sites, settings):
    """HomoLR of FATE 2.x in float64: one full gradient step on each site, then the mean weighted by rows."""
    model = np.zeros(1 + sites[0][0].shape[1])
    for _ in range(settings.epochs):
        updates = []
        for x, y in sites:
            design = np.column_stack([np.ones(len(x)), x])
            gradient = design.T @ (1 / (1 + np.exp(-design @ model)) - y) / len(y)
            updates.append(model - settings.learning_rate * (gradient + settings.alpha * model))
        model = np.average(updates, axis=0, weights=[len(y) for _, y in sites])
    return model


@pytest.fixture
def fixture_rows(tmp_path):
    for name in ("guest", "host"):
        (tmp_path / f"{name}.csv").write_bytes((FIXTURES / f"{name}.csv").read_bytes())
    return {"guest": "guest.csv", "host": "host.csv"}


FEATURES = [f"x{i}" for i in range(5)]
FIXED = HomoLr(epochs=60, learning_rate=1.0)


def fate_made():
    model = read_json((FIXTURES / "homo_lr_model.json").read_bytes())
    return np.array([model.intercept, *model.weights])


def test_the_reference_is_what_fate_does():
    sites = [rows(FIXTURES / f"{name}.csv") for name in ("guest", "host")]
    assert np.abs(reference(sites, FIXED) - fate_made()).max() < 1e-7


@pytest.mark.parametrize("executor", ["jax", pytest.param("torch", marks=pytest.mark.torch)])
def test_haina_makes_the_model_that_fate_made(tmp_path, fixture_rows, executor):
    pytest.importorskip(executor)
    text = federation(FIXED, fixture_rows, FEATURES, 400).replace('"auto"', f'"{executor}"')
    found = np.abs(trained(tmp_path, text, 60) - fate_made()).max()
    # Measured: 6e-8, the digits of float32.
    assert found < 1e-6


def test_sites_count_by_their_rows_and_the_penalty_is_fate_s(tmp_path):
    pytest.importorskip("jax")
    lines = (FIXTURES / "guest.csv").read_text().splitlines(keepends=True)
    (tmp_path / "guest.csv").write_text("".join(lines[:301]))
    (tmp_path / "host.csv").write_text("".join(lines[:1] + lines[301:361]))
    settings = HomoLr(epochs=25, learning_rate=0.4, alpha=0.05)
    text = federation(settings, {"guest": "guest.csv", "host": "host.csv"}, FEATURES, 300)
    wanted = reference([rows(tmp_path / "guest.csv"), rows(tmp_path / "host.csv")], settings)
    found = trained(tmp_path, text, 25)
    assert np.abs(found - wanted).max() < 1e-6
    # What equal weights, no penalty, or a whole learning rate would give is far from it.
    for other in (HomoLr(25, 0.4), HomoLr(25, 0.8, 0.05)):
        far = reference([rows(tmp_path / "guest.csv"), rows(tmp_path / "host.csv")], other)
        assert np.abs(found - far).max() > 1e-2


def test_what_is_written_can_be_read_again(tmp_path, fixture_rows):
    text = federation(HomoLr(3, 0.1, 0.01, 32), fixture_rows, FEATURES, 32, name="two clinics")
    (tmp_path / "federation.toml").write_text(text)
    made = Federation.read(tmp_path / "federation.toml")
    assert made.name == "two clinics"
    assert (made.training.batch_size, made.training.epochs) == (32, 1)
    assert made.training.weight_decay == 0.02
