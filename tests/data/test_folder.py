import json
import pickle
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from haina.data import digest, folder
from haina.data.names import Numbered
from haina.errors import DataError

SIZES = [3, 0, 4]
X = np.arange(14, dtype=np.float32).reshape(7, 2)
Y = np.array([0, 1, 2, 0, 1, 2, 0])


@pytest.fixture
def clients(tmp_path):
    """A folder with everything in it."""
    path = tmp_path / "clients"
    folder.write(
        path,
        X,
        Y,
        SIZES,
        names=["a", "b", "c"],
        classes=["no", "yes", "so"],
        test=(X[:2], Y[:2]),
        held=(X[2:3], Y[2:3]),
    )
    return path


def same(data, x, y, sizes):
    assert data.clients.sizes.tolist() == list(sizes)
    np.testing.assert_array_equal(data.clients.x, x)
    np.testing.assert_array_equal(data.clients.y, y)


class TestRoundTrip:
    def test_what_was_written_is_read(self, clients):
        data = folder.read(clients)
        same(data, X, Y, SIZES)
        assert [data.name(k) for k in range(len(data))] == ["a", "b", "c"]
        assert (data.features, data.classes) == (("x0", "x1"), ("no", "yes", "so"))
        np.testing.assert_array_equal(data.test[0], X[:2])
        np.testing.assert_array_equal(data.held[1], Y[2:3])
        cohort = data.shards(["c", "a"])
        np.testing.assert_array_equal(cohort.of(0)[0], X[3:])
        np.testing.assert_array_equal(cohort.of(1)[1], Y[:3])
        assert data.cumulative.tolist() == [3, 3, 7]
        with pytest.raises(DataError, match=r"no client 'd'\. Allowed: a to c"):
            data.shards(["a", "d"])

    @given(
        st.lists(st.integers(0, 5), min_size=1, max_size=30),
        st.sampled_from(["f4", "f8", "f2", "u1", "i4", "?"]),
        st.sampled_from(["i8", "u1", "f4"]),
        st.sampled_from([(1,), (3,), (2, 2)]),
        st.integers(0, 2**32),
    )
    def test_any_clients_from_arrays_or_one_by_one(self, tmp_path_factory, sizes, of_x, of_y, shape, seed):
        rng, where = np.random.default_rng(seed), tmp_path_factory.mktemp("folders")
        n = sum(sizes)
        x, y = (rng.random((n, *shape)) * 9).astype(of_x), (np.arange(n) % 3).astype(of_y)
        test = (np.ones((2, *shape), of_x), np.array([1, 2], of_y))
        ends = np.cumsum(sizes)[:-1]
        folder.write(where / "whole", x, y, sizes, test=test)
        folder.stream(where / "streamed", zip(np.split(x, ends), np.split(y, ends), strict=True), test=test)
        for name in ("whole", "streamed"):
            data = folder.read(where / name)
            same(data, x, y, sizes)
            assert (data.clients.x.dtype, data.clients.y.dtype) == (x.dtype, y.dtype)
            assert data.classes == (None if of_y == "f4" else ("0", "1", "2"))
            assert data.clients.clients == Numbered(len(sizes))
            for k, name_k in enumerate(data.clients.clients):
                part = data.shards([name_k]).of(0)
                np.testing.assert_array_equal(part[0], np.split(x, ends)[k])
                np.testing.assert_array_equal(part[1], np.split(y, ends)[k])
        contents = [
            {p.name: p.read_bytes() for p in (where / name).iterdir()} for name in ("whole", "streamed")
        ]
        assert contents[0] == contents[1]

    def test_numpy_alone_can_write_one(self, tmp_path):
        for name, array in (("x", X), ("y", Y), ("offsets", np.array([0, 3, 7]))):
            np.save(tmp_path / f"{name}.npy", array)
        data = folder.read(tmp_path)
        assert data.classes == ("0", "1", "2")
        assert len(data.test[1]) == len(data.held[1]) == 0
        assert data.test[0].shape == (0, 2)
        np.testing.assert_array_equal(data.shards(["client-000"]).of(0)[0], X[:3])

    def test_a_link_to_elsewhere_is_fine(self, clients, tmp_path):
        (tmp_path / "link").symlink_to(clients)
        (clients / "x.npy").rename(tmp_path / "elsewhere.npy")
        (clients / "x.npy").symlink_to(tmp_path / "elsewhere.npy")
        same(folder.read(tmp_path / "link"), X, Y, SIZES)

    def test_rows_are_mapped_plain_and_read_only(self, clients):
        data = folder.read(clients)
        for array in (data.clients.x, data.clients.y, data.test[0], data.held[1], data.clients.offsets):
            assert type(array) is np.ndarray
            assert not array.flags.writeable
            assert not array.flags.owndata
        assert len(data.maps) == 2
        assert data.maps[0][-X.nbytes :] == X.tobytes()
        assert data.clients.of(0)[0].tobytes() == data.shards(["a"]).of(0)[0].tobytes() == X[:3].tobytes()


