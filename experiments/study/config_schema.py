"""Declare every setting of a config; all are checked once, before a command does anything."""

import difflib
import re
from collections.abc import Iterator
from typing import Annotated, Any, get_args

from ml_collections import ConfigDict
from pydantic import AfterValidator, Field, ValidationError

from cradl_jax.data.scans.contrasts import CONTRASTS
from cradl_jax.data.scans.layouts import LAYOUTS
from cradl_jax.data.slices.preprocess import Span
from cradl_jax.errors import InputError
from cradl_jax.names import METHODS
from cradl_jax.runs.contents import NetworkShape
from cradl_jax.storage.schema import (
    BatchSize,
    Count,
    Distinct,
    Flag,
    ImageSize,
    Interval,
    Neighbours,
    NotNegative,
    Positive,
    Problem,
    Record,
    Seed,
    Share,
    Text,
    Whole,
    one_of,
    problems,
)

FIT_NAME = re.compile(r"\w[\w .+-]*")
Method = Annotated[str, one_of(METHODS)]


def fit_name(name: str) -> str:
    """Return the name of a data set, after which files and folders are named.

    Raises:
        ValueError: it cannot be one; the message says what is expected.
    """
    if not FIT_NAME.fullmatch(name):
        raise ValueError("a data set's name of letters, digits, '_', '-' and '.'")
    return name


class DataSet(Record):
    """Scans, and how they are sliced and split."""

    layout: Annotated[str, one_of(LAYOUTS)]
    path: Text
    offset: Whole = 0
    slice_spacing_mm: Positive | None = None
    splits: dict[str, Any] | None = None
    split_file: Text | None = None
    made_from: Text | None = None
    paper: Text | None = None


class Data(Record):
    """The data sets of a study; `healthy`, `anomalous` and `offset` are of configs/scans.py."""

    root: Text | None
    contrast: Annotated[str, one_of(CONTRASTS)]
    size: ImageSize
    field_mm: Positive
    span: Annotated[str, one_of(get_args(Span))]
    detrend: bool
    slice_spacing_mm: Positive | None
    workers: Whole
    seed: Seed
    stream: Annotated[str, one_of(("auto", "always", "never"))]
    sets: dict[Annotated[str, AfterValidator(fit_name)], DataSet] = Field({})
    healthy: Text | None = None
    anomalous: Text | None = None
    separate: Text | None = None
    offset: Whole = 0


class Augment(Record):
    """The random transforms of training."""

    mirror: Share
    shift: Share
    scale: Interval[Positive]
    rotation: NotNegative
    noise: NotNegative


class Train(Record):
    """The schedule of training."""

    epochs: Count
    warmup_epochs: Whole
    batch_size: BatchSize
    learning_rate: Positive
    annealing: Flag
    weight_decay: NotNegative


class Loss(Record):
    """Weights and temperature of the losses (equations 4, 7 and 8)."""

    temperature: Positive
    beta: NotNegative
    gamma: NotNegative


class Restoration(Record):
    """How slices are corrupted for a method that restores them."""

    noise: Positive


class Parts(Record):
    """What a run depends on, and what a method may override."""

    model: NetworkShape
    augment: Augment
    train: Train
    loss: Loss
    restoration: Restoration


class Mixtures(Record):
    """How GMMs are fitted."""

    components: Distinct[Count]
    tolerance: NotNegative
    regularization: NotNegative
    max_iterations: Count
    restarts: Count


class Flow(Record):
    """How a RealNVP is fitted."""

    blocks: Whole
    hidden: Count
    epochs: Count
    batch_size: Count
    learning_rate: Positive
    decay_epochs: Count
    weight_decay: NotNegative
    noise: NotNegative
    clip: Positive


class Memory(Record):
    """How many normal patches are kept, beyond the paper."""

    size: Whole


class Score(Record):
    """How slices are scored."""

    batch_size: Count
    neighbours: Neighbours
    restoration_steps: Whole


class Phantom(Record):
    """The phantom that a study makes for itself."""

    spacing_mm: Annotated[float, Field(strict=True, ge=0.5, le=10)]
    seed: Seed
    subjects: dict[
        Annotated[str, one_of(("healthy", "synth", "lesion"))],
        dict[Annotated[str, one_of(("train", "val", "test"))], Whole],
    ]


class Study(Parts):
    """All settings of a study; those with a default are of some studies alone."""

    seed: Seed
    seeds: Distinct[Seed]
    methods: Distinct[Method]
    data: Data
    gmm: Mixtures
    flow: Flow
    memory: Memory
    score: Score
    overrides: dict[Method, dict[str, Any]] = Field({})
    phantom: Phantom | None = None
    smoke: Flag = False
    smoke_settings: dict[str, Any] = Field({})


def check(config: ConfigDict) -> None:
    """Raise an InputError that names every setting that is unknown, missing or unfit."""
    content = config.to_dict()
    faults = list(_faults(Study, content))
    overrides = content.get("overrides")
    for method, settings in overrides.items() if isinstance(overrides, dict) else ():
        faults += _faults(Parts, settings, f"overrides.{method}.", partial=True)
    faults += _faults(Study, content.get("smoke_settings", {}), "smoke_settings.", partial=True)
    if "smoke" in content and "smoke_settings" not in content:
        faults.append("config.smoke_settings: expected settings of the smoke run, found none")
    if faults:
        raise InputError(*faults)


def _faults(
    declared: type[Record], content: Any, prefix: str = "", partial: bool = False
) -> Iterator[str]:
    """Yield what is wrong with settings; those that are `partial` may lack some."""
    if not isinstance(content, dict):
        return  # which the settings around these say
    try:
        declared.model_validate(content)
    except ValidationError as error:
        for problem in problems(error):
            if problem.kind == "extra_forbidden":
                yield from _unknown(problem, content, prefix)
            elif not (partial and problem.kind == "missing"):
                place = problem.place.removesuffix(".[key]")
                yield f"config.{prefix}{place}: {problem.sentence}; correct it"


def _unknown(problem: Problem, content: dict[str, Any], prefix: str) -> Iterator[str]:
    """Yield a fault for every setting at or below a place that no declaration knows."""
    value: Any = content
    for name in problem.place.split("."):
        value = value[name]
    for path in _paths_in(value, problem.place):
        close = difflib.get_close_matches(path, KNOWN, 1)
        remedy = f"did you mean {close[0]}?" if close else "correct it"
        yield f"config.{prefix}{path}: no command reads it; {remedy}"


def _paths_in(value: Any, path: str) -> list[str]:
    """Return the dotted names of all settings below `path`."""
    if not isinstance(value, dict) or not value:
        return [path]
    return [below for name in value for below in _paths_in(value[name], f"{path}.{name}")]


def _declared(record: type[Record], prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of all settings of a declaration."""
    for name, field in record.model_fields.items():
        kinds = (field.annotation, *get_args(field.annotation))
        inner = [kind for kind in kinds if isinstance(kind, type) and issubclass(kind, Record)]
        yield from _declared(inner[0], f"{prefix}{name}.") if inner else [prefix + name]


KNOWN = tuple(_declared(Study))
