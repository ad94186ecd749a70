"""Limits: what the same work costs without any simulator. One process, one thread.

plain      torch: a loop over clients, nn.Module and SGD, and a mean by samples. The reference of all weights
central    torch: no clients, one model, the same number of samples a round, batch x cohort at a time
native     C: the whole federated round of a logistic model, one client after another (native.c)
shapes     the products of matrices of a step of a dense network, at their own sizes, and nothing else
floor      large products of matrices; what they take, scaled to the floating-point operations of a round, is its floor
"""

from __future__ import annotations

import ctypes
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from marks import Marks, arguments
from numpy.typing import NDArray
from workload import Replay

#: Side of the square matrices of the floor, and how often they are multiplied.
SIDE, TIMES = 1024, 40
#: Steps whose products are measured.
STEPS = 1000


def plain(replay: Replay, marks: Marks, rounds: int, device: str) -> None:
    import torch
    from network import flat, network, train

    torch.set_num_threads(1)
    marks.versions("torch")
    module = network(replay.workload, replay.initial).to(device)
    x, y = (torch.from_numpy(array).to(device) for array in (replay.x, replay.y))
    for number in range(1, rounds + 1):
        marks.begin()
        received = [parameter.detach().clone() for parameter in module.parameters()]
        mean = [torch.zeros_like(parameter) for parameter in received]
        cohort = replay.cohort(number)
        total = sum(replay.size(client) for client in cohort)
        for place, client in enumerate(cohort):
            with torch.no_grad():
                for parameter, first in zip(module.parameters(), received, strict=True):
                    parameter.copy_(first)
            optimiser = torch.optim.SGD(module.parameters(), lr=replay.workload.rate)
            rows = replay.rows(client)
            train(module, optimiser, x[rows], y[rows], replay.batches(number, place))
            share = replay.size(client) / total
            for pull, parameter, first in zip(mean, module.parameters(), received, strict=True):
                pull.add_(parameter.detach() - first, alpha=share)
        with torch.no_grad():
            for parameter, first, pull in zip(module.parameters(), received, mean, strict=True):
                parameter.copy_(first + pull)
        if device != "cpu":
            torch.cuda.synchronize()
        marks.end(lambda: flat(module))


def central(replay: Replay, marks: Marks, rounds: int, device: str) -> None:
    import torch
    from network import network, train

    torch.set_num_threads(1)
    module = network(replay.workload, replay.initial).to(device)
    optimiser = torch.optim.SGD(module.parameters(), lr=replay.workload.rate)
    x, y = (torch.from_numpy(array).to(device) for array in (replay.x, replay.y))
    rng = np.random.default_rng(0)
    size = replay.workload.batch * replay.workload.cohort
    for number in range(1, rounds + 1):
        marks.begin()
        rows = [replay.rows(client) for client in replay.cohort(number)]
        held = np.concatenate([np.arange(part.start, part.stop) for part in rows])
        for _ in range(replay.workload.epochs):
            order = rng.permutation(held)
            train(module, optimiser, x, y, [order[i : i + size] for i in range(0, len(order), size)])
        if device != "cpu":
            torch.cuda.synchronize()
        marks.end()


def native(replay: Replay, marks: Marks, rounds: int, library: Path) -> None:
    call = ctypes.CDLL(str(library)).train
    x, y = np.ascontiguousarray(replay.x), np.ascontiguousarray(replay.y)
    workload = replay.workload
    inputs, classes = x.shape[1], workload.outputs
    model = replay.initial.copy()

    def at(array: NDArray[Any]) -> ctypes.c_void_p:
        return ctypes.c_void_p(array.ctypes.data)

    for number in range(1, rounds + 1):
        marks.begin()
        cohort = replay.cohort(number)
        total = sum(replay.size(client) for client in cohort)
        mean = np.zeros_like(model)
        for place, client in enumerate(cohort):
            orders = np.stack(list(replay.orders(number, place)))
            rows, own = replay.rows(client), model.copy()
            sizes = (ctypes.c_long(n) for n in (*orders.shape, workload.batch, inputs, classes))
            rate = ctypes.c_float(workload.rate)
            weight, bias = own[: inputs * classes], own[inputs * classes :]
            call(at(x[rows]), at(y[rows]), at(orders), *sizes, rate, at(weight), at(bias))
            mean += np.float32(replay.size(client) / total) * own
        model = mean
        marks.end(model.copy)


def floor(replay: Replay, marks: Marks, rounds: int) -> None:
    import torch

    torch.set_num_threads(1)
    matrix = torch.randn(SIDE, SIDE)
    for _ in range(rounds):
        marks.begin()
        for _ in range(TIMES):
            matrix @ matrix
        marks.end()
    operations = [replay.workload.flops(replay.samples(number)) for number in range(1, rounds + 1)]
    marks.tell(products=TIMES * 2.0 * SIDE**3, operations=operations)


def shapes(replay: Replay, marks: Marks, rounds: int) -> None:
    import torch

    torch.set_num_threads(1)
    workload = replay.workload
    widths = [int(np.prod(workload.features)), *workload.hidden, workload.outputs]
    size, step = workload.batch, []
    for place, (ins, outs) in enumerate(pairwise(widths)):
        x, weight, pull = torch.randn(size, ins), torch.randn(outs, ins), torch.randn(size, outs)
        forward, back = (x, weight.T, torch.empty(size, outs)), (pull.T, x, torch.empty(outs, ins))
        step += [forward, back, *([(pull, weight, torch.empty(size, ins))] if place else [])]
    for _ in range(rounds):
        marks.begin()
        for _ in range(STEPS):
            for left, right, out in step:
                torch.mm(left, right, out=out)
        marks.end()
    operations = [workload.flops(replay.samples(number)) for number in range(1, rounds + 1)]
    marks.tell(products=workload.flops(STEPS * size), operations=operations)


def main() -> None:
    told = arguments(
        str(__doc__),
        limit={"choices": ["plain", "central", "native", "shapes", "floor"], "required": True},
        native={"type": Path, "help": "native.c, compiled"},
        device={"default": "cpu"},
    )
    replay, marks = Replay(told.folder), Marks(told.marks, told.weights)
    if told.limit == "native":
        native(replay, marks, told.rounds, told.native)
    elif told.limit in ("floor", "shapes"):
        {"floor": floor, "shapes": shapes}[told.limit](replay, marks, told.rounds)
    else:
        {"plain": plain, "central": central}[told.limit](replay, marks, told.rounds, told.device)


if __name__ == "__main__":
    main()
