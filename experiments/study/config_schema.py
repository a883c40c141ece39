"""What every setting of a config must be, checked once, before a command does anything."""

import difflib
import re
from collections.abc import Iterator, Mapping
from typing import Any

from ml_collections import ConfigDict

from cradl_jax.data.scans.layouts import LAYOUTS
from cradl_jax.errors import InputError
from cradl_jax.methods import DTYPES, METHODS
from cradl_jax.storage.schema import (
    Rule,
    flag,
    image_size,
    interval,
    number,
    one_of_rule,
    optional,
    several,
    text,
)
from experiments.study.settings import PARTS

SEED = number(0, 2**31 - 1, whole=True)
COUNT = number(1, 2**31 - 1, whole=True)
NONE_OR_MORE = number(0, 2**31 - 1, whole=True)
POSITIVE = number(0, above=True)
NOT_NEGATIVE = number(0)
SHARE = number(0, 1)

STUDY: dict[str, Rule] = {
    "seed": SEED,
    "seeds": several(SEED),
    "methods": several(one_of_rule(METHODS)),
    "data.root": optional(text),
    "data.size": image_size,
    "data.slice_spacing_mm": optional(POSITIVE),
    "data.workers": NONE_OR_MORE,
    "data.seed": SEED,
    "data.stream": one_of_rule(("auto", "always", "never")),
    "model.features": COUNT,
    "model.latent": number(2, 2**16, whole=True),
    "model.head": several(COUNT, distinct=False),
    "model.dtype": one_of_rule(DTYPES),
    "augment.mirror": SHARE,
    "augment.shift": SHARE,
    "augment.scale": interval(0, above=True),
    "augment.rotation": NOT_NEGATIVE,
    "augment.noise": NOT_NEGATIVE,
    "train.epochs": COUNT,
    "train.warmup_epochs": NONE_OR_MORE,
    "train.batch_size": number(2, 2**31 - 1, whole=True),
    "train.learning_rate": POSITIVE,
    "train.annealing": flag,
    "train.weight_decay": NOT_NEGATIVE,
    "loss.temperature": POSITIVE,
    "loss.beta": NOT_NEGATIVE,
    "loss.gamma": NOT_NEGATIVE,
    "gmm.components": several(COUNT),
    "gmm.tolerance": NOT_NEGATIVE,
    "gmm.regularization": NOT_NEGATIVE,
    "gmm.max_iterations": COUNT,
    "gmm.restarts": COUNT,
    "flow.blocks": COUNT,
    "flow.hidden": COUNT,
    "flow.epochs": COUNT,
    "flow.batch_size": COUNT,
    "flow.learning_rate": POSITIVE,
    "flow.decay_epochs": COUNT,
    "flow.weight_decay": NOT_NEGATIVE,
    "flow.noise": NOT_NEGATIVE,
    "flow.clip": POSITIVE,
    "score.batch_size": COUNT,
}
"""Settings that every study has."""
SOME_STUDIES: dict[str, Rule] = {
    "data.healthy": optional(text),
    "data.anomalous": optional(text),
    "data.offset": NONE_OR_MORE,
    "phantom.spacing_mm": number(0.5, 10),
    "phantom.seed": SEED,
    "smoke": flag,
}
SUBJECTS = r"phantom\.subjects\.(healthy|synth|lesion)\.(train|val|test)"
DATA_SET: dict[str, Rule] = {
    "layout": one_of_rule(tuple(LAYOUTS)),
    "path": text,
    "offset": NONE_OR_MORE,
    "slice_spacing_mm": optional(POSITIVE),
    "splits": optional(lambda value: None if isinstance(value, dict) else f"found {value!r}"),
    "split_file": optional(text),
    "made_from": optional(text),
    "paper": optional(text),
}
NEEDED = ("layout", "path", "offset")  # of a data set
FIT_NAME = re.compile(r"\w[\w .+-]*")  # of a data set: a folder is named after it


def check(config: ConfigDict) -> None:
    """Raise an InputError that names every setting that is unknown, missing or unfit."""
    content = config.to_dict()
    data = content.get("data")
    sets = data.pop("sets", {}) if isinstance(data, dict) else {}
    flat = dict(_flat(content))
    faults = [_fault(path, value) for path, value in flat.items()]
    faults += [_line(path, "expected a value, found none") for path in STUDY if path not in flat]
    if "smoke" in flat and "smoke_settings" not in content:
        faults.append(_line("smoke_settings", "expected settings of the smoke run, found none"))
    if not isinstance(sets, dict):
        faults.append(_line("data.sets", f"expected data sets by name, found {sets!r}"))
        sets = {}
    faults += [fault for name, one in sets.items() for fault in _of_data_set(name, one)]
    if found := list(filter(None, faults)):
        raise InputError(*found)


def check_name(name: str) -> str | None:
    """What is wrong with the name of a data set, after which files and folders are named."""
    if FIT_NAME.fullmatch(name):
        return None
    return f"expected a data set's name of letters, digits, '_', '-' and '.', found {name!r}"


def _flat(content: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Nested settings under dotted names."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def _fault(path: str, value: object) -> str | None:
    """What is wrong with a setting, also with one under `overrides` or `smoke_settings`."""
    outer, _, inner = path.partition(".")
    if outer == "overrides":
        method, _, inner = inner.partition(".")
        known = method in METHODS and inner.split(".")[0] in PARTS
        rule = STUDY.get(inner) if known else None
    else:
        inner = inner if outer == "smoke_settings" else path
        subjects = NONE_OR_MORE if re.fullmatch(SUBJECTS, inner) else None
        rule = (STUDY | SOME_STUDIES).get(inner, subjects)
    if rule is None:
        close = difflib.get_close_matches(path, STUDY | SOME_STUDIES, 1)
        return _line(path, "no command reads it", f"did you mean {close[0]}?" if close else "")
    return _line(path, fault) if (fault := rule(value)) else None


def _of_data_set(name: str, content: object) -> Iterator[str]:
    place = f"data.sets.{name}"
    if fault := check_name(name):
        yield _line("data.sets", fault)
    if not isinstance(content, dict):
        yield _line(place, f"expected settings of a data set, found {content!r}")
        return
    for key in NEEDED:
        if key not in content:
            yield _line(f"{place}.{key}", "expected a value, found none")
    for key, value in content.items():
        fault = DATA_SET[key](value) if key in DATA_SET else "no command reads it"
        if fault:
            yield _line(f"{place}.{key}", fault)


def _line(path: str, fault: str, remedy: str = "") -> str:
    return f"config.{path}: {fault}; {remedy or 'correct it'}"
