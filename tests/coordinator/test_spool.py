import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import textwrap
import threading
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest

from haina.coordinator.incoming import SMALL
from haina.coordinator.measure import measure
from haina.coordinator.spool import Spool
from haina.strategy.validate import squared_norm
from haina.wire.codecs import CodecError, decode, encode
from haina.wire.refusal import Refusal

PLENTY = 1 << 30


def vector(length, seed=0):
    return np.random.default_rng(seed).standard_normal(length).astype(np.float32)


def body_of(length, seed=0):
    data = vector(length, seed).tobytes()
    return data, hashlib.sha256(data).hexdigest()


@pytest.fixture
def spool(tmp_path):
    return Spool(tmp_path / "spool", PLENTY)


def files(spool_folder):
    return sorted(path.name for path in spool_folder.iterdir())


@contextmanager
def refused(code, words="."):
    with pytest.raises(Refusal, match=words) as caught:
        yield
    assert caught.value.code == code


BIG = 200_000  # floats: 800 kB, on disk as they come


@pytest.mark.parametrize("length", [1000, BIG])
@pytest.mark.parametrize("chunk", [1 << 16, 1 << 20, 777_77])
def test_an_upload_is_verified_and_measured(spool, length, chunk):
    data, sha256 = body_of(length)
    incoming = spool.open("f", 3, "a", sha256, len(data))
    for start in range(0, len(data), chunk):
        incoming.write(data[start : start + chunk])
    assert incoming.missing == 0
    verified = incoming.finish("float32", length)
    assert verified.reason is None
    assert verified.path.read_bytes() == data
    assert verified.path == spool.path("f", 3, "a", sha256)
    assert verified.square == squared_norm(vector(length))
    assert stat.S_IMODE(verified.path.stat().st_mode) == 0o600
    assert stat.S_IMODE(verified.path.parent.stat().st_mode) == 0o700
    incoming.close()
    incoming.close()
    assert verified.path.exists()
    assert spool.received("f", 3, "a").bytes == len(data)


@pytest.mark.parametrize("codec", ["bf16", "int8", "topk"])
def test_other_codecs_are_measured_as_they_are_decoded(spool, codec):
    body, _ = encode(codec, vector(BIG))
    data = body.tobytes()
    incoming = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
    incoming.write(data)
    verified = incoming.finish(codec, BIG)
    assert verified.reason is None
    assert verified.square == squared_norm(decode(codec, data, BIG))


def test_documents_have_no_norm(spool):
    data = b"{}" * 10
    incoming = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
    incoming.write(data)
    verified = incoming.finish("raw", 0)
    assert (verified.square, verified.reason) == (0.0, None)


def bad(values):
    return np.array(values, np.float32).tobytes()


@pytest.mark.parametrize(
    ("data", "codec", "length", "words"),
    [
        (bad([1, np.nan, 3]), "float32", 3, "coordinate 1 is nan"),
        (bad([0.0] * 99_999 + [-np.inf]), "float32", 100_000, "coordinate 99999 is -inf"),
        (bad([1, 2, 3]), "float32", 4, "12 bytes"),
        (np.array([1e200, 1.0]).tobytes(), "raw", 2, "too long to measure"),
        (np.array([1.0, np.inf]).tobytes(), "raw", 2, "coordinate 1 is inf"),
        (b"\xff\xff\xff\xff\1\2", "int8", 2, "scale of group 0"),
        (b"\xff\0\0\0\0\0\0\0", "topk", 2, "place 255"),
        (b"", "float32", 1, "0 bytes"),
    ],
)
def test_unusable_vectors_are_refused_in_words_and_leave_nothing(spool, tmp_path, data, codec, length, words):
    incoming = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
    incoming.write(data)
    verified = incoming.finish(codec, length)
    assert verified.reason is not None
    assert words in verified.reason
    assert files(tmp_path / "spool") == []
    incoming.discard()


def test_measure_equals_the_simulation():
    for codec in ("float32", "bf16", "int8", "topk"):
        body, _ = encode(codec, vector(100_001))
        assert measure(codec, bytes(body), 100_001) == squared_norm(decode(codec, body, 100_001))
    odd = vector(100_001)
    odd[40_000] = np.nan
    with pytest.raises(CodecError, match="coordinate 40000 is nan"):
        measure("float32", odd.tobytes(), 100_001)


