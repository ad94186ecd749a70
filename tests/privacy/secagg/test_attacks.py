"""What a coordinator that lies, and members that help it, try. Each attempt meets a typed refusal, or changes nothing."""

from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st
from secret_sum import TERMS, Room, attempt, names, stream

from haina.privacy.secagg import Answer, Member, Plan, SecAggError, Terms, keys
from haina.privacy.secagg.masks import add_masks
from haina.privacy.secagg.messages import MARK, SIGNATURE

VICTIM, OTHER, THIRD = "site-000", "site-001", "site-002"


def refusal(call, *arguments, **more):
    with pytest.raises(SecAggError) as refused:
        call(*arguments, **more)
    return refused.value.code


def opens(room):
    """Whether the sum comes out, exactly."""
    return bool((room.open() == room.truth()).all())


# Keys


def forged(room, name, identity=None, **changes):
    """The advert of a member with parts of the coordinator's own, signed by it if it has an identity to sign with."""
    advert = replace(room.adverts[name], **changes)
    if identity is None:
        return advert
    advert = replace(advert, identity=identity.public_key().public_bytes_raw())
    return replace(advert, signature=identity.sign(keys.advert_message(advert, TERMS.context())))


def share_with(room, **adverts):
    changed = {name.replace("_", "-"): advert for name, advert in adverts.items()}
    return room.members[VICTIM].share(room.setting, list((room.adverts | changed).values()), room.pins.get)


MINE = X25519PrivateKey.from_private_bytes(bytes(31) + b"m").public_key().public_bytes_raw()
IMPOSTOR = Ed25519PrivateKey.from_private_bytes(bytes(31) + b"i")


@pytest.mark.parametrize("part", ["channel", "mask", "commitment"])
def test_a_key_in_the_middle_does_not_fit_the_signature(part):
    room = Room(5)
    assert refusal(share_with, room, site_001=forged(room, OTHER, **{part: MINE})) == "signature"


@pytest.mark.parametrize("part", ["channel", "mask", "commitment"])
def test_a_key_that_somebody_else_signed_is_not_the_pinned_ones(part):
    room = Room(5)
    assert refusal(share_with, room, site_001=forged(room, OTHER, IMPOSTOR, **{part: MINE})) == "substituted"


def test_a_substituted_identity_is_found_also_where_it_is_no_neighbour():
    room = Room(20)
    stranger = next(name for name in room.names[1:] if name not in room.aggregator.neighbours[VICTIM])
    adverts = room.adverts | {stranger: forged(room, stranger, IMPOSTOR)}
    arguments = (room.setting, list(adverts.values()), room.pins.get)
    assert refusal(room.members[VICTIM].share, *arguments) == "substituted"


def test_ones_own_keys_cannot_be_substituted_or_left_out():
    room = Room(5)
    assert refusal(share_with, room, site_000=forged(room, VICTIM, channel=MINE)) == "substituted"
    identity = room.identities[VICTIM]
    assert refusal(share_with, room, site_000=forged(room, VICTIM, identity, mask=MINE)) == "substituted"
    others = [advert for name, advert in room.adverts.items() if name != VICTIM]
    setting = TERMS.setting(0, 3, 3, 3)
    assert refusal(room.members[VICTIM].share, setting, others, room.pins.get) == "missing"


def test_keys_of_an_earlier_round_are_not_taken():
    room = Room(5)
    earlier = Member(OTHER, room.identities[OTHER], Terms(**(vars(TERMS) | {"round": 6})), stream(4))
    assert refusal(share_with, room, site_001=earlier.advertise()) == "signature"


def test_one_member_under_two_names_is_not_taken():
    room = Room(5)
    twin = replace(room.adverts[OTHER], name="twin")
    twin = replace(twin, signature=room.identities[OTHER].sign(keys.advert_message(twin, TERMS.context())))
    assert refusal(share_with, room, twin=twin) == "malformed"


@pytest.mark.parametrize("numbers", [(2, 2, 60), (98, 10, 60), (22, 11, 50), (22, 10, 56)])
def test_a_setting_that_hides_less_is_not_taken(numbers):
    room = Room(100)
    arguments = (TERMS.setting(0, *numbers), list(room.adverts.values()), room.pins.get)
    assert refusal(room.members[VICTIM].share, *arguments) == "weak"


# Shares


def test_shares_passed_to_the_wrong_member_or_from_another_round_are_passed_over():
    """Rerouted, swapped, cut, from another cohort: the member holds none of them, masks as the others do, and the sum still opens."""
    room, other = Room(9).share(), Room(9, terms=Terms(**(vars(TERMS) | {"round": 6}))).share()
    honest = room.aggregator.inbox(room.shared, VICTIM).sealed
    for name, bad in {
        OTHER: room.shared[OTHER][THIRD],
        THIRD: honest[OTHER],
        "site-003": other.shared["site-003"][VICTIM],
        "site-004": honest["site-004"][:-1],
        "site-005": b"",
    }.items():
        room.shared[name] = room.shared[name] | {VICTIM: bad}
    room.upload().consent().unmask()
    assert set(room.answers[VICTIM].seeds) == {VICTIM, "site-006", "site-007", "site-008"}
    assert opens(room)


