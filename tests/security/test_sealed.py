"""Secure sums over both doors with real TLS: a coordinator that lies to one site, and sites that do all they can to a coordinator."""

import base64
import io
import json
import os
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from fortress import Fortress, code_of, http, problem_of
from veiled import SIZE, Troupe, model, text

from haina.coordinator.doors.limits import Limits
from haina.errors import TrustError
from haina.federation.federation import Federation
from haina.federation.sealed import terms_of
from haina.node.peers import fingerprint, signing_key
from haina.privacy.secagg import Advert, Member, pack, unpack
from haina.wire.messages import Fate, Hello, Sealed, Task
from haina.wire.refusal import Refusal
from haina.wire.requests import Slot
from haina.wire.v1.convert import encode

NAMES = [f"site-{letter}" for letter in "abcdef"]


@contextmanager
def federation(folder, limits=None, **more):
    fort = Fortress(folder, **({"limits": limits} if limits else {}), files={"veil": text(**more)})
    try:
        yield fort
    finally:
        fort.close()


def vector(number, round):
    return [number + round, *[1] * (SIZE - 2), -number]


def rounds(fort):
    return fort.ground.store.rounds("veil", 10)


def until(condition, seconds=30):
    end = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.01)
    return found


def declined(fort, name):
    """What the operator hears of a site: (action, reason)."""
    with fort.operator.api() as api:
        lines = api.audit(1000)
    told = [
        line for line in lines if line.subject == name and line.action in ("node.failed", "node.declined")
    ]
    return [(line.action, line.detail["round"], line.detail["reason"]) for line in told]


# ------------------------------------------------------------------------------------------------ all is well


def test_six_sites_at_two_doors_come_to_the_exact_mean_and_soon(tmp_path):
    asked = []

    class Timed:
        """Notes when the last site had trained."""

        def __init__(self, link):
            self._link = link

        def __getattr__(self, name):
            return getattr(self._link, name)

        def seal(self, sealed):
            if sealed.stage == "advertise":
                asked.append((sealed.round, time.time()))
            return self._link.seal(sealed)

    with federation(tmp_path) as fort:
        troupe = Troupe(fort, NAMES, vector, between=dict.fromkeys(NAMES, Timed)).start()
        troupe.join()
        assert set(troupe.ended.values()) == {"all rounds are closed"}, troupe.ended
        mean = [np.mean([k + 1 for k in range(6)]), *[1] * (SIZE - 2), -2.5]
        assert model(fort, 1).tolist() == mean
        assert model(fort, 2).tolist() == (2 * np.array(mean) + [1, *[0] * (SIZE - 1)]).tolist()
        assert [row.state for row in rounds(fort)] == ["closed", "closed"]
        took = [
            row.closed - max(when for number, when in asked if number == row.number) for row in rounds(fort)
        ]
        print(f"seconds from the last advert to the closed round: {[round(seconds, 3) for seconds in took]}")
        assert min(took) < 2.0
        # 25 rows each, and nobody was told.
        assert {row.examples for row in fort.ground.store.nodes() if row.role == "node"} == {1}
        pins = json.loads((tmp_path / "node-site-a" / "peers.json").read_text())
        keys = {name: fingerprint(signing_key(tmp_path / f"node-{name}")) for name in NAMES}
        assert pins == keys
        with fort.operator.api() as api:
            assert {node.name: node.identity for node in api.nodes() if node.name in keys} == keys
            promises = api.federations()[0].promises
        assert any(keys["site-a"] in line for line in troupe.said["site-a"])
        assert all(promise in troupe.said["site-a"] for promise in promises)


# ------------------------------------------------------------------------------------------------ a coordinator that lies


class Liar:
    """Between one site and its coordinator: what the site is asked is turned by `lie`, from round 2 on."""

    def __init__(self, lie, link):
        self._lie, self._link = lie, link

    def __getattr__(self, name):
        return getattr(self._link, name)

    def ask(self, ask):
        event = self._link.ask(ask)
        if event.sealed is None or event.sealed.round < 2:
            return event
        return event.model_copy(update={"sealed": self._lie(event.sealed)})


def turned(step, **changes):
    return step.model_copy(update=changes)


def table(step):
    return unpack(base64.b64decode(step.data))


def put(data):
    return base64.b64encode(data).decode()


