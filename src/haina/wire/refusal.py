"""Refusals: one list of reasons, raised by the coordinator, carried by both doors, and raised again at the other end.

A refusal is the coordinator's answer: it was reached, and it says no. `haina.errors.Unreachable` is the other case, in which nothing is known.
"""

from __future__ import annotations

from typing import TypeVar

from pydantic import ValidationError

from haina.errors import HainaError
from haina.wire.messages import Message, Problem

#: code -> (HTTP status, gRPC status name).
STATUS: dict[str, tuple[int, str]] = {
    "malformed": (400, "INVALID_ARGUMENT"),
    "unauthenticated": (401, "UNAUTHENTICATED"),
    "forbidden": (403, "PERMISSION_DENIED"),
    "not_found": (404, "NOT_FOUND"),
    "method": (405, "UNIMPLEMENTED"),
    "conflict": (409, "FAILED_PRECONDITION"),
    "static": (409, "FAILED_PRECONDITION"),
    "gone": (410, "FAILED_PRECONDITION"),
    "version": (412, "ABORTED"),
    "too_large": (413, "OUT_OF_RANGE"),
    "range": (416, "OUT_OF_RANGE"),
    "invalid": (422, "INVALID_ARGUMENT"),
    "too_many": (429, "RESOURCE_EXHAUSTED"),
    "internal": (500, "INTERNAL"),
    "full": (507, "RESOURCE_EXHAUSTED"),
    "unavailable": (503, "UNAVAILABLE"),
}

_LONGEST = 2000
M = TypeVar("M", bound=Message)


class Refusal(HainaError):  # noqa: N818 - an answer, not a mishap
    """A call that cannot be granted.

    Args:
        code: one of `STATUS`.
        what: what was wrong, with the value.
        allowed: what would have been accepted.
        remedy: what the caller can do.
        retry: seconds after which to try again; 0 where the same call would be refused again.
    """

    def __init__(
        self, code: str, what: str, *, allowed: str = "", remedy: str = "", retry: float = 0.0
    ) -> None:
        assert code in STATUS, code
        self.code = code
        self.retry = retry
        super().__init__(what, allowed=allowed, remedy=remedy)


def to_problem(error: HainaError) -> Problem:
    """An error as it travels. One that names no code of its own found something wrong in what the caller said."""
    return Problem(
        code=error.code if isinstance(error, Refusal) else "invalid",
        what=error.what[:_LONGEST],
        allowed=error.allowed[:_LONGEST],
        remedy=error.remedy[:_LONGEST],
        retry=error.retry if isinstance(error, Refusal) else 0.0,
    )


def from_problem(problem: Problem) -> Refusal:
    """The refusal that a problem tells of. A code that this side does not know yet is a refusal all the same."""
    code = problem.code if problem.code in STATUS else "invalid"
    return Refusal(code, problem.what, allowed=problem.allowed, remedy=problem.remedy, retry=problem.retry)


def checked(kind: type[M], fields: object) -> M:
    """A message of what came in.

    Raises:
        Refusal: "invalid", naming the fields and never their values, one of which may be a token.
    """
    try:
        return kind.model_validate(fields)
    except ValidationError as error:
        raise unfit(kind.__name__, error) from None


def unfit(name: str, error: ValidationError) -> Refusal:
    """What pydantic found, as a refusal; at most three faults of it."""
    faults = [
        f"{'.'.join(str(part) for part in fault['loc']) or 'it'}: {fault['msg']}"
        for fault in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" (and {len(faults) - 3} more)" if len(faults) > 3 else ""
    return Refusal("invalid", f"{name} does not hold together: {'; '.join(faults[:3])}{more}")
