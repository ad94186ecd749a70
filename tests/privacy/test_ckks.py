import builtins
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from haina.errors import PrivacyError
from haina.privacy import ckks
from haina.privacy.ckks import SLOTS, Adder, Setting, Silo

pytest.importorskip("tenseal")

SETTING = Setting(SLOTS + 300, 2.5, 5)


@pytest.fixture(scope="module")
def silo():
    return Silo.found(SETTING)


def vectors(setting, count, seed=0):
    rng = np.random.default_rng(seed)
    return rng.uniform(-setting.bound, setting.bound, (count, setting.dimension))


@pytest.fixture(scope="module")
def sealed(silo):
    return silo.seal(vectors(SETTING, 1)[0])


def test_silos_with_one_key_open_the_sum_and_the_server_has_none(silo):
    others = [Silo(SETTING, silo.secret()) for _ in range(4)]
    rows = vectors(SETTING, 5)
    rows[:, 0], rows[:, 1] = SETTING.bound, -SETTING.bound
    adder = Adder(SETTING)
    for one, row in zip([silo, *others], rows, strict=True):
        adder.add(one.seal(row))
    total = adder.total()
    for one in (silo, others[2]):
        assert np.abs(one.open(total, 5) - rows.sum(axis=0)).max() < 1e-4 * SETTING.bound
    assert not adder._context.is_private()
    with pytest.raises(ValueError, match="secret_key"):
        adder._vectors[0].decrypt()


@pytest.fixture(scope="module")
def tiny():
    return Silo.found(Setting(3, 1e-3, 20))


@given(st.lists(st.lists(st.floats(-1e-3, 1e-3), min_size=3, max_size=3), min_size=2, max_size=4))
@settings(max_examples=20, deadline=None)
def test_the_error_is_below_a_ten_thousandth_of_the_bound(tiny, rows):
    adder = Adder(tiny.setting)
    for row in rows:
        adder.add(tiny.seal(row))
    assert np.abs(tiny.open(adder.total(), len(rows)) - np.sum(rows, axis=0)).max() < 1e-4 * 1e-3


def test_twenty_silos_are_added():
    setting = Setting(SLOTS, 1.0, 20)
    silo, adder = Silo.found(setting), Adder(setting)
    row = vectors(setting, 1)[0]
    data = silo.seal(row)
    for _ in range(20):
        adder.add(data)
    assert np.abs(silo.open(adder.total(), 20) - 20 * row).max() < 1e-4
    with pytest.raises(PrivacyError, match="vector 21"):
        adder.add(data)


def test_what_is_opened_has_no_error_left_in_it(silo):
    """Li and Micciancio's attack wants the decrypted number to the last bit."""
    adder = Adder(SETTING)
    for row in vectors(SETTING, 2):
        adder.add(silo.seal(row))
    units = silo.open(adder.total(), 2) / SETTING.bound * 2**16
    assert (units == np.round(units)).all()
    raw = ckks._read(SETTING, silo._context, adder.total())[0].decrypt()
    error = np.abs(np.array(raw) - vectors(SETTING, 2).sum(axis=0)[:SLOTS] / SETTING.bound)
    assert 0 < error.max() < 2.0**-16 / 100


def test_the_same_vector_is_never_sealed_twice_alike(silo):
    row = vectors(SETTING, 1)[0]
    first, second = silo.seal(row), silo.seal(row)
    assert first[100:] != second[100:]
    # 57 bytes for a number, and a head; the last ciphertext is as long with 300 numbers in it.
    assert len(first) < 2 * 240_000


def test_another_key_opens_nothing(silo, sealed):
    adder = Adder(SETTING)
    adder.add(sealed)
    adder.add(sealed)
    with pytest.raises(PrivacyError, match="they cannot make"):
        Silo.found(SETTING).open(adder.total(), 2)


def test_a_sum_of_one_is_not_opened(silo, sealed):
    adder = Adder(SETTING)
    adder.add(sealed)
    with pytest.raises(PrivacyError, match="a sum of 1 is asked for"):
        adder.total()
    for summands in (0, 1, 6):
        with pytest.raises(PrivacyError, match=f"a sum of {summands} vectors"):
            silo.open(sealed, summands)


