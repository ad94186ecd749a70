from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from secret_sum import TERMS, Room, stream

from haina.privacy.secagg import Member, SecAggError, Terms, check_advert
from haina.privacy.secagg import keys as secagg_keys

A, B = (X25519PrivateKey.from_private_bytes(bytes([n]) * 32) for n in (1, 2))
PUBLIC = {key: key.public_key().public_bytes_raw() for key in (A, B)}
COHORT = bytes(range(32))


def test_both_ends_of_a_channel_have_the_same_keys_crosswise():
    ours = secagg_keys.channel(A, "a", "b", PUBLIC[B], COHORT)
    theirs = secagg_keys.channel(B, "b", "a", PUBLIC[A], COHORT)
    assert theirs.open(ours.seal(b"shares", b"context"), b"context") == b"shares"
    assert ours.open(theirs.seal(b"shares", b"context"), b"context") == b"shares"
    assert theirs.marked(b"view", ours.mark(b"view"))
    assert ours.marked(b"view", theirs.mark(b"view"))
    # One's own message, another context, a changed byte, another view, nothing.
    assert ours.open(ours.seal(b"shares", b"context"), b"context") is None
    sealed = ours.seal(b"shares", b"context")
    assert theirs.open(sealed, b"other") is None
    assert theirs.open(bytes([sealed[0] ^ 1]) + sealed[1:], b"context") is None
    assert not ours.marked(b"view", ours.mark(b"view"))
    assert not theirs.marked(b"other", ours.mark(b"view"))
    assert not theirs.marked(b"view", b"")


def test_the_mask_of_a_pair_is_the_same_from_either_end():
    assert secagg_keys.pair_mask(A, "a", "b", PUBLIC[B], COHORT) == secagg_keys.pair_mask(
        B, "b", "a", PUBLIC[A], COHORT
    )


def test_the_derivation_is_hkdf_over_a_label_that_can_be_written_down():
    """By hand, so that another language can be held against it."""
    label = b"haina/secagg/1/pair\x00" + b"\x01a" + b"\x02bc"
    expected = HKDF(hashes.SHA256(), 32, COHORT, label).derive(A.exchange(B.public_key()))
    assert secagg_keys.pair_mask(A, "bc", "a", PUBLIC[B], COHORT) == expected


def test_one_who_advertises_anothers_key_gets_other_secrets():
    masks = {secagg_keys.pair_mask(A, "a", name, PUBLIC[B], COHORT) for name in ("b", "c")}
    channels = {secagg_keys.channel(A, "a", name, PUBLIC[B], COHORT).seal_key for name in ("b", "c")}
    assert len(masks) == len(channels) == 2


def test_no_two_keys_of_two_members_are_the_same():
    channel = secagg_keys.channel(A, "a", "b", PUBLIC[B], COHORT)
    mask = secagg_keys.pair_mask(A, "a", "b", PUBLIC[B], COHORT)
    assert len({*vars(channel).values(), mask}) == 5


def first_mask(terms=TERMS, group=0, n=4, degree=None):
    """What a member of a room with fixed entropy uploads for a vector of zeros."""
    room = Room(n, terms=terms, group=group).share()
    name = room.names[0]
    zeros = np.zeros(terms.length, f"u{terms.word // 8}")
    return room.members[name].upload(room.inbox(name), zeros).tobytes()


def test_masks_are_bound_to_round_task_group_federation_and_cohort():
    """The same secrets and keys everywhere; what differs is one thing at a time that only labels know of."""
    changes = [{"round": 8}, {"task": "ac" * 32}, {"federation": "hospital"}, {"corrupt": 0.11}]
    masks = {first_mask(Terms(**(vars(TERMS) | change))) for change in changes}
    masks |= {first_mask(), first_mask(group=1), first_mask(n=5)}
    assert len(masks) == 7
    assert first_mask() == first_mask()


def test_a_member_that_only_another_pair_sees_changes_every_key():
    """The fourth member's keys are no neighbour's business, but they are of the cohort."""
    room = Room(20)
    name = room.names[0]
    stranger = next(
        other for other in room.names if other != name and other not in room.aggregator.neighbours[name]
    )
    other = Member(stranger, room.identities[stranger], TERMS, stream(99))
    changed = room.adverts | {stranger: other.advertise()}
    one = room.members[name].share(room.setting, list(room.adverts.values()), room.pins.get)
    again = Room(20)
    two = again.members[name].share(again.setting, list(changed.values()), again.pins.get)
    assert not set(one.values()) & set(two.values())


