"""A disk that is full: uploads are refused in words, the process lives, nothing is lost, and with room it goes on."""

import os
import subprocess
import time

import pytest
from files import PATH

from federation import running, sites

pytestmark = pytest.mark.slow

#: The spool leaves 64 MB to the database, so that uploads are refused before commits fail.
SIZE, SPARE = 96 << 20, 64 << 20


@pytest.fixture
def disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={SIZE},mode=700", "haina-test", str(folder)]
    done = subprocess.run(mount, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no file system of one's own can be mounted here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _fill(disk, leave):
    """Until so many bytes are left."""
    with (disk / "ballast").open("ab", buffering=0) as file:
        while (free := os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize) > leave:
            try:
                file.write(b"\0" * min(1 << 20, free - leave))
            except OSError:
                return


def _make_room(disk):
    (disk / "ballast").unlink()


def test_a_full_disk(tmp_path, disk, undisturbed):
    doors = ("http", "grpc", "http")
    with running(tmp_path, PATH, sites(tmp_path, doors), state=disk / "state") as federation:
        coordinator = federation.coordinators[0]
        nodes = list(federation.nodes.values())

        def held():
            """No round closes, though everybody tries."""
            closed = federation.ledger.closed
            time.sleep(4.0)
            assert federation.ledger.closed <= closed + 1
            assert coordinator.code is None, coordinator.text()[-3000:]

        def goes_on():
            closed = federation.ledger.closed
            federation.until(lambda: federation.ledger.closed > closed + 3, "it goes on")

        goes_on()
        _fill(disk, SPARE // 2)
        held()
        federation.until(lambda: any("more bytes do not fit" in node.text() for node in nodes), "a refusal")
        _make_room(disk)
        goes_on()

        # To the last byte, also for the database.
        _fill(disk, 0)
        held()
        _make_room(disk)
        goes_on()

        # And one that is killed with a full disk comes back when there is room.
        _fill(disk, 0)
        coordinator.kill()
        coordinator.start()
        time.sleep(4.0)
        _make_room(disk)
        goes_on()

        federation.end()
        federation.check()
        assert federation.ledger.model == undisturbed(PATH, ("http", "http", "http"))
