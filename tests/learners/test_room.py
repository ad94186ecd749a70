import numpy as np
import pytest

from haina.errors import LearnerError
from haina.learners.jax import learner as jax_learner
from haina.learners.learner import Training, Work
from haina.learners.models import Model
from haina.learners.room import check_room
from haina.shards import Shards

#: A petabyte in rows of 64 floats.
ROWS = 1 << 42


def test_a_client_larger_than_memory_is_refused_before_its_rows_are_read(tmp_path):
    rows = 1 << 31  # Files with holes: they take no room on the disk.
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype=np.float32, shape=(rows, 64))
    y = np.lib.format.open_memmap(tmp_path / "y.npy", mode="w+", dtype=np.int8, shape=(rows,))
    trained = jax_learner(Model("logistic", (64,), 2))
    shards = Shards(("small", "huge"), x, y, np.array([[0, 10], [0, rows]]))
    work = Work(trained.initial(0), 1, shards, Training(), 0.1)
    with pytest.raises(
        LearnerError, match=r"client 'huge' has 2147483648 rows, 549\.8 GB, and .* are free.*torch"
    ):
        list(trained.train(work))


def test_what_fits_passes():
    check_room((), (), 8)
    check_room(("a", "b"), (10, 1 << 20), 1024)
    with pytest.raises(LearnerError, match="'b' has"):
        check_room(("a", "b"), (10, ROWS), 256)
