import asyncio
import json

import pytest
from office import Node, office
from untouched import remembered

from haina.coordinator.contract import Caller
from haina.coordinator.doors.desk import KNOWN
from haina.wire.calls import CALLS
from haina.wire.identity import new_key, request
from haina.wire.messages import (
    Ask,
    Enrol,
    Failed,
    Hello,
    Invite,
    Manifest,
    Renew,
    Role,
    Sealed,
    SettingsChange,
)
from haina.wire.refusal import Refusal
from haina.wire.requests import (
    Charges,
    Command,
    Follow,
    InScope,
    Latest,
    Nothing,
    OfFederation,
    Restore,
    Revoke,
    Rollback,
    Rounds,
    Slot,
    Wanted,
)


def run(work):
    asyncio.run(asyncio.wait_for(work, 30))


async def refused(work, code):
    with pytest.raises(Refusal) as caught:
        await work
    assert caught.value.code == code, caught.value
    return caught.value


def manifest_of(federation):
    return Manifest(
        node="a", federation=federation, round=1, version=0, sha256="0" * 64, bytes=12, length=3, report={}
    )


async def first(entries):
    return await anext(entries)


#: A request of each call, about a federation and somebody in it.
REQUESTS = {
    "renew": lambda f, n: Renew(csr=request(new_key(), "x")),
    "hello": lambda f, n: Hello(federation=f),
    "ask": lambda f, n: Ask(federation=f, wait=0),
    "download": lambda f, n: Wanted(federation=f, sha256="0" * 64),
    "upload": lambda f, n: manifest_of(f),
    "received": lambda f, n: Slot(federation=f, round=1),
    "fail": lambda f, n: Failed(federation=f, round=1, reason="x"),
    "seal": lambda f, n: Sealed(federation=f, round=1, stage="advertise"),
    "nodes": lambda f, n: Nothing(),
    "invite": lambda f, n: Invite(name=n, role=Role.NODE, federation=f),
    "revoke": lambda f, n: Revoke(name=n),
    "federations": lambda f, n: Nothing(),
    "command": lambda f, n: Command(federation=f, command="pause"),
    "rounds": lambda f, n: Rounds(federation=f),
    "round": lambda f, n: Slot(federation=f, round=1),
    "models": lambda f, n: OfFederation(federation=f),
    "rollback": lambda f, n: Rollback(federation=f, version=0),
    "settings": lambda f, n: InScope(),
    "configure": lambda f, n: SettingsChange(values={"report_interval": 9}),
    "settings_log": lambda f, n: Latest(),
    "settings_rollback": lambda f, n: Restore(version=0),
    "audit": lambda f, n: Latest(),
    "budgets": lambda f, n: Nothing(),
    "charges": lambda f, n: Charges(),
    "follow": lambda f, n: Follow(federation=f),
}


async def outcome(work):
    try:
        await work
    except Refusal as error:
        return error.code, error.what
    except TimeoutError:
        # It follows the log, and nothing happened.
        pass
    return "granted", ""


def made(core, call, caller, message):
    """The call, as a door makes it."""
    if call.name == "download":
        return core.blob(caller, message.federation, message.sha256)
    if call.name == "upload":
        return core.begin(caller, message, 0)
    if call.name == "follow":
        return asyncio.wait_for(first(core.follow(caller, message.federation)), 0.2)
    return KNOWN[call.name](core, caller, message)


KNOWN_CALLS = [call for call in CALLS if call.who != "anyone"]


def test_every_call_of_the_table_is_tried():
    assert set(REQUESTS) == {call.name for call in KNOWN_CALLS}


@pytest.mark.parametrize("role", Role)
def test_who_may_call_what_is_what_the_table_says(tmp_path, role):
    """Each call by each role: where the table names it, granted or refused for another reason; else forbidden, without effect and without news."""

    async def work():
        async with office(tmp_path) as o:
            a, _ = await o.nodes("a", "secret-b")
            caller = await a.caller() if role is Role.NODE else Caller("pat", role, 7)
            await o.open(1)
            for call in KNOWN_CALLS:
                for federation, name in (("trial", "secret-b"), ("nowhere", "nobody")):
                    message = REQUESTS[call.name](federation, name)
                    if role.value in call.who:
                        if call.name == "renew" and role is not Role.NODE:
                            continue
                        code, what = await outcome(made(o.core, call, caller, message))
                        # An operator may; a node is no member of the other, or its manifest does not fit.
                        assert code in ("granted", "not_found", "forbidden", "invalid", "conflict"), (
                            call.name,
                            what,
                        )
                        assert "is a " not in what, (call.name, what)
                        continue
                    await o.core.end_news()
                    before = remembered(o.core.ground)
                    error = await refused(made(o.core, call, caller, message), "forbidden")
                    assert error.what == f"{caller.name} is a {role.value}", call.name
                    assert error.allowed in ("node", "operator", "operator or viewer"), call.name
                    for inside in ("trial", "secret-b"):
                        assert inside not in str(error), call.name
                    assert remembered(o.core.ground) == before, call.name

    run(work())


