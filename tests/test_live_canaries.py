"""An audit of a federation that runs: a real coordinator with secure aggregation on, and canaries as its sites, over mutual TLS."""

import asyncio
import random
import threading
from pathlib import Path

import numpy as np
import pytest
from command import haina

from haina.coordinator.contract import Caller
from haina.coordinator.serve import serving
from haina.coordinator.static import load
from haina.errors import ConfigError
from haina.node.canary import CanaryBench, Flock
from haina.node.enrolment import Address
from haina.node.join import Line, Member
from haina.node.link.http import enrol
from haina.privacy.mechanisms import Gaussian
from haina.wire.identity import Credentials, new_key, request
from haina.wire.messages import Invite, Role

COUNT = 20
FILE = """
name = "audited"
[model]
learner = "jax"
kind = "mlp"
hidden = [48]
[data]
shape = [100]
classes = ["no", "yes"]
[train]
rounds = 10
[strategy]
weigh = ["uniform"]
[serve]
nodes = 20
quorum = 18
deadline = "60s"
[privacy]
noise = "distributed"
mechanism = {gaussian = 14.0}
clip = 1.0
secure_aggregation = {patience = "20s"}
budget = {epsilon = 2.0, delta = 1e-5}
"""


def live(invitation, source, folder, door):
    """A canary's whole life."""
    key = new_key()
    credentials = Credentials.enrolled(key, enrol(invitation, request(key, invitation.name)))
    folder.mkdir(parents=True)
    line = Line(folder, credentials, Address(invitation.http, invitation.grpc), door)
    return Member(line, source, folder, random.Random(invitation.name), lambda line: None).run()


def played(tmp_path, judged):
    """Run the federation with canaries, and `judged` while its coordinator is still there."""
    file, ended = tmp_path / "audited.toml", []
    file.write_text(FILE)

    async def work():
        static = load({"state": tmp_path / "state", "http": "127.0.0.1:0", "grpc": "127.0.0.1:0"})
        operator = Caller("operator-local", Role.OPERATOR, 0)
        async with serving([file], static) as running:
            threads = []
            for k in range(COUNT):
                invitation = await running.core.invite(operator, Invite(name=f"canary-{k}"))
                words = (
                    invitation,
                    f"canary:{tmp_path / 'flock'}:{k}",
                    tmp_path / f"site-{k}",
                    ("http", "grpc")[k % 2],
                )
                threads.append(
                    threading.Thread(target=lambda words=words: ended.append(live(*words)), daemon=True)
                )
                threads[-1].start()
            async with asyncio.timeout(150):
                while any(thread.is_alive() for thread in threads):
                    await asyncio.sleep(0.05)
            return await asyncio.to_thread(judged)

    result = asyncio.run(work())
    assert len(ended) == COUNT
    return result


@pytest.fixture
def typed(capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def call(*args):
        return haina(capsys, monkeypatch, *args)

    return call


@pytest.mark.slow
@pytest.mark.parametrize("broken", [False, True])
def test_a_running_federation_is_audited_through_its_secure_sums(typed, tmp_path, monkeypatch, broken):
    if broken:
        real = Gaussian.noise
        monkeypatch.setattr(
            Gaussian, "noise", lambda self, *args: np.rint(real(self, *args) / 40).astype(np.int64)
        )
    made = typed("canaries", "new", "flock", "--count", COUNT)
    assert made.code == 0, made.err
    assert oct((tmp_path / "flock").stat().st_mode)[-3:] == "600"

    def judged():
        import json

        from haina.cli.canaries import judge
        from haina.cli.reach import Where

        code = judge(
            Where(tmp_path / "state"),
            Path("flock"),
            Path("audited.toml"),
            Path("found.json"),
            0.95,
            as_json=False,
        )
        return code, json.loads(Path("found.json").read_text())

    code, found = played(tmp_path, judged)
    assert found["rounds"] == 10
    assert 0.3 < found["claimed"] < 1.5
    assert found["canaries"] == COUNT
    if broken:
        assert code == 1
        assert found["verdict"] == "violated", found
        assert found["alarm"]
    else:
        assert code == 0
        assert found["verdict"] == "holds", found
        assert not found["alarm"]


def test_a_flock_is_for_one_audit(tmp_path):
    path = tmp_path / "flock"
    made = Flock.hatch(path, 9, lambda size: bytes(range(size)))
    assert Flock.read(path) == made
    with pytest.raises(ConfigError, match="there already"):
        Flock.hatch(path, 9, lambda size: bytes(size))
    with pytest.raises(ConfigError, match="canary is '9'"):
        CanaryBench(f"canary:{path}:9", None)
    path.write_text("{}")
    with pytest.raises(ConfigError, match="holds no canaries"):
        Flock.read(path)
