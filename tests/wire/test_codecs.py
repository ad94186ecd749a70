import hashlib
import mmap
import struct
from pathlib import Path

import numpy as np
import psutil
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from haina.update import BLOCK
from haina.wire.codecs import CODECS, CodecError, Stored, blocks, decode, encode, size

LOSSY = ("bf16", "int8", "topk")
FEEDBACK = ("int8", "topk")
#: Below a group, a group, its neighbours, several blocks and a ragged end.
LENGTHS = (1, 2, 99, 100, 101, 4095, 4096, 4097, BLOCK, BLOCK + 1, 3 * BLOCK + 4096 + 17)


def draw(length: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("codec", ["float32", *LOSSY])
def test_size_is_known_and_blocks_join_to_the_vector(codec, length, tmp_path):
    body, _ = encode(codec, draw(length))
    assert body.dtype == np.uint8
    assert body.nbytes == size(codec, length)
    whole = decode(codec, body.tobytes(), length)
    assert whole.dtype == np.float32
    assert whole.shape == (length,)
    file = tmp_path / "body"
    file.write_bytes(body.tobytes())
    for source in (body, memoryview(body.tobytes()), file):
        for width in (4096, BLOCK):
            parts = list(blocks(codec, source, length, width))
            assert [columns.start for columns, _ in parts] == list(range(0, length, width))
            assert np.concatenate([part for _, part in parts]).tobytes() == whole.tobytes()
        assert decode(codec, source, length).tobytes() == whole.tobytes()


def test_sizes():
    assert size("float32", 10_000) == 40_000
    assert size("bf16", 10_000) == 20_000
    assert size("int8", 10_000) == 10_000 + 3 * 4
    assert size("topk", 10_000) == 100 * 8
    assert size("topk", 10_001) == 101 * 8
    assert size("raw", 10_000) == 80_000


def test_float32_is_a_view_both_ways(tmp_path):
    vector = draw(5000)
    body, residual = encode("float32", vector)
    assert residual is None
    assert np.shares_memory(body, vector)
    (tmp_path / "body").write_bytes(body)
    read = decode("float32", tmp_path / "body", 5000)
    assert (read == vector).all()
    base = read
    while isinstance(base, np.ndarray):
        base = base.base
    assert isinstance(base.obj if isinstance(base, memoryview) else base, mmap.mmap)
    assert not read.flags.writeable


@settings(max_examples=200, deadline=None)
@given(hnp.arrays(np.uint32, 64, elements=st.integers(0, (1 << 32) - 1)))
def test_bf16_rounds_to_nearest_even(bits):
    ml_dtypes = pytest.importorskip("ml_dtypes")
    vector = bits.view(np.float32)
    if not np.isfinite(vector).all():
        with pytest.raises(CodecError, match="not finite"):
            encode("bf16", vector)
        return
    body, residual = encode("bf16", vector)
    assert residual is None
    with np.errstate(over="ignore"):
        reference = vector.astype(ml_dtypes.bfloat16)
    assert body.tobytes() == reference.tobytes()
    assert decode("bf16", body, 64).tobytes() == reference.astype(np.float32).tobytes()


def test_bf16_ties():
    # 1 + 2^-8 lies between 1 and 1 + 2^-7 and goes to the even one, 1; 1 + 3 * 2^-8 goes up to 1 + 2^-6.
    vector = np.array([1 + 2**-8, 1 + 3 * 2**-8, -(1 + 2**-8)], np.float32)
    body, _ = encode("bf16", vector)
    assert decode("bf16", body, 3).tolist() == [1.0, 1 + 2**-6, -1.0]


@settings(max_examples=100, deadline=None)
@given(
    hnp.arrays(
        np.float32,
        st.integers(1, 9000),
        elements=st.floats(-(2.0**100), 2.0**100, width=32),
        fill=st.just(np.float32(0.5)),
    )
)
def test_int8_is_within_half_a_scale(vector):
    body, residual = encode("int8", vector)
    scales = body[: 4 * -(-len(vector) // 4096)].view("<f4")
    error = np.abs(vector.astype(np.float64) - decode("int8", body, len(vector)))
    each = np.repeat(scales, 4096)[: len(vector)].astype(np.float64)
    tiny = float(np.finfo(np.float32).tiny)
    assert (error <= np.where(each > 0, 0.5 * each * (1 + 1e-4), 128 * tiny)).all()
    assert (np.abs(residual - (vector - decode("int8", body, len(vector)))) == 0).all()


def test_topk_sends_the_largest_exactly_and_ties_by_place():
    vector = np.zeros(1000, np.float32)
    vector[[3, 500, 999]] = [5, -7, 6]
    vector[100:200] = 2
    body, residual = encode("topk", vector)
    places = body[:40].view("<u4")
    assert places.tolist() == [3, *range(100, 107), 500, 999]
    out = decode("topk", body, 1000)
    assert (out[places] == vector[places]).all()
    assert np.count_nonzero(out) == 10
    assert ((out + residual) == vector).all()


def test_topk_is_what_a_stable_sort_would_choose():
    vector = np.round(draw(30_000) * 4).astype(np.float32)
    body, _ = encode("topk", vector)
    chosen = np.sort(np.argsort(-np.abs(vector), kind="stable")[:300])
    assert (body[:1200].view("<u4") == chosen).all()


@pytest.mark.parametrize("codec", FEEDBACK)
def test_error_feedback_closed_form(codec):
    # What was decoded in all rounds, and the last residual, are what was meant: to the rounding of one float32 addition a round.
    rounds, length = 300, 5000
    residual = None
    meant = np.zeros(length)
    received = np.zeros(length)
    for number in range(rounds):
        vector = draw(length, number) + np.float32(0.01)
        body, residual = encode(codec, vector, residual)
        meant += vector
        received += decode(codec, body, length)
    assert residual is not None
    assert np.abs(meant - received - residual).max() < rounds * 2**-24 * 64
    # So the mean error falls as 1 / rounds, which it does not without feedback.
    assert np.abs(meant - received).max() / rounds == pytest.approx(np.abs(residual).max() / rounds, rel=1e-3)


@pytest.mark.parametrize("codec", FEEDBACK)
def test_mean_of_a_constant_vector_converges(codec):
    vector = draw(2000) * np.float32(1e-3)
    errors = []
    for rounds in (100, 1000):
        residual, received = None, np.zeros(2000)
        for _ in range(rounds):
            body, residual = encode(codec, vector, residual)
            received += decode(codec, body, 2000)
        errors.append(np.abs(received / rounds - vector).max())
    assert errors[1] < errors[0] / 5


@pytest.mark.parametrize("codec", ["float32", *LOSSY])
def test_a_residual_goes_along_when_the_codec_changes(codec):
    vector, left = draw(300), draw(300, 1)
    with_residual, _ = encode(codec, vector, left)
    together, _ = encode(codec, vector + left)
    assert with_residual.tobytes() == together.tobytes()


def test_raw_vectors_and_documents(tmp_path):
    statistics = np.random.default_rng(0).standard_normal(70_000)
    body, residual = encode("raw", statistics)
    assert residual is None
    assert body.tobytes() == statistics.astype("<f8").tobytes()
    assert (decode("raw", body, 70_000) == statistics).all()
    assert np.concatenate([part for _, part in blocks("raw", body, 70_000)]).dtype == np.float64
    document = np.frombuffer(b'{"trees": []}' * 5000, np.uint8)
    body, _ = encode("raw", document)
    assert decode("raw", body, 0).tobytes() == document.tobytes()
    assert b"".join(part.tobytes() for _, part in blocks("raw", body, 0)) == document.tobytes()


def test_known_bytes():
    # The formats are a promise to other implementations: these bytes must never change.
    vector = np.array([0.0, 1.0, -2.0, 0.5], np.float32)
    assert encode("float32", vector)[0].tobytes() == struct.pack("<4f", 0, 1, -2, 0.5)
    assert encode("bf16", vector)[0].tobytes() == struct.pack("<4H", 0, 0x3F80, 0xC000, 0x3F00)
    assert encode("int8", vector)[0].tobytes() == struct.pack(
        "<f4b", np.float32(2) / np.float32(127), 0, 64, -127, 32
    )
    assert encode("topk", vector)[0].tobytes() == struct.pack("<If", 2, -2.0)
    big = ((np.arange(100_000) * 7919 % 10_007 - 5_003) / 997).astype(np.float32)
    digests = {codec: hashlib.sha256(encode(codec, big)[0]).hexdigest()[:16] for codec in ("float32", *LOSSY)}
    assert digests == DIGESTS


DIGESTS = {
    "float32": "21ca4c52f14b4d83",
    "bf16": "b5725972eeb8e662",
    "int8": "6a68c32c49dd98e3",
    "topk": "877f8cb298ec2073",
}


def topk_body(places, numbers):
    return np.array(places, "<u4").tobytes() + np.array(numbers, "<f4").tobytes()


@pytest.mark.parametrize(
    ("codec", "body", "length", "words"),
    [
        ("float32", b"\0" * 11, 3, "11 bytes"),
        ("float32", b"", 0, "length 0"),
        ("float32", b"", 3, "0 bytes"),
        ("float32", b"\0" * 4, -1, "length -1"),
        ("bf16", b"\0" * 7, 3, "7 bytes"),
        ("int8", b"\0" * 8, 3, "8 bytes"),
        ("int8", struct.pack("<f3b", float("nan"), 1, 2, 3), 3, "scale of group 0 is nan"),
        ("int8", struct.pack("<f3b", float("inf"), 1, 2, 3), 3, "scale of group 0 is inf"),
        ("int8", struct.pack("<f3b", -1.0, 1, 2, 3), 3, "scale of group 0 is -1"),
        ("int8", struct.pack("<f3b", 3e38, 1, 2, 3), 3, "scale of group 0 is 3"),
        ("topk", topk_body([5, 5], [1, 1]), 200, "do not ascend"),
        ("topk", topk_body([6, 5], [1, 1]), 200, "do not ascend"),
        ("topk", topk_body([5, 200], [1, 1]), 200, "place 200"),
        ("topk", topk_body([5, 0xFFFF_FFFF], [1, 1]), 200, "place 4294967295"),
        ("topk", topk_body([5, 6], [1, float("nan")]), 200, "a number is nan"),
        ("topk", topk_body([5, 6], [1, 2]), 1 << 32, "4294967296 numbers"),
        ("raw", b"", 0, "0 bytes"),
        ("raw", b"\0" * 9, 1, "9 bytes"),
        ("gzip", b"\0", 1, "no codec 'gzip'"),
    ],
)
def test_malformed_bodies_are_refused_in_words(codec, body, length, words, tmp_path):
    file = tmp_path / "body"
    file.write_bytes(body)
    for source in (body, file):
        with pytest.raises(CodecError, match=words):
            decode(codec, source, length)
        with pytest.raises(CodecError, match=words):
            list(blocks(codec, source, length))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(CODECS)), st.integers(0, 450), st.binary(max_size=2000))
def test_any_bytes_are_a_vector_or_an_error(codec, length, body):
    try:
        vector = decode(codec, body, length)
    except CodecError:
        return
    assert len(vector) == (length or len(body))
    if codec in ("int8", "topk"):
        assert np.isfinite(vector).all()


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(["int8", "topk"]), st.integers(1, 450), st.data())
def test_any_bytes_of_the_right_length_too(codec, length, data):
    body = data.draw(st.binary(min_size=size(codec, length), max_size=size(codec, length)))
    try:
        vector = decode(codec, body, length)
    except CodecError:
        return
    assert np.isfinite(vector).all()


