import shutil

import numpy as np
import pytest

from haina.node.outbox import Outbox
from haina.wire.messages import Manifest

BODY = np.arange(8, dtype=np.float32)


def manifest(round=3, body=BODY):
    return Manifest(
        node="a",
        federation="f",
        round=round,
        version=2,
        sha256="0" * 64,
        bytes=body.nbytes,
        length=8,
        report={"examples": 1},
    )


def test_a_parcel_is_there_until_it_is_delivered(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    assert outbox.waiting() == []
    assert outbox.memory() == {}
    outbox.put(manifest(), [BODY[:3], BODY[3:]], {"c": np.ones(2)})
    assert outbox.memory() == {}
    (parcel,) = outbox.waiting()
    assert parcel.body.read_bytes() == BODY.tobytes()
    assert parcel.manifest == manifest()
    outbox.delivered(parcel)
    assert outbox.waiting() == []
    assert outbox.memory()["c"].tolist() == [1.0, 1.0]


def test_what_was_refused_is_not_remembered(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    outbox.refused(outbox.put(manifest(), [BODY], {"c": np.ones(2)}))
    assert outbox.waiting() == []
    assert outbox.memory() == {}


def test_killed_between_the_memory_and_the_end_of_the_parcel(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    parcel = outbox.put(manifest(), [BODY], {"c": np.ones(2)})
    saved = tmp_path / "saved"
    shutil.copytree(parcel.folder, saved)
    outbox.delivered(parcel)
    shutil.copytree(saved, parcel.folder)
    (parcel.folder / "memory.safetensors").unlink()
    (again,) = outbox.waiting()
    outbox.delivered(again)
    assert outbox.memory()["c"].tolist() == [1.0, 1.0]
    assert outbox.waiting() == []


@pytest.mark.parametrize("lost", ["manifest.json", "body"])
def test_a_parcel_that_is_not_whole_is_not_sent(tmp_path, lost):
    outbox = Outbox(tmp_path / "outbox")
    parcel = outbox.put(manifest(), [BODY], {})
    (parcel.folder / lost).unlink()
    assert outbox.waiting() == []
    assert not parcel.folder.exists()


def test_the_newest_body_replaces_an_older_one_of_its_round(tmp_path):
    outbox = Outbox(tmp_path / "outbox")
    outbox.put(manifest(), [BODY], {})
    outbox.put(manifest(), [BODY[::-1].copy()], {})
    outbox.put(manifest(round=12), [BODY], {})
    assert [parcel.manifest.round for parcel in outbox.waiting()] == [3, 12]
    assert outbox.waiting()[0].body.read_bytes() == BODY[::-1].tobytes()
