"""Who may come in: no certificate, a wrong one, an expired one, a revoked one; and what a token is good for."""

import asyncio
import io
import json
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding
from fortress import code_of, http, problem_of, silent

from haina.coordinator.authority import DAY, Authority
from haina.errors import Unreachable
from haina.node.link.http import Http, enrol
from haina.wire import calls, tls
from haina.wire.identity import Credentials, common_name, new_key, request
from haina.wire.messages import Ask, Enrol, Fate, Hello, Invite, Renew, Role
from haina.wire.refusal import Refusal
from haina.wire.v1.convert import encode


def grpc_hello(person):
    with person.channel() as channel:
        channel.unary_unary("/haina.v1.Coordinator/Hello")(encode(Hello()), timeout=3)


def test_no_certificate_no_answer_but_to_health_and_enrolment(fort):
    before = fort.remembered()
    for call in calls.CALLS:
        path = call.path.format(federation="trial", round=1, sha256="0" * 64, name="x")
        body = b"{}" if call.method == "POST" else b""
        answer = fort.speak(http(call.method, path, body))
        if call.who != "anyone":
            assert problem_of(answer) == "unauthenticated", call.name
        elif call.name != "enrol":
            assert answer[0] == 200
            for name in ("trial", "operator", "other"):
                assert call.name == "openapi" or name not in answer[2].decode()
    with grpc.secure_channel(
        f"localhost:{fort.grpc_port}",
        grpc.ssl_channel_credentials(fort.ground.authority.authority_pem.encode()),
    ) as channel:
        hello = channel.unary_unary("/haina.v1.Coordinator/Hello")
        assert code_of(lambda: hello(encode(Hello()), timeout=3)) == "UNAVAILABLE"
    assert fort.remembered() == before
    fort.alive()


@pytest.mark.parametrize(
    "how", ["wrong authority", "expired", "not valid yet", "signed by itself", "the server's own"]
)
def test_a_certificate_that_is_not_good_ends_the_connection_before_a_word(fort, tmp_path, how):
    if how == "wrong authority":
        person = fort.forged("mallory", authority=Authority.open(tmp_path / "ca", time.time))
    elif how == "expired":
        person = fort.forged("mallory", now=time.time() - 31 * DAY)
    elif how == "not valid yet":
        person = fort.forged("mallory", now=time.time() + DAY)
    else:
        person = fort.forged("mallory")
        key = new_key()
        if how == "the server's own":
            server = fort.ground.authority.server()
            person.credentials = server
        else:
            own = Authority(key, _self_signed(key, "haina:node:mallory"), time.time, ())
            person.credentials = own.server()
    before = fort.remembered()
    assert fort.speak(http("POST", "/v1/hello", b"{}"), person) is None
    assert code_of(lambda: grpc_hello(person)) == "UNAVAILABLE"
    assert fort.remembered() == before
    fort.alive()


def _self_signed(key, uri):
    from haina.wire.identity import load_key

    private = load_key(key)
    import datetime

    now = datetime.datetime.now(datetime.UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(common_name("mallory"))
        .issuer_name(common_name("mallory"))
        .public_key(private.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=10))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False)
        .sign(private, hashes.SHA256())
        .public_bytes(Encoding.PEM)
    )


def test_a_good_certificate_that_nobody_wrote_down_is_unknown(fort):
    """An operator's name or role in a certificate is worth nothing without its row."""
    before = fort.remembered()
    for name, role in (("mallory", Role.NODE), ("operator-local", Role.OPERATOR), ("mallory", Role.OPERATOR)):
        person = fort.forged(name, role, known=False)
        assert problem_of(fort.speak(http("GET", "/v1/nodes"), person)) == "unauthenticated"
        assert code_of(lambda person=person: grpc_hello(person)) == "unauthenticated"
    assert fort.remembered() == before
    fort.alive()


