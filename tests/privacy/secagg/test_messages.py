import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from secret_sum import attempt

from haina.privacy.secagg import Advert, Answer, Consent, Inbox, SecAggError, pack, unpack

NAME = st.text(min_size=1, max_size=20).filter(lambda name: _encodable(name))


def _encodable(name):
    try:
        return len(name.encode()) <= 255
    except UnicodeEncodeError:
        return False


def sized(size):
    return st.binary(min_size=size, max_size=size)


def tables(value):
    return st.dictionaries(NAME, value, max_size=4)


KEY = sized(32)
ADVERT = st.builds(Advert, NAME, KEY, KEY, KEY, KEY, sized(64))
INBOX = st.builds(
    Inbox, st.sets(NAME, max_size=5).map(lambda names: tuple(sorted(names))), tables(st.binary(max_size=99))
)
CONSENT = st.builds(Consent, sized(64), st.integers(0, 5).flatmap(lambda n: sized(16 * n)))
ANSWER = st.builds(Answer, tables(sized(36)), tables(sized(36))).filter(
    lambda answer: not answer.seeds.keys() & answer.keys.keys()
)
MESSAGES = [(Advert, ADVERT), (Inbox, INBOX), (Consent, CONSENT), (Answer, ANSWER)]
READERS = [Advert.from_bytes, Inbox.from_bytes, Consent.from_bytes, Answer.from_bytes, unpack]


@pytest.mark.parametrize(("kind", "messages"), MESSAGES)
@given(data=st.data())
def test_a_message_comes_back_and_has_one_form(kind, messages, data):
    message = data.draw(messages)
    sent = message.to_bytes()
    assert kind.from_bytes(sent) == message
    assert kind.from_bytes(sent).to_bytes() == sent


@given(tables(st.binary(max_size=300)))
def test_a_table_comes_back(table):
    assert unpack(pack(table)) == table
    assert pack(unpack(pack(table))) == pack(dict(reversed(table.items())))


@pytest.mark.parametrize("read", READERS)
@given(data=st.binary(max_size=400))
@example(b"")
@example(b"\x01")
def test_bytes_of_a_stranger_are_read_or_refused(read, data):
    """Nothing but `SecAggError`; and what is read is written in the same bytes."""
    for kind in range(7):
        sent = bytes((1, kind)) + data
        message, code = attempt(read, sent)
        assert code in ("", "malformed")
        if not code:
            assert (pack(message) if isinstance(message, dict) else message.to_bytes()) == sent


@pytest.mark.parametrize(("kind", "messages"), [*MESSAGES, (None, tables(st.binary(max_size=9)))])
@given(data=st.data())
def test_a_damaged_message_is_refused_or_is_another_in_its_one_form(kind, messages, data):
    message = data.draw(messages)
    sent = bytearray(pack(message) if kind is None else message.to_bytes())
    place = data.draw(st.integers(0, len(sent) - 1))
    how = data.draw(st.sampled_from(["cut", "flip", "insert", "append"]))
    if how == "cut":
        del sent[place:]
    elif how == "flip":
        sent[place] ^= data.draw(st.integers(1, 255))
    elif how == "insert":
        sent.insert(place, data.draw(st.integers(0, 255)))
    else:
        sent += data.draw(st.binary(min_size=1, max_size=40))
    other, code = attempt(unpack if kind is None else kind.from_bytes, bytes(sent))
    assert code in ("", "malformed")
    assert code or how != "cut" or kind is Consent
    if not code:
        assert (pack(other) if kind is None else other.to_bytes()) == bytes(sent)


@pytest.mark.parametrize(
    ("read", "head"),
    [(unpack, b"\x01\x02"), (Inbox.from_bytes, b"\x01\x03"), (Answer.from_bytes, b"\x01\x05")],
)
def test_an_announced_number_is_checked_before_anything_is_read(read, head):
    """Four thousand million entries in a message of ten bytes."""
    with pytest.raises(SecAggError, match="10 bytes announces 4294967295 entries"):
        read(head + b"\xff\xff\xff\xff" + bytes(4))


def test_another_version_says_so():
    sent = pack({"a": b"b"})
    with pytest.raises(SecAggError, match="same version of Haina"):
        unpack(b"\x02" + sent[1:])


def test_names_out_of_order_or_twice_are_refused():
    one = pack({"a": b"1"})[6:]
    two = pack({"b": b"2"})[6:]
    head = b"\x01\x02\x00\x00\x00\x02"
    assert unpack(head + one + two) == {"a": b"1", "b": b"2"}
    for entries in (two + one, one + one):
        with pytest.raises(SecAggError, match="ascending"):
            unpack(head + entries)


def test_an_answer_with_both_shares_of_one_member_cannot_be_read():
    both = Answer({"a": bytes(36)}, {"a": bytes(36)})
    with pytest.raises(SecAggError, match="both shares of 'a'"):
        Answer.from_bytes(both.to_bytes())


def test_shares_do_not_show_in_what_is_printed():
    assert "seeds" not in repr(Answer({"a": bytes(36)}, {}))
