"""A site's part in a secure sum in front of a coordinator that lies: every lie is refused with its own reason, and nothing is given away."""

import base64
import os
from dataclasses import replace

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from haina.errors import ConfigError, PrivacyError, TrustError
from haina.federation.sealed import setting_of, terms_of
from haina.node.guard import Guard, Wishes
from haina.node.peers import Peers, fingerprint, signing_key, told
from haina.node.sealing import Masked, Sealing, words_of
from haina.privacy.mechanisms import DiscreteGaussian, Laplace
from haina.privacy.policy import Allowance, Hidden, Policy
from haina.privacy.secagg import Advert, Aggregator, Answer, Member, SecAggError, pack, unpack
from haina.report import Report
from haina.update import Update
from haina.wire.messages import SealedTask, Task

HIDDEN = Policy(hidden=Hidden(dropout=0.34, range=16.0))
NAMES = "abcdef"
VECTOR = np.array([1, -2, 3, 4, 5], np.float32)


def task(number=1, model="ab" * 32, **more):
    return Task(federation="trial", round=number, version=0, model=model, bytes=1, learning_rate=1.0, **more)


class Circle:
    """Six sites, and an honest coordinator between them that a test turns."""

    def __init__(
        self, folder, policy=HIDDEN, names=NAMES, number=1, fewest=3, begin=None, listed=None, **more
    ):
        self.policy, self.names, self.number = policy, names, number
        self.parts, self.begun = {}, []
        for name in names:
            home = folder / name
            home.mkdir(exist_ok=True)
            self.parts[name] = Sealing(
                policy=policy,
                task=task(number, **more),
                update=Update(name, VECTOR, Report(10)),
                memory={},
                key=signing_key(home),
                peers=Peers(home, listed),
                fewest=fewest,
                begin=begin or self.begun.append,
                entropy=os.urandom,
            )
        self.adverts = {name: data_of(part.advertise()) for name, part in self.parts.items()}
        terms = terms_of(policy, task(number, **more), len(VECTOR))
        setting = setting_of(policy, terms, 0, len(names))
        self.middle = Aggregator(setting, [Advert.from_bytes(data) for data in self.adverts.values()])
        self.shared, self.words, self.consents, self.answers = {}, {}, {}, {}

    def step(self, name, stage, uploaders=None, **more):
        """What an honest coordinator asks."""
        uploaders = tuple(sorted(self.words if uploaders is None else uploaders))
        data = {
            "share": lambda: pack(self.adverts),
            "upload": lambda: self.middle.inbox(self.shared, name).to_bytes(),
            "consent": lambda: b"",
            "unmask": lambda: pack(self.middle.consents(self.consents, name)),
        }[stage]()
        fields = {"data": text(data), "uploaders": uploaders if stage in ("consent", "unmask") else ()}
        about = {"federation": "trial", "round": self.number, "stage": stage}
        return SealedTask(**{**about, **fields, **more})

    def go(self, *stages, names=None):
        for stage in stages:
            for name in names or self.names:
                answer = self.parts[name].answer(self.step(name, stage))
                if stage == "upload":
                    self.words[name] = np.frombuffer(answer.words, "<u4").copy()
                else:
                    kept = {"share": self.shared, "consent": self.consents, "unmask": self.answers}[stage]
                    data = data_of(answer)
                    kept[name] = unpack(data) if stage == "share" else data
        return self

    def opened(self):
        total = np.sum(list(self.words.values()), axis=0, dtype="<u4")
        answers = {name: Answer.from_bytes(data) for name, data in self.answers.items()}
        self.middle.open(total, tuple(self.shared), tuple(self.words), answers)
        return self.policy.unseal(total, len(VECTOR), tuple(self.words), None, len(self.names))


def data_of(sealed):
    return base64.b64decode(sealed.data)


def text(data):
    return base64.b64encode(data).decode()


def refused(code, part, step):
    with pytest.raises(SecAggError) as caught:
        part.answer(step)
    assert caught.value.code == code, caught.value
    assert words_of(caught.value).startswith(f"{code}: ")
    return caught.value


def test_six_sites_come_to_the_mean_of_their_vectors(tmp_path):
    circle = Circle(tmp_path).go("share", "upload", "consent", "unmask")
    assert circle.opened().vector.tolist() == VECTOR.tolist()
    assert circle.begun == [1] * 6