@pytest.mark.parametrize(
    "change", [{"round": 8}, {"task": "ac" * 32}, {"federation": "h"}, {"length": 51}, {"word": 64}]
)
def test_an_advert_is_of_one_round_only(change):
    advert = Room(3).adverts["site-000"]
    check_advert(advert, TERMS)
    with pytest.raises(SecAggError) as refused:
        check_advert(advert, Terms(**(vars(TERMS) | change)))
    assert refused.value.code == "signature"


@pytest.mark.parametrize("part", ["name", "channel", "mask", "commitment", "identity", "signature"])
def test_no_part_of_an_advert_can_be_changed(part):
    advert = Room(3).adverts["site-000"]
    value = getattr(advert, part)
    changed = "site-009" if part == "name" else value[:-1] + bytes([value[-1] ^ 1])
    with pytest.raises(SecAggError) as refused:
        check_advert(replace(advert, **{part: changed}), TERMS)
    assert refused.value.code == "signature"


def test_a_consent_cannot_pass_for_an_advert():
    """Signatures of one identity over the same bytes differ by what they are for."""
    key = Ed25519PrivateKey.from_private_bytes(bytes(32))
    public = key.public_key().public_bytes_raw()
    message = secagg_keys.consent_message(COHORT)
    assert secagg_keys.signed(public, key.sign(message), message)
    assert not secagg_keys.signed(public, key.sign(COHORT), message)
    advert = Room(3).adverts["site-000"]
    assert not secagg_keys.advert_message(advert, COHORT).startswith(message[:19])


#: Every encoding of a point of small order: the five values of u, those that are below 2^255 also with p added, each with the top bit that X25519
#: ignores.
SMALL = [
    (u + extra).to_bytes(32, "little")
    for u in sorted(secagg_keys._SMALL | {u + 2**255 - 19 for u in secagg_keys._SMALL if u < 19})
    for extra in (0, 1 << 255)
]


@pytest.mark.parametrize("key", SMALL)
def test_keys_that_give_a_secret_everyone_knows_are_refused(key):
    with pytest.raises(SecAggError, match="everyone knows"):
        secagg_keys.exchange(A, key, "b")
    identity = Ed25519PrivateKey.from_private_bytes(bytes(32))
    for part in ("channel", "mask"):
        advert = replace(
            Room(3).adverts["site-000"],
            **{"identity": identity.public_key().public_bytes_raw(), part: key},
        )
        message = secagg_keys.advert_message(advert, TERMS.context())
        with pytest.raises(SecAggError) as refused:
            check_advert(replace(advert, signature=identity.sign(message)), TERMS)
        assert refused.value.code == "malformed"


def test_an_identity_that_is_no_key_signs_nothing():
    assert not secagg_keys.signed(b"short", bytes(64), b"")
    assert not secagg_keys.signed(b"\xff" * 32, bytes(64), b"")


def test_no_key_shows_in_what_is_printed():
    assert repr(secagg_keys.channel(A, "a", "b", PUBLIC[B], COHORT)) == "Channel()"


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"federation": ""}, "a name"),
        ({"federation": "x" * 256}, "a name"),
        ({"federation": "\ud800"}, "a name"),
        ({"round": -1}, "round"),
        ({"task": "AB" * 32}, "task"),
        ({"task": "ab"}, "task"),
        ({"length": 0}, "length"),
        ({"word": 16}, "word"),
        ({"corrupt": 0.5}, "corrupt"),
        ({"corrupt": float("nan")}, "corrupt"),
    ],
)
def test_impossible_terms_are_refused(change, what):
    with pytest.raises(SecAggError, match=what) as refused:
        Terms(**(vars(TERMS) | change))
    assert refused.value.code == "malformed"


@pytest.mark.parametrize(
    "numbers", [(-1, 4, 3, 3), (0, 0, 2, 2), (0, 4, 1, 3), (0, 4, 6, 6), (0, 4, 4, 3), (0, 1 << 17, 3, 3)]
)
def test_impossible_settings_are_refused(numbers):
    with pytest.raises(SecAggError) as refused:
        TERMS.setting(*numbers)
    assert refused.value.code == "malformed"


def test_contexts_differ_in_every_field():
    setting = TERMS.setting(1, 4, 3, 4)
    changes = [
        {},
        {"federation": "x"},
        {"round": 1},
        {"task": "00" * 32},
        {"length": 7},
        {"word": 64},
        {"corrupt": 0.2},
        {"group": 2},
        {"degree": 6},
        {"threshold": 4},
        {"least": 5},
    ]
    assert len({replace(setting, **change).context() for change in changes}) == len(changes)
    assert setting.context() != setting.terms.context() == TERMS.context()
