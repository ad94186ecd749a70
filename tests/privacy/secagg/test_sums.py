"""The whole protocol: with whatever drop-outs, the sum of the uploaders is exact, or it is refused."""

from dataclasses import replace
from hashlib import sha256

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secret_sum import TERMS, Room, attempt, names, stream

from haina.errors import PrivacyError
from haina.privacy.secagg import (
    Advert,
    Aggregator,
    Answer,
    Inbox,
    Plan,
    Terms,
    pack,
    plan,
    secure_sum,
    unpack,
)

STEPS = ("advertise", "share", "upload", "consent", "unmask")


def vectors(n, terms=TERMS, seed=0):
    rng = np.random.default_rng(seed)
    dtype = f"u{terms.word // 8}"
    return {name: rng.integers(0, 2**terms.word, terms.length, dtype=dtype) for name in names(n)}


def truth(rows, who):
    return np.sum([rows[name] for name in who], axis=0, dtype=next(iter(rows.values())).dtype)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 12) | st.sampled_from([17, 21]),
    st.dictionaries(st.sampled_from(STEPS), st.sets(st.integers(0, 20), max_size=4), max_size=5),
    st.sampled_from([32, 64]),
)
def test_whoever_drops_out_when_the_sum_is_exact_or_refused(n, dropping, word):
    terms = Terms(**(vars(TERMS) | {"word": word, "length": 9}))
    rows = vectors(n, terms)
    gone = {step: {f"site-{i:03}" for i in who} & set(rows) for step, who in dropping.items()}
    if n - len(gone.get("advertise", ())) < 3:
        with pytest.raises(PrivacyError, match="each of the two learns"):
            secure_sum(rows, terms, stream(n), dropping=gone)
        return
    result, code = attempt(secure_sum, rows, terms, stream(n), dropping=gone)
    if code:
        assert code in ("too_few", "apart")
        return
    left = set(rows) - set().union(*(gone.get(step, set()) for step in STEPS[:3]))
    assert set(result.uploaders) == left
    assert (result.words == truth(rows, left)).all()


@pytest.mark.parametrize("step", STEPS[1:])
@pytest.mark.parametrize("n", [9, 20])
def test_as_many_drop_outs_as_the_threshold_allows_at_each_step(step, n):
    """From none to one too many. A complete graph of nine, 6 shares of 9; and a ring of twenty, 3 shares of 7."""
    numbers = Plan(8, 6, 6) if n == 9 else plan(20)
    rows = vectors(n)
    most = n - numbers.least
    for count in range(most + 2):
        gone = {step: names(n)[:count]}
        result, code = attempt(secure_sum, rows, TERMS, stream(count), numbers=numbers, dropping=gone)
        if code:
            # On a ring, many side by side may be gone before the limit is reached.
            assert count > most or (n == 20 and count > 2)
            continue
        # At the last step nobody is needed but so many that each secret has its shares.
        assert count <= most or step == "unmask"
        left = names(n)[count:] if step in ("share", "upload") else names(n)
        assert list(result.uploaders) == left
        assert (result.words == truth(rows, left)).all()


def test_drop_outs_at_every_step_of_one_round():
    rows = vectors(50)
    gone = {step: names(50)[place : place + 2] for place, step in zip((0, 9, 20, 31, 42), STEPS, strict=True)}
    result = secure_sum(rows, TERMS, stream(5), dropping=gone)
    assert len(result.uploaders) == 44
    assert (result.words == truth(rows, result.uploaders)).all()


@pytest.mark.parametrize("corrupt", [0.1, 0.2, 0.33])
def test_a_hundred_members_of_whom_a_tenth_drops_out(corrupt):
    terms = Terms(**(vars(TERMS) | {"corrupt": corrupt}))
    rows = vectors(100, terms)
    who = np.random.default_rng(4).permutation(names(100))
    gone = {"share": who[:3], "upload": who[3:8], "consent": who[8:9], "unmask": who[9:10]}
    result = secure_sum(rows, terms, stream(6), dropping=gone)
    assert set(result.uploaders) == set(who[8:])
    assert (result.words == truth(rows, result.uploaders)).all()