def test_what_is_uploaded_says_nothing(tmp_path):
    """The words of one vector of zeros are uniform: chi-square over all bytes, and no two uploads alike."""
    policy = HIDDEN
    zeros = np.zeros(250_000, np.float32)
    circle = Circle(tmp_path)
    for part in circle.parts.values():
        part.update = replace(part.update, vector=zeros)
        part.__post_init__()
    circle.adverts = {name: data_of(part.advertise()) for name, part in circle.parts.items()}
    terms = terms_of(policy, task(1), len(zeros))
    adverts = [Advert.from_bytes(data) for data in circle.adverts.values()]
    circle.middle = Aggregator(setting_of(policy, terms, 0, 6), adverts)
    circle.go("share", "upload")
    data = np.frombuffer(b"".join(words.tobytes() for words in circle.words.values()), np.uint8)
    counts = np.bincount(data, minlength=256)
    expected = len(data) / 256
    # 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert 255 - 6 * 22.6 < float(((counts - expected) ** 2 / expected).sum()) < 255 + 6 * 22.6


# ------------------------------------------------------------------------------------------------ a coordinator that lies


def mallory(circle, name, key=None):
    """An advert in another's name, with keys of the coordinator's own making."""
    key = key or Ed25519PrivateKey.generate()
    return Member(name, key, circle.parts["a"]._terms, os.urandom).advertise().to_bytes()


def test_a_key_in_the_place_of_a_known_one_is_refused(tmp_path):
    Circle(tmp_path).go("share")
    circle = Circle(tmp_path, number=2)
    circle.adverts["b"] = mallory(circle, "b")
    error = refused("substituted", circle.parts["a"], circle.step("a", "share"))
    assert "'b'" in error.what
    assert error.allowed.startswith(signing_key(tmp_path / "b").public_key().public_bytes_raw().hex()[:16])
    # The one whose place it is in finds it out too, without ever having met anybody.
    refused("substituted", circle.parts["b"], circle.step("b", "share"))


def test_keys_that_are_changed_on_the_way_are_refused(tmp_path):
    circle = Circle(tmp_path)
    advert = Advert.from_bytes(circle.adverts["b"])
    circle.adverts["b"] = replace(advert, mask=Advert.from_bytes(mallory(circle, "b")).mask).to_bytes()
    refused("signature", circle.parts["a"], circle.step("a", "share"))


def test_keys_of_an_earlier_round_are_refused(tmp_path):
    old = Circle(tmp_path).adverts
    circle = Circle(tmp_path, number=2)
    circle.adverts["b"] = old["b"]
    refused("signature", circle.parts["a"], circle.step("a", "share"))


def test_strangers_are_refused_where_people_said_who_belongs(tmp_path):
    listed = {name: signing_key(home(tmp_path, name)).public_key().public_bytes_raw() for name in NAMES}
    Circle(tmp_path, listed=listed).go("share", "upload", "consent", "unmask")
    circle = Circle(tmp_path, number=2, listed=listed)
    circle.adverts["g"] = mallory(circle, "g")
    assert "'g'" in refused("unknown", circle.parts["a"], circle.step("a", "share")).what
    # A list is believed at first sight too.
    circle = Circle(tmp_path, number=3, listed={**listed, "b": bytes(32)})
    refused("substituted", circle.parts["a"], circle.step("a", "share"))


def home(folder, name):
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def test_a_group_smaller_than_the_file_promises_is_refused(tmp_path):
    circle = Circle(tmp_path, fewest=5)
    few = {name: circle.adverts[name] for name in "abcd"}
    refused("weak", circle.parts["a"], circle.step("a", "share", data=text(pack(few))))
    alone = {"a": circle.adverts["a"]}
    with pytest.raises(PrivacyError):
        Circle(tmp_path).parts["a"].answer(circle.step("a", "share", data=text(pack(alone))))


def test_of_two_sets_of_uploaders_only_one_is_agreed_to(tmp_path):
    circle = Circle(tmp_path).go("share", "upload")
    part = circle.parts["a"]
    part.answer(circle.step("a", "consent"))
    refused("changed", part, circle.step("a", "consent", uploaders="abcde"))
    circle.go("consent", names="bcdef")
    refused("changed", part, circle.step("a", "unmask", uploaders="abcde"))
    # The right question is still answered.
    assert part.answer(circle.step("a", "unmask")).stage == "unmask"


def test_sites_that_were_told_different_sets_open_nothing(tmp_path):
    """Half of them hear that the other half is gone: each hears from fewer than must agree."""
    circle = Circle(tmp_path).go("share", "upload")
    for name in NAMES:
        told_so = "abcdef" if name in "abc" else "bcdef"
        circle.consents[name] = data_of(
            circle.parts[name].answer(circle.step(name, "consent", uploaders=told_so))
        )
    for name in "abc":
        refused("too_few", circle.parts[name], circle.step(name, "unmask", uploaders="abcdef"))
    for name in "def":
        refused("too_few", circle.parts[name], circle.step(name, "unmask", uploaders="bcdef"))