def test_every_action_of_an_operator_is_in_the_audit_log_with_its_reason(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            pat = Caller("pat", Role.OPERATOR, 7)
            await o.node("a")
            await o.core.invite(pat, Invite(name="b"))
            await o.core.configure(pat, SettingsChange(values={"threads": 2}, why="w1"))
            await o.core.settings_rollback(pat, 0, "w2")
            await o.core.command(pat, "trial", "pause", "w3")
            await o.core.command(pat, "trial", "start", "w4")
            await o.core.rollback(pat, "trial", 0, "w5")
            await o.core.revoke(pat, "a", "w6")
            # Also what came to nothing: it was tried.
            await refused(o.core.revoke(pat, "nobody", "w7"), "not_found")
            await refused(o.core.configure(pat, SettingsChange(values={"threads": -1}, why="w8")), "invalid")
            await o.core.command(pat, "trial", "stop", "w9")
            entries = [entry for entry in await o.core.audit(pat, 1000) if entry.who == "pat"]
            assert [(entry.action, entry.subject, entry.detail.get("why", "")) for entry in entries] == [
                ("invite", "b", ""),
                ("settings.change", "global", "w1"),
                ("settings.rollback", "0", "w2"),
                ("federation.pause", "trial", "w3"),
                ("federation.start", "trial", "w4"),
                ("models.rollback", "trial", "w5"),
                ("revoke", "a", "w6"),
                ("revoke", "nobody", "w7"),
                ("settings.change", "global", "w8"),
                ("federation.stop", "trial", "w9"),
            ]
            # What only looks, and what is only tried out, is no action.
            await o.core.configure(pat, SettingsChange(values={"threads": 3}, dry_run=True))
            await o.core.nodes(pat)
            assert len([entry for entry in await o.core.audit(pat, 1000) if entry.who == "pat"]) == len(
                entries
            )
            enrolments = [entry for entry in await o.core.audit(pat, 1000) if entry.action == "enrol"]
            assert [(entry.who, entry.detail["role"]) for entry in enrolments] == [("a", "node")]

    run(work())


def test_no_token_is_anywhere_but_in_the_invitation(tmp_path, caplog):
    async def work():
        caplog.set_level("DEBUG")
        async with office(tmp_path) as o:
            invitation = await o.core.invite(o.operator, Invite(name="a"))
            key = new_key()
            await o.core.enrol(Enrol(token=invitation.token, csr=request(key, "a")), "127.0.0.1")
            await refused(
                o.core.enrol(Enrol(token=invitation.token, csr=request(new_key(), "a")), "127.0.0.1"),
                "forbidden",
            )
            entries = await o.core.audit(o.operator, 1000)
            assert invitation.token not in json.dumps([entry.model_dump() for entry in entries])
            assert invitation.token not in repr(invitation)
            token = invitation.token.encode()
        for path in tmp_path.rglob("*"):
            assert not path.is_file() or token not in path.read_bytes(), path
        assert invitation.token not in caplog.text
        assert "PRIVATE" not in caplog.text

    run(work())


def test_a_name_that_has_one_role_is_not_invited_to_another(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            await o.node("a")
            await o.core.end_news()
            before = remembered(o.core.ground)
            await refused(o.core.invite(o.operator, Invite(name="a", role=Role.OPERATOR)), "conflict")
            await refused(o.core.invite(o.operator, Invite(name="c", federation="nowhere")), "not_found")
            assert remembered(o.core.ground) == before

    run(work())


def test_of_two_operators_who_change_settings_at_once_one_is_told(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            changes = [SettingsChange(values={"threads": number}, expect=0) for number in (1, 2)]
            answers = await asyncio.gather(
                *(o.core.configure(o.operator, change) for change in changes), return_exceptions=True
            )
            assert sorted(getattr(answer, "code", "done") for answer in answers) == ["done", "version"]
            assert len(await o.core.settings_log(o.operator, 10)) == 1

    run(work())


def test_a_scope_of_a_group_reaches_its_nodes_only(tmp_path):
    async def work():
        async with office(tmp_path, serve="nodes = 3") as o:
            for name, group in (("a", "north"), ("b", None)):
                invitation = await o.core.invite(o.operator, Invite(name=name, group=group))
                key = new_key()
                answer = await o.core.enrol(Enrol(token=invitation.token, csr=request(key, name)), "p")
                node = Node(o, name, key, answer.certificate)
                change = SettingsChange(scope="group:north", values={"threads": 4})
                await o.core.configure(o.operator, change)
                welcome = await node.hello()
                assert welcome.settings.values["threads"] == (4 if group else 0)

    run(work())


def test_a_federation_that_is_paused_opens_no_round_and_one_that_is_stopped_says_so(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            a, b = await o.nodes("a", "b")
            await o.open(1)
            waiting = asyncio.create_task(a.ask(wait=20, idle=False, settings_version=0))
            assert (await o.core.command(o.operator, "trial", "pause", "")).state == "paused"
            # The round under way may end; no other opens.
            nodes = [a, b]
            for node in nodes:
                await node.send((await node.ask()).task, [1, 1, 1])
            await o.closed(1)
            assert (await a.ask(wait=0.1)).task is None
            assert (await o.core.command(o.operator, "trial", "stop", "enough")).state == "stopped"
            # Who waits learns of the end at once.
            event = await asyncio.wait_for(waiting, 2)
            assert event.finished
            assert event.reason == "enough"
            await refused(o.core.command(o.operator, "nowhere", "stop", ""), "not_found")
            await refused(o.core.command(o.operator, "trial", "explode", ""), "invalid")

    run(work())


def test_health_says_nothing_of_who_takes_part(tmp_path):
    async def work():
        async with office(tmp_path) as o:
            await o.node("hospital-secret")
            health = await o.core.health()
            assert (health["live"], health["ready"]) == (True, True)
            said = json.dumps(health)
            for word in ("hospital", "trial", "operator", str(tmp_path)):
                assert word not in said

    run(work())
