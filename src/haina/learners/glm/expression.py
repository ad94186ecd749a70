"""Expression: the arithmetic that a formula may hold. It is read and computed here, node by node, and never run as code.

A formula comes over the network, so nothing of it may be evaluated by the language: the text becomes a syntax tree, each node of it must be on a
short list (columns, numbers, + - * / ^ and a few functions), and the list is all there is. It is written back as R writes it, so that coefficients
are called the same: `I(x^2)`, `log(x + 1)`.

The trap is functions with a memory. `scale(x)`, `poly(x, 2)` or `bs(x)` look at all values first, so at each site they would be another function;
they are refused, and the message says so.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from keyword import iskeyword

import numpy as np

from haina.errors import DataError, LearnerError
from haina.update import Vector

#: What may be called on numbers, the same in R.
FUNCTIONS: Mapping[str, Callable[[Vector], Vector]] = {
    "I": lambda x: x,
    "log": np.log,
    "log2": np.log2,
    "log10": np.log10,
    "log1p": np.log1p,
    "exp": np.exp,
    "expm1": np.expm1,
    "sqrt": np.sqrt,
    "abs": np.abs,
}
#: Functions of other languages of formulas whose meaning depends on the rows that they see.
STATEFUL = frozenset(
    [
        "scale",
        "poly",
        "bs",
        "ns",
        "cr",
        "cc",
        "cs",
        "te",
        "lag",
        "center",
        "standardize",
        "cut",
        "quantile",
        "rank",
        "pspline",
        "ridge",
        "frailty",
        "C",
        "hashed",
        "relevel",
    ]
)
_OPERATORS: Mapping[type[ast.operator], tuple[str, int, Callable[[Vector, Vector], Vector]]] = {
    ast.Add: (" + ", 1, np.add),
    ast.Sub: (" - ", 1, np.subtract),
    ast.Mult: (" * ", 2, np.multiply),
    ast.Div: ("/", 2, np.divide),
    ast.Pow: ("^", 4, np.power),
}
_NEGATIVE, _ATOM = 3, 5
_SYNTACTIC = re.compile(r"(?:[^\W\d_]|\.(?!\d))[\w.]*|\.")
#: A column: between backticks, or a name that is not called. Dots and words that Python keeps for itself may stand in R's names.
_COLUMN = re.compile(r"`([^`]+)`|(?<![\w.])([^\W\d][\w.]*)(?![\w.]|\s*\()")
_ALLOWED = "columns, numbers, + - * / ^ and " + ", ".join(f"{name}()" for name in FUNCTIONS)


@dataclass(frozen=True)
class Expression:
    """One factor of a term.

    Args:
        text: as R writes it.
        columns: the columns that it reads, in order.
        column: the column, where it is nothing else; "" for arithmetic.
        factor: True for `factor(column)`, which must be a factor already.
    """

    text: str
    columns: tuple[str, ...]
    column: str = ""
    factor: bool = False
    tree: ast.expr | None = field(default=None, repr=False, compare=False)

    def value(self, numbers: Callable[[str], Vector]) -> Vector:
        """`[N]` float64 values.

        Args:
            numbers: column -> its `[N]` values.

        Raises:
            DataError: a value is not finite, such as the logarithm of 0; the message counts rows and shows none.
        """
        assert self.tree is not None
        with np.errstate(all="ignore"):
            found = np.asarray(_computed(self.tree, numbers), np.float64)
        bad = int((~np.isfinite(found)).sum())
        if bad:
            raise DataError(
                f"{self.text} is not a number in {bad} of {found.size} rows",
                allowed=f"rows in which {self.text} is a finite number",
                remedy="Leave these rows out, or transform the column in another way, for example log(x + 1)",
            )
        return found


def column(name: str) -> Expression:
    """The column itself."""
    return Expression(quoted(name), (name,), name, tree=ast.Name(name))


def expression(text: str) -> Expression:
    """Read one factor of a formula.

    Args:
        text: such as `age`, `log(age + 1)`, `I(age^2)`, `factor(ward)`; a column between backticks may be called anything.

    Raises:
        LearnerError: it holds anything but columns, numbers and the arithmetic of this module.
    """
    given: dict[str, str] = {}

    def stand_in(match: re.Match[str]) -> str:
        given[f"column_{len(given)}_"] = match[1] or match[2]
        return f" column_{len(given) - 1}_ "

    plain = _COLUMN.sub(stand_in, text).replace("^", "**")
    try:
        tree = ast.parse(plain.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise LearnerError(f"{text!r} cannot be read", allowed=_ALLOWED) from error
    if isinstance(tree, ast.Call) and isinstance(tree.func, ast.Name) and tree.func.id == "factor":
        if len(tree.args) != 1 or tree.keywords:
            raise LearnerError(f"{text!r} is more than a factor", allowed="factor(column)")
        inner = _checked(tree.args[0], given, text)
        if not isinstance(inner, ast.Name):
            raise LearnerError(f"{text!r} makes a factor of arithmetic", allowed="factor(column)")
        return Expression(f"factor({quoted(inner.id)})", (inner.id,), inner.id, factor=True, tree=inner)
    tree = _checked(tree, given, text)
    columns = tuple(dict.fromkeys(node.id for node in _walk(tree) if isinstance(node, ast.Name)))
    if not columns:
        raise LearnerError(f"{text!r} names no column", allowed=_ALLOWED)
    return Expression(_written(tree)[0], columns, tree.id if isinstance(tree, ast.Name) else "", tree=tree)


def marked(text: str) -> str:
    """The text with backticks around columns whose names a reader of Python would stumble over."""

    def mark(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        return f"`{name}`" if match[1] or not name.isidentifier() or iskeyword(name) else name

    return _COLUMN.sub(mark, text)


def quoted(name: str) -> str:
    """A column's name as R writes it: between backticks where it is no plain name."""
    return name if _SYNTACTIC.fullmatch(name) else f"`{name}`"


