import numpy as np
import pytest

from haina.data.bundled import BUNDLED
from haina.data.sources import load, read_arrays
from haina.data.synthetic import Synthetic
from haina.data.table import Columns
from haina.errors import DataError


@pytest.mark.parametrize(
    ("name", "shape", "classes"),
    [
        ("digits", (1797, 64), 10),
        ("iris", (150, 4), 3),
        ("wine", (178, 13), 3),
        ("breast_cancer", (569, 30), 2),
        ("diabetes", (442, 10), None),
    ],
)
def test_bundled_sets(name, shape, classes):
    data = load(f"sklearn:{name}")
    assert data.x.shape == shape
    assert len(data.features) == shape[1]
    assert (None if data.classes is None else len(data.classes)) == classes
    assert set(BUNDLED) == {"digits", "iris", "wine", "breast_cancer", "diabetes"}


def test_digits_are_scaled_to_the_unit_interval():
    x = load("sklearn:digits").x
    assert (x.min(), x.max()) == (0.0, 1.0)


def test_arrays_go_through_a_file(tmp_path):
    path = tmp_path / "rows.npz"
    groups = np.array(["p", "q", "p"])
    np.savez(
        path,
        x=np.eye(3),
        y=np.array([0, 1, 1]),
        features=["a", "b", "c"],
        classes=["no", "yes"],
        groups=groups,
    )
    data = load(str(path))
    assert data.features == ("a", "b", "c")
    assert data.classes == ("no", "yes")
    assert data.groups.tolist() == ["p", "q", "p"]


def test_a_file_with_pickles_is_not_opened(tmp_path):
    class Bomb:
        def __reduce__(self):
            return (pytest.fail, ("the pickle ran",))

    path = tmp_path / "rows.npz"
    np.savez(path, x=np.array([Bomb()], dtype=object), y=np.zeros(1), allow_pickle=True)
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(path)


def test_damaged_archives_are_refused(tmp_path):
    path = tmp_path / "rows.npz"
    with pytest.raises(DataError, match="not there"):
        read_arrays(path)
    np.savez(path, x=np.eye(3))
    with pytest.raises(DataError, match="holds x"):
        read_arrays(path)
    whole = path.read_bytes()
    for content in (b"", b"PK\x03\x04", whole[: len(whole) // 2], b"plain text"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="cannot be read"):
            read_arrays(path)
    single = tmp_path / "single.npy"
    np.save(single, np.eye(2))
    single.rename(path.with_name("single.npz"))
    with pytest.raises(DataError, match="cannot be read"):
        read_arrays(path.with_name("single.npz"))


@pytest.mark.parametrize(
    "source", ["", "digits", "sklearn:mnist", "synthetic:1", "synthetic:a,b", "synthetic:1,2,3", "http://x/y"]
)
def test_unknown_sources_say_what_is_allowed(source):
    with pytest.raises(DataError, match="Allowed"):
        load(source)


def test_columns_go_with_tables_only():
    with pytest.raises(DataError, match="target column is not named"):
        load("rows.csv")
    with pytest.raises(DataError, match="no columns to describe"):
        load("sklearn:iris", columns=Columns("y"))


@pytest.mark.parametrize("settings", [{"alpha": -1}, {"beta": float("nan")}, {"devices": 0}, {"classes": 1}])
def test_synthetic_refuses_impossible_settings(settings):
    with pytest.raises(DataError):
        Synthetic(**settings)


def test_synthetic_depends_on_the_seed_alone():
    first, again, other = (load("synthetic:1,1", seed=seed) for seed in (3, 3, 4))
    np.testing.assert_array_equal(first.x, again.x)
    np.testing.assert_array_equal(first.y, again.y)
    assert first.x.shape != other.x.shape or (first.x != other.x).any()
    assert len(np.unique(first.groups)) == 30


def test_synthetic_inputs_have_the_variances_of_the_paper():
    data = Synthetic(0, 0, devices=40).generate(np.random.default_rng(0))
    within = np.concatenate(
        [x - x.mean(axis=0) for x in (data.x[data.groups == g] for g in np.unique(data.groups))]
    )
    rows = len(within)
    expected = np.arange(1, 61) ** -1.2
    # A sample variance has relative standard error sqrt(2 / n); five of them hold for all 60 features.
    np.testing.assert_allclose(within.var(axis=0), expected, rtol=5 * np.sqrt(2 / rows) + 40 / rows)


def test_synthetic_sizes_are_at_least_fifty_with_the_median_of_the_paper():
    data = Synthetic(devices=300, dimension=1).generate(np.random.default_rng(1))
    sizes = np.unique(data.groups, return_counts=True)[1]
    assert sizes.min() >= 50
    # The median of floor(lognormal(4, 2)) + 50 is 104; its standard error at 300 draws is about exp(4) * 2 * 1.25 / sqrt(300).
    assert abs(np.median(sizes) - 104) < 3 * np.exp(4) * 2 * 1.25 / np.sqrt(300)


def test_alpha_and_beta_are_standard_deviations():
    rng = np.random.default_rng(2)
    data = Synthetic(0, 5, devices=400, dimension=20).generate(rng)
    means = np.array([data.x[data.groups == g].mean() for g in np.unique(data.groups)])
    # Var of a device's mean over 20 inputs: beta^2 + 1/20 and a little for its rows.
    assert means.std() == pytest.approx(np.sqrt(25 + 1 / 20), rel=4 / np.sqrt(2 * 400))


def test_the_iid_variant_has_one_classifier_for_all():
    data = load("synthetic:iid", seed=5)
    design = np.column_stack([data.x, np.ones(len(data))])
    half = data.groups < "device-15"
    onehot = np.eye(10)[data.y]
    weights = np.linalg.lstsq(design[half], onehot[half], rcond=None)[0]
    right = ((design[~half] @ weights).argmax(axis=1) == data.y[~half]).mean()
    differing = load("synthetic:1,1", seed=5)
    design = np.column_stack([differing.x, np.ones(len(differing))])
    half = differing.groups < "device-15"
    weights = np.linalg.lstsq(design[half], np.eye(10)[differing.y][half], rcond=None)[0]
    assert right > 0.7
    assert ((design[~half] @ weights).argmax(axis=1) == differing.y[~half]).mean() < 0.5
