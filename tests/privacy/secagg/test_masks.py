import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2
from secret_sum import Room, Terms, stream

from haina.privacy.secagg.masks import CHUNK, add_masks

KEY = st.binary(min_size=32, max_size=32)


def counter_mode(key, words, size):
    """The mask by the book: AES-256 in counter mode from counter block 2 on."""
    start = (2).to_bytes(16, "big")
    stream = Cipher(algorithms.AES256(key), modes.CTR(start)).encryptor().update(bytes(words * size))
    return np.frombuffer(stream, f"<u{size}")


@given(st.lists(KEY, max_size=4), st.lists(KEY, max_size=4), st.integers(1, 40), st.sampled_from([4, 8]))
def test_masks_are_key_streams_of_aes_in_counter_mode(plus, minus, length, size):
    words = np.arange(length, dtype=f"u{size}")
    expected = words.copy()
    for key in plus:
        expected += counter_mode(key, length, size)
    for key in minus:
        expected -= counter_mode(key, length, size)
    add_masks(words, plus, minus)
    assert (words == expected).all()


@pytest.mark.parametrize("size", [4, 8])
@pytest.mark.parametrize("extra", [-1, 0, 1])
def test_a_long_mask_goes_on_where_its_last_piece_ended(size, extra):
    length = 2 * CHUNK // size + extra
    words = np.zeros(length, f"u{size}")
    add_masks(words, [bytes(range(32))])
    assert (words == counter_mode(bytes(range(32)), length, size)).all()


@settings(max_examples=20)
@given(st.lists(KEY, min_size=1, max_size=5))
def test_what_was_added_can_be_taken_away(keys):
    words = np.arange(100_000, dtype=np.uint32)
    add_masks(words, keys)
    assert (words != np.arange(100_000, dtype=np.uint32)).any()
    add_masks(words, (), keys)
    assert (words == np.arange(100_000, dtype=np.uint32)).all()


def p_value(counts):
    expected = counts.sum() / len(counts)
    return chi2.sf(float(((counts - expected) ** 2 / expected).sum()), len(counts) - 1)


@pytest.mark.parametrize("word", [32, 64])
def test_what_one_member_uploads_is_indistinguishable_from_random_words(word):
    """Chi-square over a million words: each byte of a word, its top bits, its lowest, and the step from one word to the next.

    The vector is all zeros, which shows any pattern of the masks; and the coordinator knows all but one neighbour's mask to be there.
    """
    terms = Terms(federation="f", round=1, task="00" * 32, length=1_000_000, word=word)
    room = Room(4, terms=terms, seed=3).share()
    name = room.names[1]
    words = room.members[name].upload(room.inbox(name), np.zeros(terms.length, f"u{word // 8}"))
    bytes_ = words.view(np.uint8).reshape(-1, word // 8)
    tests = {f"byte {i}": np.bincount(bytes_[:, i], minlength=256) for i in range(word // 8)}
    top = words >> np.array(word - 12, words.dtype)
    tests["top bits"] = np.bincount(top.astype(np.int64), minlength=1 << 12)
    step = (words[1:] - words[:-1]) >> np.array(word - 12, words.dtype)
    tests["steps"] = np.bincount(step.astype(np.int64), minlength=1 << 12)
    tests["low bits"] = np.bincount((words & np.array(4095, words.dtype)).astype(np.int64), minlength=1 << 12)
    values = {what: p_value(counts) for what, counts in tests.items()}
    # Each below 1e-4 once in ten thousand seeds; this seed is fixed.
    assert all(1e-4 < value < 1 - 1e-4 for value in values.values()), values


def test_the_chi_square_finds_a_mask_of_too_few_bits():
    """The test above would fail for words that are mostly zero in their top bits, as unmasked updates are."""
    words = np.frombuffer(stream(5)(4_000_000), np.uint32) >> np.uint32(1)
    assert p_value(np.bincount(words >> np.uint32(20), minlength=1 << 12)) < 1e-9
