"""Sites of a secure sum in front of a core: the node's own code for its part, and the test in the place of its session."""

import hashlib
import os

import numpy as np
from office import office

from haina.federation.sealed import fewest
from haina.node.guard import SILENT
from haina.node.peers import Peers, fingerprint, signing_key
from haina.node.sealing import Masked, Sealing
from haina.report import Report
from haina.update import Update
from haina.wire.identity import sign
from haina.wire.messages import Ack, Fate, Manifest

#: Stages that a test does not wait for.
SECURE = '[privacy]\nsecure_aggregation = {{ dropout = {dropout}, patience = "30s"{more} }}\n'


def secure(dropout=0.34, more="", also=""):
    more = f", {more}" if more.strip() else ""
    return SECURE.format(dropout=dropout, more=more) + also


class Site:
    """One site: an office's node, its key, its pins and its part in the round."""

    def __init__(self, o, node, folder, listed=None):
        self.office, self.node, self.name = o, node, node.name
        self.folder = folder / f"site-{node.name}"
        self.folder.mkdir(exist_ok=True)
        self.key, self.peers = signing_key(self.folder), Peers(self.folder, listed)
        self.part, self.begun = None, []

    async def hello(self, **more):
        return await self.node.hello(1, **{"identity": fingerprint(self.key), **more})

    async def train(self, vector, examples=10, task=None):
        """Take the task, train `vector`, advertise."""
        task = task or (await self.node.ask()).task
        federation = self.office.station.hosted.federation
        self.part = Sealing(
            policy=federation.privacy,
            task=task,
            update=Update(self.name, np.asarray(vector, np.float32), Report(examples)),
            memory={},
            key=self.key,
            peers=self.peers,
            fewest=fewest(federation),
            begin=self.begun.append,
            entropy=os.urandom,
        )
        return await self.say(self.part.advertise())

    async def say(self, sealed):
        return await self.office.core.seal(await self.node.caller(), sealed)

    async def asked(self, wait=3.0):
        return (await self.node.ask(wait=wait)).sealed

    async def step(self, stage=None, wait=3.0):
        """Answer the next step; its acknowledgement."""
        step = await self.asked(wait)
        assert step is not None, f"{self.name} is asked nothing"
        assert stage in (None, step.stage), (self.name, step.stage)
        answer = self.part.answer(step)
        if isinstance(answer, Masked):
            return await self.upload(answer)
        return await self.say(answer)

    def manifest(self, masked, **changes):
        task = self.part.task
        manifest = Manifest(
            node=self.name,
            federation="trial",
            round=task.round,
            version=task.version,
            sha256=hashlib.sha256(masked.words).hexdigest(),
            bytes=len(masked.words),
            codec=masked.codec,
            length=masked.length,
            report=SILENT.to_json(),
        )
        return sign(self.node.key, manifest.model_copy(update=changes))

    async def upload(self, masked, **changes):
        ack = await self.node.deliver(self.manifest(masked, **changes), masked.words)
        assert isinstance(ack, Ack)
        return ack


async def sites(o, folder, *names, **more):
    """Sites that have said hello."""
    nodes = [Site(o, node, folder, **more) for node in await o.nodes(*names, examples=1)]
    for site in nodes:
        await site.hello()
    return nodes


async def advance(some, *stages):
    """All of these answer these stages, one stage after the other."""
    for stage in stages:
        for site in some:
            if stage == "unmask" and await site.asked(0.5) is None:
                # The answers of the others were enough, and the round is closing or closed.
                continue
            ack = await site.step(stage)
            late = stage == "unmask" and "is over" in ack.reason
            assert ack.fate is Fate.ACCEPTED or late, (site.name, stage, ack)


__all__ = ["Site", "advance", "office", "secure", "sites"]
