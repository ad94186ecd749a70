"""Bodies and manifests that are not what they say, at both doors, small and large: typed refusals, nothing kept, and the truth still counts."""

import base64
import io
import itertools
import json
import time

import numpy as np
import pytest
from fortress import code_of, head, http, problem_of, silent

from haina.report import Report
from haina.wire.identity import new_key, sign
from haina.wire.messages import Failed, Fate
from haina.wire.refusal import Refusal

numbers = itertools.count()


@pytest.fixture(params=["trial", "other"], ids=["small", "large"])
def node(fort, request):
    """A new node of a federation with small or with large updates, whose round is open."""
    node = fort.node(f"up-{next(numbers)}", request.param)
    node.task()
    yield node
    node.close()


def sent(node, door, manifest, body, offset=0):
    """What became of an upload: its fate, or the code of the refusal; with a look for what must not be said."""
    try:
        ack = node.link(door).upload(manifest, io.BytesIO(body), offset)
    except Refusal as error:
        silent(str(error))
        return error.code
    silent(ack.reason)
    return ack.fate


def streamed(node, manifest, pieces):
    with node.channel() as channel:
        upload = channel.stream_unary("/haina.v1.Coordinator/Upload")
        upload(
            iter(pieces), metadata=[("haina-manifest-bin", manifest.model_dump_json().encode())], timeout=10
        )


FORGED = {
    "as another": lambda m, n: m.model_copy(update={"node": "victim"}),
    "as another, signed": lambda m, n: sign(n.key, m.model_copy(update={"node": "victim"})),
    "no signature": lambda m, n: m.model_copy(update={"signature": ""}),
    "another's signature": lambda m, n: sign(new_key(), m),
    "another report": lambda m, n: m.model_copy(update={"report": Report(examples=1e9).to_json()}),
    "another version": lambda m, n: m.model_copy(update={"version": 5}),
}


@pytest.mark.parametrize("how", FORGED)
def test_a_forged_manifest_is_refused_before_the_first_byte(fort, node, door, how):
    manifest, body = node.parcel()
    before = fort.remembered()
    assert sent(node, door, FORGED[how](manifest, node), body) == "forbidden"
    assert fort.remembered() == before
    assert sent(node, door, manifest, body) is Fate.ACCEPTED
    assert sent(node, door, manifest, body) is Fate.DUPLICATE
    fort.alive()


def test_who_has_the_key_of_one_cannot_upload_as_another_nor_replay_it(fort, door):
    thief, victim = fort.node(f"thief-{door}"), fort.node(f"victim-{door}")
    victim.task()
    manifest, body = victim.parcel()
    before = fort.remembered()
    assert sent(thief, door, manifest, body) == "forbidden"
    assert sent(thief, door, sign(thief.key, manifest), body) == "forbidden"
    assert fort.remembered() == before
    assert sent(victim, door, manifest, body) is Fate.ACCEPTED
    kept = fort.ground.store.contribution("trial", 1, victim.name)
    # Replays, by its own node and by another, and other bytes under the same key change nothing.
    assert sent(thief, door, manifest, body) == "forbidden"
    other, changed = victim.parcel(np.full(8, 9))
    assert sent(victim, door, other, changed) is Fate.REFUSED
    assert fort.ground.store.contribution("trial", 1, victim.name) == kept
    assert fort.ground.store.contribution("trial", 1, thief.name) is None


REFUSED = {
    "too short for the model": ({"bytes": 4}, "invalid"),
    "too long for the model": ({"bytes": 1 << 40}, "too_large"),
    "another length": ({"length": 7}, "invalid"),
    "no length": ({"length": 0}, "invalid"),
    "a length beyond all": ({"length": (1 << 63) - 1, "bytes": 1 << 30}, "invalid"),
    "a codec that is not allowed": ({"codec": "raw"}, "invalid"),
    "a report of nothing": ({"report": {}}, "invalid"),
    "an endless number": ({"report": {"examples": 10**4000}}, "invalid"),
    "a round to come": ({"round": 2}, "unavailable"),
    "a federation that is not": ({"federation": "nowhere"}, "forbidden"),
}


@pytest.mark.parametrize("how", REFUSED)
def test_an_announcement_that_cannot_be_is_refused_before_the_first_byte(fort, door, how):
    changes, code = REFUSED[how]
    node = fort.node(f"ann-{next(numbers)}")
    node.task()
    manifest, body = node.parcel(**changes)
    before = fort.remembered()
    if manifest.bytes > len(body):
        # Our own clients would go looking for bytes that there are not.
        if door == "http":
            assert problem_of(fort.speak(head(manifest), node)) == code
        else:
            assert code_of(lambda: streamed(node, manifest, [body])) == code
    else:
        assert sent(node, door, manifest, body) == code
    assert fort.remembered() == before
    fort.alive()


