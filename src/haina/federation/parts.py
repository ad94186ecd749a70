"""Names become parts: the one place where the words of a federation file turn into objects.

A part is written in one of three ways, and all three mean the same thing:

    combine = "nnm"                               # the part with its defaults
    combine = {nnm = {byzantine = 0.4}}           # with settings
    partition = {dirichlet = 0.3, clients = 30}   # the first setting right behind the name

The settings of a part are the fields of its dataclass, with their types and defaults; there is no second list of them to keep.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import json
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from haina.errors import ConfigError, HainaError

#: A part's name -> the dataclass (or function) that makes it.
Registry = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Place:
    """Where in which file a value stands, for messages."""

    file: str
    key: str

    def __truediv__(self, key: str) -> Place:
        return Place(self.file, f"{self.key}.{key}" if self.key else key)

    def error(self, what: str, *, allowed: str = "", remedy: str = "") -> ConfigError:
        """A `ConfigError` that names file and key first."""
        return ConfigError(f"{self.file}: {self.key}: {what}", allowed=allowed, remedy=remedy)


def part(value: Any, registry: Registry, place: Place) -> Any:
    """Make one part from what the file says.

    Args:
        value: a name, or a table with the name as one key.
        registry: the names allowed here.
        place: where the value stands.

    Raises:
        ConfigError: unknown name or setting, wrong type, or settings that the part itself refuses.
    """
    name, settings = _name_and_settings(value, registry, place)
    return build(registry[name], settings, place / name, registry)


def parts(values: Any, registry: Registry, place: Place) -> tuple[Any, ...]:
    """Make a list of parts."""
    if isinstance(values, str | Mapping):
        values = [values]
    if not isinstance(values, Sequence):
        raise place.error(f"{values!r} is not a list", allowed="a list of " + _choices(registry))
    return tuple(part(value, registry, place / str(i)) for i, value in enumerate(values))


def build(make: Any, settings: Mapping[str, Any], place: Place, registry: Registry | None = None) -> Any:
    """Call a dataclass or function with settings checked against its signature.

    Args:
        make: what is called; its parameters, types and defaults are what is allowed.
        settings: name -> value as the file says it.
        place: where the settings stand.
        registry: names for parameters that are parts themselves (`then` of a pre-aggregation).
    """
    parameters = inspect.signature(make).parameters
    hints = typing.get_type_hints(make if inspect.isfunction(make) else make.__init__)
    checked: dict[str, Any] = {}
    for key, value in settings.items():
        if key not in parameters:
            raise place.error(
                f"there is no setting {key!r}",
                allowed=", ".join(parameters) or "no settings at all",
                remedy=did_you_mean(key, parameters),
            )
        checked[key] = _setting(value, hints.get(key, Any), place / key, registry)
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in checked]
    if missing:
        raise place.error(f"{', '.join(missing)} must be given", allowed=", ".join(parameters))
    try:
        return make(**checked)
    except HainaError as error:
        if error.what.startswith(place.file):
            raise
        raise place.error(error.what, allowed=error.allowed, remedy=error.remedy) from error


def _name_and_settings(value: Any, registry: Registry, place: Place) -> tuple[str, Mapping[str, Any]]:
    if isinstance(value, str):
        name, settings = value, {}
    elif isinstance(value, Mapping):
        names = [key for key in value if key in registry]
        if len(names) != 1:
            unknown = next(iter(value), "")
            raise place.error(
                f"{dict(value)!r} names {len(names)} parts",
                allowed="one of " + _choices(registry),
                remedy=did_you_mean(str(unknown), registry),
            )
        name = names[0]
        inner, rest = value[name], {key: item for key, item in value.items() if key != name}
        if not isinstance(inner, Mapping):
            first = next(iter(inspect.signature(registry[name]).parameters), None)
            if first is None:
                raise (place / name).error(
                    f"{inner!r} was given to a part without settings", allowed=f'"{name}"'
                )
            inner = {first: inner}
        for twice in inner.keys() & rest.keys():
            raise (place / name).error(f"{twice} is given twice", allowed="each setting once")
        settings = {**inner, **rest}
    else:
        raise place.error(
            f"{value!r} is not a part", allowed="a name or a table with one of " + _choices(registry)
        )
    if name not in registry:
        raise place.error(
            f"{name!r} is not known",
            allowed="one of " + _choices(registry),
            remedy=did_you_mean(name, registry),
        )
    return name, settings


def _setting(value: Any, hint: Any, place: Place, registry: Registry | None) -> Any:
    if registry is not None and _is_part(hint):
        made = part(value, registry, place)
        if not _fits(made, hint):
            fitting = [
                n for n, make in registry.items() if isinstance(make, type) and _fits(make, hint, issubclass)
            ]
            raise place.error(f"{type(made).__name__} does not fit here", allowed=", ".join(sorted(fitting)))
        return made
    try:
        # As JSON, so that lists are tuples and words choices, and yet "10" is no number and true is no 1.
        return TypeAdapter(hint).validate_json(json.dumps(value, default=str), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        raise place.error(f"{value!r} does not fit", allowed=_spoken(hint), remedy=first["msg"]) from error


def _is_part(hint: Any) -> bool:
    options = typing.get_args(hint) or (hint,)
    return any(
        getattr(option, "_is_protocol", False) or dataclasses.is_dataclass(option) for option in options
    )


def _fits(made: Any, hint: Any, test: Any = isinstance) -> bool:
    """False for a part of another kind; parts that are only contracts (protocols) are not told apart here."""
    options = typing.get_args(hint) or (hint,)
    return any(getattr(option, "_is_protocol", False) or test(made, option) for option in options)


def _spoken(hint: Any) -> str:
    return (
        (hint.__name__ if isinstance(hint, type) else str(hint))
        .replace("typing.", "")
        .replace("NoneType", "none")
    )


def did_you_mean(word: str, words: Any) -> str:
    """A suggestion for a word that was probably mistyped, or nothing."""
    close = difflib.get_close_matches(word, list(words), n=1)
    return f"Did you mean {close[0]!r}?" if close else ""


def _choices(registry: Registry) -> str:
    return ", ".join(sorted(registry))