class Lies:
    """What a coordinator might try; the reason with which a site must refuse."""

    def __init__(self, folder):
        self.folder, self.seen = folder, {}

    def mallory(self, step, name):
        """Keys of the coordinator's own in the name of a site."""
        policy = Federation.of(text()).privacy
        terms = terms_of(policy, self.task, SIZE)
        return Member(name, Ed25519PrivateKey.generate(), terms, os.urandom).advertise().to_bytes()

    def substituted(self, step):
        if step.stage != "share":
            return step
        return turned(step, data=put(pack({**table(step), "site-b": self.mallory(step, "site-b")})))

    def signature(self, step):
        if step.stage != "share":
            return step
        adverts = table(step)
        own = Advert.from_bytes(adverts["site-b"])
        other = Advert.from_bytes(self.mallory(step, "site-b"))
        adverts["site-b"] = Advert(**{**vars(own), "channel": other.channel}).to_bytes()
        return turned(step, data=put(pack(adverts)))

    def weak(self, step):
        """A small group, to see its sum."""
        if step.stage != "share":
            return step
        few = {name: data for name, data in table(step).items() if name in ("site-a", "site-b", "site-c")}
        return turned(step, data=put(pack(few)))

    def changed(self, step):
        """Two different sets of uploaders: one to agree to, and another to open."""
        if step.stage != "unmask":
            return step
        return turned(step, uploaders=tuple(name for name in step.uploaders if name != "site-b"))

    def missing(self, step):
        if step.stage != "consent":
            return step
        return turned(step, uploaders=tuple(name for name in step.uploaders if name != "site-a"))

    def replayed(self, step):
        """The same site as one who is there, and once more as one who is gone."""
        if step.stage == "unmask" and self.seen.setdefault("unmask", 0) > 0:
            return turned(step, uploaders=tuple(name for name in step.uploaders if name != "site-b"))
        self.seen[step.stage] = self.seen.get(step.stage, 0) + 1
        return step

    def order(self, step):
        """A round that the site never trained."""
        return turned(step, round=step.round + 40) if step.stage == "share" else step

    def malformed(self, step):
        return turned(step, data=put(os.urandom(3000))) if step.stage in ("share", "upload") else step


@pytest.mark.parametrize("door", ["http", "grpc"])
@pytest.mark.parametrize(
    "lie", ["substituted", "signature", "weak", "changed", "missing", "order", "malformed"]
)
def test_a_site_refuses_a_lie_says_why_and_the_others_go_on(tmp_path, lie, door):
    with federation(tmp_path, patience=2.0) as fort:
        lies = Lies(tmp_path)
        lies.task = None

        def between(link):
            return Liar(lambda step: _told(lies, lie, step, fort), link)

        troupe = Troupe(fort, NAMES, vector, between={"site-a": between}, doors=(door,)).start()
        troupe.join()
        heard = declined(fort, "site-a")
        said = " ".join(troupe.said["site-a"])
        number = 42 if lie == "order" else 2
        assert "this site goes no further" in said
        if lie == "order":
            assert f"round {number}: this site goes no further" in said
        else:
            (action, number, reason) = heard[0]
            assert (number, reason.split(":")[0]) == (2, lie), heard
            assert action == (
                "node.failed" if lie in ("substituted", "signature", "weak", "malformed") else "node.declined"
            )
        first, second = rounds(fort)
        assert (first.state, second.state) == ("closed", "closed"), second.reason
        summed = [c["client"] for c in second.record["clients"] if c["verdict"] == "admitted"]
        # Whoever refuses to agree or to answer has sent its update, which says nothing without the others' answers: the sum stands.
        sent = lie in ("changed", "missing")
        assert summed == (NAMES if sent else NAMES[1:])
        who = range(6) if sent else range(1, 6)
        step = model(fort, 2) - model(fort, 1)
        assert step[0] == np.float32(np.mean([k + 2 for k in who]))


def _told(lies, lie, step, fort):
    row = fort.ground.store.round("veil", 2)
    lies.task = None if row is None else Task.model_validate(row.task)
    return getattr(lies, lie)(step)


