import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as reference

from haina.artifact import load, sha256
from haina.errors import LayoutError
from haina.layout import Layout


def network():
    rng = np.random.default_rng(0)
    return {
        "body.weight": rng.normal(size=(3, 2)).astype(np.float32),
        "body.bn.mean": rng.normal(size=3).astype(np.float32),
        "body.bn.batches": np.array(41),
        "body.mask": np.array([True, False]),
        "head.weight": rng.normal(size=(2, 3)).astype(np.float32),
        "head.bias": rng.normal(size=2).astype(np.float32),
    }


FLOATS = st.dictionaries(
    st.text(min_size=1, max_size=6, alphabet="abc._0é"),
    hnp.arrays(np.float32, hnp.array_shapes(min_dims=0, max_dims=3, min_side=1, max_side=4)),
    min_size=1,
    max_size=5,
)


@given(FLOATS)
def test_tensors_become_a_vector_and_come_back_bit_for_bit(tensors):
    layout = Layout.of(tensors)
    vector = layout.pack(tensors)
    assert vector.shape == (layout.size,) == (sum(array.size for array in tensors.values()),)
    assert vector.dtype == np.float32
    back = layout.unpack(vector)
    assert list(back) == list(tensors)
    for name, array in tensors.items():
        assert back[name].shape == array.shape
        assert back[name].tobytes() == array.tobytes()
    assert layout.pack(back).tobytes() == vector.tobytes()
    assert layout.from_bytes(layout.to_bytes(vector)).tobytes() == vector.tobytes()


def test_what_may_travel_and_what_stays():
    tensors = network()
    floats = [name for name, array in tensors.items() if array.dtype == np.float32]
    assert [f.name for f in Layout.of(tensors).shared] == floats
    assert [f.name for f in Layout.of(tensors, local=["head.*"]).shared] == ["body.weight", "body.bn.mean"]
    assert [f.name for f in Layout.of(tensors, local=["*.bn.*"]).shared] == [
        n for n in floats if ".bn." not in n
    ]
    assert [f.name for f in Layout.of(tensors, shared=["*.bias", "body.w*"]).shared] == [
        "body.weight",
        "head.bias",
    ]
    both = Layout.of(tensors, shared=["head.*"], local=["*.bias"])
    assert [f.name for f in both.shared] == ["head.weight"]
    assert [f.name for f in both.fields] == list(tensors)


def test_integer_and_boolean_buffers_stay_though_a_pattern_asks_for_them():
    layout = Layout.of(network(), shared=["body.*"])
    assert {f.name: f.shared for f in layout.fields} == {
        "body.weight": True,
        "body.bn.mean": True,
        "body.bn.batches": False,
        "body.mask": False,
        "head.weight": False,
        "head.bias": False,
    }


def test_local_tensors_are_the_clients_own():
    tensors = network()
    layout = Layout.of(tensors, local=["head.*"])
    mine = {
        "head.weight": np.full((2, 3), 7.0),
        "body.bn.batches": np.array(3),
        "body.weight": "never looked at",
    }
    model = layout.unpack(np.zeros(layout.size, np.float32), mine)
    assert list(model) == ["body.weight", "body.bn.mean", "body.bn.batches", "head.weight"]
    assert not model["body.weight"].any()
    assert model["head.weight"] is mine["head.weight"]
    assert model["body.bn.batches"] is mine["body.bn.batches"]
    assert list(layout.unpack(np.zeros(layout.size, np.float32))) == ["body.weight", "body.bn.mean"]


@pytest.mark.parametrize("dtype", ["<f8", ">f8", ">f4", "<f2"])
def test_each_tensor_comes_back_in_its_own_dtype(dtype):
    tensors = {"a": np.array([1.5, -2.0], dtype), "b": np.ones(1, np.float32)}
    layout = Layout.of(tensors)
    vector = layout.pack(tensors)
    assert vector.dtype == np.float32
    assert layout.unpack(vector)["a"].dtype == np.dtype(dtype).newbyteorder("=")
    np.testing.assert_array_equal(layout.from_bytes(layout.to_bytes(vector)), vector)


def test_a_float64_layout_keeps_all_digits():
    layout = Layout.vector(3, dtype="float64")
    vector = np.array([1 / 3, 1e300, -1e-300])
    assert layout.size == 3
    assert layout.from_bytes(layout.to_bytes(vector)).tobytes() == vector.tobytes()


def test_the_identity_is_the_hash_of_bytes_that_others_can_read():
    tensors = network()
    layout = Layout.of(tensors, local=["head.*"])
    vector = layout.pack(tensors)
    data = layout.to_bytes(vector)
    assert layout.identity(vector) == sha256(data)
    found = reference.load(data)
    assert set(found) == {"body.weight", "body.bn.mean"}
    np.testing.assert_array_equal(found["body.weight"], tensors["body.weight"])
    assert load(data)[1] == {}
    nudged = vector.copy()
    nudged[0] = np.nextafter(nudged[0], np.float32(np.inf))
    assert layout.identity(nudged) != layout.identity(vector)


@pytest.mark.parametrize("settings", [{"local": ["heads.*"]}, {"shared": ["*lora*"]}])
def test_a_pattern_that_matches_nothing_is_a_typing_error(settings):
    with pytest.raises(LayoutError, match="matches no tensor") as error:
        Layout.of(network(), **settings)
    assert "head.weight" in error.value.allowed


@pytest.mark.parametrize(
    ("tensors", "settings"),
    [
        ({"count": np.array(3)}, {}),
        (network(), {"local": ["*"]}),
        (network(), {"shared": ["*.batches"]}),
        (network(), {"shared": []}),
        ({"empty": np.zeros((0, 3), np.float32)}, {}),
    ],
)
def test_nothing_to_share_is_refused(tensors, settings):
    with pytest.raises(LayoutError, match="nothing to learn together"):
        Layout.of(tensors, **settings)


def test_wrong_tensors_and_vectors_are_refused_with_what_is_needed():
    tensors = network()
    layout = Layout.of(tensors)
    with pytest.raises(LayoutError, match=r"'head.bias' is missing"):
        layout.pack({name: array for name, array in tensors.items() if name != "head.bias"})
    with pytest.raises(LayoutError, match=r"'body.weight' has shape \(2, 3\)\. Allowed: \(3, 2\)"):
        layout.pack({**tensors, "body.weight": tensors["body.weight"].T})
    for wrong in (layout.size - 1, layout.size + 1, (layout.size, 1), ()):
        with pytest.raises(LayoutError, match="the vector has shape"):
            layout.unpack(np.zeros(wrong, np.float32))


def test_bytes_of_another_model_are_refused():
    tensors = network()
    layout = Layout.of(tensors)
    vector = layout.pack(tensors)
    floats = {f.name: tensors[f.name] for f in layout.shared}
    others = (
        {**floats, "head.weight": floats["head.weight"].T},
        {**floats, "head.bias": floats["head.bias"].astype(np.float64)},
        {name: array for name, array in floats.items() if name != "head.bias"},
        {**floats, "extra": np.zeros(1, np.float32)},
        dict(reversed(floats.items())),
    )
    for other in others:
        with pytest.raises(LayoutError, match="the model holds"):
            layout.from_bytes(Layout.of(other).to_bytes(Layout.of(other).pack(other)))
    with pytest.raises(LayoutError):
        layout.from_bytes(layout.to_bytes(vector)[:-1])