class TestDigest:
    def test_every_file_counts(self, clients):
        told = {folder.read(clients).digest()}
        for path in sorted(clients.iterdir()):
            whole = path.read_bytes()
            if path.suffix == ".npy":
                last = np.load(path)
                last.flat[1 if path.name == "offsets.npy" else 0] -= 1
                np.save(path, last)
            else:
                path.write_text(json.dumps([*json.loads(whole)[:-1], "other"]))
            told.add(folder.read(clients).digest())
            path.write_bytes(whole)
        assert len(told) == 1 + len(list(clients.iterdir()))
        assert folder.read(clients).digest() in told

    def test_of_a_large_file_ends_and_middle_are_looked_at(self, tmp_path, monkeypatch):
        monkeypatch.setattr(digest, "BLOCK", 8)
        monkeypatch.setattr(digest, "BLOCKS", 3)
        seen = set()
        for size in (23, 24, 25, 400):
            plain = bytearray(size)
            told = []
            for place in (None, *range(size)):
                data = bytearray(plain)
                if place is not None:
                    data[place] = 1
                (tmp_path / "f").write_bytes(data)
                told.append(digest.of_files([tmp_path / "f"]))
            changed = [place for place in range(size) if told[place + 1] != told[0]]
            assert len(changed) == min(size, 24)
            assert {0, size // 2, size - 1} <= set(changed)
            seen.add(told[0])
        assert len(seen) == 4


def npy(path, array, **how):
    np.save(path, array, **how)


def break_header(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"'shape'", b"'shap'"))


def grow_header(path):
    data = path.read_bytes()
    path.write_bytes(data.replace(b"(7, 2)", b"(7000000000, 2)"))


DAMAGE = [
    ("x.npy", lambda p: p.unlink(), "x.npy is not there. Allowed: a folder with x.npy, y.npy and offsets.npy"),
    ("offsets.npy", lambda p: p.unlink(), "offsets.npy is not there"),
    ("test_y.npy", lambda p: p.unlink(), "test_y.npy is not there"),
    ("x.npy", lambda p: p.write_bytes(p.read_bytes()[:-1]), "x.npy cannot be mapped"),
    ("y.npy", lambda p: p.write_bytes(p.read_bytes()[:60]), "y.npy cannot be mapped"),
    ("x.npy", lambda p: p.write_bytes(b""), "x.npy cannot be mapped"),
    ("x.npy", lambda p: p.write_bytes(pickle.dumps(X)), "x.npy cannot be mapped"),
    ("x.npy", lambda p: npy(p, np.array([{}] * 7), allow_pickle=True), "x.npy cannot be mapped.*objects"),
    ("x.npy", break_header, "x.npy cannot be mapped"),
    ("x.npy", grow_header, "x.npy cannot be mapped"),
    ("x.npy", lambda p: (p.unlink(), p.mkdir()), "x.npy cannot be mapped"),
    ("x.npy", lambda p: npy(p, X[:, 0]), r"shapes \[7\] and \[7\]. Allowed: \[N, ...\] and \[N\]"),
    ("x.npy", lambda p: npy(p, X[:6]), r"shapes \[6, 2\] and \[7\]"),
    ("x.npy", lambda p: npy(p, X.astype(complex)), "types complex128 and int64. Allowed: numbers"),
    ("x.npy", lambda p: npy(p, X.astype("S4")), r"types \|S4 and int64"),
    ("x.npy", lambda p: npy(p, np.asfortranarray(X)), "x.npy is in the order of columns"),
    ("x.npy", lambda p: npy(p, X.astype(">f4")), "x.npy is in the order of columns, or of bytes"),
    ("y.npy", lambda p: npy(p, Y.astype(str)), "Number the classes from 0"),
    ("y.npy", lambda p: npy(p, Y.astype(float)), "test_y.npy: a row and its target are|names classes"),
    ("offsets.npy", lambda p: npy(p, np.array([0, 3, 3, 7], np.int32)), r"type int32 and shape \[4\]. Allowed: int64"),
    ("offsets.npy", lambda p: npy(p, np.array([0.0, 3, 3, 7])), "type float64"),
    ("offsets.npy", lambda p: npy(p, np.array([0])), r"shape \[1\]"),
    ("offsets.npy", lambda p: npy(p, np.zeros((4, 1), int)), r"shape \[4, 1\]"),
    ("offsets.npy", lambda p: npy(p, np.array([0, 3, 3, 8])), "from 0 to 8, for 7 rows. Allowed: row numbers that begin with 0, end with 7"),
    ("offsets.npy", lambda p: npy(p, np.array([0, 3, 5])), "from 0 to 5, for 7 rows"),
    ("offsets.npy", lambda p: npy(p, np.array([-1, 3, 3, 7])), "from -1 to 7"),
    ("offsets.npy", lambda p: npy(p, np.array([0, 5, 3, 7])), "never go down"),
    ("offsets.npy", lambda p: npy(p, np.array([0, 2**63 - 1, -(2**63), 7])), "never go down"),
    ("test_x.npy", lambda p: npy(p, X[:2].astype(float)), r"are float64 \[2\] and int64 \[\]. Allowed: float32 \[2\]"),
    ("held_x.npy", lambda p: npy(p, X[:1, :1]), r"held_x.npy and held_y.npy: a row and its target are float32 \[1\]"),
    ("names.json", lambda p: p.write_text('["a", "b"]'), "names.json holds 2 names for 3 clients"),
    ("names.json", lambda p: p.write_text('["a", "b", "a"]'), "appear twice: 'a'"),
    ("names.json", lambda p: p.write_text('["a", "b", 3]'), "names.json holds something else"),
    ("names.json", lambda p: p.write_text("[" * 4000), "names.json cannot be read. Allowed: a JSON list"),
    ("names.json", lambda p: p.write_bytes(b"\xff\xfe"), "names.json cannot be read"),
    ("names.json", lambda p: p.write_text(" " * 5000), "names.json is too large"),
    ("classes.json", lambda p: p.write_text('{"a": 1}'), "classes.json holds something else"),
    ("classes.json", lambda p: p.write_text('["a"]'), "classes.json names 1 classes"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "damage", "words"), DAMAGE)