@pytest.mark.parametrize("door", ["http", "grpc"])
def test_a_site_opens_a_sum_once(tmp_path, door):
    """Asked for the same peer as one who is there, and after its answer as one who is gone."""
    answers = []

    class Twice:
        def __init__(self, link):
            self._link, self._again = link, None

        def __getattr__(self, name):
            return getattr(self._link, name)

        def ask(self, ask):
            if self._again is not None:
                step, self._again = self._again, None
                less = tuple(name for name in step.uploaders if name != "site-b")
                return SimpleNamespace(
                    sealed=turned(step, uploaders=less), task=None, settings=None, finished=False, retry=0.0
                )
            event = self._link.ask(ask)
            if event.sealed is not None and event.sealed.stage == "unmask":
                self._again = event.sealed
            return event

        def seal(self, sealed):
            answers.append(sealed)
            return self._link.seal(sealed)

    with federation(tmp_path, rounds=1) as fort:
        troupe = Troupe(fort, NAMES, vector, between={"site-a": Twice}, doors=(door,)).start()
        troupe.join()
        last = [sealed for sealed in answers if sealed.stage == "unmask"]
        assert [bool(sealed.data) for sealed in last] == [True, False]
        assert last[1].reason.startswith("replayed: unmask is asked for a second time")
        assert rounds(fort)[0].state == "closed"


def test_a_round_that_is_played_again_gets_no_second_update(tmp_path):
    """The coordinator goes back to an older state of itself and asks the same round anew: the site's own ledger knows better."""
    seen = []

    class Heard:
        def __init__(self, link):
            self._link = link

        def __getattr__(self, name):
            return getattr(self._link, name)

        def upload(self, manifest, *args, **more):
            seen.append(manifest.round)
            return self._link.upload(manifest, *args, **more)

        def fail(self, failed):
            seen.append(failed.reason)
            return self._link.fail(failed)

    with federation(tmp_path, rounds=1) as fort:
        Troupe(fort, NAMES, vector, between={"site-a": Heard}).start().join()
        assert seen == [1]
    for left in ("state", *[f"node-{name}/identity.pem" for name in NAMES]):
        (tmp_path / left).rename(tmp_path / f"{left}.old")
    with federation(tmp_path, rounds=1) as fort:
        troupe = Troupe(fort, NAMES, vector, between={"site-a": Heard}).start()
        until(lambda: len(seen) > 1)
        assert seen[1].startswith("replayed: this site has sent an update for round 1")
        troupe.stop()
        troupe.join()


def test_a_federation_that_promises_less_under_its_old_name_is_left(tmp_path):
    with federation(tmp_path, rounds=1) as fort:
        Troupe(fort, NAMES, vector).start().join()
    for left in ("state", *[f"node-{name}/identity.pem" for name in NAMES]):
        (tmp_path / left).rename(tmp_path / f"{left}.old")
    with federation(tmp_path, rounds=1, patience=7.0) as fort:
        troupe = Troupe(fort, NAMES, vector).start()
        troupe.join()
        for name in NAMES:
            assert isinstance(troupe.ended[name], TrustError)
            assert "promised something else when this site first took part" in str(troupe.ended[name])


# ------------------------------------------------------------------------------------------------ sites that are hostile


def sealed(stage="advertise", data=b"", number=1, **more):
    return Sealed(federation="veil", round=number, stage=stage, data=base64.b64encode(data).decode(), **more)


def member(fort, name):
    """One that has said hello, with a key."""
    person = fort.person(name, federation="veil")
    person.federation = "veil"
    person.link("http").hello(Hello(examples=1, codecs=("masked",), identity=os.urandom(32).hex()))
    return person


@pytest.fixture(scope="module")
def fort(tmp_path_factory):
    with federation(tmp_path_factory.mktemp("hostile"), nodes=6, patience=600.0) as fort:
        fort.nodes = [member(fort, name) for name in NAMES]
        until(lambda: fort.core.stations["veil"].view.row is not None)
        yield fort


def test_rubbish_of_any_length_is_refused_in_words_and_leaves_nothing(fort, door):
    link = fort.nodes[0].link(door)
    before = fort.remembered("seen")
    rubbish = [
        b"",
        b"\0",
        b"\x01\x01",
        os.urandom(300),
        b"\x01\x01\xff" + os.urandom(300),
        os.urandom(100_000),
    ]
    for data in rubbish:
        with pytest.raises(Refusal) as caught:
            link.seal(sealed(data=data))
        assert caught.value.code == "invalid"
        assert "Traceback" not in str(caught.value)
    for stage in ("share", "consent", "unmask"):
        with pytest.raises(Refusal) as caught:
            link.seal(sealed(stage, b"x"))
        assert caught.value.code == "unavailable"
    for number in (0, 2, 77, (1 << 63) - 1):
        with suppress(Refusal):
            assert link.seal(sealed(data=b"x", number=number)).fate is Fate.REFUSED
    assert fort.remembered("seen") == before
    fort.alive()


