"""What a setting or a field of a file must be: one kind of rule for configs and for stored runs.

A rule takes a value and says what is wrong with it, in words, or None.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np

Rule = Callable[[object], str | None]


def number(low: float, high: float = math.inf, *, whole: bool = False, above: bool = False) -> Rule:
    """A finite number from `low` (with `above`: larger than that) to `high`."""
    ends = f"{'above' if above else 'from'} {low}" + (f" to {high}" if high < math.inf else "")
    expected = f"{'a whole number' if whole else 'a number'} {ends}"

    def rule(value: object) -> str | None:
        kinds = (int,) if whole else (int, float)
        fits = isinstance(value, kinds) and not isinstance(value, bool)
        if fits and low <= value <= high and abs(value) < math.inf and not (above and value == low):
            return None
        return f"expected {expected}, found {value!r}"

    return rule


def image_size(value: object) -> str | None:
    """A side that stride-2 convolutions bring to 4 pixels (Table 10)."""
    if fault := number(8, 4096, whole=True)(value):
        return fault
    return None if value & (value - 1) == 0 else f"expected a power of two, found {value}"


def text(value: object) -> str | None:
    """Text that is not empty."""
    fits = isinstance(value, str) and value
    return None if fits else f"expected text, found {value!r}"


def flag(value: object) -> str | None:
    """True or false."""
    return None if isinstance(value, bool) else f"expected True or False, found {value!r}"


def one_of(names: Sequence[str]) -> Rule:
    """One of these names."""

    def rule(value: object) -> str | None:
        fits = isinstance(value, str) and value in names
        return None if fits else f"expected one of {', '.join(names)}, found {value!r}"

    return rule


def optional(inner: Rule) -> Rule:
    """None, or what `inner` asks for."""
    return lambda value: None if value is None else inner(value)


def several(inner: Rule, *, distinct: bool = True) -> Rule:
    """One value or more, each as `inner` asks, none of them twice if they are `distinct`."""

    def rule(value: object) -> str | None:
        if not isinstance(value, tuple | list) or not value:
            return f"expected one value or more, found {value!r}"
        if fault := next(filter(None, map(inner, value)), None):
            return fault
        if distinct and len(set(value)) < len(value):
            return f"expected different values, found {value!r}"
        return None

    return rule


def interval(low: float, *, above: bool = False) -> Rule:
    """Two numbers, the lower one first, both as `number` asks."""

    def rule(value: object) -> str | None:
        fits = isinstance(value, tuple | list) and len(value) == 2
        if fits and not any(map(number(low, above=above), value)) and value[0] <= value[1]:
            return None
        return f"expected a lower and a higher number {'above' if above else 'from'} {low}, " + (
            f"found {value!r}"
        )

    return rule


def array(*shape: int | None) -> Rule:
    """Nested lists of finite numbers of this shape; None stands for any length from 1."""

    def rule(value: object) -> str | None:
        try:
            found = np.array(value)
        except ValueError:
            return f"expected numbers of shape {shape}, found lists of different lengths"
        if found.dtype.kind not in "iuf" or not np.isfinite(found).all():
            return f"expected finite numbers of shape {shape}, found others"
        lengths = zip(found.shape, shape, strict=False)
        fits = found.ndim == len(shape) and all(n == m or (m is None and n) for n, m in lengths)
        return None if fits else f"expected shape {shape}, found {found.shape}"

    return rule


def table(rules: dict[str, Rule]) -> Rule:
    """A mapping with exactly these names, and a rule for each value."""

    def rule(value: object) -> str | None:
        if not isinstance(value, dict) or value.keys() != rules.keys():
            found = ", ".join(map(str, value)) if isinstance(value, dict) else repr(value)
            return f"expected {', '.join(rules)}, found {found}"
        faults = ((name, check(value[name])) for name, check in rules.items())
        return next((f"{name}: {fault}" for name, fault in faults if fault), None)

    return rule


def named(inner: Rule) -> Rule:
    """A mapping of one name or more, every value as `inner` asks."""

    def rule(value: object) -> str | None:
        if not isinstance(value, dict) or not value:
            return f"expected names with values, found {value!r}"
        faults = ((name, inner(one)) for name, one in value.items())
        return next((f"{name}: {fault}" for name, fault in faults if fault), None)

    return rule