def test_a_damaged_folder_is_refused_in_words(clients, name, damage, words):
    damage(clients / name)
    with pytest.raises(DataError, match=words):
        folder.read(clients)


@pytest.mark.parametrize(
    ("y", "words"),
    [
        ([0, 1, 2, -1, 0, 0, 0], "class numbers run from -1 to 2"),
        ([0] * 7, "class numbers run from 0 to 0. Allowed: integers from 0, two classes or more"),
        ([0, 1, 2, 3, 4, 5, 10**12], "run from 0 to 1000000000000.*1048576 at most"),
    ],
)
def test_numbers_that_are_no_classes_are_refused(clients, y, words):
    for name in ("classes.json", "test_x.npy", "test_y.npy"):
        (clients / name).unlink()
    np.save(clients / "y.npy", np.array(y))
    with pytest.raises(DataError, match=words):
        folder.read(clients)


def test_classes_without_values_and_values_without_classes(clients):
    for name in ("test", "held"):
        for file in "xy":
            (clients / f"{name}_{file}.npy").unlink()
    np.save(clients / "y.npy", Y / 2)
    with pytest.raises(DataError, match=r"names classes, and y.npy holds values"):
        folder.read(clients)
    (clients / "classes.json").unlink()
    assert folder.read(clients).classes is None


# Heads that NumPy takes for those of Python 2 are read with a warning.
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_of_a_head_gets_through_as_anything_but_a_data_error(clients, data):
    path = clients / data.draw(st.sampled_from(["x.npy", "offsets.npy"]))
    whole = path.read_bytes()
    damaged = bytearray(whole)
    for place in data.draw(st.lists(st.integers(0, 127), min_size=1, max_size=3)):
        damaged[place] = data.draw(st.integers(0, 255))
    try:
        path.write_bytes(damaged)
        folder.read(clients)
    except DataError:
        pass
    finally:
        path.write_bytes(whole)


