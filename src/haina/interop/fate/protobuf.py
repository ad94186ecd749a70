"""The protobuf message in which FATE 1.x keeps a HomoLR model (`LRModelParam`), by our own declaration of its fields.

    iters = 1, loss_history = 2, is_converged = 3, weight = 4 (map), intercept = 5, header = 6, one_vs_rest_result = 7, need_one_vs_rest = 8,
    best_iteration = 9, encrypted_weight = 10 (map), cipher = 11

All numbers are doubles, so reading and writing is exact. The order of features is the header's; a map has none.

The traps: a site that trained under encryption keeps its weights in field 10, and without them the message would read as an empty model, so what
lies in fields 7, 10 and 11 is refused. A model zip of FATE 1.x holds this message as the file `HomoLogisticRegressionParam`, below the name of its
component.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from haina.errors import LayoutError, LearnerError
from haina.interop.fate.model import HomoLrModel

#: Of a message; a model of a million features with long names is 60 MB.
LONGEST = 1 << 28


def read_message(data: bytes) -> HomoLrModel:
    """A model of FATE 1.x.

    Raises:
        LayoutError: no such message, several classes, encrypted weights, or a feature without a weight.
        LearnerError: protobuf is not installed.
    """
    message = _message()
    damaged = LayoutError(
        f"the {len(data)} bytes are no HomoLR model of FATE 1.x",
        allowed="the file HomoLogisticRegressionParam of a model",
    )
    if len(data) > LONGEST:
        raise damaged
    try:
        message.ParseFromString(data)
    except Exception as error:  # protobuf's DecodeError, which exists only where protobuf does
        raise damaged from error
    if message.need_one_vs_rest or message.one_vs_rest_result:
        raise LayoutError("the model has several classes", allowed="a model of two classes")
    if message.encrypted_weight or message.cipher:
        raise LayoutError(
            "the weights of the model are encrypted", remedy="Take the model of the guest, or of a plain host"
        )
    header = tuple(message.header)
    if not header or set(header) != set(message.weight):
        raise damaged
    return HomoLrModel(
        tuple(message.weight[name] for name in header),
        message.intercept,
        header,
        message.iters,
        tuple(message.loss_history),
        message.is_converged,
        message.best_iteration,
    )


def write_message(model: HomoLrModel) -> bytes:
    """The bytes of a model for FATE 1.x; the same model gives the same bytes.

    Raises:
        LearnerError: protobuf is not installed.
    """
    message = _message()
    message.iters, message.best_iteration = model.iterations, model.best
    message.loss_history.extend(model.losses)
    message.is_converged, message.intercept = model.converged, model.intercept
    message.header.extend(model.names)
    for name, weight in zip(model.names, model.weights, strict=True):
        message.weight[name] = weight
    return bytes(message.SerializeToString(deterministic=True))


def _message() -> Any:
    return _class()()


@cache
def _class() -> Any:
    """The class of the message. It lives in a pool of its own, so that it meets nobody else's declaration of the name."""
    try:
        from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    except ImportError as error:
        raise LearnerError(
            "models of FATE 1.x need protobuf", remedy="Install it: pip install 'haina[node]'"
        ) from error
    kinds = descriptor_pb2.FieldDescriptorProto
    one, many = kinds.LABEL_OPTIONAL, kinds.LABEL_REPEATED
    file = descriptor_pb2.FileDescriptorProto(
        name="haina/fate_lr_model.proto", package="haina.fate1", syntax="proto3"
    )
    model = file.message_type.add(name="LRModelParam")
    entry = model.nested_type.add(name="WeightEntry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, type=kinds.TYPE_STRING, label=one)
    entry.field.add(name="value", number=2, type=kinds.TYPE_DOUBLE, label=one)
    for name, number, kind, label in (
        ("iters", 1, kinds.TYPE_INT32, one),
        ("loss_history", 2, kinds.TYPE_DOUBLE, many),
        ("is_converged", 3, kinds.TYPE_BOOL, one),
        ("intercept", 5, kinds.TYPE_DOUBLE, one),
        ("header", 6, kinds.TYPE_STRING, many),
        # Only whether something lies in these three is looked at.
        ("one_vs_rest_result", 7, kinds.TYPE_BYTES, one),
        ("need_one_vs_rest", 8, kinds.TYPE_BOOL, one),
        ("best_iteration", 9, kinds.TYPE_INT32, one),
        ("encrypted_weight", 10, kinds.TYPE_BYTES, many),
        ("cipher", 11, kinds.TYPE_BYTES, one),
    ):
        model.field.add(name=name, number=number, type=kind, label=label)
    model.field.add(
        name="weight",
        number=4,
        type=kinds.TYPE_MESSAGE,
        label=many,
        type_name=".haina.fate1.LRModelParam.WeightEntry",
    )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("haina.fate1.LRModelParam"))