def test_a_revoked_node_is_shut_out_at_both_doors_and_on_what_is_open(fort):
    node, other = fort.node("revoked-1"), fort.node("bystander-1")
    node.task()
    events, ended = [], threading.Event()

    def watch():
        try:
            for event in node.link("grpc").watch(Ask(federation="trial")):
                events.append(event)
        except (Refusal, Unreachable) as error:
            events.append(error)
        ended.set()

    with ThreadPoolExecutor(2) as pool:
        pool.submit(watch)
        # A long-poll that knows all that there is to know yet.
        asked = pool.submit(
            node.link("http").ask,
            Ask(federation="trial", wait=30, idle=False, settings_version=version(fort)),
        )
        until = time.monotonic() + 10
        while not events and time.monotonic() < until:
            time.sleep(0.01)
        assert events[0].task is not None
        time.sleep(0.2)
        begun = time.monotonic()
        with fort.operator.api() as api:
            api.revoke("revoked-1", "lost")
        for door in ("http", "grpc"):
            with pytest.raises(Refusal) as caught:
                node.link(door).hello(Hello())
            assert caught.value.code == "forbidden"
        with pytest.raises(Refusal, match="revoked"):
            asked.result(5)
        assert ended.wait(5)
        assert isinstance(events[-1], Refusal)
        assert events[-1].code == "forbidden"
        assert time.monotonic() - begun < 5
    manifest, body = node.parcel()
    before = fort.remembered()
    for call in (
        lambda link: link.upload(manifest, io.BytesIO(body)),
        lambda link: link.download("trial", "0" * 64, io.BytesIO()),
        lambda link: link.renew(Renew(csr=request(new_key(), "revoked-1"))),
        lambda link: link.received("trial", 1),
    ):
        for door in ("http", "grpc"):
            with pytest.raises(Refusal) as caught:
                call(node.link(door))
            assert caught.value.code == "forbidden"
            silent(str(caught.value), "bystander-1")
    assert fort.remembered() == before
    good, body = other.parcel()
    assert other.link("grpc").upload(good, io.BytesIO(body)).fate is Fate.ACCEPTED
    fort.alive()
    node.close()
    other.close()


def version(fort):
    with fort.operator.api() as api:
        return api.settings()["version"]


# ------------------------------------------------------------------------------------------------ tokens and requests


def invited(fort, name, **more):
    with fort.operator.api() as api:
        invitation = api.invite(Invite(name=name, federation="trial", **more))
    fort.tokens.append(invitation.token)
    return invitation


def refused(fort, token, csr):
    """The code of an enrolment that is refused; said in raw bytes, because our own client would not send just anything."""
    answer = fort.speak(http("POST", "/v1/enrol", json.dumps({"token": token, "csr": csr}).encode()))
    silent(answer[2].decode(), token)
    return problem_of(answer)


def test_a_token_is_good_once(fort):
    invitation = invited(fort, "once-1")
    key = new_key()
    first = Credentials.enrolled(key, enrol(invitation, request(key, "once-1")))
    assert first.name == "once-1"
    before = fort.remembered()
    assert refused(fort, invitation.token, request(new_key(), "once-1")) == "forbidden"
    assert refused(fort, "A" * 43, request(key, "once-1")) == "forbidden"
    assert fort.remembered() == before
    fort.alive()


def test_of_many_who_stole_one_token_one_comes_in(fort):
    invitation = invited(fort, "race-1")
    with ThreadPoolExecutor(8) as pool:

        def attempt(_):
            key = new_key()
            try:
                return Credentials.enrolled(key, enrol(invitation, request(key, "race-1"))).serial
            except Refusal as error:
                return error.code

        answers = list(pool.map(attempt, range(8)))
    assert sorted(map(str, answers))[1:] == ["forbidden"] * 7
    assert fort.ground.store.node("race-1").serial == next(a for a in answers if a != "forbidden")


def _csr(key, builder=None):
    builder = builder or x509.CertificateSigningRequestBuilder().subject_name(common_name("operator-local"))
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return builder.sign(key, algorithm).public_bytes(Encoding.PEM).decode()


def _with_names():
    builder = x509.CertificateSigningRequestBuilder().subject_name(common_name("operator-local"))
    names = [x509.UniformResourceIdentifier("haina:operator:operator-local"), x509.DNSName("localhost")]
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=True).add_extension(
        x509.BasicConstraints(ca=True, path_length=None), critical=True
    )