class TestWriting:
    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"sizes": [3, 3]}, "2 clients have 6 of 7 rows"),
            ({"sizes": [8, -1]}, "2 clients have 7 of 7 rows"),
            ({"sizes": []}, "0 clients"),
            ({"x": X[:6]}, r"shapes \[6, 2\] and \[7\]"),
            ({"x": X.astype(str)}, "types <U32 and int64"),
            ({"y": Y.astype(str)}, "Number the classes from 0"),
            ({"x": np.where(X == 5, np.inf, X)}, "a number is not finite"),
            ({"y": np.where(Y == 2, np.nan, Y)}, "a number is not finite"),
            ({"y": np.zeros(7, int)}, "class numbers run from 0 to 0"),
            ({"y": Y - 1}, "class numbers run from -1"),
            ({"classes": ["a", "b"]}, "2 classes are named, and class numbers run to 2"),
            ({"classes": ["a", "b", "b"]}, "appear twice"),
            ({"y": Y / 2, "classes": ["a", "b"]}, "the targets are values"),
            ({"names": ["a"]}, "1 names for 3 clients"),
            ({"names": ["a", "b", "a"]}, "appear twice"),
            ({"test": (X[:2], Y[:3])}, r"test_rows: features and targets have shapes \[2, 2\] and \[3\]"),
            (
                {"test": (X[:2].astype(float), Y[:2])},
                r"test_rows from 0: .* are float64 \[2\] and int64 \[\]",
            ),
            ({"held": (X[:1], np.array([-1]))}, "class numbers run from -1"),
        ],
    )
    def test_what_a_folder_cannot_hold_is_refused_and_leaves_nothing(self, tmp_path, settings, words):
        given = {"x": X, "y": Y, "sizes": SIZES, **settings}
        with pytest.raises(DataError, match=words):
            folder.write(tmp_path / "clients", **given)
        assert not list(tmp_path.iterdir())

    def test_a_stream_that_breaks_off_leaves_nothing(self, tmp_path):
        def clients():
            yield X, Y
            raise RuntimeError("the disk of the source")

        with pytest.raises(RuntimeError, match="the disk of the source"):
            folder.stream(tmp_path / "clients", clients())
        assert not list(tmp_path.iterdir())

    def test_a_stream_of_nobody_or_of_unlike_clients_is_refused(self, tmp_path):
        with pytest.raises(DataError, match="there are no clients"):
            folder.stream(tmp_path / "clients", [])
        with pytest.raises(DataError, match=r"rows from 7: a row and its target are float64 \[2\] and int64"):
            folder.stream(tmp_path / "clients", [(X, Y), (X.astype(float), Y)])
        assert not list(tmp_path.iterdir())

    def test_nothing_is_written_over(self, clients):
        before = {path.name: path.read_bytes() for path in clients.iterdir()}
        with pytest.raises(DataError, match=r"is there already\. Remove it, or name another folder"):
            folder.write(clients, X, Y, SIZES)
        assert {path.name: path.read_bytes() for path in clients.iterdir()} == before
        beside = clients.with_name("new.part")
        beside.mkdir()
        with pytest.raises(DataError, match="somebody is writing it, or was broken off"):
            folder.write(clients.with_name("new"), X, Y, SIZES)
        assert beside.is_dir()

    def test_a_full_disk_is_said(self, tmp_path):
        limit, before = 1 << 16, resource.getrlimit(resource.RLIMIT_FSIZE)
        code = (
            "import resource, signal, numpy as np; from haina.data import folder\n"
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {before[1]}))\n"
            "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
            f"folder.write({str(tmp_path / 'c')!r}, np.zeros((99999, 9)), np.arange(99999) % 2, [99999])"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert "DataError: rows from 0: they cannot be written: File too large" in done.stderr
        assert not list(tmp_path.iterdir())


def resident():
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Rss:")) / 1024


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_a_million_clients_start_at_once_and_cohorts_leave_no_pages_behind(tmp_path):
    n = 1_000_000
    one = (np.arange(40).reshape(4, 10).astype(np.float32), np.array([0, 1, 2, 1]))
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(4 * n, 10))
    x[:] = np.tile(one[0], (n, 1))
    x.flush()
    np.save(tmp_path / "y.npy", np.tile(one[1], n))
    np.save(tmp_path / "offsets.npy", np.arange(0, 4 * n + 1, 4))
    del x
    before = resident()
    data = folder.read(tmp_path)
    assert resident() - before < 20
    assert (len(data), data.name(n - 1), data.classes) == (n, "client-999999", ("0", "1", "2"))
    rng = np.random.default_rng(0)
    for _ in range(200):
        cohort = data.shards([data.name(int(k)) for k in rng.integers(n, size=10)])
        for k in range(10):
            np.testing.assert_array_equal(cohort.of(k)[0], one[0])
    # 2000 clients lie on 2000 pages of 160 MB, which would all be here.
    assert resident() - before < 30
