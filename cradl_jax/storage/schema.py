"""Declare what settings and stored files hold: one declaration is type, reader and check.

A `Record` is a pydantic model: nothing is converted (no text or bool becomes a number), NaN and
infinity are refused, and so is a field that it does not declare. The types below are the limits
that configs and stored runs share. `problems` says in our words what a `ValidationError` found.

    class Slicing(Record):
        size: ImageSize
        slice_spacing_mm: Positive | None

    try:
        slicing = Slicing.model_validate(content)
    except ValidationError as error:
        raise InputError(*(f"{path}: {problem}; slice again" for problem in problems(error)))

`parse` does this where one sentence is enough.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, NamedTuple, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    ValidationError,
)

from cradl_jax.models import sizes

T = TypeVar("T")
LONGEST_FOUND = 80  # characters that are shown of a value


class Record(BaseModel):
    """Named values of declared types, which cannot be changed; an unknown name is refused."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


R = TypeVar("R", bound=Record)


def one_of(names: Iterable[str]) -> BeforeValidator:
    """Refuse what is none of `names`.

    A field is declared as `Annotated[str, one_of(METHODS)]`.
    """
    known = tuple(names)
    return BeforeValidator(_require(lambda name: name in known, f"one of {', '.join(known)}"))


def with_names(names: Iterable[str]) -> AfterValidator:
    """Refuse a mapping that has not exactly these names."""
    known = tuple(names)
    return AfterValidator(_require(lambda values: values.keys() == set(known), ", ".join(known)))


def _require(fits: Callable[[Any], bool], expected: str) -> Callable[[T], T]:
    """Return a validator that lets a value through where it fits what is `expected`."""

    def validator(value: T) -> T:
        if not fits(value):
            raise ValueError(expected)
        return value

    return validator


Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Positive = Annotated[Finite, Field(gt=0)]
NotNegative = Annotated[Finite, Field(ge=0)]
Share = Annotated[Finite, Field(ge=0, le=1)]
Whole = Annotated[int, Field(strict=True, ge=0, le=2**31 - 1)]
Seed = Whole
Count = Annotated[int, Field(strict=True, ge=1, le=2**31 - 1)]
BatchSize = Annotated[int, Field(strict=True, ge=2, le=2**31 - 1)]
"""Slices that a training step sees at once: a contrast takes two."""
Neighbours = Annotated[int, Field(strict=True, ge=0, le=64)]
"""Slices on either side."""
Width = Annotated[int, Field(strict=True, ge=1, le=2**16)]
"""Channels or units of a layer."""
Latent = Annotated[Width, Field(ge=2)]
"""Dimensions of a representation: couplings of a flow split them in two."""


def _fit_size(size: int) -> int:
    """Refuse a size that the network does not take, with the nearest that it does."""
    if size not in sizes.nearest(size):
        raise ValueError(sizes.expected(size))
    return size


ImageSize = Annotated[int, Field(strict=True, ge=8, le=4096), AfterValidator(_fit_size)]
"""A side that stride-2 convolutions bring to 4 pixels (Table 10), or to 5, 6 or 7."""
Text = Annotated[str, Field(strict=True, min_length=1)]
Flag = Annotated[bool, Field(strict=True)]
Numbers = Annotated[list[Finite], Field(min_length=1), FailFast()]
"""One finite number or more; the first that is none is named."""
Several = Annotated[Sequence[T], Field(min_length=1)]
"""One value or more in a list or tuple, e.g. `Several[Width]`."""
Distinct = Annotated[
    Sequence[T],
    Field(min_length=1),
    AfterValidator(_require(lambda items: len(set(items)) == len(items), "different values")),
]
"""One value or more, none of them twice, e.g. `Distinct[Count]`."""
Interval = Annotated[
    Sequence[T],
    Field(min_length=2, max_length=2),
    AfterValidator(_require(lambda ends: ends[0] <= ends[1], "the lower number first")),
]
"""Two numbers, the lower one first, e.g. `Interval[Positive]`."""


class Problem(NamedTuple):
    """A value that is not as declared.

    Attributes:
        place: where it lies, dotted: `slices.gmm1.n_slices`; of a list's values that of the list;
            empty for the whole.
        kind: pydantic's name of the fault: "missing", "extra_forbidden", "value_error", ...
        sentence: "expected ..., found ...".
    """

    place: str
    kind: str
    sentence: str

    def __str__(self) -> str:
        """Return place and sentence, as a fault says them."""
        return f"{self.place}: {self.sentence}" if self.place else self.sentence


EXPECTED = {
    "bool_type": "True or False",
    "dict_type": "names with values",
    "extra_forbidden": "no such field",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number from {ge:g}",
    "int_from_float": "a whole number",
    "int_type": "a whole number",
    "is_instance_of": "a list of values",
    "less_than_equal": "a number up to {le:.0f}",
    "list_type": "a list of values",
    "missing": "a value",
    "model_type": "names with values",
    "sequence_str": "a list of values",
    "string_too_short": "text",
    "string_type": "text",
    "too_long": "at most {max_length} values",
    "too_short": "{min_length} or more values",
    "tuple_type": "a list of values",
    "value_error": "{error}",
}
"""What was expected, in our words, by pydantic's name of the fault."""


def problems(error: ValidationError) -> list[Problem]:
    """Return what a validation found, a sentence each in the form "expected ..., found ..."."""
    found = []
    for one in error.errors(include_url=False):
        kind, context = one["type"], one.get("ctx", {})
        other = one["msg"].removeprefix("Input should be ")
        expected = EXPECTED[kind].format(**context) if kind in EXPECTED else other
        place = ".".join(name for name in one["loc"] if isinstance(name, str))
        value = "none" if kind == "missing" else _shown(one["input"])
        found.append(Problem(place, kind, f"expected {expected}, found {value}"))
    return found


def parse(kind: type[R], content: object) -> R:
    """Return the record that plain values describe.

    Raises:
        ValueError: they are not as declared; the message is one sentence.
    """
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        first, *others = problems(error)
        more = f" (and {len(others)} more)" if others else ""
        raise ValueError(f"{first}{more}") from error


def _shown(value: object) -> str:
    """Return a value as a fault shows it: of a mapping its names, and never more than a line."""
    text = ", ".join(map(str, value)) if isinstance(value, dict) and value else repr(value)
    return text if len(text) <= LONGEST_FOUND else text[: LONGEST_FOUND - 3] + "..."