def test_a_body_that_is_longer_or_shorter_than_it_says_is_refused(fort, node):
    manifest, body = node.parcel()
    before = fort.remembered()
    for length in (0, 1, len(body) - 1, len(body) + 1, 1 << 62):
        code = problem_of(fort.speak(head(manifest, length), node))
        assert code == ("too_large" if length > len(body) else "invalid"), length
    chunked = head(manifest).replace(b"Content-Length: %d\r\n" % len(body), b"Transfer-Encoding: chunked\r\n")
    assert problem_of(fort.speak(chunked + b"5\r\nhello\r\n0\r\n\r\n", node)) == "malformed"
    for length in ("-1", "+8", "1e3", "0x20", "８", "", "32, 32"):
        bad = head(manifest).replace(b"Content-Length: %d" % len(body), f"Content-Length: {length}".encode())
        answer = fort.speak(bad + body, node)
        assert answer is None or problem_of(answer) in ("malformed", "invalid"), length
    for offset in ("-1", "x", "1" * 30, "0x1", "１"):
        bad = head(manifest).replace(b"Haina-Offset: 0", f"Haina-Offset: {offset}".encode())
        assert problem_of(fort.speak(bad, node)) == "malformed", offset
    assert problem_of(fort.speak(head(manifest, len(body) - 4, offset=4), node)) == "range"
    assert fort.remembered() == before
    assert sent(node, "http", manifest, body) is Fate.ACCEPTED


def test_pieces_beyond_the_manifest_and_a_stream_that_ends_early_are_refused(fort, node):
    manifest, body = node.parcel()
    before = fort.remembered("audit")[0]

    def pieces(data):
        size = 1 << 19
        parts = [data[at : at + size] for at in range(0, max(1, len(data)), size)]
        return code_of(lambda: streamed(node, manifest, parts))

    assert pieces(body + b"x") == "too_large"
    assert pieces(body * 3) == "too_large"
    assert pieces(body[:-1]) == "malformed"
    assert pieces(b"") == "malformed"
    assert fort.remembered("audit")[0] == before
    assert sent(node, "grpc", manifest, body) is Fate.ACCEPTED
    fort.alive()