def test_shares_that_decrypt_and_are_no_field_elements_are_passed_over():
    room = Room(5).share()
    channel = room.members[OTHER]._channels[VICTIM]
    context = keys.share_context(OTHER, VICTIM, room.members[OTHER]._cohort.digest)
    for bad in (b"\xff" * 72, bytes(71), bytes(76)):
        room.shared[OTHER][VICTIM] = channel.seal(bad, context)
        again = Room(5).share()
        again.shared = room.shared
        again.upload().consent().unmask()
        assert OTHER not in again.answers[VICTIM].seeds
        assert opens(again)


@pytest.mark.parametrize(
    ("sharers", "code"),
    [
        (names(5)[1:], "missing"),
        ([*names(5), "stranger"], "unknown"),
        (names(5) + names(1), "malformed"),
        (names(3), "too_few"),
        ([], "missing"),
    ],
)
def test_lists_of_sharers_that_no_honest_coordinator_tells(sharers, code):
    room = Room(5).share()
    inbox = room.inbox(VICTIM, sharers=tuple(sharers), sealed={})
    words = room.vectors[VICTIM].copy()
    assert refusal(room.members[VICTIM].upload, inbox, words) == code
    assert (words == room.vectors[VICTIM]).all()


def test_shares_from_one_who_is_said_not_to_have_shared():
    room = Room(5).share()
    inbox = room.inbox(VICTIM, sharers=(VICTIM, *names(5)[2:]))
    assert refusal(room.members[VICTIM].upload, inbox, room.vectors[VICTIM].copy()) == "unknown"


def test_members_who_were_told_different_sharers_open_nothing():
    """The coordinator says to the victim that the last one did not share, so the two mask differently. They cannot agree to the same view."""
    room = Room(5)
    room.share()
    told = room.inbox(VICTIM, sharers=tuple(names(4)), sealed={})
    room.uploaded[VICTIM] = room.members[VICTIM].upload(told, room.vectors[VICTIM].copy())
    room.upload(names(5)[1:4])
    room.consent()
    shown = room.aggregator.consents(room.consents, VICTIM)
    assert refusal(room.members[VICTIM].unmask, list(room.uploaded), shown) == "too_few"


# Sets of uploaders


def test_a_second_set_of_uploaders_is_refused_at_every_step():
    room = Room(5).share().upload().consent()
    member, without = room.members[VICTIM], names(5)[:4]
    assert refusal(member.consent, without) == "changed"
    shown = room.aggregator.consents(room.consents, VICTIM)
    assert refusal(member.unmask, without, shown) == "changed"
    member.unmask(names(5), shown)
    assert refusal(member.unmask, without, shown) == "replayed"


@pytest.mark.parametrize(
    ("uploaders", "code"),
    [
        (names(6)[1:], "missing"),
        (names(3), "too_few"),
        ([], "missing"),
        (names(5) + names(1), "malformed"),
        ([*names(5), "stranger"], "unknown"),
        (names(6), "changed"),
    ],
)
def test_sets_of_uploaders_that_no_honest_coordinator_asks_for(uploaders, code):
    """Six are in the group and the sixth did not share."""
    room = Room(6).share(names(6)[:5]).upload()
    member = room.members[VICTIM]
    assert refusal(member.consent, uploaders) == code
    member.consent(names(5))


def test_a_member_that_is_called_gone_keeps_its_seed_to_itself():
    """The wire-level form of "active and dead": one half is told that the victim uploaded, the other that it did not.

    Whatever the halves are, no two members who were told different sets both answer.
    """
    for split in range(1, 6):
        room = Room(6).share().upload()
        for number, name in enumerate(room.names):
            told = room.names if number < split else room.names[1:]
            if name in told:
                room.consents[name] = room.members[name].consent(told)
        answered = set()
        for number, name in enumerate(room.names):
            told = room.names if number < split else room.names[1:]
            shown = room.aggregator.consents(room.consents, name)
            _, code = attempt(room.members[name].unmask, told, shown)
            assert code in ("", "too_few", "order")
            if not code:
                answered.add(number < split)
        assert len(answered) <= 1