def test_wrong_bytes_leave_nothing_and_can_be_sent_again(spool, tmp_path):
    data, sha256 = body_of(BIG)
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(b"\1" + data[1:])
    with refused("malformed", "SHA-256"):
        incoming.finish("float32", BIG)
    assert files(tmp_path / "spool") == []
    incoming.close()
    again = spool.open("f", 1, "a", sha256, len(data))
    again.write(data)
    assert again.finish("float32", BIG).reason is None


def test_more_bytes_than_announced_are_refused_before_they_are_written(spool):
    data, sha256 = body_of(BIG)
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(data[:-1])
    with refused("too_large", "1 bytes more"):
        incoming.write(b"ab")
    assert incoming.missing == 1
    incoming.write(data[-1:])
    assert incoming.finish("float32", BIG).reason is None


def test_an_upload_goes_on_where_it_broke(spool):
    data, sha256 = body_of(BIG)
    first = spool.open("f", 1, "a", sha256, len(data))
    first.write(data[:500_000])
    with refused("malformed", f"{len(data) - 500_000} bytes are missing"):
        first.finish("float32", BIG)
    first.close()
    received = spool.received("f", 1, "a")
    assert (received.bytes, received.sha256, received.done) == (500_000, sha256, False)
    for offset in (1, 499_999, 500_001, len(data)):
        with refused("range", f"byte {offset}"):
            spool.open("f", 1, "a", sha256, len(data), offset)
    second = spool.open("f", 1, "a", sha256, len(data), 500_000)
    assert second.missing == len(data) - 500_000
    second.write(data[500_000:])
    assert second.finish("float32", BIG).square == squared_norm(vector(BIG))


def test_bytes_of_another_body_are_not_gone_on_from(spool, tmp_path):
    data, sha256 = body_of(BIG)
    first = spool.open("f", 1, "a", sha256, len(data))
    first.write(data[:500_000])
    first.close()
    other, other_sha256 = body_of(BIG, 1)
    with refused("range"):
        spool.open("f", 1, "a", other_sha256, len(other), 500_000)
    second = spool.open("f", 1, "a", other_sha256, len(other))
    second.write(other)
    assert second.finish("float32", BIG).path.read_bytes() == other
    assert len(files(tmp_path / "spool")) == 1


def test_beginning_anew_does_not_shorten_a_file_that_is_read(spool):
    data, sha256 = body_of(BIG)
    first = spool.open("f", 1, "a", sha256, len(data))
    first.write(data[:600_000])
    mapped = decode("float32", spool.path("f", 1, "a", sha256), 150_000)
    second = spool.open("f", 1, "a", sha256, len(data))
    second.write(data[:400_000])
    assert (mapped == vector(BIG)[:150_000]).all()
    second.write(data[400_000:])
    assert second.finish("float32", BIG).path.read_bytes() == data


@pytest.mark.parametrize("restart", [False, True])
@pytest.mark.parametrize("anew", [False, True])
def test_a_whole_body_outlives_its_node_sending_it_again(tmp_path, anew, restart):
    # The first delivery is being committed while the node, out of patience, sends it once more.
    spool = Spool(tmp_path / "spool", PLENTY)
    data, sha256 = body_of(BIG)
    first = spool.open("f", 1, "a", sha256, len(data))
    first.write(data)
    path = first.finish("float32", BIG).path
    inode = path.stat().st_ino
    if restart:
        spool = Spool(tmp_path / "spool", PLENTY)
    assert spool.received("f", 1, "a").bytes == len(data)

    def there():
        return path.stat().st_ino == inode and path.read_bytes() == data

    for end in ("finish", "close", "discard", "finish"):
        again = spool.open("f", 1, "a", sha256, len(data), 0 if anew else len(data))
        assert again.missing == (len(data) if anew else 0)
        assert there()
        if anew:
            again.write(data[:500_000])
            if end == "finish":
                again.write(data[500_000:])
        if end == "finish":
            verified = again.finish("float32", BIG)
            assert (verified.reason, verified.square) == (None, squared_norm(vector(BIG)))
            again.discard()
        elif end == "close":
            again.close()
        else:
            again.discard()
        assert there()
    other, other_sha256 = body_of(BIG, 1)
    replaced = spool.open("f", 1, "a", other_sha256, len(other))
    replaced.write(other)
    assert there()
    replaced.discard()
    if not restart:
        first.discard()
    assert there()
    spool.drop("f", 1, "a")
    assert files(tmp_path / "spool") == []