def test_the_same_site_is_never_both_there_and_gone(tmp_path):
    circle = Circle(tmp_path).go("share", "upload", "consent")
    first = Answer.from_bytes(data_of(circle.parts["a"].answer(circle.step("a", "unmask"))))
    assert first.seeds.keys() == set(NAMES)
    assert not first.keys
    # b as one who is gone, after b as one who is there: its other secret would unmask it.
    error = refused("replayed", circle.parts["a"], circle.step("a", "unmask", uploaders="acdef"))
    assert "answered twice" in error.remedy


def test_a_sum_without_oneself_is_not_opened(tmp_path):
    circle = Circle(tmp_path).go("share", "upload")
    refused("missing", circle.parts["a"], circle.step("a", "consent", uploaders="bcdef"))


def test_who_did_not_share_cannot_have_uploaded(tmp_path):
    circle = Circle(tmp_path).go("share", names="abcde").go("upload", names="abcde")
    refused("changed", circle.parts["a"], circle.step("a", "consent", uploaders="abcdef"))


def test_an_update_is_masked_once(tmp_path):
    circle = Circle(tmp_path).go("share", "upload")
    part = circle.parts["a"]
    less = circle.middle.inbox({name: circle.shared[name] for name in "abcde"}, "a").to_bytes()
    refused("replayed", part, circle.step("a", "upload", data=text(less)))
    # The same question again, because the answer was lost: the same bytes.
    again = part.answer(circle.step("a", "upload"))
    assert np.frombuffer(again.words, "<u4").tolist() == circle.words["a"].tolist()
    part.forget_words()
    assert part.answer(circle.step("a", "upload")) == Masked(b"", "", 0)


def test_steps_out_of_turn_and_rubbish_are_refused(tmp_path):
    circle = Circle(tmp_path)
    part = circle.parts["a"]
    inbox = text(bytes((1, 3)) + bytes(8))
    refused("order", part, circle.step("a", "upload", data=inbox))
    refused("order", part, circle.step("a", "consent", uploaders=NAMES))
    refused("order", part, circle.step("a", "unmask", uploaders=NAMES))
    for data in (
        "AAA",
        "",
        text(b"\x01\x02\xff\xff\xff\xff"),
        text(pack({"b": b"\x01\x01"})),
        text(os.urandom(5000)),
    ):
        refused("malformed", part, circle.step("a", "share", data=data))
    assert circle.begun == []
    circle.go("share", "upload", "consent", "unmask")
    assert circle.opened().vector.tolist() == VECTOR.tolist()


def test_another_model_is_another_sum(tmp_path):
    """Keys are signed over the model too, so sites that were given different models never share a secret."""
    circle = Circle(tmp_path)
    other = Circle(tmp_path, model="cd" * 32)
    circle.adverts["b"] = other.adverts["b"]
    refused("signature", circle.parts["a"], circle.step("a", "share"))


def test_an_update_beyond_the_range_does_not_leave(tmp_path):
    circle = Circle(tmp_path).go("share")
    part = circle.parts["a"]
    part.update = replace(part.update, vector=VECTOR * 100)
    with pytest.raises(PrivacyError, match="coordinate 0 of a vector is 100") as caught:
        part.answer(circle.step("a", "upload"))
    # The person sees which number; the operator does not.
    assert words_of(caught.value) == "its update does not fit into the sum"
    assert circle.begun == []


def test_an_update_that_noise_must_cover_does_not_leave_without_a_limit(tmp_path):
    circle = Circle(tmp_path, policy=replace(SUMMED, hidden=Hidden(dropout=0.34))).go("share")
    refused("changed", circle.parts["a"], circle.step("a", "upload"))
    assert circle.begun == []


# ------------------------------------------------------------------------------------------------ the keys of others


def test_the_key_of_a_site_stays(tmp_path):
    key = signing_key(tmp_path)
    assert fingerprint(signing_key(tmp_path)) == fingerprint(key)
    assert (tmp_path / "signing.pem").stat().st_mode & 0o777 == 0o600
    (tmp_path / "signing.pem").write_bytes(b"rubbish")
    with pytest.raises(TrustError, match="is no key"):
        signing_key(tmp_path)


