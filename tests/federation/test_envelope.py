import numpy as np
import pytest

from haina.artifact import dump, sha256
from haina.data.schema import Schema
from haina.errors import LayoutError
from haina.federation import Federation
from haina.federation.envelope import Envelope
from haina.learners.learner import Training, Work
from haina.shards import Shards

FLAT = Schema((4,), tuple("abcd"), ("x", "y"))
LEARNERS = {
    "jax": 'learner = "jax"\nhidden = [3]',
    "torch": 'learner = "torch"\nhidden = [3]',
    "torch with personal tensors": 'learner = "torch"\nhidden = [3]\nlocal = ["output.*"]',
    "jax with adapters only": 'learner = "jax"\nhidden = [3]\nshared = ["hidden1.*"]',
    "glm": 'learner = "glm"\nfamily = "binomial"',
    "forest": 'learner = "forest"\ntrees = 3',
}


def learner_of(model):
    return Federation.of(f"[model]\n{model}\n[data]\n", schema=FLAT).learner


def check(learner, model, envelope):
    """The learner's bytes and the envelope's are the same bytes, and so is the way back."""
    data = learner.to_bytes(model)
    header, body = envelope.pieces(model)
    assert header + bytes(body) == data
    assert envelope.size(model) == len(data)
    assert envelope.sha256(model) == sha256(data)
    for back in (envelope.vector(data), envelope.vector(memoryview(data)), learner.from_bytes(data)):
        assert back.dtype == model.dtype
        assert back.tobytes() == model.tobytes()
    return data


@pytest.mark.parametrize("model", LEARNERS.values(), ids=LEARNERS.keys())
def test_a_model_is_the_same_bytes_with_and_without_its_learner(model, tmp_path):
    learner = learner_of(model)
    first = learner.initial(3)
    envelope = Envelope.of(learner.to_bytes(first))
    data = check(learner, first, envelope)
    if learner.payload == "collect":
        rng = np.random.default_rng(0)
        x, y = rng.normal(size=(60, 4)), rng.integers(2, size=60)
        work = Work(first, 1, Shards(("a",), x, y, np.array([[0, 60]])), Training(), 0.1)
        (update,) = learner.train(work)
        grown = np.frombuffer(learner.merge([update.vector.tobytes()] * 2), np.uint8)
        data = check(learner, grown, envelope)
        assert envelope.length == 0
    else:
        moved = (np.random.default_rng(0).normal(size=len(first)) * 1e3).astype(first.dtype)
        moved[:2] = -0.0, np.inf
        data = check(learner, moved, envelope)
        assert envelope.length == len(first)
        assert envelope.flat
    path = tmp_path / "model"
    path.write_bytes(data)
    mapped = envelope.vector(path)
    assert mapped.tobytes() == envelope.vector(data).tobytes()
    assert not mapped.flags.writeable


def test_nothing_is_copied():
    learner = learner_of(LEARNERS["jax"])
    model = learner.initial(0)
    data = learner.to_bytes(model)
    envelope = Envelope.of(data)
    assert np.shares_memory(envelope.vector(data), np.frombuffer(data, np.uint8))
    assert np.shares_memory(np.frombuffer(envelope.pieces(model)[1], np.uint8), model)


def test_tensors_of_several_dtypes_are_written_one_by_one(tmp_path):
    (tmp_path / "task.py").write_text(
        "import torch\n"
        "class Net(torch.nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.one = torch.nn.Linear(4, 2)\n"
        "        self.register_buffer('small', torch.tensor([1.5, 2.5], dtype=torch.float16))\n"
        "        self.register_buffer('large', torch.tensor([0.1], dtype=torch.float64))\n"
        "    def forward(self, x):\n"
        "        return self.one(x)\n"
    )
    text = '[model]\nlearner = "torch"\nbuild = "task:Net"\nlocal = []\n[data]\n'
    learner = Federation.of(text, folder=tmp_path, schema=FLAT).learner
    model = learner.initial(0)
    envelope = Envelope.of(learner.to_bytes(model))
    assert not envelope.flat
    check(learner, model, envelope)


@pytest.mark.parametrize("kind", ["jax", "glm"])
def test_what_is_not_this_federations_model_is_refused(kind, tmp_path):
    learner = learner_of(LEARNERS[kind])
    model = learner.initial(0)
    data = learner.to_bytes(model)
    envelope = Envelope.of(data)
    other = dump({"vector": np.zeros(envelope.length, envelope.dtype)})
    for bad in (data[:-1], data + b"\0", b"", b"x" * len(data), other, b"{" + data[1:]):
        path = tmp_path / "bad"
        path.write_bytes(bad)
        for form in (bad, path):
            with pytest.raises(LayoutError):
                envelope.vector(form)
    for vector in (model[:-1], model.astype(np.float16), model[None]):
        with pytest.raises(LayoutError):
            envelope.pieces(vector)
    for bad in (b"", b"x", data[:-1]):
        with pytest.raises(LayoutError):
            Envelope.of(bad)