def sides(n=40):
    """Two halves of a ring, and what the coordinator tells each: all but the other half's members next to the victim, who stands where they meet."""
    room = Room(n).share().upload()
    ring, half = room.aggregator._cohort.ring, room.setting.degree // 2
    left, right = ring[: n // 2], ring[n // 2 :]
    victim = left[-1]
    told_left = set(ring) - set(right[: half - 1])
    told_right = set(ring) - {victim}
    return room, left, right, victim, told_left, told_right


def test_on_a_ring_two_halves_cannot_be_told_two_sets():
    """With consents of `threshold` neighbours only, this opens the victim: its left neighbours give its seed, its right ones its key.

    Each of them does have that many neighbours who agree; it is more than half of all that agree to neither set.
    """
    room, left, right, victim, told_left, told_right = sides()
    for side, told in ((left, told_left), (right, told_right)):
        for name in side:
            room.consents[name] = room.members[name].consent(sorted(told))
    threshold = room.setting.threshold
    near_left, near_right = (
        [name for name in room.aggregator.neighbours[victim] if name in side] for side in (left, right)
    )
    assert len(near_left) >= threshold - 1
    assert len(near_right) >= threshold
    for side, near in ((left, near_left), (right, near_right)):
        for name in near:
            agreeing = [other for other in room.aggregator.neighbours[name] if other in side]
            assert len(agreeing) >= threshold
    for side, told in ((left, told_left), (right, told_right)):
        for name in side:
            shown = room.aggregator.consents(room.consents, name)
            assert refusal(room.members[name].unmask, sorted(told), shown) == "too_few"


def test_a_ring_cannot_be_cut_by_calling_two_stretches_gone():
    """Everybody is told the same, and still the sum would be two sums."""
    room = Room(40).share().upload()
    ring, half = room.aggregator._cohort.ring, room.setting.degree // 2
    told = sorted(set(ring) - set(ring[:half]) - set(ring[20 : 20 + half]))
    assert len(told) >= room.setting.least
    for name in told:
        assert refusal(room.members[name].consent, told) == "apart"


# Consents


def test_only_consents_that_fit_are_counted():
    """Of nine members five must agree, and a member is itself one of them."""
    room = Room(9, numbers=Plan(8, 5, 6)).share().upload().consent()
    good = room.aggregator.consents(room.consents, VICTIM)
    stale = Room(9, numbers=Plan(8, 5, 6), group=1).share().upload().consent()
    elsewhere = stale.aggregator.consents(stale.consents, VICTIM)
    for_another = room.aggregator.consents(room.consents, THIRD)

    def agreed(**changes):
        shown = {name.replace("_", "-"): word for name, word in changes.items()}
        four = {name: good[name] for name in names(9)[5:]}
        member = room.members[VICTIM]
        return member._agreed(four | shown)

    nothing = bytes(SIGNATURE)
    assert agreed() == 5
    assert agreed(site_001=good[OTHER]) == 6
    assert agreed(site_001=good[OTHER][:SIGNATURE]) == 6
    assert agreed(site_001=nothing + good[OTHER][SIGNATURE:]) == 6
    assert agreed(site_001=good[OTHER][:SIGNATURE] + bytes(MARK)) == 6
    for bad in (
        b"",
        nothing,
        nothing + bytes(MARK),
        elsewhere[OTHER],
        good[THIRD],
        nothing + good[THIRD][SIGNATURE:],
        nothing + for_another[OTHER][SIGNATURE:],
        good[OTHER][: SIGNATURE - 1],
        bytes(200),
    ):
        assert agreed(site_001=bad) == 5


def test_a_consent_counts_once_and_only_of_an_uploader():
    room = Room(9).share().upload(names(9)[:8])
    room.consent()
    shown = room.aggregator.consents(room.consents, VICTIM)
    late = room.aggregator._cohort.view(tuple(names(9)), tuple(names(8)))
    stranger = Ed25519PrivateKey.from_private_bytes(bytes(32))
    few = {name: shown[name] for name in names(9)[1 : room.setting.least - 1]}
    assert len(few) == room.setting.least - 2
    few |= {
        VICTIM: room.identities[VICTIM].sign(keys.consent_message(late)),
        "site-008": room.identities["site-008"].sign(keys.consent_message(late)),
        "stranger": stranger.sign(keys.consent_message(late)),
    }
    assert refusal(room.members[VICTIM].unmask, names(8), few) == "too_few"
    room.unmask()
    assert opens(room)


def test_without_neighbours_marks_signatures_of_others_do():
    room = Room(20).share().upload().consent()
    for name in room.names:
        shown = {
            other: word[:SIGNATURE] for other, word in room.aggregator.consents(room.consents, name).items()
        }
        room.answers[name] = room.members[name].unmask(room.names, shown)
    assert opens(room)


# Members that help


@settings(max_examples=25, deadline=None)
@given(st.sets(st.sampled_from(names(9)), max_size=4), st.integers(0, 2**16))
def test_wrong_answers_are_stepped_over_or_the_sum_is_refused(liars, seed):
    """Nine members, six shares open a secret. Whatever the liars answer: the right sum or none."""
    room = Room(9, numbers=Plan(8, 6, 6)).share().upload(names(9)[:8]).consent().unmask()
    rng = np.random.default_rng(seed)
    for name in liars & room.answers.keys():
        lie = {
            kind: {owner: rng.bytes(36) for owner in table}
            for kind, table in vars(room.answers[name]).items()
        }
        room.answers[name] = Answer(**lie)
    before = room.total()
    total = before.copy()
    _, code = attempt(room.aggregator.open, total, room.shared, list(room.uploaded), room.answers)
    wrong = len(liars & room.answers.keys())
    assert code in ("", "damaged")
    assert (total == (before if code else room.truth())).all()
    # Two of eight can be stepped over where they sit side by side, none changes the sum, and one is always stepped over.
    assert wrong <= 2 if not code else wrong >= 2


def test_one_wrong_answer_with_one_to_spare_is_stepped_over():
    room = Room(5, numbers=Plan(4, 4, 4)).share().upload().consent().unmask()
    liar = room.answers[THIRD]
    room.answers[THIRD] = Answer({owner: bytes(36) for owner in liar.seeds}, liar.keys)
    assert opens(room)
    del room.answers[OTHER]
    assert refusal(room.open) == "damaged"


def test_a_member_whose_shares_are_of_another_seed_is_found_out():
    """It commits to one seed and shares another, so that the sum would be garbage and nobody the wiser."""
    room = Room(5)
    room.members[OTHER]._seed = bytes(32)
    room.share().upload().consent().unmask()
    assert refusal(room.open) == "damaged"


def test_a_member_whose_shares_are_of_another_key_is_found_out():
    room = Room(6)
    private = room.members[OTHER]._mask_key
    room.members[OTHER]._mask_key = X25519PrivateKey.from_private_bytes(bytes(32))
    room.share()
    room.members[OTHER]._mask_key = private
    room.upload([name for name in room.names if name != OTHER]).consent().unmask()
    assert refusal(room.open) == "damaged"


def test_answers_of_strangers_and_shares_of_odd_sizes_are_passed_over():
    room = Room(5, numbers=Plan(4, 4, 4)).share().upload().consent().unmask()
    room.answers["stranger"] = room.answers[OTHER]
    room.answers[THIRD] = Answer(dict.fromkeys(names(5), b"short"), {VICTIM: bytes(36)})
    assert opens(room)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"total": np.zeros(50, np.uint64)}, "malformed"),
        ({"total": np.zeros(49, np.uint32)}, "malformed"),
        ({"uploaders": names(3)}, "too_few"),
        ({"sharers": names(4)}, "too_few"),
        ({"uploaders": [*names(5), "stranger"]}, "unknown"),
        ({"answers": {}}, "too_few"),
    ],
)
def test_the_coordinators_side_refuses_what_cannot_be_opened(change, code):
    room = Room(5).share().upload().consent().unmask()
    arguments = {
        "total": room.total(),
        "sharers": names(5),
        "uploaders": names(5),
        "answers": room.answers,
    }
    assert refusal(room.aggregator.open, **(arguments | change)) == code