def test_pins_are_kept_and_never_quietly_begun_anew(tmp_path):
    circle = Circle(tmp_path)
    adverts = [Advert.from_bytes(data) for data in circle.adverts.values()]
    peers = Peers(tmp_path)
    assert peers.known("b") is None
    assert peers.meet(adverts) == list(NAMES)
    assert peers.meet(adverts) == []
    assert Peers(tmp_path).known("b") == adverts[1].identity
    for text in ("{", '{"b": "zz"}', '{"b": "00"}', "[]"):
        (tmp_path / "peers.json").write_text(text)
        with pytest.raises(TrustError, match=r"does not hold the keys"):
            Peers(tmp_path)


def test_a_group_that_is_refused_pins_nobody(tmp_path):
    circle = Circle(tmp_path)
    advert = Advert.from_bytes(circle.adverts["b"])
    circle.adverts["b"] = replace(advert, mask=bytes(32)).to_bytes()
    refused("signature", circle.parts["a"], circle.step("a", "share"))
    assert not (tmp_path / "a" / "peers.json").exists()


def test_keys_that_people_wrote_down(tmp_path):
    file = tmp_path / "peers.toml"
    file.write_text(f'hospital-b = "{"0f" * 32}"\n')
    assert told(file) == {"hospital-b": bytes.fromhex("0f" * 32)}
    for text in ('b = "0f"', "b = 1", '"../b" = "' + "0f" * 32 + '"', "= 1"):
        file.write_text(text)
        with pytest.raises(ConfigError):
            told(file)
    with pytest.raises(ConfigError, match="cannot be read"):
        told(tmp_path / "none.toml")


# ------------------------------------------------------------------------------------------------ what may leave

NOISY = Policy(noise="local", mechanism=Laplace(0.5), allowance=Allowance(1.0, composition="pure"), rounds=5)
SUMMED = Policy(
    noise="distributed",
    mechanism=DiscreteGaussian(2.0),
    hidden=Hidden(),
    allowance=Allowance(8.0, 1e-5),
)


def guard(folder, policy, name="trial", wishes=Wishes()):  # noqa: B008 -- it is frozen
    return Guard(policy, name, "a", folder, wishes, lambda: 1.7e9)


def test_a_masked_update_leaves_once_a_round_whatever_happens(tmp_path):
    one = guard(tmp_path, HIDDEN)
    assert one.refusal(5) is None
    one.begin(5)
    for number in (5, 4):
        with pytest.raises(SecAggError) as caught:
            one.begin(number)
        assert caught.value.code == "replayed"
    one.close()
    # Also after it was started again, before it trains.
    again = guard(tmp_path, HIDDEN)
    assert words_of(again.refusal(5)).startswith("replayed: ")
    assert again.refusal(6) is None
    # Another federation has rounds of its own.
    assert guard(tmp_path, HIDDEN, "other").refusal(1) is None
    again.close()


def test_a_site_stops_when_its_budget_is_spent(tmp_path):
    one = guard(tmp_path, NOISY)
    for number in (1, 2):
        assert one.refusal(number) is None
        one.begin(number)
        one.left(number)
    # The operator hears that it is spent, and the person at the site how much.
    assert words_of(one.refusal(3)) == "the privacy budget of this site is spent"
    assert "epsilon 1 of 1" in str(one.refusal(3))
    with pytest.raises(PrivacyError, match="the privacy budget of this site is spent"):
        one.begin(3)
    one.close()


def test_what_was_begun_counts_after_a_kill(tmp_path):
    guard(tmp_path, NOISY).begin(1)
    one = guard(tmp_path, NOISY)
    assert words_of(one.refusal(1)).startswith("replayed: ")
    with pytest.raises(SecAggError) as caught:
        one.begin(1)
    assert caught.value.code == "replayed"
    one.begin(2)
    with pytest.raises(PrivacyError, match="spent"):
        one.begin(3)
    one.close()


def test_an_owner_that_allows_more_is_held_to_what_a_federation_promises(tmp_path):
    one = guard(tmp_path, NOISY, "trial", Wishes(50.0))
    rounds = NOISY.affordable
    for number in range(1, rounds + 1):
        assert one.refusal(number) is None
        one.begin(number)
        one.left(number)
    assert "spent" in words_of(one.refusal(rounds + 1))
    with pytest.raises(PrivacyError, match="spent"):
        one.begin(rounds + 1)
    # Another federation may still have its own part.
    assert guard(tmp_path, NOISY, "second", Wishes(50.0)).refusal(1) is None


def test_an_owners_own_budget_holds_over_all_federations(tmp_path):
    wishes = Wishes(1.0, dataset="patients")
    one = guard(tmp_path, NOISY, "first", wishes)
    one.begin(1)
    two = guard(tmp_path, replace(NOISY, allowance=Allowance(50.0, composition="pure")), "second", wishes)
    two.begin(1)
    for each in (one, two):
        assert "spent" in words_of(each.refusal(2))
        with pytest.raises(PrivacyError):
            each.begin(2)
        each.close()
    with pytest.raises(ConfigError, match="is asked for"):
        guard(tmp_path, NOISY, "first", Wishes(2.0, dataset="patients"))
    # The budget stays when nobody repeats it.
    assert "spent" in words_of(guard(tmp_path, NOISY, "third", Wishes(dataset="patients")).refusal(1))


