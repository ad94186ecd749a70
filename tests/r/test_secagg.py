"""R members and Python members in one secure sum, in two processes: the sum that is opened is exactly that of the words, whoever drops out."""

import hashlib
import json
import subprocess
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import secagg_vectors
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from rsite import needs_r

from haina.privacy.secagg import (
    Advert,
    Aggregator,
    Answer,
    Inbox,
    Member,
    SecAggError,
    Terms,
    pack,
    plan,
    unpack,
)

SCRIPT = Path(__file__).with_name("secagg_member.R")


class RMember:
    """A member that lives in an R process; the methods are those of `Member`."""

    def __init__(self, process, name, terms, folder):
        self._process, self.name, self.terms, self._file = process, name, terms, folder / f"{name}.words"
        self._identity = hashlib.sha256(name.encode()).hexdigest()
        self.seconds = {}

    def _ask(self, do, **more):
        self._process.stdin.write(json.dumps({"do": do, "name": self.name, **more}) + "\n")
        self._process.stdin.flush()
        said = json.loads(self._process.stdout.readline())
        if "code" in said:
            raise SecAggError(said["code"], "R refuses")
        self.seconds[do] = said["seconds"]
        return bytes.fromhex(said["data"])

    def advertise(self):
        return Advert.from_bytes(self._ask("advertise", terms=vars(self.terms), identity=self._identity))

    def share(self, setting, adverts, known):
        numbers = {name: getattr(setting, name) for name in ("group", "degree", "threshold", "least")}
        table = pack({advert.name: advert.to_bytes() for advert in adverts}).hex()
        return unpack(self._ask("share", terms=vars(self.terms), setting=numbers, adverts=table))

    def upload(self, inbox: Inbox, words):
        self._file.write_bytes(words.tobytes())
        self._ask("upload", inbox=inbox.to_bytes().hex(), words=str(self._file))
        return np.frombuffer(self._file.read_bytes(), words.dtype)

    def consent(self, uploaders):
        return self._ask("consent", uploaders=list(uploaders))

    def unmask(self, uploaders, consents):
        return Answer.from_bytes(
            self._ask("unmask", uploaders=list(uploaders), consents=pack(consents).hex())
        )


@contextmanager
def r_process():
    process = subprocess.Popen(
        ["Rscript", "--vanilla", SCRIPT],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=needs_r(),
    )
    try:
        yield process
    finally:
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(10)
        process.stdout.close()


@pytest.fixture(scope="module")
def r():
    with r_process() as process:
        yield process


def members_of(r, folder, size, r_every, terms):
    """Members by name, each `r_every`-th of them in R."""
    entropy = np.random.default_rng(size)
    out = {}
    for k in range(size):
        name = f"site-{k}"
        if k % r_every == 0:
            out[name] = RMember(r, name, terms, folder)
        else:
            out[name] = Member(name, Ed25519PrivateKey.generate(), terms, entropy.bytes)
    return out


def summed(members, terms, dropout, before=(), after=()):
    """A sum in which some go before they share, and some after. What was opened, and what should be."""
    adverts = [member.advertise() for member in members.values()]
    chosen = plan(len(members), corrupt=terms.corrupt, dropout=dropout)
    setting = terms.setting(0, chosen.degree, chosen.threshold, chosen.least)
    middle = Aggregator(setting, adverts)
    sharers = [name for name in members if name not in before]
    shared = {name: members[name].share(setting, adverts, lambda name: None) for name in sharers}
    uploaders = tuple(sorted(name for name in sharers if name not in after))
    rng = np.random.default_rng(1)
    dtype = f"<u{terms.word // 8}"
    words = {
        name: rng.integers(0, 2**terms.word, terms.length, dtype=np.dtype(dtype).type) for name in uploaders
    }
    masked = {
        name: members[name].upload(middle.inbox(shared, name), words[name].copy()) for name in uploaders
    }
    consents = {name: members[name].consent(uploaders) for name in uploaders}
    answers = {name: members[name].unmask(uploaders, middle.consents(consents, name)) for name in uploaders}
    total = np.sum(list(masked.values()), axis=0, dtype=dtype)
    middle.open(total, sharers, uploaders, answers)
    return total, np.sum(list(words.values()), axis=0, dtype=dtype)


def terms_of(length, word=32, number=1):
    return Terms(federation="both", round=number, task="ab" * 32, length=length, word=word)


def test_the_vectors_that_r_is_tested_with_are_those_of_this_code():
    """The file lies in the package, where its own tests read it; it cannot fall behind."""
    assert secagg_vectors.HERE.read_text() == secagg_vectors.text()


@pytest.mark.parametrize("word", [32, 64])
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ()),
        (("site-0",), ()),
        ((), ("site-0",)),
        ((), ("site-1",)),
        (("site-0",), ("site-2",)),
        ((), ("site-1", "site-4")),
        ((), ("site-2", "site-4")),
    ],
)
def test_three_of_r_and_three_of_python_sum_exactly(r, tmp_path, word, before, after):
    """As many drop-outs as six members stand: none, R's, Python's, before they share and after."""
    terms = terms_of(1000, word)
    opened, meant = summed(members_of(r, tmp_path, 6, 2, terms), terms, 0.34, before, after)
    assert (opened == meant).all()


def test_one_drop_out_too_many_opens_nothing(r, tmp_path):
    terms = terms_of(10)
    with pytest.raises(SecAggError) as caught:
        summed(members_of(r, tmp_path, 6, 2, terms), terms, 0.34, after=("site-0", "site-1", "site-3"))
    assert caught.value.code == "too_few"


def test_a_ring_of_both(r, tmp_path):
    """Twenty members, each with a few neighbours only."""
    terms = terms_of(100)
    assert plan(20).degree < 19
    members = members_of(r, tmp_path, 20, 4, terms)
    opened, meant = summed(members, terms, 0.1, ("site-3",), ("site-8",))
    assert (opened == meant).all()


def test_what_a_round_costs_an_r_member(r, tmp_path):
    """100,000 words, six members. The bound is far above what it takes, for machines that have more to do."""
    terms = terms_of(100_000)
    members = members_of(r, tmp_path, 6, 6, terms)
    opened, meant = summed(members, terms, 0.34)
    assert (opened == meant).all()
    spent = members["site-0"].seconds
    print("seconds in R, d = 100,000, six members:", spent)
    assert sum(spent.values()) < 3


def test_a_member_of_r_refuses_a_second_answer(r, tmp_path):
    terms = terms_of(10)
    members = members_of(r, tmp_path, 4, 2, terms)
    summed(members, terms, 0.25)
    for step in (
        lambda: members["site-0"].unmask(tuple(members), {}),
        lambda: members["site-0"].upload(Inbox((), {}), np.zeros(10, np.uint32)),
    ):
        with pytest.raises(SecAggError) as caught:
            step()
        assert caught.value.code == "replayed"
