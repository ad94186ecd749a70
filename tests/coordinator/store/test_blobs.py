import hashlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
from memory import race
from postgres import Postgres

from haina.coordinator.blobs import GRACE, FolderBlobs, TableBlobs
from haina.coordinator.contract import Refusal
from haina.coordinator.store.tables import blob

MB = 1 << 20
LENGTHS = pytest.mark.parametrize("length", [0, 1, MB - 1, MB, MB + 1, 5 * MB])


def noise(length, seed=0):
    return random.Random(seed).randbytes(length)


def names_in(folder):
    return {path.name for path in folder.iterdir()}


def spooled(folder, data, name="upload"):
    path = folder / name
    path.write_bytes(data)
    return path, hashlib.sha256(data).hexdigest()


@pytest.fixture
def many(memory, tmp_path):
    """Makes blobs, as those of another replica each time it is called."""

    def make(keep=100 * MB):
        store = memory.open()
        if memory.url is None:
            return FolderBlobs(tmp_path / "blobs")
        return TableBlobs(store, tmp_path / f"cache{len(memory.stores)}", keep)

    return make


@LENGTHS
def test_bytes_go_in_and_come_out(many, length):
    blobs, data = many(), noise(length)
    sha256 = blobs.put_bytes(data)
    assert sha256 == hashlib.sha256(data).hexdigest()
    assert blobs.path(sha256).read_bytes() == data
    assert (blobs.has(sha256), blobs.sizes()) == (True, {sha256: length})
    assert blobs.put_bytes(memoryview(data)) == sha256
    blobs.drop(sha256)
    blobs.drop(sha256)
    assert (blobs.has(sha256), blobs.sizes()) == (False, {})
    with pytest.raises(Refusal, match="no bytes with the SHA-256") as caught:
        blobs.path(sha256)
    assert caught.value.code == "not_found"


@LENGTHS
def test_a_finished_file_moves_in_and_other_replicas_have_it(many, tmp_path, length):
    blobs, data = many(), noise(length)
    path, sha256 = spooled(tmp_path, data)
    blobs.put_file(path, sha256)
    assert not path.exists()
    again, _ = spooled(tmp_path, data)
    blobs.put_file(again, sha256)
    assert not again.exists()
    other = many()
    assert other.path(sha256).read_bytes() == data == blobs.path(sha256).read_bytes()
    assert other.sizes() == {sha256: length}


@pytest.mark.parametrize(
    "name", ["", "..", "../upload", "A" * 64, "g" * 64, "a" * 63, "a" * 65, "a" * 64 + "\n", "/etc/passwd"]
)
def test_what_is_no_sha256_names_no_file(many, tmp_path, name):
    blobs = many()
    path, _ = spooled(tmp_path, b"secret")
    before = path.stat()
    for call in (blobs.path, blobs.has, blobs.drop, lambda name: blobs.put_file(path, name)):
        with pytest.raises(Refusal, match="64 lower-case hexadecimal digits"):
            call(name)
    assert path.stat() == before


def test_files_are_for_their_owner_only(many):
    blobs = many()
    path = blobs.path(blobs.put_bytes(b"model"))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_eight_that_put_and_drop_the_same_at_once(many):
    blobs, data = many(), noise(3 * MB)
    sha256 = blobs.put_bytes(data)

    def work(n):
        for _ in range(5):
            assert blobs.put_bytes(data) == sha256
            if n == 0:
                blobs.drop(sha256)

    race(8, work)
    blobs.put_bytes(data)
    assert blobs.path(sha256).read_bytes() == data


def test_replicas_that_put_the_same_at_once(postgres, memory, many, tmp_path):
    blobs, data = [many() for _ in range(4)], noise(3 * MB)
    files = [spooled(tmp_path, data, f"upload{n}") for n in range(4)]
    race(4, lambda n: blobs[n].put_file(*files[n])) if memory.url else blobs[0].put_file(*files[0])
    assert {replica.path(files[0][1]).read_bytes() for replica in blobs} == {data}
    assert blobs[0].sizes() == {files[0][1]: len(data)}


def test_what_a_crash_left_half_written_is_swept(many, tmp_path):
    sha256 = many().put_bytes(b"whole")
    folder = next(path for path in tmp_path.iterdir() if path.name in ("blobs", "cache1"))
    (folder / "1234.part").write_bytes(b"ha")
    blobs = FolderBlobs(folder)
    assert [path.name for path in folder.iterdir()] == [sha256]
    assert blobs.path(sha256).read_bytes() == b"whole"