def test_what_is_too_long_is_not_even_read(fort):
    node = fort.nodes[0]
    path = "/v1/federations/veil/rounds/1/sealed"
    body = json.dumps({"stage": "advertise", "data": "A" * 400_000}).encode()
    assert problem_of(fort.speak(http("POST", path, body), node)) == "too_large"
    body = json.dumps({"stage": "advertise", "data": "A" * 220_000}).encode()
    assert problem_of(fort.speak(http("POST", path, body), node)) == "invalid"
    for words in (
        {"stage": "closing"},
        {"stage": "advertise", "data": "é"},
        {"data": ""},
        {"stage": "share", "data": [1]},
    ):
        assert problem_of(fort.speak(http("POST", path, json.dumps(words).encode()), node)) == "invalid"
    with node.channel() as channel:
        call = channel.unary_unary("/haina.v1.Coordinator/Seal")
        assert code_of(lambda: call(encode(sealed(data=os.urandom(150_000))), timeout=10)) == "invalid"
        assert code_of(lambda: call(os.urandom(5 << 20), timeout=10)) == "RESOURCE_EXHAUSTED"
        assert code_of(lambda: call(b"\xff\xff", timeout=10)) == "malformed"
        assert code_of(lambda: call(encode(Slot(federation="veil", round=1)), timeout=10)) == "invalid"
    fort.alive()


def test_nobody_speaks_for_another(fort, door):
    """An advert is good for the certificate that brings it; an operator, a viewer and strangers bring none."""
    a, b = fort.nodes[:2]
    key = Ed25519PrivateKey.generate()
    policy = fort.core.stations["veil"].hosted.policy
    task = b.task()
    terms = terms_of(policy, task, SIZE)
    good = Member("site-a", key, terms, os.urandom).advertise().to_bytes()
    # site-a has announced another key; site-b has another name.
    for node in (a, b):
        with pytest.raises(Refusal) as caught:
            node.link(door).seal(sealed(data=good))
        assert caught.value.code == "invalid"
    with pytest.raises(Refusal) as caught:
        fort.operator.link(door).seal(sealed(data=good))
    assert caught.value.code == "forbidden"
    with pytest.raises(Refusal) as caught:
        a.link(door).seal(Sealed(federation="elsewhere", round=1, stage="advertise", data="AAAA"))
    assert caught.value.code == "forbidden"
    assert fort.ground.store.sizes("veil", 1, "advertise") == {}


def test_a_known_key_is_not_exchanged(fort, door):
    node = fort.nodes[2]
    with pytest.raises(Refusal, match="another key than before") as caught:
        node.link(door).hello(Hello(examples=1, codecs=("masked",), identity="ab" * 32))
    assert caught.value.code == "conflict"


def test_an_update_in_the_clear_is_not_taken_over_the_wire(fort, door):
    node = fort.nodes[3]
    for changes in ({}, {"codec": "masked"}, {"codec": "masked64"}):
        manifest, body = node.parcel(np.ones(SIZE), **changes)
        with pytest.raises(Refusal) as caught:
            node.link(door).upload(manifest, io.BytesIO(body))
        assert caught.value.code in ("invalid", "unavailable")
    assert not list((fort.folder / "state" / "spool").iterdir())


def test_whoever_floods_is_held_up_and_the_sum_goes_on(tmp_path):
    """A member sends rubbish as fast as it can, from the first moment: the others' sums do not mind."""
    limits = Limits(calls_per_second=30, calls_at_once=60)
    with federation(tmp_path, limits, rounds=3) as fort:
        flooder = fort.person("flooder", federation="veil")
        flooder.link("http").hello(Hello(codecs=("masked",), identity="ab" * 32))
        codes, over = Counter(), threading.Event()

        def flood():
            with flooder.channel() as channel:
                call = channel.unary_unary("/haina.v1.Coordinator/Seal")
                while not over.is_set():
                    for number in (1, 2, 3):
                        codes[
                            code_of(
                                lambda n=number: call(encode(sealed(data=bytes(200), number=n)), timeout=10)
                            )
                        ] += 1

        with ThreadPoolExecutor(3) as pool:
            floods = [pool.submit(flood) for _ in range(3)]
            troupe = Troupe(fort, NAMES, vector).start()
            troupe.join()
            over.set()
            for each in floods:
                each.exception(20)
        assert [row.state for row in rounds(fort)] == ["closed"] * 3
        assert codes["too_many"] > codes.total() / 2, codes
        means = np.cumsum([np.mean([k + number for k in range(6)]) for number in (1, 2, 3)])
        assert model(fort, 3)[0] == np.float32(means[-1])
