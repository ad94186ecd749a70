import asyncio
from dataclasses import replace

import numpy as np
import pytest
from office import FILE, Node, office
from untouched import remembered, rows

from haina.artifact import dump
from haina.coordinator.contract import Caller
from haina.coordinator.host import pace_of
from haina.coordinator.hosted import Hosted
from haina.coordinator.serve import _station
from haina.coordinator.store import ContributionRow, FederationRow, ModelRow
from haina.federation.bench import Bench
from haina.federation.envelope import Envelope
from haina.federation.federation import Federation
from haina.report import Report
from haina.wire.identity import Credentials, caller_of, load_certificate, new_key, request, sign
from haina.wire.messages import Ask, Enrol, Failed, Fate, Hello, Invite, Renew, Role, SettingsChange
from haina.wire.refusal import Refusal

DAY = 86_400.0


def run(work):
    asyncio.run(asyncio.wait_for(work, 30))


async def refused(work, code):
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.code == code, caught.value
    return caught.value


def add(o, name, d=2):
    """One more federation in the same coordinator."""
    words = FILE.format(d=d, rounds=3, train="", strategy='preset = "fedavg"', serve="nodes = 1")
    federation = Federation.of(words.replace('"trial"', f'"{name}"'))
    first, ground = dump({"w": np.zeros(d, np.float32)}), o.core.ground
    model = ModelRow(name, 0, ground.blobs.put_bytes(first), len(first), None, 0, None, o.clock())
    o.store.put_federation(FederationRow(name, federation.text, "", created=o.clock()), model)
    hosted = Hosted(federation, Envelope.of(first), pace_of(federation.serve, federation), Bench(federation))
    station = _station(hosted, ground, o.core)
    o.core.add(station)
    station.start()
    return station


async def member(o, name, federation):
    invitation = await o.core.invite(o.operator, Invite(name=name, federation=federation))
    key = new_key()
    enrolled = await o.core.enrol(Enrol(token=invitation.token, csr=request(key, name)), "127.0.0.1")
    node = Node(o, name, key, enrolled.certificate)
    await o.core.hello(await node.caller(), Hello(examples=10, codecs=("float32",)))
    return node


# ------------------------------------------------------------------------------------------------ first contact


def test_an_answer_that_was_lost_is_given_again_for_the_same_key_only(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="a"))
            key = new_key()
            first = await o.core.enrol(Enrol(token=invitation.token, csr=request(key, "a")), "peer")
            again = await o.core.enrol(Enrol(token=invitation.token, csr=request(key, "a")), "peer")
            assert Credentials.enrolled(key, again).name == "a"
            node = Node(o, "a", key, again.certificate)
            assert (await node.caller()).name == "a"
            before = rows(o.store)
            stolen = Enrol(token=invitation.token, csr=request(new_key(), "a"))
            error = await refused(o.core.enrol(stolen, "peer"), "forbidden")
            assert "used" in error.what
            assert rows(o.store) == before
            # The certificate of the answer that was lost has been replaced by the second one.
            await refused(Node(o, "a", key, first.certificate).caller(), "unauthenticated")
            assert (await node.caller()).name == "a"

    run(work())


@pytest.mark.parametrize("how", ["unknown", "expired", "revoked"])
def test_a_token_that_is_no_good_leaves_nothing_behind(tmp_path, how):
    async def work():
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="a", hours=1))
            token = invitation.token
            if how == "unknown":
                token = "x" * len(token)
            elif how == "expired":
                o.clock.now += 3601
            else:
                await refused(o.core.revoke(o.operator, "a", "changed my mind"), "not_found")
            before = remembered(o.core.ground)
            error = await refused(
                o.core.enrol(Enrol(token=token, csr=request(new_key(), "a")), "p"), "forbidden"
            )
            assert token not in str(error)
            assert remembered(o.core.ground) == before
            assert o.store.node("a") is None

    run(work())


def test_name_and_role_are_those_of_the_invitation_whatever_the_request_says(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="a", role=Role.VIEWER))
            answer = await o.core.enrol(
                Enrol(token=invitation.token, csr=request(new_key(), "operator")), "p"
            )
            assert caller_of(answer.certificate)[:2] == ("a", Role.VIEWER)
            assert (answer.name, answer.role) == ("a", Role.VIEWER)
            assert o.store.node("a").role == "viewer"

    run(work())


