import os

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from haina.errors import PrivacyError
from haina.privacy.stream import Stream

KEY = bytes(range(32))


def test_block_after_block_is_aes_256_of_a_counter_from_zero():
    block = Cipher(algorithms.AES(KEY), modes.ECB()).encryptor()
    # FIPS 197, appendix C.3: this key, and the block 00 11 22 ... ff.
    vector = block.update(bytes.fromhex("00112233445566778899aabbccddeeff"))
    assert vector.hex() == "8ea2b7ca516745bfeafc49904b496089"
    assert Stream(KEY).bytes(16) == block.update(bytes(16))
    assert Stream(KEY).bytes(32)[16:] == block.update(bytes(15) + b"\1")


@given(st.lists(st.tuples(st.sampled_from(["bytes", "uint32", "uint64"]), st.integers(0, 40)), max_size=8))
def test_any_way_of_reading_gives_the_same_bytes(reads):
    stream, sizes = Stream(KEY), {"bytes": 1, "uint32": 4, "uint64": 8}
    got = b"".join(bytes(memoryview(getattr(stream, how)(n))) for how, n in reads)
    assert got == Stream(KEY).bytes(sum(sizes[how] * n for how, n in reads))


def test_long_reads_are_made_of_many_pieces():
    n = 100_003
    assert Stream(KEY).uint64(n).tobytes() == Stream(KEY).bytes(8 * n)
    assert Stream(KEY).uint32(n).tobytes() == Stream(KEY).bytes(4 * n)
    assert Stream(KEY).uint64(n).dtype == np.uint64


def test_words_are_uniform():
    words = Stream(KEY).uint64(1_000_000)
    for shift in (0, 24, 56):
        counts = np.bincount((words >> np.uint64(shift)).astype(np.uint8), minlength=256)
        assert chi2.sf(np.sum((counts - 1e6 / 256) ** 2 / (1e6 / 256)), 255) > 1e-3


def test_labels_give_streams_of_their_own_and_the_same_again():
    first = Stream.derived(KEY, "round 1 noise").bytes(32)
    assert first == Stream.derived(KEY, "round 1 noise").bytes(32)
    others = [
        Stream.derived(KEY, "round 2 noise"),
        Stream.derived(bytes(32), "round 1 noise"),
        Stream(KEY),
        Stream.derived(KEY, ""),
    ]
    assert len({first, *(stream.bytes(32) for stream in others)}) == 5


def test_fresh_streams_take_their_key_from_the_entropy_they_are_given():
    assert Stream.fresh(lambda n: KEY[:n]).bytes(8) == Stream(KEY).bytes(8)
    assert Stream.fresh(os.urandom).bytes(16) != Stream.fresh(os.urandom).bytes(16)


@pytest.mark.parametrize("key", [b"", bytes(16), bytes(33)])
def test_keys_of_another_length_are_refused_and_not_shown(key):
    for make in (Stream, lambda k: Stream.derived(k, "x")):
        with pytest.raises(PrivacyError, match=f"has {len(key)} bytes"):
            make(key)