def _broken_signature():
    pem = _csr(ec.generate_private_key(ec.SECP256R1()))
    der = bytearray(ssl.PEM_cert_to_DER_cert(pem.replace("CERTIFICATE REQUEST", "CERTIFICATE")))
    der[-1] ^= 1
    return ssl.DER_cert_to_PEM_cert(bytes(der)).replace("CERTIFICATE", "CERTIFICATE REQUEST")


WEAK = {
    "rsa 1024": (lambda: _csr(rsa.generate_private_key(65537, 1024)), "invalid"),
    "rsa 4096": (lambda: _csr(rsa.generate_private_key(65537, 3072)), "invalid"),
    "p-192": (lambda: _csr(ec.generate_private_key(ec.SECP224R1())), "invalid"),
    "p-521": (lambda: _csr(ec.generate_private_key(ec.SECP521R1())), "invalid"),
    "ed25519": (lambda: _csr(ed25519.Ed25519PrivateKey.generate()), "invalid"),
    "not signed by its key": (_broken_signature, "invalid"),
    "a private key": (lambda: new_key().decode(), "malformed"),
    "a certificate": (lambda: "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "malformed"),
    "nothing": (lambda: "", "malformed"),
    "unicode": (lambda: "ａ\u202e\x00" * 100, "malformed"),
    "too long": (lambda: "x" * 10_001, "invalid"),
    "much too long": (lambda: "x" * 300_000, "too_large"),
}


@pytest.mark.parametrize("kind", WEAK)
def test_a_request_that_is_no_good_uses_no_token_up(fort, kind):
    make, code = WEAK[kind]
    invitation = invited(fort, f"weak-{list(WEAK).index(kind)}")
    before = fort.remembered()
    assert refused(fort, invitation.token, make()) == code
    assert fort.remembered() == before
    key = new_key()
    assert enrol(invitation, request(key, "x")).role is Role.NODE


def test_a_request_for_another_name_and_an_authority_gives_what_was_invited(fort):
    from haina.wire.identity import caller_of, load_certificate

    invitation = invited(fort, "humble-1")
    answer = enrol(invitation, _csr(ec.generate_private_key(ec.SECP256R1()), _with_names()))
    assert caller_of(answer.certificate)[:2] == ("humble-1", Role.NODE)
    certificate = load_certificate(answer.certificate)
    assert not certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    assert [purpose._name for purpose in usage] == ["clientAuth"]


def test_names_that_look_like_others_or_like_paths_are_no_names(fort):
    before = fort.remembered()
    names = [
        "hospitаl-a",
        "ｈospital",
        "a\u200bb",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "",
        "-a",
        "a" * 64,
        "a\n",
        "a\x00b",
        ".",
        "a%00",
    ]
    for name in names:
        body = json.dumps({"name": name, "federation": "trial"}).encode()
        assert problem_of(fort.speak(http("POST", "/v1/invitations", body), fort.operator)) == "invalid", name
        scope = json.dumps({"scope": f"node:{name}", "values": {"threads": 1}}).encode()
        assert problem_of(fort.speak(http("POST", "/v1/settings", scope), fort.operator)) == "invalid", name
    assert fort.remembered() == before


def test_nobody_but_an_operator_acts_or_looks(fort):
    node, viewer = fort.node("nosy-1"), fort.person("viewer-1", Role.VIEWER)
    fort.node("victim-1")
    before = fort.remembered()
    acts = [
        ("/v1/invitations", {"name": "evil", "federation": "trial"}),
        ("/v1/invitations", {"name": "victim-1", "role": "viewer"}),
        ("/v1/invitations", {"name": "evil", "federation": "nowhere"}),
        ("/v1/nodes/victim-1/revoke", {}),
        ("/v1/federations/trial/command", {"command": "stop"}),
        ("/v1/federations/nowhere/command", {"command": "stop"}),
        ("/v1/federations/trial/models/rollback", {"version": 0}),
        ("/v1/federations/trial/models/rollback", {"version": 77}),
        ("/v1/settings", {"values": {"threads": 1}}),
        ("/v1/settings/rollback", {"version": 0}),
    ]
    for person in (node, viewer):
        for path, body in acts:
            answer = fort.speak(http("POST", path, json.dumps(body).encode()), person)
            assert problem_of(answer) == "forbidden", path
            silent(answer[2].decode(), "victim-1", "trial", "other")
    for path in (
        "/v1/nodes",
        "/v1/audit",
        "/v1/audit/follow",
        "/v1/settings",
        "/v1/settings/log",
        "/v1/federations",
    ):
        answer = fort.speak(http("GET", path), node)
        assert problem_of(answer) == "forbidden", path
        silent(answer[2].decode(), "victim-1")
    for path in ("/v1/nodes", "/v1/federations", "/v1/settings"):
        assert fort.speak(http("GET", path), viewer)[0] == 200
    assert fort.remembered() == before
    fort.alive()


def test_a_caller_of_another_federation_gets_none_of_its_bytes(fort, door):
    ours, theirs = fort.node(f"ours-{door}"), fort.node(f"theirs-{door}", "other")
    model = theirs.task().model
    with pytest.raises(Refusal) as caught:
        ours.link(door).download("other", model, io.BytesIO())
    assert caught.value.code == "forbidden"
    manifest, body = ours.parcel(federation="other")
    before = fort.remembered()
    for call in (
        lambda link: link.upload(manifest, io.BytesIO(body)),
        lambda link: link.received("other", 1),
        lambda link: link.ask(Ask(federation="other", wait=0)),
    ):
        with pytest.raises(Refusal) as caught:
            call(ours.link(door))
        assert caught.value.code == "forbidden"
        silent(str(caught.value), f"theirs-{door}")
    assert fort.remembered() == before
    to = io.BytesIO()
    assert theirs.link(door).download("other", model, to) > 0
    ours.close()
    theirs.close()


def test_an_enrolment_is_not_for_a_coordinator_of_another_authority(fort, tmp_path):
    """A forger between newcomer and coordinator sees no token: the newcomer trusts the invitation's authority alone."""
    forger = Authority.open(tmp_path, time.time)
    invitation = invited(fort, "careful-1")
    seen = []

    async def serve():
        async def heard(reader, writer):
            seen.append(await reader.read(65536))
            writer.close()

        server = await asyncio.start_server(heard, "127.0.0.1", 0, ssl=tls.server_context(forger.server))
        return server, server.sockets[0].getsockname()[1]

    server, port = fort.run(serve())
    fake = invitation.model_copy(update={"http": f"https://localhost:{port}"})
    with pytest.raises(Unreachable):
        enrol(fake, request(new_key(), "careful-1"))
    fort.loop.call_soon_threadsafe(server.close)
    assert not any(invitation.token.encode() in data for data in seen)


def test_renewal_is_for_who_calls(fort, door):
    node = fort.node(f"renewing-{door}")
    key = new_key()
    answer = node.link(door).renew(Renew(csr=request(key, "operator-local")))
    assert (answer.name, answer.role) == (f"renewing-{door}", Role.NODE)
    with pytest.raises(Refusal):
        node.link(door).renew(Renew(csr=_broken_signature()))
    # Both are good: the answer may be lost.
    node.link(door).hello(Hello(codecs=("float32",)))
    http = Http(f"https://localhost:{fort.http_port}", fort.context(Credentials.enrolled(key, answer)))
    assert http.call(calls.HELLO, Hello(codecs=("float32",))).name == f"renewing-{door}"
    http.close()
    node.close()


def test_the_token_of_an_enrolment_is_not_repeated(fort):
    token = "S3CRET" + "t" * 40
    for body in (
        {"token": token, "csr": "x"},
        {"token": token},
        {"token": token, "csr": 5},
        {"token": [token], "csr": "x"},
    ):
        answer = fort.speak(http("POST", "/v1/enrol", json.dumps(body).encode()))
        problem_of(answer)
        silent(answer[2].decode(), token)
    fort.tokens.append(token)
    assert Enrol(token=token, csr="x").model_dump()["token"] == token
    assert token not in repr(Enrol(token=token, csr="x"))
