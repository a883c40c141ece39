"""The exact versions of requirements.txt against the ranges of pyproject.toml."""

import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
BY_DISTRAX = {"tfp-nightly"}  # has no releases but nightly ones, hence a pin


def by_name(lines) -> dict[str, Requirement]:
    found = [Requirement(line) for line in lines]
    return {canonicalize_name(requirement.name): requirement for requirement in found}


def test_every_dependency_is_pinned_within_its_range():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    ranges = by_name(project["dependencies"] + project["optional-dependencies"]["test"])
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = by_name(line for line in lines if line and not line.startswith("#"))
    assert pins.keys() == ranges.keys() | BY_DISTRAX
    for name, pin in pins.items():
        (exact,) = pin.specifier
        assert exact.operator == "==" and "*" not in exact.version, f"{pin} is no exact version"
        assert name in BY_DISTRAX or exact.version in ranges[name].specifier, (
            f"{pin}, but pyproject.toml has {ranges[name]}"
        )