def test_what_was_verified_can_be_discarded_by_who_brought_it(spool, tmp_path):
    data, sha256 = body_of(BIG)
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(data)
    incoming.finish("float32", BIG)
    incoming.close()
    incoming.discard()
    incoming.discard()
    assert files(tmp_path / "spool") == []
    assert spool.received("f", 1, "a").bytes == 0


def test_a_file_that_vanished_is_sent_again(spool):
    data, sha256 = body_of(BIG)
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(data)
    incoming.finish("float32", BIG).path.unlink()
    with refused("unavailable"):
        spool.open("f", 1, "a", sha256, len(data), len(data)).finish("float32", BIG)
    again = spool.open("f", 1, "a", sha256, len(data))
    again.write(data)
    assert again.finish("float32", BIG).path.read_bytes() == data


def test_the_newest_connection_wins(spool):
    data, sha256 = body_of(BIG)
    stale = spool.open("f", 1, "a", sha256, len(data))
    stale.write(data[:300_000])
    fresh = spool.open("f", 1, "a", sha256, len(data), spool.received("f", 1, "a").bytes)
    with refused("conflict", "taken it over"):
        stale.write(data[300_000:])
    with refused("conflict"):
        stale.finish("float32", BIG)
    stale.discard()
    stale.close()
    fresh.write(data[300_000:])
    assert fresh.finish("float32", BIG).path.read_bytes() == data


