"""The small data sets that scikit-learn carries in its package: real rows for first runs and tests, without a download."""

from __future__ import annotations

import numpy as np

from haina.data.dataset import Dataset
from haina.errors import DataError

#: Name -> the number that features are divided by (digits are ink counts from 0 to 16).
BUNDLED: dict[str, float] = {
    "digits": 16.0,
    "iris": 1.0,
    "wine": 1.0,
    "breast_cancer": 1.0,
    "diabetes": 1.0,
}


def load_bundled(name: str) -> Dataset:
    """One of `BUNDLED`: digits (1797 x 64, 10 classes), iris (150 x 4, 3), wine (178 x 13, 3), breast_cancer (569 x 30, 2), diabetes
    (442 x 10, values).

    Raises:
        DataError: the name is unknown, or scikit-learn is not installed.
    """
    if name not in BUNDLED:
        raise DataError(f"there is no bundled data set {name!r}", allowed=", ".join(BUNDLED))
    try:
        from sklearn import datasets
    except ImportError as error:
        raise DataError(
            "bundled data sets need scikit-learn", remedy="Install it: pip install 'haina[sklearn]'"
        ) from error
    bunch = getattr(datasets, f"load_{name}")()
    values = np.asarray(bunch.target)
    regression = values.dtype.kind == "f"
    return Dataset.of(
        np.asarray(bunch.data) / BUNDLED[name],
        values,
        features=[str(feature) for feature in bunch.feature_names],
        classes=None if regression else [str(label) for label in bunch.target_names],
    )