def test_a_body_that_is_cut_off_counts_for_nothing_and_can_be_gone_on_with(fort, node):
    manifest, body = node.parcel()
    before = fort.remembered()[0]
    for cut in (0, 1, len(body) // 2, len(body) - 1):
        with fort.wire(node) as wire:
            wire.sendall(head(manifest) + body[:cut])
    until = time.monotonic() + 5
    while fort.ground.spool._live and time.monotonic() < until:
        time.sleep(0.01)
    assert fort.remembered()[0] == before
    here = node.link("http").received(node.federation, 1)
    assert not here.done
    assert here.bytes < len(body)
    assert sent(node, "http", manifest, body, here.bytes) is Fate.ACCEPTED
    assert sent(node, "grpc", manifest, body) is Fate.DUPLICATE


def test_a_large_body_that_is_refused_spoils_no_later_call(fort):
    """Its connection is closed, and said to be: the door's parser has not seen the body, and would take the next request for it."""
    node = fort.node("spoilt-1", "other")
    node.task()
    manifest, body = node.parcel()
    status, headers, _ = fort.speak(head(manifest) + bytes(len(body)), node)
    assert (status, headers["connection"].lower()) == (400, "close")
    begun = time.monotonic()
    link = node.link("http")
    for _ in range(3):
        assert sent(node, "http", manifest, bytes(len(body))) == "malformed"
        assert not link.received("other", 1).done
    assert sent(node, "http", manifest, body) is Fate.ACCEPTED
    assert time.monotonic() - begun < 5


def test_bytes_of_another_hash_are_refused_and_not_kept(fort, node, door):
    manifest, body = node.parcel()
    before = fort.remembered()
    wrong = bytes(len(body))
    assert sent(node, door, manifest, wrong) == "malformed"
    assert fort.remembered() == before
    assert sent(node, door, manifest, body) is Fate.ACCEPTED


def _bits(*numbers):
    return np.array(numbers, "<f4").tobytes()


POISON = {
    "nan": ("float32", np.array([np.nan] + [0] * 7, "<f4").tobytes()),
    "inf": ("float32", np.array([np.inf, -np.inf] + [0] * 6, "<f4").tobytes()),
    "too long to measure": ("float32", np.full(8, 3.4e38, "<f4").tobytes()),
    "all ones": ("float32", b"\xff" * 32),
    "bf16 nan": ("bf16", b"\xff\xff" * 8),
    "int8 scale inf": ("int8", _bits(np.inf) + b"\x7f" * 8),
    "int8 scale nan": ("int8", _bits(np.nan) + b"\x7f" * 8),
    "int8 scale huge": ("int8", _bits(3e38) + b"\x7f" * 8),
    "topk place huge": ("topk", b"\xff\xff\xff\xff" + _bits(1)),
    "topk place beyond": ("topk", b"\x08\0\0\0" + _bits(1)),
    "topk nan": ("topk", b"\0\0\0\0" + _bits(np.nan)),
}


@pytest.mark.parametrize("how", POISON)
def test_numbers_that_are_none_are_answered_and_count_for_nothing(fort, how):
    codec, body = POISON[how]
    node = fort.node(f"poison-{list(POISON).index(how)}")
    node.task()
    manifest, _ = node.parcel(body=body, codec=codec)
    files = fort.remembered()[1]
    if how == "too long to measure":
        # 8 of the largest float32 have a finite norm in float64: they count, and clipping and trust are there for them.
        assert sent(node, "http", manifest, body) is Fate.ACCEPTED
        return
    assert sent(node, "http", manifest, body) is Fate.REFUSED
    row = fort.ground.store.contribution("trial", 1, node.name)
    assert (row.status, row.square, row.kept) == ("refused", 0.0, False)
    assert fort.remembered()[1] == files
    fort.alive()


def test_a_manifest_that_cannot_be_read_is_refused(fort, node):
    manifest, body = node.parcel()
    path = f"/v1/federations/{node.federation}/rounds/1/update"
    before = fort.remembered()

    def put(text):
        return problem_of(
            fort.speak(http("PUT", path, b"", f"Haina-Manifest: {text}", "Content-Length: 0"), node)
        )

    def coded(value):
        return base64.urlsafe_b64encode(
            value if isinstance(value, bytes) else json.dumps(value).encode()
        ).decode()

    plain = manifest.model_dump(mode="json")
    assert put("") == "malformed"
    assert put("!!!") == "malformed"
    assert put("A" * 40_000) == "malformed"
    assert put(coded(b"\xff\xfe")) == "malformed"
    assert put(coded(b"[" * 10_000)) == "malformed"
    assert put(coded([])) == "invalid"
    for name, value in (
        ("node", "../../etc/passwd"),
        ("node", "a\nb"),
        ("federation", "%2e%2e"),
        ("sha256", "../" * 21 + "x"),
        ("sha256", "A" * 64),
        ("round", -1),
        ("round", 1 << 63),
        ("bytes", "many"),
        ("codec", "zip"),
        ("report", []),
        ("signature", "x" * 5000),
    ):
        assert put(coded({**plain, name: value})) == "invalid", name
    # The address and the manifest must speak of the same place.
    assert put(coded({**plain, "round": 7})) == "invalid"
    assert fort.remembered() == before
    assert sent(node, "http", manifest, body) is Fate.ACCEPTED


TRICKS = [
    "..",
    "%2e%2e",
    "..%2f..%2fetc%2fpasswd",
    "a/../../b",
    "%00",
    "trial%00",
    "trial%0a",
    "%ff",
    "%",
    "trial;x",
    "tri\u0430l",
    "con",
    "C:%5c",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_tricks_with_paths_lead_nowhere(fort, trick):
    before = fort.remembered()
    for path in (
        f"/v1/federations/{trick}/blobs/{'0' * 64}",
        f"/v1/federations/trial/blobs/{trick}",
        f"/v1/federations/trial/rounds/{trick}/update",
        f"/{trick}/authority/authority.pem",
        f"/v1/{trick}",
        f"/v1/federations/{trick}/models",
    ):
        request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()
        answer = fort.speak(request, fort.operator)
        assert problem_of(answer) in ("not_found", "invalid", "malformed", "method", "forbidden"), path
    assert fort.remembered() == before


def test_what_a_node_writes_for_people_tells_nothing_in_the_log_beyond_it(fort, caplog):
    node = fort.node("writer-1")
    node.task()
    evil = "x\n2026-01-01 ERROR forged line \x1b[31m \x00 \u202e"
    node.link("http").fail(Failed(federation="trial", round=1, reason=evil, where=evil))
    fort.remembered()
    for record in caplog.records:
        if record.name.startswith("haina"):
            assert "\n" not in record.getMessage()
            assert "\x1b" not in record.getMessage()
    fort.alive()