CHILD = """
import random, sys
from pathlib import Path
from haina.coordinator.blobs import FolderBlobs

blobs = FolderBlobs(Path(sys.argv[1]))
for seed in range(10**6):
    print(blobs.put_bytes(random.Random(seed).randbytes(300_000)), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize("after", [1, 3, 10, 40])
def test_a_kill_leaves_no_half_blob_under_its_name(tmp_path, after):
    with subprocess.Popen(
        [sys.executable, "-c", CHILD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as child:
        told = [child.stdout.readline().strip() for _ in range(after)]
        time.sleep(0.0011 * after)
        child.kill()
        told += [line for line in child.stdout.read().split("\n") if len(line) == 64]
    blobs = FolderBlobs(tmp_path)
    assert set(told) <= set(blobs.sizes())
    for name in blobs.sizes():
        assert hashlib.sha256(blobs.path(name).read_bytes()).hexdigest() == name
    assert names_in(tmp_path) == set(blobs.sizes())


def test_a_file_from_another_file_system_is_copied(tmp_path):
    if not Path("/dev/shm").is_dir() or Path("/dev/shm").stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("there is no second file system to copy from")
    data = noise(3 * MB)
    path, sha256 = spooled(Path("/dev/shm"), data, f"haina-test-{os.getpid()}")
    blobs = FolderBlobs(tmp_path / "blobs")
    blobs.put_file(path, sha256)
    assert not path.exists()
    assert blobs.path(sha256).read_bytes() == data


@pytest.fixture
def tables(postgres, tmp_path):
    from memory import Memory

    memory = Memory(postgres.empty(), tmp_path / "state")
    yield memory
    memory.close()


def test_a_replica_fetches_once_and_makes_room_for_what_is_used(tables, tmp_path):
    writer = TableBlobs(tables.open(), tmp_path / "writer", 100 * MB)
    names = [writer.put_bytes(noise(MB, seed)) for seed in range(4)]
    cache, folder = TableBlobs(tables.open(), tmp_path / "cache", 2 * MB), tmp_path / "cache"

    def use(index):
        tables.clock.now += GRACE + 1
        assert cache.path(names[index]).read_bytes() == noise(MB, index)
        return [names.index(name) for name in sorted(names_in(folder), key=names.index)]

    assert use(0) == [0]
    assert use(1) == [0, 1]
    assert use(0) == [0, 1]
    assert use(2) == [0, 2]
    inode = cache.path(names[2]).stat().st_ino
    assert use(2) == [0, 2]
    assert cache.path(names[2]).stat().st_ino == inode
    # What was just handed out may not have been opened yet, so it stays, room or no room.
    for index in (0, 1, 2, 3):
        cache.path(names[index])
    assert names_in(folder) == set(names)
    tables.clock.now += GRACE + 1
    cache.path(names[3])
    new = cache.put_bytes(noise(MB, 9))
    assert names_in(folder) == {names[3], new}


def test_eight_that_want_the_same_fetch_it_whole(tables, tmp_path):
    data = noise(8 * MB)
    sha256 = TableBlobs(tables.open(), tmp_path / "writer", 100 * MB).put_bytes(data)
    cache = TableBlobs(tables.open(), tmp_path / "cache", 100 * MB)
    assert set(race(8, lambda n: cache.path(sha256).read_bytes() == data)) == {True}


def test_damage_in_the_database_is_noticed(tables, tmp_path):
    store = tables.open()
    sha256 = TableBlobs(store, tmp_path / "writer", 100 * MB).put_bytes(noise(3 * MB))
    with store.database.engine.begin() as connection:
        connection.execute(blob.update().where(blob.c.seq == 1).values(data=b"damage"))
    cache = TableBlobs(store, tmp_path / "cache", 100 * MB)
    with pytest.raises(Refusal, match="damaged"):
        cache.path(sha256)
    assert names_in(tmp_path / "cache") == set()


def test_a_blob_dropped_while_it_is_fetched_is_whole_or_not_there(tables, tmp_path):
    data = noise(6 * MB)
    writer = TableBlobs(tables.open(), tmp_path / "writer", 100 * MB)
    store = tables.open()
    for turn in range(5):
        sha256 = writer.put_bytes(data)
        cache = TableBlobs(store, tmp_path / f"cache{turn}", 100 * MB)
        dropper = threading.Timer(0.004 * turn, writer.drop, [sha256])
        dropper.start()
        with suppress(Refusal):
            assert cache.path(sha256).read_bytes() == data
        dropper.join()
        assert names_in(tmp_path / f"cache{turn}") <= {sha256}


def peak():
    """The most memory this process held since the mark was reset, in kB."""
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])


@pytest.mark.slow
@pytest.mark.skipif(
    not Path("/proc/self/clear_refs").exists(), reason="only Linux tells the peak of memory since a mark"
)
def test_large_blobs_pass_without_being_held_in_memory(tables, tmp_path, postgres: Postgres):
    length = int(os.environ.get("HAINA_TEST_BLOB_MB", "200")) * MB
    digest = hashlib.sha256()
    with (tmp_path / "upload").open("wb") as file:
        for seed in range(0, length, MB):
            piece = noise(MB, seed)
            digest.update(piece)
            file.write(piece)
    sha256 = digest.hexdigest()
    writer = TableBlobs(tables.open(), tmp_path / "writer", 0)
    reader = TableBlobs(tables.open(), tmp_path / "reader", 0)
    start = time.perf_counter()
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    writer.put_file(tmp_path / "upload", sha256)
    middle = time.perf_counter()
    path = reader.path(sha256)
    end = time.perf_counter()
    after = peak()
    print(
        f"{length / MB:.0f} MB: in {middle - start:.1f} s, out {end - middle:.1f} s, {(after - before) / 1024:.0f} MB more memory"
    )
    assert path.stat().st_size == length
    assert after - before < 30 * 1024
    assert writer.sizes() == {sha256: length}
