import numpy as np
import pytest

from haina.errors import LayoutError, RoundError
from haina.report import Report
from haina.strategy.combine import Collect
from haina.strategy.parts import Aggregate, Payload
from haina.strategy.server.merge import Merge
from haina.update import Cohort


def join(documents):
    if b"bad" in documents:
        raise LayoutError("this document is bad")
    return b"+".join(documents)


def collected(*documents):
    rows = [np.frombuffer(document, np.uint8) for document in documents]
    names = tuple(f"c{i}" for i in range(len(rows)))
    return Collect().combine(Cohort(names, (Report(1),) * len(rows), rows), np.ones(len(rows))).vector


def test_documents_are_merged_in_order_and_training_is_over():
    stepped = Merge(join).step(np.zeros(0, np.uint8), Aggregate(collected(b"a", b"bb", b"c"), 1), {})
    assert stepped.model.tobytes() == b"a+bb+c"
    assert stepped.model.dtype == np.uint8
    assert stepped.finished
    assert Merge.accepts is Payload.COLLECT


def test_a_bad_document_does_not_keep_the_others_out():
    stepped = Merge(join).step(np.zeros(0, np.uint8), Aggregate(collected(b"a", b"bad", b"c"), 1), {})
    assert stepped.model.tobytes() == b"a+c"
    assert stepped.notes == {"documents": 2.0, "refused": 1.0}


def test_only_bad_documents():
    with pytest.raises(RoundError, match="this document is bad"):
        Merge(join).step(np.zeros(0, np.uint8), Aggregate(collected(b"bad"), 1), {})