def test_a_vector_that_comes_late_stays_hidden_by_its_own_mask():
    """A coordinator calls a member gone, has its key opened, and then holds its upload: all masks between two fall, and the member's own stays.

    Of its seed there are the shares of corrupt neighbours alone, one fewer than it takes.
    """
    room = Room(9)
    seed, key = room.members[VICTIM]._seed, room.members[VICTIM]._mask_key.private_bytes_raw()
    room.share()
    words = room.members[VICTIM].upload(room.inbox(VICTIM), room.vectors[VICTIM].copy())
    room.upload(names(9)[1:]).consent()
    corrupt = names(9)[1 : room.setting.threshold]
    leaked = {name: Answer({VICTIM: room.members[name]._held[VICTIM][:36]}, {}) for name in corrupt}
    room.unmask()
    cohort = room.aggregator._cohort
    opened = room.aggregator._recover(room.names, names(9)[1:], room.answers)
    assert opened[VICTIM, True] == key
    private = X25519PrivateKey.from_private_bytes(opened[VICTIM, True])
    pairs = [
        keys.pair_mask(private, VICTIM, name, room.adverts[name].mask, cohort.digest) for name in names(9)[1:]
    ]
    # The victim's name comes first, so it took all of them away.
    add_masks(words, pairs)
    own = room.vectors[VICTIM].copy()
    add_masks(own, [keys.self_mask(seed, VICTIM, cohort.digest)])
    assert (words == own).all()
    with pytest.raises(SecAggError, match=f"{len(corrupt)} shares of a secret of {VICTIM!r}"):
        room.aggregator._recover(room.names, [VICTIM], leaked)
