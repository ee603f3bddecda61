"""Quality figures against their limits: which scans to look at, and which to leave out."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from typing import Any

from lesionforge.errors import InputError

# From no bound (None) to a bound, both inclusive.
Range = tuple[float | None, float | None]

# The stages that write figures, and what their figures' names start with in limits and tables.
PREFIXES = {"prepare": "", "register": "register_"}
LEVELS = ("pass", "warn", "fail")


@dataclass(frozen=True)
class Limit:
    """What a figure means and where it warns and fails: outside `warn`, outside `fail`. `remedy` says what to look at."""

    description: str
    unit: str
    warn: Range
    fail: Range
    remedy: str


@dataclass(frozen=True)
class Verdict:
    """One figure judged: `level` is pass, warn or fail; `sentence` says what is wrong and is empty for pass."""

    figure: str
    value: float | None
    level: str
    limit: Range | None = None
    sentence: str = ""


def judge(figures: dict[str, float | None], limits: dict[str, Limit]) -> list[Verdict]:
    """One verdict for each figure that has limits, in the order of the limits.

    A value at a limit is within it. None (not applicable, or undefined) passes.
    """
    return [_verdict(name, figures[name], limit) for name, limit in limits.items() if name in figures]


def _verdict(name: str, value: float | None, limit: Limit) -> Verdict:
    for level, bounds in (("fail", limit.fail), ("warn", limit.warn)):
        if value is not None and not _within(value, bounds):
            return Verdict(name, value, level, bounds, f"{name} is {value:.5g} ({level} limit: {in_words(bounds)})")
    return Verdict(name, value, "pass")


def _within(value: float, bounds: Range) -> bool:
    low, high = bounds
    return (low is None or value >= low) and (high is None or value <= high)


def worst(verdicts: list[Verdict]) -> str:
    """The worst level among verdicts; pass when there are none."""
    return max((verdict.level for verdict in verdicts), key=LEVELS.index, default="pass")


def in_words(bounds: Range) -> str:
    """`800 to 2300`, `at least 0.5`, `at most 5`, or `none`."""
    low, high = bounds
    if low is not None and high is not None:
        return f"{low:g} to {high:g}"
    if low is not None:
        return f"at least {low:g}"
    return "none" if high is None else f"at most {high:g}"


def remedies(verdicts: list[Verdict], limits: dict[str, Limit]) -> str:
    """What to look at for these verdicts, each thing once."""
    return "; ".join(dict.fromkeys(limits[verdict.figure].remedy for verdict in verdicts))


def named_figures(stage: str, content: dict[str, Any]) -> dict[str, float | None]:
    """The numbers and nulls that a stage (prepare or register) wrote, under the names that limits and tables give them."""
    return {PREFIXES[stage] + name: value for name, value in content.items() if value is None or _is_number(value)}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def read_figures(path: Path) -> tuple[str, dict[str, float | None]]:
    """(scan id, figures) of a file `<id>_desc-prepare.json` or `<id>_desc-register.json`; raises InputError for any other."""
    found = re.fullmatch(rf"(sub-.+)_desc-({'|'.join(PREFIXES)})\.json", path.name)
    if not found:
        raise InputError(f"{path}: is no file of quality figures; give ID_desc-prepare.json or ID_desc-register.json")
    return found[1], named_figures(found[2], _read_object(path))


def read_limits(path: Path | None = None) -> dict[str, Limit]:
    """The packaged limits; with a file, the ranges that it gives replace them, all others stay.

    The file is JSON: {"brain_volume_ml": {"warn": [900, 1900], "fail": [null, null]}, ...}; null is no bound.
    Raises InputError when it is no such file, names an unknown figure, or has a low bound above the high one.
    """
    packaged = json.loads(resources.files("lesionforge.prepare").joinpath("limits.json").read_text(encoding="utf-8"))
    limits = {}
    for name, content in packaged.items():
        limits[name] = Limit(**(content | {"warn": tuple(content["warn"]), "fail": tuple(content["fail"])}))
    for name, ranges in _read_object(path).items() if path else ():
        if name not in limits:
            raise InputError(f"{path}: {name!r} is no quality figure; docs/quality.md lists the figures there are")
        if not isinstance(ranges, dict) or not set(ranges) <= {"warn", "fail"}:
            raise InputError(f'{path}: {name} must hold warn, fail or both, such as {{"fail": [800, 2300]}}')
        given: dict[str, Any] = {level: _range(path, name, level, pair) for level, pair in ranges.items()}
        limits[name] = replace(limits[name], **given)
    return limits


def _range(path: Path | None, name: str, level: str, pair: Any) -> Range:
    if not isinstance(pair, list) or len(pair) != 2 or not all(bound is None or _is_number(bound) for bound in pair):
        raise InputError(f"{path}: {name}, {level}: {json.dumps(pair)} is no pair [low, high] of numbers, null for no bound")
    low, high = pair
    if low is not None and high is not None and low > high:
        raise InputError(f"{path}: {name}, {level}: the low bound {low:g} lies above the high bound {high:g}; exchange them")
    return low, high


def _read_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InputError(f"{path}: is not JSON ({error}); mend it or write it again") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: holds no JSON object of figures; docs/quality.md shows one")
    return content
