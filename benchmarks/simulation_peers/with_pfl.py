"""pfl-research's simulation (pfl[pytorch]): federated averaging in one process, users' data made when they are sampled."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from marks import Marks, arguments
from network import flat, network
from pfl.aggregate.simulate import SimulatedBackend
from pfl.aggregate.weighting import WeightByDatapoints
from pfl.algorithm.base import NNAlgorithmParams
from pfl.algorithm.federated_averaging import FederatedAveraging
from pfl.callback.base import TrainingProcessCallback
from pfl.data.dataset import Dataset
from pfl.data.federated_dataset import FederatedDataset
from pfl.hyperparam import NNEvalHyperParams, NNTrainHyperParams
from pfl.metrics import Metrics, Weighted
from pfl.model.pytorch import PyTorchModel
from torch.nn import functional as F  # noqa: N812 (torch's own convention)
from workload import Replay

#: (round, place in the cohort): what the sampler draws and a user's data are made from.
Key = tuple[int, int]


class Net(torch.nn.Module):
    """The model, with the two methods that pfl asks for."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self.inner = network(replay.workload, replay.initial)

    def loss(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> torch.Tensor:
        return F.cross_entropy(self.inner(x), y)

    @torch.no_grad()
    def metrics(self, x: torch.Tensor, y: torch.Tensor, eval: bool = False) -> dict[str, Weighted]:
        return {"loss": Weighted(float(self.loss(x, y)) * len(x), len(x))}


class Ordered(Dataset):
    """One user's rows, in the order of the schedule; each pass of pfl is one epoch of it."""

    def __init__(self, x: torch.Tensor, y: torch.Tensor, orders: Iterator[Any], user: Key) -> None:
        super().__init__((x, y), user_id=str(user))
        self._orders = orders

    def iter(self, batch_size: int) -> Iterator[list[torch.Tensor]]:
        x, y = self.raw_data
        if batch_size >= len(x):
            # Before its first round pfl evaluates: all rows at once, and no epoch.
            yield [x, y]
            return
        order = torch.from_numpy(next(self._orders)).to(x.device)
        for chosen in order.split(batch_size):
            yield [x[chosen], y[chosen]]


class Sizes(dict[Key, int]):
    """Weights of users, looked up when asked for."""

    def __init__(self, replay: Replay) -> None:
        super().__init__()
        self._replay = replay

    def __getitem__(self, key: Key) -> int:
        number, place = key
        return self._replay.size(self._replay.cohort(number)[place])

    def get(self, key: Key, default: Any = None) -> int:
        return self[key]


class Marking(TrainingProcessCallback):
    """Rounds end and begin between central iterations."""

    def __init__(self, marks: Marks, net: Net, rounds: int) -> None:
        self._marks, self._net, self._rounds = marks, net, rounds

    def after_central_iteration(
        self, aggregate_metrics: Metrics, model: Any, *, central_iteration: int
    ) -> tuple[bool, Metrics]:
        if next(self._net.parameters()).is_cuda:
            torch.cuda.synchronize()
        self._marks.end(lambda: flat(self._net))
        if self._marks.round < self._rounds:
            self._marks.begin()
        return False, Metrics()


def main() -> None:
    told = arguments(str(__doc__), device={"default": "cpu"})
    torch.set_num_threads(1)
    replay, marks = Replay(told.folder), Marks(told.marks, told.weights)
    marks.versions("pfl", "torch")
    workload, net = replay.workload, Net(replay).to(told.device)
    x, y = (torch.from_numpy(array).to(told.device) for array in (replay.x, replay.y))
    keys = iter([(n, place) for n in range(1, told.rounds + 1) for place in range(workload.cohort)])

    def user(key: Key) -> Ordered:
        number, place = key
        rows = replay.rows(replay.cohort(number)[place])
        return Ordered(x[rows], y[rows], replay.orders(number, place), key)

    data = FederatedDataset(user, lambda: next(keys), user_id_to_weight=Sizes(replay))
    model = PyTorchModel(
        model=net,
        local_optimizer_create=torch.optim.SGD,
        central_optimizer=torch.optim.SGD(net.parameters(), 1.0),
    )
    marks.begin()
    FederatedAveraging().run(
        algorithm_params=NNAlgorithmParams(
            central_num_iterations=told.rounds,
            evaluation_frequency=told.rounds + 1,
            train_cohort_size=workload.cohort,
            val_cohort_size=0,
        ),
        backend=SimulatedBackend(training_data=data, val_data=None, postprocessors=[WeightByDatapoints()]),
        model=model,
        model_train_params=NNTrainHyperParams(
            local_num_epochs=workload.epochs,
            local_learning_rate=workload.rate,
            local_batch_size=workload.batch,
        ),
        model_eval_params=NNEvalHyperParams(local_batch_size=None),
        callbacks=[Marking(marks, net, told.rounds)],
    )


if __name__ == "__main__":
    main()