def mangled(data):
    """Bytes that are no encrypted vector, by what is wrong with them."""
    head = ckks._HEAD.size
    body = head + 8
    swapped = bytearray(data)
    swapped[head : head + 8] = struct.pack("<II", 1 << 31, 1 << 31)
    shifted = bytearray(data)
    first = struct.unpack_from("<I", data, head)[0]
    shifted[head : head + 8] = struct.pack("<II", first - 7, struct.unpack_from("<I", data, head + 4)[0] + 7)
    return {
        "nothing": b"",
        "a head": data[:head],
        "cut": data[:-1],
        "longer": data + b"\0",
        "much longer": data + bytes(1 << 20),
        "other magic": b"x" + data[1:],
        "other dimension": data[:8] + struct.pack("<Q", SETTING.dimension + 1) + data[16:],
        "other count": data[:16] + struct.pack("<I", 3) + data[20:],
        "huge lengths": bytes(swapped),
        "moved lengths": bytes(shifted),
        "zeros": data[:body] + bytes(len(data) - body),
        "noise": data[:body] + np.random.default_rng(0).bytes(len(data) - body),
        "empty ciphertexts": data[:head] + bytes(8),
    }


def test_bytes_that_are_no_vector_are_refused_and_leave_the_sum_alone(silo, sealed):
    adder = Adder(SETTING)
    adder.add(sealed)
    for name, data in mangled(sealed).items():
        with pytest.raises(PrivacyError, match=r"vector|ciphertext"):
            adder.add(data)
        with pytest.raises(PrivacyError, match=r"vector|ciphertext"):
            silo.open(data, 2)
        assert adder.summands == 1, name
    adder.add(sealed)
    expected = 2 * vectors(SETTING, 1)[0]
    assert np.abs(silo.open(adder.total(), 2) - expected).max() < 1e-4 * SETTING.bound


@pytest.mark.parametrize("scale", [2.0**30, 2.0**45, 1.0])
def test_a_ciphertext_of_another_scale_does_not_enter_a_sum(sealed, scale):
    silo, adder = Silo.found(SETTING), Adder(SETTING)
    silo._context.global_scale = scale
    other = silo.seal(vectors(SETTING, 1)[0])
    adder.add(sealed)
    with pytest.raises(PrivacyError, match="moduli and scale"):
        adder.add(other)
    assert adder.summands == 1


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.zeros(3), r"shape \(3,\)"),
        (np.full(SETTING.dimension, 2.51), "coordinate 0 of a vector is 2.51"),
        (np.full(SETTING.dimension, np.nan), "is nan"),
        (np.full(SETTING.dimension, -np.inf), "is -inf"),
    ],
)
def test_vectors_beyond_the_bound_are_refused(silo, values, message):
    with pytest.raises(PrivacyError, match=message):
        silo.seal(values)


@pytest.mark.parametrize("secret", [b"", b"no key", bytes(1000), bytes(1 << 20)])
def test_bytes_that_are_no_key_are_refused(secret):
    with pytest.raises(PrivacyError, match="secret key"):
        Silo(SETTING, secret)


def test_a_context_without_a_key_or_of_another_kind_is_refused(silo):
    import tenseal

    with pytest.raises(PrivacyError, match="other parameters, or is none"):
        Silo(SETTING, ckks._parameters(silo._context))
    weak = tenseal.context(
        tenseal.SCHEME_TYPE.CKKS, poly_modulus_degree=4096, coeff_mod_bit_sizes=[40, 20, 40]
    )
    with pytest.raises(PrivacyError, match="other parameters"):
        Silo(SETTING, weak.serialize(save_secret_key=True, save_galois_keys=False, save_relin_keys=False))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ((0, 1.0, 2), "0 numbers"),
        ((5, 0.0, 2), "up to 0"),
        ((5, float("nan"), 2), "up to nan"),
        ((5, 1.0, 1), "1 silos"),
        ((5, 1.0, 21), "21 silos"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(PrivacyError, match=message):
        Setting(*settings)


def test_without_tenseal_the_way_out_is_named(monkeypatch):
    there = builtins.__import__

    def without(name, *args, **kwargs):
        if name == "tenseal":
            raise ImportError(name)
        return there(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    for make in (lambda: Silo.found(SETTING), lambda: Adder(SETTING)):
        with pytest.raises(PrivacyError, match=r"haina\[ckks\]"):
            make()
