import json
import time
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors import numpy as reference

from haina.artifact import dump, load, pieces, sha256
from haina.errors import LayoutError

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?"]


def tensors(dtypes=DTYPES):
    shapes = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    arrays = st.sampled_from(dtypes).flatmap(lambda dtype: hnp.arrays(np.dtype(dtype), shapes))
    names = st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter(
        lambda n: n != "__metadata__"
    )
    return st.dictionaries(names, arrays, max_size=5)


def file_of(header, body=b""):
    head = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(head).to_bytes(8, "little") + head + body


def entry(shape=(2,), offsets=(0, 8), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": list(offsets)}


def assert_same(found, expected):
    assert list(found) == list(expected)
    for name, array in expected.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        assert found[name].tobytes() == array.tobytes()


@given(tensors(), st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), st.just("é\n")))
def test_what_is_dumped_is_loaded_and_dumped_again_byte_for_byte(arrays, metadata):
    data = dump(arrays, metadata)
    found, said = load(data)
    assert_same(found, arrays)
    assert said == metadata
    assert dump(found, said) == data
    assert sha256(dump(found, said)) == sha256(data)


@given(tensors())
def test_the_safetensors_library_opens_our_bytes(arrays):
    found = reference.load(dump(arrays))
    assert set(found) == set(arrays)
    assert_same({name: found[name] for name in arrays}, arrays)


@given(tensors())
def test_we_open_what_the_safetensors_library_writes(arrays):
    data = reference.save(arrays, {"by": "the reference writer"})
    found, metadata = load(data)
    assert_same({name: found[name] for name in arrays}, arrays)
    assert metadata == {"by": "the reference writer"}


def test_a_torch_model_file_is_read_and_its_order_kept(tmp_path):
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    found, _ = load((tmp_path / "model.safetensors").read_bytes())
    assert set(found) == set(model.state_dict())
    for name, tensor in model.state_dict().items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


def test_the_bytes_are_those_of_the_format_and_do_not_change_between_versions():
    data = dump({"b": np.array([1.0, -2.0], np.float32), "a": np.array([3], np.int8)})
    head = b'{"b":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"a":{"dtype":"I8","shape":[1],"data_offsets":[8,9]}}'
    head += b" " * (-len(head) % 8)
    assert data == len(head).to_bytes(8, "little") + head + b"\x00\x00\x80?\x00\x00\x00\xc0\x03"


def test_byte_order_and_memory_order_do_not_change_the_identity():
    array = np.arange(12, dtype=np.float64).reshape(3, 4)
    plain = dump({"w": array})
    assert dump({"w": array.astype(">f8")}) == plain
    assert dump({"w": np.asfortranarray(array)}) == plain
    assert dump({"w": np.repeat(array, 2, axis=1)[:, ::2]}) == plain
    assert dump({"w": array.T}) != plain


def test_the_order_of_the_mapping_counts_and_the_order_of_metadata_does_not():
    a, b = np.zeros(1, np.float32), np.ones(1, np.float32)
    assert dump({"a": a, "b": b}) != dump({"b": b, "a": a})
    assert dump({}, {"x": "1", "y": "2"}) == dump({}, {"y": "2", "x": "1"})


def test_loaded_arrays_cannot_be_written_to():
    found, _ = load(dump({"w": np.zeros(3)}))
    with pytest.raises(ValueError, match="read-only"):
        found["w"][0] = 1.0


@pytest.mark.parametrize(
    "arrays",
    [
        {"w": np.zeros(2, np.complex64)},
        {"w": np.array(["text"])},
        {"w": np.array([None])},
        {"w": np.zeros(2, "M8[s]")},
        {"__metadata__": np.zeros(2)},
        {"\ud800": np.zeros(2)},
    ],
)
def test_what_the_format_cannot_hold_is_refused(arrays):
    with pytest.raises(LayoutError):
        dump(arrays)


