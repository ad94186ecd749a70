"""A member by itself: the order of its steps, what it refuses before it has done anything, what it keeps and forgets."""

from dataclasses import replace

import numpy as np
import pytest
from secret_sum import TERMS, Room, names, stream

from haina.privacy.secagg import Consent, Inbox, Member, SecAggError, Terms


def refusal(call, *arguments, **more):
    with pytest.raises(SecAggError) as refused:
        call(*arguments, **more)
    return refused.value.code


def test_steps_are_taken_in_their_order():
    room = Room(4)
    name = room.names[0]
    member = Member(name, room.identities[name], TERMS, stream(9))
    calls = {
        "share": (room.setting, list(room.adverts.values()), room.pins.get),
        "upload": (Inbox((), {}), room.vectors[name]),
        "consent": (room.names,),
        "unmask": (room.names, {}),
    }
    for step, arguments in calls.items():
        assert refusal(getattr(member, step), *arguments) == "order"
    member.advertise()
    for step in ("upload", "consent", "unmask"):
        assert refusal(getattr(member, step), *calls[step]) == "order"
    other = room.share().members[name]
    for step in ("consent", "unmask"):
        assert refusal(getattr(other, step), *calls[step]) == "order"
    assert refusal(room.upload().members[name].unmask, *calls["unmask"]) == "order"


def test_no_step_is_taken_twice():
    room = Room(4).share().upload().consent().unmask()
    member = room.members[room.names[0]]
    assert refusal(member.advertise) == "replayed"
    assert refusal(member.share, room.setting, list(room.adverts.values()), room.pins.get) == "replayed"
    assert refusal(member.upload, room.inbox(room.names[0]), room.vectors[room.names[0]]) == "replayed"
    assert refusal(member.consent, room.names) == "replayed"
    shown = room.aggregator.consents(room.consents, room.names[0])
    assert refusal(member.unmask, room.names, shown) == "replayed"


def test_a_consent_may_be_asked_for_again_and_is_the_same():
    room = Room(4).share().upload().consent()
    name = room.names[2]
    assert room.members[name].consent(room.names) == room.consents[name]
    assert room.members[name].consent(room.names[::-1]) == room.consents[name]


def test_an_answer_may_be_asked_for_again_while_too_few_agreed():
    room = Room(4).share().upload().consent()
    name = room.names[0]
    shown = room.aggregator.consents(room.consents, name)
    assert refusal(room.members[name].unmask, room.names, {}) == "too_few"
    assert set(room.members[name].unmask(room.names, shown).seeds) == set(room.names)


def secrets_of(member):
    """Everything a member holds that is or contains bytes of a secret's length, but what is public or signs for it for ever."""
    public = {"name", "terms", "_identity", "_entropy", "_fewest", "_done", "_advert", "_cohort"}
    public |= {"_neighbours", "_sharers", "_view"}
    return {key: value for key, value in vars(member).items() if key not in public and value}


def test_after_its_answer_a_member_holds_no_secret():
    room = Room(4).share()
    member = room.members[room.names[0]]
    assert set(secrets_of(member)) == {"_channels", "_masks", "_held"}
    room.upload()
    assert set(secrets_of(member)) == {"_channels", "_held"}
    room.consent().unmask()
    assert secrets_of(member) == {}


def test_one_share_of_each_neighbour_that_shared_and_never_both():
    room = Room(7).share(names(7)[:6]).upload(names(7)[:5]).consent().unmask()
    for answer in room.answers.values():
        assert set(answer.seeds) == set(names(7)[:5])
        assert set(answer.keys) == {"site-005"}


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (np.zeros(50, np.uint64), "uint64"),
        (np.zeros(50, np.int32), "int32"),
        (np.zeros(50, np.float32), "float32"),
        (np.zeros(49, np.uint32), r"\(49,\)"),
        (np.zeros((50, 1), np.uint32), r"\(50, 1\)"),
        (np.zeros(100, np.uint32)[::2], "in one piece"),
        (np.frombuffer(bytes(200), np.uint32), "in one piece"),
        (np.zeros(50, ">u4"), ">u4"),
    ],
)
def test_words_of_another_kind_are_refused_before_anything_happens(words, what):
    room = Room(4).share()
    member = room.members[room.names[0]]
    with pytest.raises(SecAggError, match=what) as refused:
        member.upload(room.inbox(room.names[0]), words)
    assert refused.value.code == "malformed"
    assert not words.any()
    room.upload().consent().unmask()
    assert (room.open() == room.truth()).all()


def test_a_vector_is_masked_in_place():
    room = Room(4).share()
    words = room.vectors["site-000"].copy()
    assert room.members["site-000"].upload(room.inbox("site-000"), words) is words
    assert (words != room.vectors["site-000"]).mean() > 0.99


def test_a_setting_on_other_terms_is_refused():
    room = Room(4)
    for change in ({"round": 8}, {"length": 51}, {"corrupt": 0.0}, {"task": "00" * 32}):
        other = Terms(**(vars(TERMS) | change)).setting(0, 3, 3, 3)
        arguments = (other, list(room.adverts.values()), room.pins.get)
        assert refusal(room.members["site-000"].share, *arguments) == "changed"
    # Nothing has happened to it.
    room.share()


def test_too_few_for_a_member_that_wants_more():
    room = Room(5, fewest=3)
    name = room.names[0]
    member = Member(name, room.identities[name], TERMS, stream(3), fewest=5)
    adverts = room.adverts | {name: member.advertise()}
    assert refusal(member.share, room.setting, list(adverts.values()), room.pins.get) == "weak"


def test_a_first_contact_stands_as_advertised():
    room = Room(4)
    arguments = (room.setting, list(room.adverts.values()))
    assert set(room.members["site-000"].share(*arguments, lambda name: None)) == set(room.names[1:])


def test_what_is_signed_can_be_read_as_a_consent():
    room = Room(4).share().upload().consent()
    consent = Consent.from_bytes(room.consents["site-000"])
    assert len(consent.marks) == 3 * 16
    shown = room.aggregator.consents(room.consents, "site-003")
    assert shown["site-000"] == consent.signature + consent.marks[-16:]
    assert "site-003" not in shown


def test_refusals_speak_to_the_person():
    room = Room(4).share().upload()
    with pytest.raises(SecAggError) as refused:
        room.members["site-000"].consent(names(2))
    said = str(refused.value)
    assert "the sum is of 2 members" in said
    assert "Allowed: 3 or more" in said
    assert "tried again" in said


def test_the_same_entropy_gives_the_same_bytes():
    one, two = (Room(5).share().upload().consent().unmask() for _ in range(2))
    assert one.adverts == two.adverts
    assert one.shared == two.shared
    assert one.consents == two.consents
    assert one.answers == two.answers
    assert all((one.uploaded[name] == two.uploaded[name]).all() for name in one.names)
    other = Room(5, seed=2)
    assert not {advert.mask for advert in other.adverts.values()} & {a.mask for a in one.adverts.values()}


def test_an_inbox_in_any_order_means_the_same():
    room = Room(4).share()
    inbox = room.inbox("site-000")
    turned = replace(inbox, sharers=inbox.sharers[::-1], sealed=dict(reversed(inbox.sealed.items())))
    again = Room(4).share()
    zeros = [np.zeros(50, np.uint32) for _ in range(2)]
    assert (
        room.members["site-000"].upload(inbox, zeros[0]) == again.members["site-000"].upload(turned, zeros[1])
    ).all()
