"""What R writes and signs, byte for byte as Python does."""

import json
import math
import struct
import subprocess

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rsite import evaluate, needs_r

from haina.artifact import dump, load
from haina.wire import identity
from haina.wire.messages import Manifest

#: Powers of two, whose neighbours are not as far below as above, and the edges of everything.
EDGES = [
    0.1, 1e-5, 1e16, 5e-324, 1e22, 1e23, 9007199254740993.0, 2.0**-44, 1 / 3, math.pi, 1.7976931348623157e308, 2.2250738585072014e-308,
    *(math.ldexp(1.0, exponent) for exponent in range(-1074, 1024, 7)),
    *(math.nextafter(math.ldexp(1.0, exponent), math.inf) for exponent in range(-1070, 1020, 31)),
    *(10.0**exponent for exponent in range(-320, 309, 5)),
]  # fmt: skip


class Talk:
    """One R process that answers a line with a line."""

    def __init__(self, code):
        script = (
            f'library(haina); input <- file("stdin", "r"); repeat {{ line <- readLines(input, 1); if (!length(line)) break; {code}; '
            "cat(out, sep = '', fill = FALSE); cat('\\n'); flush(stdout()) }"
        )
        self.process = subprocess.Popen(
            ["Rscript", "--vanilla", "-e", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=needs_r(),
        )

    def ask(self, line):
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, self.process.stderr.read()[-2000:]
        return answer.rstrip("\n")

    def close(self):
        self.process.communicate(timeout=30)


@pytest.fixture(scope="module")
def numbers():
    """Doubles as hexadecimal bits, answered as JSON numbers."""
    code = (
        "bytes <- as.raw(strtoi(substring(line, seq(1, nchar(line), 2), seq(2, nchar(line), 2)), 16L)); "
        'out <- paste(vapply(readBin(bytes, "double", length(bytes) / 8, 8L, endian = "little"), haina:::json_number, ""), collapse = " ")'
    )
    talk = Talk(code)
    yield lambda values: talk.ask(struct.pack(f"<{len(values)}d", *values).hex()).split(" ")
    talk.close()


def as_signed(value):
    """How Python signs a number (`haina.wire.identity.signed_bytes`)."""
    return json.dumps(identity._plain(value), separators=(",", ":"))


def test_numbers_at_the_edges_are_pythons(numbers):
    values = [sign * value for value in EDGES for sign in (1, -1)]
    assert numbers(values) == [as_signed(value) for value in values]


def test_thousands_of_doubles_are_pythons(numbers):
    """Random bits, and random decimals, whose shortest texts are short."""
    rng = np.random.default_rng(5)
    bits = rng.integers(0, 1 << 63, 4000, dtype=np.uint64).view(np.float64)
    short = [
        float(f"{digits}e{exponent}")
        for digits, exponent in zip(rng.integers(1, 10**6, 2000), rng.integers(-30, 30, 2000), strict=True)
    ]
    values = [*bits[np.isfinite(bits)].tolist(), *short]
    for start in range(0, len(values), 200):
        part = values[start : start + 200]
        assert numbers(part) == [as_signed(value) for value in part]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=40))
def test_any_double_is_pythons(numbers, values):
    assert numbers(values) == [as_signed(value) for value in values]


def test_texts_are_pythons():
    texts = ["plain", 'quote " and \\', "tab\tline\n\x01\x1f\x7f", "Müller", "花", "😀", "a=b (c) 0.1"]
    path_of = json.dumps(texts, ensure_ascii=False)
    said = evaluate(
        f"cat(haina:::to_json(jsonlite::fromJSON({json.dumps(path_of, ensure_ascii=False)}, simplifyVector = FALSE)))"
    )
    assert said == json.dumps(texts, separators=(",", ":"))


def test_a_manifest_signed_in_r_verifies_in_python(tmp_path):
    """Whatever a report holds: the signature covers the very bytes that Python makes of the fields."""
    evaluate(
        'k <- haina:::new_key(); cat(haina:::key_pem(k), file = "key.pem"); cat(haina:::certificate_request(k, "hospital-a"), file = "r.csr"); '
        'm <- list(node = "hospital-a", federation = "trial", round = 3, version = 2, sha256 = strrep("0a", 32), bytes = 40, codec = "raw", '
        "length = 5, report = list(examples = 300, steps = 1, loss_before = 0.1 + 0.2, "
        'extra = list("\\u00e9t\\u00e9" = 1e-5, auc = 1 / 3, b = -0.0, c = 1e16))); '
        'cat(rawToChar(haina:::signed_bytes(m)), file = "signed"); cat(haina:::to_json(haina:::signed(m, k)), file = "manifest.json")',
        tmp_path,
    )
    manifest = Manifest.model_validate_json((tmp_path / "manifest.json").read_text())
    assert identity.signed_bytes(manifest) == (tmp_path / "signed").read_bytes()
    key = identity.load_key((tmp_path / "key.pem").read_bytes())
    import base64

    key.public_key().verify(
        base64.b64decode(manifest.signature), identity.signed_bytes(manifest), identity._SHA256
    )


def test_a_request_for_a_certificate_is_one(tmp_path):
    evaluate(
        'for (name in c("a", strrep("n", 63), "M\\u00fcnchen")) { k <- haina:::new_key(); '
        'cat(haina:::certificate_request(k, name), file = "r.csr", append = TRUE) }',
        tmp_path,
    )
    text = (tmp_path / "r.csr").read_text()
    found = [f"-----BEGIN{part}" for part in text.split("-----BEGIN")[1:]]
    names = []
    for pem in found:
        csr = x509.load_pem_x509_csr(pem.encode())
        assert csr.is_signature_valid
        assert isinstance(csr.public_key(), ec.EllipticCurvePublicKey)
        assert csr.public_key().curve.name == "secp256r1"
        names += [attribute.value for attribute in csr.subject]
    assert names == ["a", "n" * 63, "München"]


def test_models_are_read_and_written_to_the_bit(tmp_path):
    rng = np.random.default_rng(3)
    arrays = {
        "first.weight": rng.normal(size=(3, 4)).astype(np.float32),
        "first.bias": rng.normal(size=4).astype(np.float32),
        "head": rng.normal(size=(2, 2)),
        "naïve": np.array([0.1, 5e-324, -0.0]),
    }
    (tmp_path / "model").write_bytes(dump(arrays))
    evaluate(
        'm <- model_params(readBin("model", "raw", 1e6)); writeBin(model_bytes(m$params, m$layout), "again"); writeBin(m$params, "params"); '
        'writeBin(model_bytes(c(1.5, 2)), "plain")',
        tmp_path,
    )
    assert (tmp_path / "again").read_bytes() == (tmp_path / "model").read_bytes()
    flat = np.concatenate([array.astype(np.float64).ravel() for array in arrays.values()])
    assert (tmp_path / "params").read_bytes() == flat.tobytes()
    assert load((tmp_path / "plain").read_bytes())[0]["params"].tolist() == [1.5, 2.0]