@pytest.mark.parametrize("codec", LOSSY)
@pytest.mark.parametrize("value", [np.nan, -np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_not_encoded(codec, value):
    vector = draw(10_000)
    vector[9_999] = value
    with pytest.raises(CodecError, match="not finite"):
        encode(codec, vector)


@pytest.mark.parametrize("codec", FEEDBACK)
def test_a_residual_that_overflows_is_no_surprise(codec):
    big = np.full(10, 3e38, np.float32)
    with pytest.raises(CodecError, match="not finite"):
        encode(codec, big, big)


def test_impossible_arguments():
    with pytest.raises(CodecError, match="shape"):
        encode("int8", np.zeros((2, 2), np.float32))
    with pytest.raises(CodecError, match="shape"):
        encode("int8", np.zeros(0, np.float32))
    with pytest.raises(CodecError, match="residual"):
        encode("int8", np.zeros(3, np.float32), np.zeros(2, np.float32))


@pytest.mark.parametrize("codec", ["float32", *LOSSY])
def test_blocks_of_a_file_take_little_memory(codec, tmp_path):
    length = 16_000_000
    vector = draw(1 << 16)
    vector = np.tile(vector, length // len(vector) + 1)[:length]
    file = tmp_path / "body"
    file.write_bytes(encode(codec, vector)[0])
    del vector
    process, most = psutil.Process(), 0
    before = process.memory_info().rss
    for columns, _ in blocks(codec, file, length):
        if columns.start % (64 * BLOCK) == 0:
            most = max(most, process.memory_info().rss - before)
    assert most < 24 << 20, f"{most / 1e6:.1f} MB for a vector of {length * 4 / 1e6:.0f} MB"


def test_importing_codecs_is_light(tmp_path: Path):
    import subprocess
    import sys

    code = "import sys, haina.wire.codecs; print(sorted({m.split('.')[0] for m in sys.modules} & {'scipy','pandas','jax','torch','ml_dtypes'}))"
    out = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert out.stdout.strip() == "[]"


@pytest.mark.parametrize("codec", ["float32", "bf16", "int8", "topk", "raw"])
def test_a_stored_vector_gives_the_same_numbers_block_by_block(codec, tmp_path):
    length = 6 * BLOCK + 4096 + 17
    body, _ = encode(codec, draw(length))
    path = tmp_path / "body"
    body.tofile(path)
    whole, stored = decode(codec, path, length), Stored(codec, path, length)
    assert (stored.shape, stored.dtype) == (whole.shape, whole.dtype)
    # Also again, and not in order.
    for start in (*range(0, length, 2 * BLOCK), 0, 4 * BLOCK):
        columns = slice(start, min(start + 2 * BLOCK, length))
        assert stored[columns].tobytes() == whole[columns].tobytes()


def test_a_stored_vector_does_not_stay_in_memory(tmp_path):
    vector = draw(16 << 20)
    (tmp_path / "body").write_bytes(vector.tobytes())
    stored, here = Stored("float32", tmp_path / "body", len(vector)), psutil.Process().memory_info
    before, most = here().rss, 0
    for start in range(0, len(vector), BLOCK):
        stored[start : start + BLOCK].sum()
        most = max(most, here().rss - before)
    assert most < 8 << 20


def test_a_stored_vector_of_another_length_is_refused(tmp_path):
    (tmp_path / "body").write_bytes(bytes(40))
    with pytest.raises(CodecError, match="40 bytes"):
        Stored("float32", tmp_path / "body", 11)[0:4]