def _checked(node: ast.expr, given: Mapping[str, str], text: str) -> ast.expr:
    """A clean copy of the tree; anything that is not on the list is refused."""
    if isinstance(node, ast.Name):
        return ast.Name(given.get(node.id, node.id))
    if isinstance(node, ast.Constant):
        value = node.value
        # True is an int to Python, and no number to a person.
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300:
            return ast.Constant(float(value))
    elif isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _checked(node.left, given, text), _checked(node.right, given, text)
        return ast.BinOp(left, node.op, right)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        return ast.UnaryOp(node.op, _checked(node.operand, given, text))
    elif isinstance(node, ast.Call):
        name = ast.unparse(node.func)
        if name.rpartition(".")[2] in STATEFUL:
            raise LearnerError(
                f"{name}() looks at all rows before it says anything of one, so it would be another function at each site",
                allowed=_ALLOWED,
                remedy="Transform by agreed numbers, for example I((age - 50) / 10), or I(age^2) in place of poly(age, 2)",
            )
        if name in FUNCTIONS and len(node.args) == 1 and not node.keywords:
            return ast.Call(ast.Name(name), [_checked(node.args[0], given, text)], [])
    raise LearnerError(f"{text!r} holds what no formula here may hold", allowed=_ALLOWED)


def _walk(tree: ast.expr) -> list[ast.expr]:
    """All operands, from left to right; the names of functions are none."""
    if isinstance(tree, ast.BinOp):
        return [*_walk(tree.left), *_walk(tree.right)]
    if isinstance(tree, ast.UnaryOp):
        return _walk(tree.operand)
    if isinstance(tree, ast.Call):
        return _walk(tree.args[0])
    return [tree]


def _computed(tree: ast.expr, numbers: Callable[[str], Vector]) -> Vector:
    if isinstance(tree, ast.Name):
        return numbers(tree.id)
    if isinstance(tree, ast.Constant):
        return np.float64(tree.value)  # type: ignore[return-value, arg-type]
    if isinstance(tree, ast.BinOp):
        return _OPERATORS[type(tree.op)][2](_computed(tree.left, numbers), _computed(tree.right, numbers))
    if isinstance(tree, ast.UnaryOp):
        return -_computed(tree.operand, numbers)
    assert isinstance(tree, ast.Call)
    assert isinstance(tree.func, ast.Name)
    return FUNCTIONS[tree.func.id](_computed(tree.args[0], numbers))


def _written(tree: ast.expr) -> tuple[str, int]:
    """The text as R deparses it, and how tightly it binds."""
    if isinstance(tree, ast.Name):
        return quoted(tree.id), _ATOM
    if isinstance(tree, ast.Constant):
        return _number(float(tree.value)), _ATOM  # type: ignore[arg-type]
    if isinstance(tree, ast.UnaryOp):
        text, binds = _written(tree.operand)
        return f"-{text}" if binds >= _NEGATIVE else f"-({text})", _NEGATIVE
    if isinstance(tree, ast.Call):
        assert isinstance(tree.func, ast.Name)
        return f"{tree.func.id}({_written(tree.args[0])[0]})", _ATOM
    assert isinstance(tree, ast.BinOp)
    sign, binds, _ = _OPERATORS[type(tree.op)]
    (left, tight), (right, tighter) = _written(tree.left), _written(tree.right)
    power = isinstance(tree.op, ast.Pow)
    left = left if (tight > binds if power else tight >= binds) else f"({left})"
    right = right if (tighter >= binds if power else tighter > binds) else f"({right})"
    return f"{left}{sign}{right}", binds


def _number(value: float) -> str:
    """A number as R prints it: 15 digits, and whichever of the two notations is shorter."""
    fixed, exponent = f"{value:.15g}", f"{value:.14e}"
    mantissa, _, power = exponent.partition("e")
    mantissa = mantissa.rstrip("0").rstrip(".")
    scientific = f"{mantissa}e{int(power):+03d}"
    if "e" not in fixed:
        return scientific if len(scientific) < len(fixed) else fixed
    return scientific