def test_an_owner_with_a_budget_takes_no_part_where_no_epsilon_is_promised(tmp_path):
    for policy in (None, HIDDEN):
        with pytest.raises(ConfigError, match="promises no epsilon"):
            guard(tmp_path, policy, "trial", Wishes(1.0))


def test_a_schedule_is_reserved_once_on_a_node_too(tmp_path):
    policy = replace(SUMMED, allowance=Allowance(8.0, 1e-5, "pld"), rounds=3)
    one = guard(tmp_path, policy)
    for number in (1, 2, 3):
        assert one.refusal(number) is None
        one.begin(number)
        one.left(number)
    (charge,) = one._ledger.charges()
    assert charge.epsilon == pytest.approx(policy.spent(3))
    assert charge.delta == 1e-5
    assert "beyond the 3 that were paid for" in str(one.refusal(4))
    with pytest.raises(PrivacyError, match="beyond the 3"):
        one.begin(4)
    one.close()
    # Set up anew under the same name, the federation finds the schedule used.
    again = guard(tmp_path, policy)
    assert words_of(again.refusal(1)).startswith("replayed: ")
    again.close()


def test_what_is_sent_in_the_clear_is_bounded_and_says_nothing_else(tmp_path):
    update = Update("a", np.full(100, 3, np.float32), Report(7, loss_after=0.25, label_counts=(3, 4)))
    one = guard(tmp_path, NOISY)
    sent = one.sent(update, 1.0)
    assert sent.report == Report(7)
    # 100 coordinates with Laplace noise of scale 2: nothing of the vector can be told from one coordinate.
    assert np.abs(sent.vector).mean() == pytest.approx(2.0, rel=0.5)
    assert one.sent(update, 1.0).vector.tobytes() != sent.vector.tobytes()
    with pytest.raises(PrivacyError, match="names no limit"):
        one.sent(update, None)
    central = Policy(noise="central", mechanism=DiscreteGaussian(2.0))
    bounded = guard(home(tmp_path, "central"), central).sent(update, 1.0).vector
    assert float(np.linalg.norm(bounded)) == pytest.approx(1.0, rel=1e-6)
    one.close()


def test_how_many_rows_there_are_is_nobodys_business(tmp_path):
    assert guard(tmp_path, HIDDEN).examples(5000) == 1
    assert guard(tmp_path, HIDDEN).examples(0) == 0
    assert guard(home(tmp_path, "x"), NOISY).examples(5000) == 5000


def test_the_question_is_what_counts_and_not_the_clock(tmp_path):
    circle = Circle(tmp_path)
    part = circle.parts["a"]
    first = part.answer(circle.step("a", "share", seconds=9.0))
    step = circle.step("a", "share", seconds=3.0)
    assert part.answered(step)
    assert part.answer(step) == first


@pytest.mark.parametrize(
    "change", [{"learning_rate": 1e-30}, {"steps": 1}, {"seed": 1}, {"proximal": 9.0}, {"limit": 0.5}]
)
def test_nobody_is_summed_with_those_who_were_told_something_else(tmp_path, change):
    """Whoever is told to learn nothing sends nothing, and the sum of all would be the update of the one who learns."""
    circle = Circle(tmp_path)
    home = tmp_path / "a"
    circle.parts["a"] = Sealing(
        policy=HIDDEN,
        task=task(1).model_copy(update=change),
        update=Update("a", VECTOR, Report(10)),
        memory={},
        key=signing_key(home),
        peers=Peers(home, None),
        fewest=3,
        begin=circle.begun.append,
        entropy=os.urandom,
    )
    circle.adverts["a"] = data_of(circle.parts["a"].advertise())
    for name in NAMES:
        refused("signature", circle.parts[name], circle.step(name, "share"))
    assert not circle.begun


def test_the_clock_and_the_codec_are_no_part_of_what_is_agreed():
    assert task(seconds=9.0, codec="int8").agreed == task().agreed != task(2).agreed


def test_an_owners_budget_that_cannot_count_the_noise_is_said_when_the_site_joins(tmp_path):
    with pytest.raises(ConfigError, match="has none without a delta") as refused:
        guard(tmp_path, SUMMED, "trial", Wishes(8.0))
    assert "--delta" in refused.value.remedy