@pytest.mark.parametrize(("n", "fewest"), [(2, 2), (3, 3), (4, 3), (5, 3)])
def test_the_smallest_groups(n, fewest):
    rows = vectors(n)
    assert (secure_sum(rows, TERMS, stream(1), fewest=fewest).words == truth(rows, rows)).all()


def test_two_members_are_refused_unless_they_ask_for_it():
    with pytest.raises(PrivacyError, match="each of the two learns"):
        secure_sum(vectors(2), TERMS, stream(1))


def test_sums_wrap_as_words_do():
    """Two's complement of negative numbers, and sums beyond the word: it is the sum modulo 2^word."""
    for word in (32, 64):
        terms = Terms(**(vars(TERMS) | {"word": word, "length": 3}))
        values = {"a": [-1, 2 ** (word - 1), 5], "b": [-2, 2 ** (word - 1), -7], "c": [1, 3, 0]}
        rows = {k: np.array([x % 2**word for x in v], f"u{word // 8}") for k, v in values.items()}
        words = secure_sum(rows, terms, stream(2)).words
        assert words.view(f"i{word // 8}").tolist() == [-2, 3, -2]


def test_vectors_are_left_as_they_were():
    rows = vectors(4)
    before = {name: row.copy() for name, row in rows.items()}
    secure_sum(rows, TERMS, stream(1))
    assert all((rows[name] == before[name]).all() for name in rows)


def test_enough_tells_when_the_answers_open_the_sum():
    room = Room(9, numbers=Plan(8, 6, 6)).share().upload(names(9)[:8]).consent()
    for count, name in enumerate(room.consents):
        assert room.aggregator.enough(room.shared, list(room.uploaded), room.answers) == (count >= 6)
        room.unmask([name])
    assert room.aggregator.enough(room.shared, list(room.uploaded), room.answers)


def test_a_gone_member_without_an_uploader_beside_it_needs_no_key():
    """On a ring of 20, a member and all its neighbours gone: nobody has a mask with it."""
    numbers = Plan(4, 2, 3)
    room = Room(20, numbers=numbers)
    gone = {room.names[0], *room.aggregator.neighbours[room.names[0]]}
    holders = room.aggregator._holders(room.names, set(room.names) - gone, {})
    assert (room.names[0], True) not in holders
    assert {name for name, key in holders if key} == gone - {room.names[0]}


def test_another_replica_opens_the_same_sum_from_what_is_stored():
    """Nothing but bytes passes from one to the other."""
    room = Room(6).share(names(6)[:5])
    stored = {name: pack(table) for name, table in room.shared.items()}
    adverts = [Advert.from_bytes(advert.to_bytes()) for advert in room.adverts.values()]
    other = Aggregator(replace(room.setting), adverts[::-1])
    shared = {name: unpack(data) for name, data in stored.items()}
    for name in shared:
        inbox = Inbox.from_bytes(other.inbox(shared, name).to_bytes())
        room.uploaded[name] = room.members[name].upload(inbox, room.vectors[name].copy())
    room.consent()
    answers = {}
    for name in shared:
        shown = unpack(pack(other.consents(room.consents, name)))
        answers[name] = Answer.from_bytes(room.members[name].unmask(list(room.uploaded), shown).to_bytes())
    total = room.total()
    other.open(total, list(shared), list(room.uploaded), answers)
    assert (total == room.truth()).all()


#: Of everything that six members send with the entropy of `stream(1)`. It changes with the protocol's version and with nothing else.
GOLDEN = "f4dd329f281d670a7784de80e0f26f19b6e97f0ebfd27db7cf40db19b3bae15a"


def test_golden_transcript():
    room = Room(6)
    room.vectors = {name: np.arange(50, dtype=np.uint32) for name in room.names}
    room.share(names(6)[:5]).upload().consent().unmask()
    hashed = sha256()
    for name in room.names:
        hashed.update(room.adverts[name].to_bytes())
    for name in room.shared:
        hashed.update(pack(room.shared[name]))
        hashed.update(room.inbox(name).to_bytes())
        hashed.update(room.uploaded[name].astype("<u4").tobytes())
        hashed.update(room.consents[name])
        hashed.update(pack(room.aggregator.consents(room.consents, name)))
        hashed.update(room.answers[name].to_bytes())
    assert hashed.hexdigest() == GOLDEN
