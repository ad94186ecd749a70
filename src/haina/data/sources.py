"""Sources: one line of text that says where rows come from.

sklearn:digits              a set that scikit-learn carries (`haina.data.bundled`)
synthetic:1,1               FedProx's Synthetic(alpha, beta), or synthetic:iid (`haina.data.synthetic`)
patients.csv  rows.parquet  a table (`haina.data.table`), with `Columns` to say what its columns mean
rows.npz                    arrays x, y and, if wanted, features, classes, groups; never with pickles inside
clients/                    a folder of mapped arrays, which is a whole federation and not one data set (`haina.data.folder`)
"""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np

from haina.artifact import Array
from haina.data.bundled import BUNDLED, load_bundled
from haina.data.dataset import Dataset
from haina.data.synthetic import Synthetic
from haina.data.table import Columns, read_table
from haina.errors import DataError

_FORMS = f"sklearn:{'|'.join(BUNDLED)}, synthetic:ALPHA,BETA, synthetic:iid, a .csv, .parquet or .npz file, or a folder of clients"


def load(source: str, *, columns: Columns | None = None, seed: int = 0) -> Dataset:
    """Read a source.

    Args:
        source: one of the forms above.
        columns: the meaning of a table's columns; needed for tables, refused elsewhere.
        seed: seed of generated data; read data do not depend on it.

    Raises:
        DataError: the source is unknown or cannot be read.
    """
    kind, _, rest = source.partition(":")
    suffix = Path(source).suffix.lower()
    table = suffix in (".csv", ".parquet")
    if table and columns is None:
        raise DataError(f"{source}: the target column is not named", remedy="Give columns with a target")
    if columns is not None and not table:
        raise DataError(f"{source} has no columns to describe", allowed="columns go with .csv and .parquet")
    if columns is not None:
        return read_table(source, columns)
    if kind == "sklearn":
        return load_bundled(rest)
    if kind == "synthetic":
        return _synthetic(rest).generate(np.random.default_rng(seed))
    if suffix == ".npz":
        return read_arrays(source)
    raise DataError(f"{source!r} is no source of data", allowed=_FORMS)


def read_arrays(path: str | Path) -> Dataset:
    """A NumPy `.npz` archive with `x` and `y`, and `features`, `classes`, `groups` if there are any; see `Dataset.of`.

    Raises:
        DataError: the file is missing or damaged, lacks an array, or holds pickled objects.
    """
    arrays = read_archive(path)
    names = {name: [str(v) for v in arrays[name]] for name in ("features", "classes") if name in arrays}
    return Dataset.of(
        arrays["x"],
        arrays["y"],
        features=names.get("features", ()),
        classes=names.get("classes"),
        groups=arrays.get("groups"),
    )


def read_archive(path: str | Path) -> dict[str, Array]:
    """The arrays of a `.npz` archive as they are; `x` and `y` are among them.

    Raises:
        DataError: as for `read_arrays`.
    """
    try:
        with Path(path).open("rb") as file:
            archive = np.load(file, allow_pickle=False)
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise ValueError("it holds a single array")
            arrays = {name: archive[name] for name in archive.files}
    except FileNotFoundError as error:
        raise DataError(f"{path} is not there", remedy="Check the path") from error
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(
            f"{path} cannot be read: {error}",
            allowed="a .npz archive of plain arrays",
            remedy="Write it with numpy.savez(path, x=..., y=...)",
        ) from error
    if not {"x", "y"} <= set(arrays):
        raise DataError(f"{path} holds {', '.join(arrays) or 'nothing'}", allowed="arrays x and y at least")
    return arrays


def _synthetic(text: str) -> Synthetic:
    if text == "iid":
        return Synthetic(iid=True)
    try:
        alpha, beta = map(float, text.split(","))
    except ValueError as error:
        raise DataError(f"synthetic:{text} is not understood", allowed=_FORMS) from error
    return Synthetic(alpha, beta)
