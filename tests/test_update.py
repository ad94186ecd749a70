import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from haina.report import Report
from haina.update import BLOCK, Cohort, to_numpy

D = 2 * BLOCK + 17
KINDS = ["array", "vectors", "mapped", "torch", "torch vectors", "jax", "jax vectors"]


def rows_of(kind, plain, tmp_path):
    if kind == "array":
        return plain
    if kind == "vectors":
        return list(plain)
    if kind == "mapped":
        for i, row in enumerate(plain):
            row.tofile(tmp_path / str(i))
        return [np.memmap(tmp_path / str(i), plain.dtype, "r") for i in range(len(plain))]
    if kind.startswith("torch"):
        tensor = pytest.importorskip("torch").from_numpy(plain.copy())
        return tensor if kind == "torch" else list(tensor)
    jax = pytest.importorskip("jax")
    return jax.numpy.asarray(plain) if kind == "jax" else [jax.numpy.asarray(row) for row in plain]


def cohort_of(rows, scale=None):
    n = len(rows)
    return Cohort(
        tuple(f"c{i}" for i in range(n)), tuple(Report(examples=i + 1) for i in range(n)), rows, scale
    )


@pytest.fixture(scope="module")
def plain():
    return np.random.default_rng(0).normal(size=(5, D)).astype(np.float32)


SCALE = np.array([1.0, 0.5, 0.25, 1.0, 0.125])


@pytest.mark.parametrize("scale", [None, SCALE], ids=["unscaled", "scaled"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cohort_of_any_library_is_the_plain_matrix(kind, scale, plain, tmp_path):
    cohort = cohort_of(rows_of(kind, plain, tmp_path), scale)
    matrix = plain.astype(np.float64) * (1 if scale is None else scale[:, None])
    gram = matrix @ matrix.T
    assert len(cohort) == 5
    assert cohort.dimension == D
    np.testing.assert_allclose(cohort.gram, gram, rtol=1e-4, atol=1e-4 * gram.max())
    assert (cohort.gram == cohort.gram.T).all()
    np.testing.assert_allclose(cohort.norms, np.linalg.norm(matrix, axis=1), rtol=1e-5)
    weights = np.array([0.1, 0.4, 0.0, 0.3, 0.2])
    combined = cohort.combine(weights)
    assert isinstance(combined, np.ndarray)
    assert combined.dtype == np.float32
    np.testing.assert_allclose(combined, weights @ matrix, atol=2e-6)
    two = np.stack([weights, weights[::-1]])
    np.testing.assert_allclose(cohort.combine(two), two @ matrix, atol=2e-6)
    seen = np.full(matrix.shape, np.nan)
    for columns, block in cohort.blocks():
        assert type(block) is type(rows_of(kind.split()[0], plain[:1], tmp_path)[:1]) or kind in {
            "vectors",
            "mapped",
        }
        assert block.shape[1] <= BLOCK
        seen[:, columns] = to_numpy(block)
    np.testing.assert_allclose(seen, matrix, rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_taking_and_scaling_share_the_rows(kind, plain, tmp_path):
    rows = rows_of(kind, plain, tmp_path)
    whole = cohort_of(rows, SCALE)
    index = [3, 1]
    for measured_before in (False, True):
        if measured_before:
            assert whole.gram.shape == (5, 5)
        part = whole.take(index)
        assert part.clients == ("c3", "c1")
        assert [report.examples for report in part.reports] == [4, 2]
        np.testing.assert_array_equal(part.scale, SCALE[index])
        np.testing.assert_allclose(part.gram, whole.gram[np.ix_(index, index)], rtol=1e-5, atol=1e-2)
        scaled = whole.scaled(np.full(5, 0.5))
        assert scaled.rows is rows
        np.testing.assert_array_equal(scaled.scale, SCALE / 2)
        np.testing.assert_allclose(scaled.gram, whole.gram / 4, rtol=1e-6)
        # The cohort it came from is as it was.
        np.testing.assert_array_equal(whole.scale, SCALE)
    if kind == "array":
        assert all(np.shares_memory(row, rows) for row in part.rows)
    if kind in {"vectors", "mapped", "torch vectors", "jax vectors"}:
        assert all(row is rows[i] for row, i in zip(part.rows, index, strict=True))
    if kind == "torch":
        assert all(row.data_ptr() == rows[i].data_ptr() for row, i in zip(part.rows, index, strict=True))


def test_a_measured_gram_matrix_is_not_measured_again(plain):
    class Counted(list):
        reads = 0

        def __iter__(self):
            Counted.reads += 1
            return super().__iter__()

    cohort = cohort_of(Counted(plain))
    assert cohort.gram.shape == (5, 5)
    reads = Counted.reads
    np.testing.assert_allclose(cohort.scaled(SCALE).gram, cohort.gram * np.outer(SCALE, SCALE))
    np.testing.assert_array_equal(cohort.take([0, 2]).gram, cohort.gram[np.ix_([0, 2], [0, 2])])
    assert Counted.reads == reads


@given(st.integers(1, 40), st.integers(1, 12), st.integers(1, 6))
def test_blocks_are_every_column_once_in_order(d, width, n):
    matrix = np.random.default_rng(d).normal(size=(n, d))
    for rows in (matrix, list(matrix)):
        blocks = list(cohort_of(rows).blocks(width))
        assert all(block.shape[1] <= width for _, block in blocks)
        assert [column for columns, _ in blocks for column in range(d)[columns]] == list(range(d))
        np.testing.assert_array_equal(np.concatenate([block for _, block in blocks], axis=1), matrix)


def test_sums_over_blocks_are_in_float64():
    # 1e8 + 1 is 1e8 in float32: across blocks the one survives, and so does its difference from the other row.
    rows = np.zeros((2, 3 * BLOCK), np.float32)
    rows[0, 0], rows[0, BLOCK], rows[1, 0] = 1e4, 1.0, 1e4
    gram = cohort_of(rows).gram
    assert gram[0, 0] - gram[1, 1] == 1.0


@pytest.mark.parametrize("first", [np.float16, np.float64])
def test_the_first_row_does_not_decide_the_precision_of_the_others(first):
    rows = [np.array([1.0, 2.0], first), np.array([70_000.0, 1 / 3], np.float32)]
    combined = cohort_of(rows).combine(np.array([0.0, 1.0]))
    assert combined.dtype == np.result_type(first, np.float32)
    np.testing.assert_array_equal(combined, rows[1])