BODY = bytes(8)
DAMAGED = {
    "nothing": b"",
    "shorter than a length": b"\x01\x02\x03",
    "header cut short": file_of({"w": entry()}, BODY)[:20],
    "body cut short": file_of({"w": entry()}, BODY[:-1]),
    "overlong": file_of({"w": entry()}, BODY + b"\0"),
    "header of exabytes": (1 << 62).to_bytes(8, "little") + b"{}",
    "header longer than allowed": (100_000_001).to_bytes(8, "little") + b"{}",
    "not JSON": file_of(b"{w: 1}"),
    "not UTF-8": file_of(b'{"\xff": 1}'),
    "UTF-16": file_of(json.dumps({"w": entry()}).encode("utf-16"), BODY),
    "a list": file_of([entry()]),
    "nested without end": file_of(b"[" * 200_000),
    "an integer of 5000 digits": file_of(b'{"w":' + b"9" * 5000 + b"}"),
    "an entry that is no object": file_of({"w": 3}),
    "dtype unknown": file_of({"w": entry(dtype="BF16")}, BODY),
    "dtype missing": file_of({"w": {"shape": [2], "data_offsets": [0, 8]}}, BODY),
    "dtype of another type": file_of({"w": entry(dtype=["F32"])}, BODY),
    "shape missing": file_of({"w": {"dtype": "F32", "data_offsets": [0, 8]}}, BODY),
    "shape too large": file_of({"w": entry([3])}, BODY),
    "shape too small": file_of({"w": entry([1])}, BODY),
    "shape negative": file_of({"w": entry([-2])}, BODY),
    "shape twice negative": file_of({"w": entry([-1, -2])}, BODY),
    "shape fractional": file_of({"w": entry([2.0])}, BODY),
    "shape boolean": file_of({"w": entry([True, 2])}, BODY),
    "shape overflows 64 bits": file_of({"w": entry([1 << 32, 1 << 32], (0, 0))}),
    "no elements but astronomical sizes": file_of({"w": entry([0, 1 << 47, 1 << 47], (0, 0))}),
    "65 dimensions": file_of({"w": entry([1] * 64 + [2])}, BODY),
    "offsets missing": file_of({"w": {"dtype": "F32", "shape": [2]}}, BODY),
    "offsets negative": file_of({"w": entry([2], (-8, 0))}, BODY),
    "offsets reversed": file_of({"w": entry([2], (8, 0))}, BODY),
    "offsets beyond the end": file_of({"w": entry([2], (8, 16))}, BODY),
    "three offsets": file_of({"w": entry([2], (0, 8, 16))}, BODY),
    "overlapping": file_of({"a": entry(), "b": entry()}, BODY),
    "a gap": file_of({"a": entry([1], (0, 4)), "b": entry([1], (8, 12))}, bytes(12)),
    "a name twice": file_of(b'{"w":%s,"w":%s}' % ((json.dumps(entry()).encode(),) * 2), BODY),
    "a key of an entry twice": file_of(
        b'{"w":{"dtype":"F32","shape":[9],"shape":[2],"data_offsets":[0,8]}}', BODY
    ),
    "metadata that is no object": file_of({"__metadata__": [], "w": entry()}, BODY),
    "metadata that is no text": file_of({"__metadata__": {"x": 1}, "w": entry()}, BODY),
}


@pytest.mark.parametrize("data", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_bytes_are_a_layout_error(data):
    with pytest.raises(LayoutError):
        load(data)


@pytest.mark.parametrize("entries", [1, 20_000])
def test_a_header_cannot_ask_for_more_memory_or_time_than_it_brings(entries):
    many = {str(i): entry([1 << 47] * 64, (0, 1 << 47)) for i in range(entries)}
    data = file_of(many) if entries == 1 else file_of({"w": entry([1 << 47] * entries)}, BODY)
    tracemalloc.start()
    began = time.process_time()
    with pytest.raises(LayoutError):
        load(data)
    seconds, peak = time.process_time() - began, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    # Multiplying out a shape of 20,000 sizes takes seconds; a header is parsed in about 15 times its length.
    assert seconds < 2
    assert peak < 100_000 + 30 * len(data)


VALID = dump(
    {"weight": np.arange(6, dtype=np.float32).reshape(2, 3), "n": np.array(7), "flag": np.array([True])},
    {"job": "{}"},
)
MUTATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.integers(0, len(VALID) - 1), st.binary(min_size=1, max_size=3)),
        st.tuples(st.just("insert"), st.integers(0, len(VALID)), st.binary(min_size=1, max_size=9)),
        st.tuples(st.just("delete"), st.integers(0, len(VALID) - 1), st.integers(1, 40)),
        st.tuples(
            st.just("insert"),
            st.integers(8, len(VALID)),
            st.sampled_from([b"1", b"9", b"-", b"e9", b"0", b"[", b'"', b",", b"null", b"{}", b"1" * 4400]),
        ),
    ),
    min_size=1,
    max_size=4,
)


@given(MUTATIONS, st.booleans())
def test_mutated_bytes_are_read_or_refused_and_nothing_else(mutations, mend_length):
    data = bytearray(VALID)
    for kind, place, change in mutations:
        if kind == "set":
            data[place : place + len(change)] = change
        elif kind == "insert":
            data[place:place] = change
        else:
            del data[place : place + change]
    if mend_length and (end := data.find(b"}}")) > 8:
        # A length that fits the mutated header lets it come as far as the entries.
        data[:8] = (end + 2 - 8).to_bytes(8, "little")
    tracemalloc.start()
    try:
        arrays, metadata = load(bytes(data))
    except LayoutError:
        pass
    else:
        assert sum(array.nbytes for array in arrays.values()) <= len(data)
        assert load(dump(arrays, metadata))[1] == metadata
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000


@given(st.binary(max_size=200))
def test_random_bytes_are_refused(data):
    try:
        arrays, _ = load(data)
    except LayoutError:
        return
    assert not arrays


def test_pieces_are_the_bytes_of_dump_and_copy_nothing():
    big = np.arange(10_000, dtype=np.float32)
    arrays = {"big": big, "none": np.empty((0, 3)), "one": np.array(2.5), "odd": np.arange(9).reshape(3, 3).T}
    parts = pieces(arrays, {"who": "Zürich"})
    assert b"".join(parts) == dump(arrays, {"who": "Zürich"})
    big[0] = 7
    assert np.frombuffer(parts[1], np.float32)[0] == 7
