"""Formula: `y ~ sex * bmi + log(age)` into response and terms, with R's meaning of each sign.

The algebra of terms (`+ - : * / ^ .` and parentheses) is formulaic's parser; what stands in a term is `haina.learners.glm.expression`. The parser
makes names of terms and computes nothing; it is never asked to.

R's conventions, each a trap: terms are sorted by how many factors they have; the factors of a term stand in the order in which the formula first
names them, so `b:a` after `a` is `a:b`; the intercept is there unless `- 1` or `+ 0` takes it away; `.` is every column that the left side does not
name; `offset(x)` has no coefficient.

A formula may come over the network, so it is short, and it is counted before it is multiplied out: `a*b*c*...` doubles with every letter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from haina.errors import HainaError, LearnerError
from haina.learners.glm.expression import Expression, column, expression, marked

#: Letters of a formula, and terms once it is multiplied out.
LONGEST, MOST_TERMS = 4000, 1000

_EXAMPLE = "for example y ~ age + sex * bmi"
#: `Surv(time, event)`, `strata(ward)` and `offset(log(days))`.
_CALL = re.compile(r"(\w+)\((.*)\)", re.DOTALL)


@dataclass(frozen=True)
class Formula:
    """A regression in words.

    Args:
        response: the left side; for survival the time.
        event: for `Surv(time, event)`, the event; None otherwise.
        terms: each one or more factors, as R sorts them; without intercept, offset and strata.
        intercept: False with `- 1` or `+ 0`.
        offsets: what is added to the linear predictor.
        strata: columns of `strata(...)`, within a site.
        text: as it was given, with `.` replaced by the columns it stands for; R reads it alike.
    """

    response: Expression
    event: Expression | None
    terms: tuple[tuple[Expression, ...], ...]
    intercept: bool = True
    offsets: tuple[Expression, ...] = ()
    strata: tuple[str, ...] = ()
    text: str = field(default="", compare=False)

    @classmethod
    def parse(cls, text: str, columns: Sequence[str] = ()) -> Formula:
        """Read a formula.

        Args:
            text: as R would take it.
            columns: all columns of the table, in order: what `.` stands for. Whether those named are there is not asked.

        Raises:
            LearnerError: it cannot be read, it is too long, or it holds what may not stand in a formula; formulaic is not installed.
        """
        try:
            left, right, order = _sides(text, columns)
            response, event = _response(left)
            named = {*response.columns, *(() if event is None else event.columns)}
            others = [column(name).text for name in columns if name not in named]
            return replace(cls._of(response, event, right, order), text=_spread(text.strip(), others))
        except HainaError as error:
            if error.what.startswith("the formula"):
                raise
            raise LearnerError(
                f"the formula {text[:200]!r}: {error.what}", allowed=error.allowed, remedy=error.remedy
            ) from error

    @classmethod
    def _of(
        cls, response: Expression, event: Expression | None, right: list[list[str]], order: list[str]
    ) -> Formula:
        intercept = False
        terms: list[tuple[Expression, ...]] = []
        offsets: list[Expression] = []
        strata: list[str] = []
        for factors in right:
            if factors == ["1"]:
                intercept = True
                continue
            calls = [match for match in map(_CALL.fullmatch, factors) if match is not None]
            special = next((call for call in calls if call[1] in ("offset", "strata", "Surv")), None)
            if special is None:
                read = tuple({one.text: one for one in map(expression, factors)}.values())
                terms.append(read)
            elif len(factors) > 1 or special[1] == "Surv":
                raise LearnerError(f"{special[0]} stands inside a term", allowed=f"{special[1]}() by itself")
            elif special[1] == "offset":
                offsets.append(expression(special[2]))
            else:
                strata += [_column(name) for name in special[2].split(",")]
        place = {name: k for k, name in reversed(list(enumerate(order)))}
        ordered = [tuple(sorted(term, key=lambda one: place.get(one.text, len(place)))) for term in terms]
        once = {tuple(one.text for one in term): term for term in ordered}
        return cls(
            response,
            event,
            tuple(sorted(once.values(), key=len)),
            intercept,
            tuple(offsets),
            tuple(dict.fromkeys(strata)),
        )

    @property
    def written(self) -> str:
        """The formula with all terms multiplied out, as R sorts them."""
        left = self.response.text if self.event is None else f"Surv({self.response.text}, {self.event.text})"
        right = [":".join(factor.text for factor in term) for term in self.terms]
        right += [f"offset({one.text})" for one in self.offsets]
        right += [f"strata({', '.join(self.strata)})"] if self.strata else []
        if not self.intercept:
            right.append("-1")
        return f"{left} ~ {' + '.join(right) or '1'}".replace("+ -1", "- 1")

    @property
    def declared(self) -> tuple[str, ...]:
        """Columns that must be factors whatever they hold: those of `factor()` and `strata()`."""
        factors = [one.column for term in self.terms for one in term if one.factor]
        factors += [self.response.column] if self.response.factor else []
        return tuple(dict.fromkeys([*factors, *self.strata]))

    @property
    def columns(self) -> tuple[str, ...]:
        """Every column that is read, once, the left side first."""
        parts = [self.response, *([] if self.event is None else [self.event])]
        parts += [factor for term in self.terms for factor in term] + list(self.offsets)
        return tuple(dict.fromkeys([name for part in parts for name in part.columns] + list(self.strata)))


def _spread(text: str, others: Sequence[str]) -> str:
    """The text with columns in place of `.`; names between backticks and names with dots stay."""
    parts = re.split(r"(`[^`]*`)", text)
    everything = f"({' + '.join(others)})"
    for i in range(0, len(parts), 2):
        parts[i] = re.sub(r"(?<![\w.])\.(?![\w.])", lambda _: everything, parts[i])
    return "".join(parts)


def _column(name: str) -> str:
    found = expression(name)
    if not found.column:
        raise LearnerError(f"strata({name}) is arithmetic", allowed="columns, for example strata(ward)")
    return found.column


def _response(left: str) -> tuple[Expression, Expression | None]:
    match = _CALL.fullmatch(left)
    if match is None or match[1] != "Surv":
        return expression(left), None
    parts = _split(match[2])
    if len(parts) != 2:
        raise LearnerError(
            f"{left} has {len(parts)} parts", allowed="Surv(time, event), right-censored times"
        )
    event = expression(parts[1])
    if not event.column:
        raise LearnerError(f"the event {parts[1]} is arithmetic", allowed="a column of 0 and 1")
    return expression(parts[0]), event


def _split(text: str) -> list[str]:
    """Arguments between commas that stand in no parentheses."""
    parts, depth = [""], 0
    for letter in text:
        depth += (letter == "(") - (letter == ")")
        if letter == "," and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _sides(text: str, columns: Sequence[str]) -> tuple[str, list[list[str]], list[str]]:
    """The left side, for each term of the right side its factors, and all factors in the order in which the formula names them."""
    if not 0 < len(text) <= LONGEST or text.count("~") != 1 or "\n" in text:
        raise LearnerError(
            f"the formula has {len(text)} letters and {text.count('~')} times '~'",
            allowed=f"one line of at most {LONGEST} letters with one '~', {_EXAMPLE}",
        )
    left, _, right = (part.strip() for part in text.partition("~"))
    if not left or not right:
        raise LearnerError(f"the formula {text!r} has one side only", allowed=_EXAMPLE)
    if any(sign in text for sign in "[]{}|'\"\\;%"):
        raise LearnerError(
            f"the formula {text[:200]!r} holds a sign that has no meaning here", allowed=_EXAMPLE
        )
    try:
        from formulaic.errors import FormulaicError
        from formulaic.parser import DefaultFormulaParser
    except ImportError as error:
        raise LearnerError(
            "the formula needs formulaic to be read", remedy="Install it: pip install 'haina[stats]'"
        ) from error
    named = _named(left)
    parser = DefaultFormulaParser(feature_flags={"twosided"})
    others = [name for name in columns if name not in named]
    context: dict[str, Any] = {"__formulaic_variables_available__": others}
    try:
        plain = marked(right).replace("^", "**")
        tree = parser.get_ast(plain, context=dict(context))
        if tree is None or _bound(tree, max(1, len(columns))) > MOST_TERMS:
            raise LearnerError(
                "the formula has too many terms once it is multiplied out",
                allowed=f"up to about {MOST_TERMS}",
            )
        found = parser.get_terms(plain, context=dict(context))
        terms = [
            [_spelt(str(factor.expr), str(factor.eval_method.value)) for factor in term.factors]
            for term in found
        ]
        order = list(_leaves(tree, others))
    except HainaError:
        raise
    except (FormulaicError, SyntaxError, ValueError, AttributeError, RecursionError, MemoryError) as error:
        said = re.sub(r"\x1b\[[0-9;]*m|[⧛⧚]", "", str(error)).strip().partition("\n")[0]
        raise LearnerError(f"the formula {text[:200]!r} cannot be read: {said}", allowed=_EXAMPLE) from error
    return left, terms, order


def _named(left: str) -> set[str]:
    response, event = _response(left)
    return {*response.columns, *(() if event is None else event.columns)}


def _spelt(text: str, method: str) -> str:
    """A factor that our own reader takes: what the parser looked up is a column, whatever it is called."""
    if method == "lookup":
        return column(text).text
    if method == "literal" and text != "1":
        raise LearnerError(f"the number {text} stands in a term", allowed="columns; I(2 * x) for arithmetic")
    return text


def _leaves(tree: Any, everything: Sequence[str]) -> Iterator[str]:
    """The factors as they stand in the text, written as R writes them."""
    if hasattr(tree, "operator"):
        if str(tree.operator.symbol) == ".":
            yield from (column(name).text for name in everything)
        for part in tree.args:
            yield from _leaves(part, everything)
    elif str(tree.kind.value) == "name":
        yield column(tree.token).text
    elif str(tree.kind.value) == "python" and _CALL.fullmatch(tree.token) is not None:
        call = _CALL.fullmatch(tree.token)
        if call is not None and call[1] not in ("offset", "strata", "Surv"):
            yield expression(tree.token).text


def _bound(tree: Any, everything: int) -> int:
    """At most so many terms come of a part of the syntax tree."""
    if not hasattr(tree, "operator"):
        return everything if str(tree) == "." else 1
    sign, parts = str(tree.operator.symbol), [_bound(part, everything) for part in tree.args]
    if sign in ("**", "^") and len(parts) == 2:
        power = str(tree.args[1])
        count = parts[0] ** (min(int(power), 20) if power.isdecimal() else 20)
    elif len(parts) == 2 and sign != "-":
        first, second = parts
        count = first + second + (0 if sign == "+" else first * second)
    else:
        count = parts[0] if parts else everything
    return int(min(count, MOST_TERMS + 1))
