"""Settings that were saved as JSON, read back into the dataclass they belong to, each value of its type and within its limits."""

from __future__ import annotations

import reprlib
import sys
from dataclasses import MISSING, dataclass, fields, is_dataclass
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from lesionforge.errors import InputError

Settings = TypeVar("Settings")

REMEDY = "copy the whole model folder again"
PLAIN = {bool: "true or false", int: "a whole number", float: "a number", str: "a text", NoneType: "null"}


@dataclass(frozen=True)
class Within:
    """The limits of a number, for `Annotated`: from `low` to `high`, both allowed, or with `above` only what exceeds `low`."""

    low: float
    high: float
    above: bool = False

    def holds(self, number: float) -> bool:
        """Whether a number keeps to the limits; NaN does not."""
        return (self.low < number if self.above else self.low <= number) and number <= self.high

    def in_words(self) -> str:
        """`from 0 to 1`, or `above 0, at most 1`."""
        return f"above {self.low:g}, at most {self.high:g}" if self.above else f"from {self.low:g} to {self.high:g}"


def settings_of(kind: type[Settings], content: object, where: str, remedy: str = REMEDY) -> Settings:
    """The JSON `content` as the dataclass `kind`; what the dataclass has no field for is left out.

    Fields may be bool, int, float, str, a Literal, None besides another, a tuple or dict of these, and dataclasses; numbers
    may have limits (`Within`). Raises InputError, which begins with `where` (the file), when a field without a default is
    missing, a value is of another type or beyond its limits, or `kind` itself refuses the values with a ValueError;
    it ends with `remedy`.
    """
    if not isinstance(content, dict):
        raise InputError(f"{where} is {reprlib.repr(content)}, but must hold settings; {remedy}")
    hints = get_type_hints(kind, include_extras=True)
    found = {}
    for field in fields(kind):  # type: ignore[arg-type]
        name, hint = field.name, hints[field.name]
        if name not in content:
            if field.default is MISSING and field.default_factory is MISSING:
                raise InputError(f"{where}: lacks {name}; {remedy}")
        elif is_dataclass(hint):
            found[name] = settings_of(hint, content[name], f"{where}: {name}", remedy)  # type: ignore[arg-type]
        elif fits(content[name], hint):
            found[name] = as_typed(content[name], hint)
        else:
            shown = reprlib.repr(content[name])
            raise InputError(f"{where}: {name} is {shown}, but must be {in_words(hint)}; {remedy}")
    try:
        return kind(**found)
    except ValueError as error:
        raise InputError(f"{where}: {error}; {remedy}") from error


def limits_of(kind: type, name: str) -> tuple[int, int]:
    """The limits of a whole number among the fields of a dataclass, for an option that sets it: a card must be read back."""
    hint = get_type_hints(kind, include_extras=True)[name]
    for one in (hint, *get_args(hint)):
        if get_origin(one) is Annotated:
            limits = get_args(one)[1]
            return int(limits.low), int(limits.high)
    raise ValueError(f"{kind.__name__}.{name} has no limits")


def fits(value: object, hint: Any) -> bool:
    """Whether a JSON value is what a type hint of `settings_of` asks for."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return fits(value, inner[0]) and inner[1].holds(value)
    if origin in (Union, UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Literal:
        return isinstance(value, str) and value in inner
    if origin is tuple:
        return isinstance(value, list | tuple) and all(fits(one, inner[0]) for one in value)
    if origin is dict:
        return isinstance(value, dict) and all(fits(key, inner[0]) and fits(one, inner[1]) for key, one in value.items())
    if hint is float:
        # Neither NaN nor infinite, nor a whole number that no float can hold.
        return type(value) in (int, float) and abs(value) <= sys.float_info.max  # type: ignore[arg-type]
    return type(value) is hint


def as_typed(value: Any, hint: Any) -> Any:
    """A JSON value that fits a hint, as Python has it: lists are tuples."""
    if get_origin(hint) is tuple:
        return tuple(value)
    if get_origin(hint) is dict:
        return {key: as_typed(one, get_args(hint)[1]) for key, one in value.items()}
    return value


def in_words(hint: Any) -> str:
    """What a type hint of `settings_of` asks for: `a whole number from 1 to 8 or null`."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return f"{in_words(inner[0])} {inner[1].in_words()}"
    if origin in (Union, UnionType):
        return " or ".join(in_words(one) for one in inner)
    if origin is Literal:
        return " or ".join(inner)
    if origin is tuple:
        return f"a list, each of it {in_words(inner[0])}"
    if origin is dict:
        return f"an object of {in_words(inner[0])}, each {in_words(inner[1])}"
    return PLAIN[hint]