def test_two_at_once_with_one_token_and_two_keys_make_one_node(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="a"))
            keys = [new_key() for _ in range(6)]
            asked = [o.core.enrol(Enrol(token=invitation.token, csr=request(key, "a")), "p") for key in keys]
            answers = await asyncio.gather(*asked, return_exceptions=True)
            won = [answer for answer in answers if not isinstance(answer, Refusal)]
            assert len(won) == 1
            assert o.store.node("a").serial == caller_of(won[0].certificate).serial

    run(work())


# ------------------------------------------------------------------------------------------------ certificates


def test_a_renewal_leaves_the_previous_certificate_good_until_the_next(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            first = await o.node("a")

            async def renewed(node):
                key = new_key()
                answer = await o.core.renew(await node.caller(), Renew(csr=request(key, "operator")))
                assert (answer.name, answer.role) == ("a", Role.NODE)
                return Node(o, "a", key, answer.certificate)

            lost = await renewed(first)
            # The answer never came: the node asks again, with what it has.
            second = await renewed(first)
            assert (await first.caller()).serial == first.serial
            assert (await second.caller()).serial == second.serial
            await refused(lost.caller(), "unauthenticated")
            third = await renewed(second)
            assert (await second.caller()).name == (await third.caller()).name == "a"
            await refused(first.caller(), "unauthenticated")

    run(work())


def test_a_certificate_that_has_expired_is_not_good_on_a_connection_that_is_still_open(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a = await o.node("a")
            expires = load_certificate(a.der).not_valid_after_utc.timestamp()
            o.clock.now = expires - 1
            assert (await a.caller()).name == "a"
            o.clock.now = expires + 1
            error = await refused(a.caller(), "unauthenticated")
            assert "expired" in error.what

    run(work())


def test_who_is_not_in_the_memory_is_unknown_whatever_the_certificate_says(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a = await o.node("a")
            await refused(o.core.admit(None), "unauthenticated")
            authority, key = o.core.ground.authority, new_key()
            for name, role in (("a", Role.NODE), ("a", Role.OPERATOR), ("nobody", Role.OPERATOR)):
                # The authority signed it, and nobody wrote it down (an old copy of the state, say).
                forged = Node(o, name, key, authority.issue(request(key, name), name, role, o.clock()))
                error = await refused(forged.caller(), "unauthenticated")
                assert str(a.serial) not in str(error)
            assert (await a.caller()).role is Role.NODE

    run(work())


# ------------------------------------------------------------------------------------------------ revocation


def test_who_is_revoked_while_it_waits_is_told_at_once_and_gets_no_task(tmp_path):
    async def work():
        async with office(tmp_path, serve='nodes = 2\ndeadline = "60s"') as o:
            a = await o.node("a")
            waiting = asyncio.create_task(a.ask(wait=20, settings_version=0))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await o.core.revoke(o.operator, "a", "lost laptop")
            done, _ = await asyncio.wait({waiting}, timeout=2)
            assert done, "the long-poll went on"
            await refused(waiting, "forbidden")
            await refused(a.ask(), "forbidden")
            # And the others go on without it.
            b, c = await o.nodes("b", "c")
            assert (await b.ask()).task.round == (await c.ask()).task.round == 1
            assert set(o.station.view.invited) == {"b", "c"}

    run(work())


def test_an_update_that_is_under_way_when_its_node_is_revoked_does_not_count(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, _ = await o.nodes("a", "b")
            manifest, body = a.parcel((await a.ask()).task, [1, 2, 3])
            landing = await o.core.begin(await a.caller(), manifest, 0)
            await landing.write(body)
            await o.core.revoke(o.operator, "a", "lost laptop")
            await refused(landing.commit(), "forbidden")
            await landing.close()
            assert o.store.contribution("trial", 1, "a") is None

    run(work())


def test_a_revoked_name_comes_back_by_a_new_invitation_only(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            old = await o.node("a")
            await refused(o.core.invite(o.operator, Invite(name="a")), "conflict")
            pending = await o.core.invite(o.operator, Invite(name="a", replace=True))
            await o.core.revoke(o.operator, "a", "")
            await refused(
                o.core.enrol(Enrol(token=pending.token, csr=request(old.key, "a")), "p"), "forbidden"
            )
            await refused(old.caller(), "forbidden")
            new = await o.node("a")
            assert (await new.caller()).name == "a"
            await refused(old.caller(), "unauthenticated")

    run(work())


def test_who_follows_the_log_and_is_revoked_hears_no_more(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="eve", role=Role.VIEWER))
            key = new_key()
            answer = await o.core.enrol(Enrol(token=invitation.token, csr=request(key, "eve")), "p")
            caller = await Node(o, "eve", key, answer.certificate).caller()
            heard = []

            async def listen():
                async for entry in o.core.follow(caller, None):
                    heard.append(entry.action)

            listening = asyncio.create_task(listen())
            await asyncio.sleep(0.05)
            await o.core.revoke(o.operator, "eve", "")
            await asyncio.wait({listening}, timeout=6)
            await refused(listening, "forbidden")
            heard.clear()
            await o.core.command(o.operator, "trial", "pause", "")
            assert not heard

    run(work())


# ------------------------------------------------------------------------------------------------ uploads


FORGED = {
    "another's name": (lambda m, o: m.model_copy(update={"node": "b"}), "forbidden"),
    "no signature": (lambda m, o: m.model_copy(update={"signature": ""}), "forbidden"),
    "another's signature": (lambda m, o: sign(new_key(), m), "forbidden"),
    "no base64": (lambda m, o: m.model_copy(update={"signature": "\x00é=="}), "forbidden"),
    "another report": (
        lambda m, o: m.model_copy(update={"report": Report(examples=9999).to_json()}),
        "forbidden",
    ),
    "another hash": (lambda m, o: m.model_copy(update={"sha256": "0" * 64}), "forbidden"),
    "another round": (lambda m, o: m.model_copy(update={"round": 2}), "forbidden"),
    "another federation": (lambda m, o: m.model_copy(update={"federation": "other"}), "forbidden"),
    "another codec": (lambda m, o: m.model_copy(update={"codec": "raw"}), "forbidden"),
}


def test_a_manifest_that_was_changed_is_refused_and_leaves_nothing_behind(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, _ = await o.nodes("a", "b")
            add(o, "other")
            manifest, body = a.parcel((await a.ask()).task, [1, 2, 3])
            await o.core.end_news()
            before = remembered(o.core.ground)
            for forge, code in FORGED.values():
                await refused(a.deliver(forge(manifest, o), body), code)
            await refused(o.core.begin(Caller("b", Role.NODE, 1, b""), manifest, 0), "forbidden")
            assert remembered(o.core.ground) == before
            assert (await a.deliver(manifest, body)).fate is Fate.ACCEPTED

    run(work())


def test_an_old_manifest_does_not_count_again(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            old, body = a.parcel((await a.ask()).task, [1, 2, 3])
            assert (await a.deliver(old, body)).fate is Fate.ACCEPTED
            assert (await a.deliver(old, body)).fate is Fate.DUPLICATE
            await b.send((await b.ask()).task, [1, 2, 3])
            await o.closed(1)
            await o.open(2)
            model = o.store.model("trial").sha256
            assert (await a.deliver(old, body)).fate is Fate.DUPLICATE
            other, body2 = a.parcel(
                (await a.ask()).task.model_copy(update={"round": 1, "version": 0}), [9, 9, 9]
            )
            assert (await a.deliver(other, body2)).fate is Fate.REFUSED
            assert o.store.contributions("trial", 2) == []
            assert o.store.model("trial").sha256 == model

    run(work())


@pytest.mark.parametrize("begun", [False, True])
def test_a_copy_is_a_duplicate_even_where_the_first_was_not_heard_of_and_the_round_is_closing(
    tmp_path, begun
):
    async def work():
        async with office(tmp_path) as o:
            a, _ = await o.nodes("a", "b")
            manifest, body = a.parcel((await a.ask()).task, [1, 2, 3])
            landing = None
            if begun:
                landing = await o.core.begin(await a.caller(), manifest, 0)
                await landing.write(body)
            else:
                assert (await a.deliver(manifest, body)).fate is Fate.ACCEPTED
            # What another replica knows whose news are late: not that it was counted, only that the round is closing.
            view = o.station.view
            view.answered.clear()
            if landing is not None:
                there = ContributionRow(
                    "trial", 1, "a", 1, 0, "accepted", o.clock.now, "other", manifest.sha256
                )
                assert o.store.record([there]) == ["new"]
            view.row = replace(view.row, state="closing")
            again = await landing.commit() if landing else await a.deliver(manifest, body)
            assert again.fate is Fate.DUPLICATE

    run(work())


def test_reports_with_absurd_numbers_are_refused_before_the_first_byte(tmp_path):
    absurd = [
        {},
        {"examples": 0},
        {"examples": -1},
        {"examples": 1e300},
        {"examples": 10**400},
        {"examples": True},
        {"examples": "10"},
        {"examples": 10, "steps": 0.5},
        {"examples": 10, "steps": 1, "normalizer": 1e9},
        {"examples": 10, "accuracy": 2},
        {"examples": 10, "loss_after": -1e300},
        {"examples": 10, "label_counts": [1, -1]},
        {"examples": 10, "label_counts": {"a": 1}},
        {"examples": 10, "extra": {"a": "b"}},
        {"examples": 10, "extra": {"x" * 300: 1}},
        {"examples": 10, "extra": [[[]]]},
    ]

    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            task = (await a.ask()).task
            await o.core.end_news()
            before = remembered(o.core.ground)
            for report in absurd:
                manifest, _ = a.parcel(task, [1, 2, 3], report=report)
                await refused(o.core.begin(await a.caller(), manifest, 0), "invalid")
            assert remembered(o.core.ground) == before
            assert (await b.send(task, [1, 2, 3])).fate is Fate.ACCEPTED

    run(work())


@pytest.mark.parametrize(
    "vector", [[np.nan, 0, 0], [0, np.inf, 0], [3e38, 3e38, 3e38 * 1.5], [-np.inf, np.inf, np.nan]]
)
def test_a_vector_that_is_not_finite_is_an_answer_that_counts_for_nothing(tmp_path, vector):
    async def work():
        async with office(tmp_path, serve='nodes = 2\nquorum = 1\ndeadline = "60s"') as o:
            a, b = await o.nodes("a", "b")
            with np.errstate(over="ignore"):
                ack = await a.send((await a.ask()).task, vector)
            assert ack.fate is Fate.REFUSED
            assert "tmp" not in ack.reason
            assert (await b.send((await b.ask()).task, [1, 2, 3])).fate is Fate.ACCEPTED
            row = await o.closed(1)
            assert row.state == "closed"
            assert o.model() == pytest.approx([1, 2, 3])

    run(work())


def _topk(places, numbers):
    return np.asarray(places, "<u4").tobytes() + np.asarray(numbers, "<f4").tobytes()


def _int8(scale, length=3):
    return np.asarray([scale], "<f4").tobytes() + bytes([127] * length)


BOMBS = {
    "place beyond": ("topk", _topk([3], [1])),
    "place far beyond": ("topk", _topk([2**32 - 1], [1])),
    "nan": ("topk", _topk([0], [np.nan])),
    "scale inf": ("int8", _int8(np.inf)),
    "scale nan": ("int8", _int8(np.nan)),
    "scale huge": ("int8", _int8(3e38)),
    "scale negative": ("int8", _int8(-1)),
    "bf16 inf": ("bf16", b"\x80\x7f" * 3),
    "bf16 nan": ("bf16", b"\xff\xff" * 3),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_body_that_is_not_what_its_codec_says_counts_for_nothing(tmp_path, bomb):
    import hashlib

    codec, body = BOMBS[bomb]

    async def work():
        serve = 'nodes = 2\nquorum = 1\ndeadline = "60s"\ncodecs = ["float32", "bf16", "int8", "topk"]'
        async with office(tmp_path, serve=serve) as o:
            a, b = await o.nodes("a", "b")
            task = (await a.ask()).task
            manifest, _ = a.parcel(
                task, [1, 2, 3], codec=codec, sha256=hashlib.sha256(body).hexdigest(), bytes=len(body)
            )
            ack = await a.deliver(manifest, body)
            assert (ack.fate, o.store.contribution("trial", 1, "a").status) == (Fate.REFUSED, "refused")
            assert await asyncio.to_thread(lambda: list(o.core.ground.spool._folder.iterdir())) == []
            await b.send((await b.ask()).task, [1, 2, 3])
            await o.closed(1)
            assert o.model() == pytest.approx([1, 2, 3])

    run(work())


def test_a_collected_payload_has_no_length(tmp_path):
    """A document announced as numbers would be handed to the merge as numbers."""
    from haina.coordinator.uploads import check_manifest

    async def work():
        async with office(tmp_path) as o:
            a = await o.node("a")
            federation = Federation.of(
                'name = "trial"\n[model]\nlearner = "forest"\n[data]\nshape = [2]\nclasses = ["a", "b"]\n[serve]\nnodes = 2\n'
            )
            hosted = Hosted(federation, None, pace_of(federation.serve, federation), None)
            caller = await a.caller()
            task = type("T", (), {"round": 1, "version": 0, "codec": "raw"})
            good, _ = a.parcel(task, np.zeros(5), codec="raw", length=0)
            check_manifest(hosted, caller, good, 1 << 20)
            bad, _ = a.parcel(task, np.zeros(5), codec="raw", length=5)
            with pytest.raises(Refusal) as caught:
                check_manifest(hosted, caller, bad, 1 << 20)
            assert caught.value.code == "invalid"

    run(work())


# ------------------------------------------------------------------------------------------------ settings


def test_settings_are_pushed_to_who_waits_and_their_acknowledgement_is_seen(tmp_path):
    async def work():
        async with office(tmp_path, serve="nodes = 3") as o:
            a, b = await o.nodes("a", "b")
            waiting = [
                asyncio.create_task(node.ask(wait=20, settings_version=version, idle=idle))
                for node, version, idle in ((a, 0, True), (b, 0, False))
            ]
            await asyncio.sleep(0.05)
            assert not any(task.done() for task in waiting)
            entry = await o.core.configure(o.operator, SettingsChange(values={"report_interval": "7s"}))
            events = await asyncio.wait_for(asyncio.gather(*waiting), 2)
            for event in events:
                assert (event.settings.version, event.settings.values["report_interval"]) == (
                    entry.version,
                    7.0,
                )
            # The next question tells that it is applied; who knows the newest version waits on.
            assert (await a.ask(wait=0.05, settings_version=entry.version)).settings is None
            await o.core._flush_seen()
            seen = {node.name: node.settings_version for node in await o.core.nodes(o.operator)}
            assert (seen["a"], seen["b"]) == (entry.version, 0)

    run(work())


def test_each_scope_reaches_its_own_and_who_is_paused_gets_no_task(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            change = SettingsChange(scope="node:a", values={"paused": True})
            version = (await o.core.configure(o.operator, change)).version
            held = await a.ask(wait=0.2, settings_version=version)
            assert held.task is None
            given = await b.ask(settings_version=version)
            assert given.task is not None
            back = SettingsChange(scope="node:a", values={"paused": None})
            await o.core.configure(o.operator, back)
            event = await a.ask()
            assert event.settings.values["paused"] is False
            assert event.task is not None

    run(work())


# ------------------------------------------------------------------------------------------------ several federations


def test_federations_of_one_coordinator_do_not_touch_each_other(tmp_path):
    async def work():
        async with office(tmp_path, serve="nodes = 1") as o:
            station = add(o, "other")
            a, z = await member(o, "a", "trial"), await member(o, "z", "other")
            ours = (await a.ask()).task
            theirs = (await o.core.ask(await z.caller(), Ask(federation="other", wait=2))).task
            assert (ours.federation, theirs.federation) == ("trial", "other")
            before = remembered(o.core.ground, "audit")
            caller = await a.caller()
            manifest, _ = a.parcel(ours, [1, 2], federation="other")
            for call in (
                lambda: o.core.ask(caller, Ask(federation="other", wait=0)),
                lambda: o.core.blob(caller, "other", theirs.model),
                lambda: o.core.received(caller, "other", 1),
                lambda: o.core.begin(caller, manifest, 0),
                lambda: o.core.fail(caller, Failed(federation="other", round=1, reason="x")),
                # One that there is not is answered alike.
                lambda: o.core.blob(caller, "nowhere", theirs.model),
            ):
                error = await refused(call(), "forbidden")
                assert "other" not in str(error)
            # Asking for another federation does not move a node into it.
            welcome = await o.core.hello(caller, Hello(federation="other", codecs=("float32",), examples=10))
            assert welcome.federation == "trial"
            # Bytes of the other federation are not given out under one's own name either.
            await refused(o.core.blob(caller, "trial", theirs.model), "not_found")
            assert remembered(o.core.ground, "audit") == before
            await a.send(ours, [1, 2, 3])
            await o.closed(1)
            assert (station.view.federation.closed, o.store.federation("other").closed) == (0, 0)

    run(work())


def test_what_a_node_says_again_and_again_fills_no_log(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, _ = await o.nodes("a", "b")
            task = (await a.ask()).task
            failed = Failed(federation="trial", round=task.round, reason="out of memory")
            fates = [(await o.core.fail(await a.caller(), failed)).fate for _ in range(5)]
            assert fates == [Fate.ACCEPTED, *[Fate.DUPLICATE] * 4]
            for number in range(20):
                task = task.model_copy(update={"round": 0, "seed": number})
                assert (await a.send(task, [number, 2, 3])).fate is Fate.REFUSED
            await o.core.end_news()
            actions = [entry.action for entry in await o.core.audit(o.operator, 1000)]
            assert (actions.count("node.failed"), actions.count("update.late")) == (1, 1)

    run(work())