def test_many_threads_and_takeovers_leave_whole_bodies(spool):
    # Two connections of each node fight for the same upload; whoever finishes has the right bytes.
    bodies = {f"n{i}": body_of(100_000, i) for i in range(4)}
    finished, wrong = [], []

    def send(node):
        data, sha256 = bodies[node]
        for _ in range(200):
            try:
                incoming = spool.open("f", 1, node, sha256, len(data), spool.received("f", 1, node).bytes)
                while incoming.missing:
                    here = len(data) - incoming.missing
                    incoming.write(data[here : here + 50_000])
                path = incoming.finish("float32", 100_000).path
                if hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
                    wrong.append(node)
                finished.append(node)
                return
            except Refusal as error:
                if error.code not in ("conflict", "range"):
                    wrong.append(error)
                    return

    threads = [threading.Thread(target=send, args=(node,)) for node in bodies for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a deadlock"
    assert not wrong
    assert set(finished) == set(bodies)


def test_after_a_kill_the_upload_goes_on(tmp_path):
    data, sha256 = body_of(1_000_000)
    (tmp_path / "data").write_bytes(data)
    code = f"""
        import sys
        from pathlib import Path
        from haina.coordinator.spool import Spool
        data = Path("data").read_bytes()
        incoming = Spool(Path("spool"), {PLENTY}).open("f", 1, "a", "{sha256}", len(data))
        for start in range(0, len(data), 65536):
            incoming.write(data[start:start + 65536])
            print(start, flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if int(line) >= 1_000_000:
            break
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    process.stdout.close()
    spool = Spool(tmp_path / "spool", PLENTY)
    here = spool.received("f", 1, "a")
    assert here.sha256 == sha256
    assert 1_000_000 < here.bytes <= len(data)
    incoming = spool.open("f", 1, "a", sha256, len(data), here.bytes)
    incoming.write(data[here.bytes :])
    assert incoming.finish("float32", 1_000_000).square == squared_norm(vector(1_000_000))


def test_damage_while_the_coordinator_was_away_is_found(tmp_path):
    data, sha256 = body_of(BIG)
    first = Spool(tmp_path / "spool", PLENTY)
    incoming = first.open("f", 1, "a", sha256, len(data))
    incoming.write(data[:500_000])
    incoming.close()
    with first.path("f", 1, "a", sha256).open("r+b") as file:
        file.seek(1000)
        file.write(b"\0\0\0\0")
    again = Spool(tmp_path / "spool", PLENTY).open("f", 1, "a", sha256, len(data), 500_000)
    again.write(data[500_000:])
    with refused("malformed", "SHA-256"):
        again.finish("float32", BIG)
    assert files(tmp_path / "spool") == []


def test_small_bodies_touch_the_disk_once(spool, tmp_path):
    data = os.urandom(SMALL)
    incoming = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
    incoming.write(data[:1000])
    assert files(tmp_path / "spool") == []
    incoming.close()
    assert spool.received("f", 1, "a").bytes == 0
    again = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
    again.write(data)
    assert again.finish("raw", 0).path.read_bytes() == data


def test_names_from_the_network_are_no_paths(spool, tmp_path):
    data, sha256 = body_of(BIG)
    for name in ("../../etc/passwd", "a/b", "\0", "a\nb", "é" * 500):
        incoming = spool.open(name, 1, name, sha256, len(data))
        incoming.write(data)
        assert incoming.finish("float32", BIG).path.parent == tmp_path / "spool"
    assert len(files(tmp_path / "spool")) == 5
    assert spool.open("a", 1, "b", sha256, 0).path != spool.open("a1", 1, "b", sha256, 0).path


def test_what_a_node_never_finishes_does_not_pile_up_from_round_to_round(tmp_path):
    data, sha256 = body_of(BIG)
    spool = Spool(tmp_path / "spool", 3 * len(data))
    for number in range(20):
        incoming = spool.open("f", number, "a", sha256, len(data))
        incoming.write(data[:-1])
        incoming.close()
    assert files(tmp_path / "spool") == [spool.path("f", 19, "a", sha256).name]
    # Another node's, another federation's, and what is whole, stay.
    for federation, node in (("f", "b"), ("g", "a")):
        incoming = spool.open(federation, 1, node, sha256, len(data))
        incoming.write(data)
        incoming.finish("float32", len(data) // 4)
    assert spool.received("f", 19, "a").bytes == len(data) - 1
    assert len(spool._keys) == 3
    assert all(len(keys) <= 2 for keys in spool._keys.values())


def test_sweep_and_drop(tmp_path):
    spool = Spool(tmp_path / "spool", PLENTY)
    data, sha256 = body_of(BIG)
    for number, node in ((1, "x"), (2, "a"), (3, "y")):
        incoming = spool.open("f", number, node, sha256, len(data))
        incoming.write(data[: 300_000 * number])
        incoming.close()
    (tmp_path / "spool" / "leftover.tmp").write_bytes(b"?")
    (tmp_path / "spool" / "lost+found").mkdir()
    spool = Spool(tmp_path / "spool", PLENTY)
    assert spool.sweep([("f", 2, "a"), ("f", 9, "z")]) == 2
    assert files(tmp_path / "spool") == sorted([spool.path("f", 2, "a", sha256).name, "lost+found"])
    assert spool.received("f", 2, "a").bytes == 600_000
    live = spool.open("f", 4, "a", sha256, len(data))
    live.write(data[:300_000])
    assert spool.sweep([("f", 2, "a")]) == 0, "an upload under way is left alone"
    live.write(data[300_000:])
    spool.drop("f", 4, "a")
    spool.drop("f", 2, "a")
    spool.drop("f", 2, "a")
    assert files(tmp_path / "spool") == ["lost+found"]


def test_room_is_taken_when_it_is_announced(tmp_path):
    data, sha256 = body_of(BIG)
    spool = Spool(tmp_path / "spool", 2 * len(data) + 100)
    one = spool.open("f", 1, "a", sha256, len(data))
    spool.open("f", 1, "b", sha256, len(data))
    with refused("full", "do not fit beside"):
        spool.open("f", 1, "c", sha256, len(data))
    one.write(data[:300_000])
    # Going on is not taking more; breaking off gives back what has not come.
    one.close()
    third = spool.open("f", 1, "c", sha256, len(data) - 300_000)
    with refused("full"):
        spool.open("f", 1, "a", sha256, len(data), 300_000)
    third.close()
    spool.open("f", 1, "a", sha256, len(data), 300_000).close()
    spool.drop("f", 1, "a")
    spool.open("f", 1, "c", sha256, len(data))
    with refused("full"):
        Spool(tmp_path / "other", PLENTY << 30, spare=shutil.disk_usage(tmp_path).total).open(
            "f", 1, "a", sha256, 1
        )
    with refused("full"):
        Spool(tmp_path / "other", 1 << 62).open("f", 1, "a", sha256, 1 << 50)


def test_a_write_that_the_system_refuses_keeps_nothing_and_the_process_lives(tmp_path):
    # A limit of file sizes stands for a full disk: it works without privileges, and strikes in the middle of a chunk too.
    code = f"""
        import hashlib, resource, sys
        from pathlib import Path
        from haina.coordinator.spool import Spool
        from haina.wire.refusal import Refusal
        data = bytes(2_000_000)
        spool = Spool(Path("spool"), {PLENTY})
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_001, resource.RLIM_INFINITY))
        incoming = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
        try:
            for start in range(0, len(data), 300_000):
                incoming.write(data[start:start + 300_000])
        except Refusal as error:
            print(error.code, "|", error, "|", error.retry)
        print(list(Path("spool").iterdir()), spool.received("f", 1, "a").bytes)
        incoming.close()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
        small = spool.open("f", 1, "b", hashlib.sha256(data[:200_000]).hexdigest(), 200_000)
        small.write(data[:200_000])
        try:
            small.finish("float32", 50_000)
        except Refusal as error:
            print(error.code)
        print(list(Path("spool").iterdir()))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        again = spool.open("f", 1, "a", hashlib.sha256(data).hexdigest(), len(data))
        again.write(data)
        print(again.finish("float32", 500_000).reason)
    """
    out = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert out.returncode == 0, out.stderr
    lines = out.stdout.splitlines()
    assert lines[0] == "full | the disk is full after 900000 of 2000000 bytes. Try again later. | 60.0"
    assert lines[1:] == ["[] 0", "full", "[]", "None"]


@pytest.fixture
def tiny_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("mounting a small disk needs root")
    done = subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True)
    if done.returncode:
        pytest.skip(f"no small disk can be mounted: {done.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk(tiny_disk):
    spool = Spool(tiny_disk / "spool", PLENTY, spare=100_000)
    data, sha256 = body_of(250_000)
    with refused("full", "more bytes do not fit"):
        spool.open("f", 1, "a", sha256, 3_000_000)
    spool.open("f", 1, "b", sha256, len(data))
    with refused("full", "more bytes do not fit"):
        spool.open("f", 1, "a", sha256, len(data))
    spool.drop("f", 1, "b")
    # Somebody else fills the disk while the upload comes.
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(data[:600_000])
    (tiny_disk / "other").write_bytes(bytes(1_300_000))
    with refused("full", "the disk is full after 600000 of 1000000 bytes"):
        incoming.write(data[600_000:])
    assert files(tiny_disk / "spool") == []
    (tiny_disk / "other").unlink()
    incoming = spool.open("f", 1, "a", sha256, len(data))
    incoming.write(data)
    assert incoming.finish("float32", 250_000).path.read_bytes() == data


def test_an_upload_takes_little_memory(spool):
    # 64 MB in chunks of 1 MB: written, hashed, verified and measured within a few MB, most of them the pages that are being read.
    length, chunk = 16_000_000, vector(250_000).tobytes()
    digest = hashlib.sha256()
    for _ in range(64):
        digest.update(chunk)
    process = psutil.Process()
    warm = spool.open("f", 1, "warm", hashlib.sha256(chunk).hexdigest(), len(chunk))
    warm.write(chunk)
    warm.finish("float32", 250_000)
    before = process.memory_info().rss
    incoming = spool.open("f", 1, "a", digest.hexdigest(), 4 * length)
    most = 0
    for _ in range(64):
        incoming.write(chunk)
        most = max(most, process.memory_info().rss - before)
    assert most < 1 << 20, most
    peak, ended = [0], threading.Event()

    def watch():
        while not ended.wait(0.001):
            peak[0] = max(peak[0], process.memory_info().rss - before)

    watcher = threading.Thread(target=watch)
    watcher.start()
    verified = incoming.finish("float32", length)
    ended.set()
    watcher.join()
    assert verified.reason is None
    assert peak[0] < 24 << 20, peak


def test_the_folder_is_a_path(tmp_path: Path):
    deep = tmp_path / "a" / "b"
    Spool(deep, PLENTY)
    assert deep.is_dir()
