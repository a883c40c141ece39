"""The exact versions of requirements.txt against the ranges of pyproject.toml."""

import tomllib
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

REPOSITORY = Path(__file__).parents[1]
BY_DISTRAX = {"tfp-nightly"}  # has no releases but nightly ones, hence a pin


def by_name(lines, python="3.11") -> dict[str, Requirement]:
    """The requirements of a version of Python."""
    found = [Requirement(line) for line in lines]
    asked = [r for r in found if not r.marker or r.marker.evaluate({"python_version": python})]
    named = {canonicalize_name(requirement.name): requirement for requirement in asked}
    assert len(named) == len(asked), "one is named twice"
    return named


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_every_dependency_is_pinned_within_its_range(python):
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    ranges = by_name(project["dependencies"] + extras["test"] + extras["dev"])
    assert ranges.pop("cradl-jax").extras == {"test"}
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    pins = by_name((line for line in lines if line and not line.startswith("#")), python)
    assert pins.keys() == ranges.keys() | BY_DISTRAX
    for name, pin in pins.items():
        (exact,) = pin.specifier
        assert exact.operator == "==" and "*" not in exact.version, f"{pin} is no exact version"
        assert name in BY_DISTRAX or exact.version in ranges[name].specifier, (
            f"{pin}, but pyproject.toml has {ranges[name]}"
        )


def test_an_audit_fails_for_what_can_be_fixed():
    """On a report in the form of pip-audit 2.10."""
    loader = SourceFileLoader("audit", str(REPOSITORY / ".ci" / "audit"))
    audit = module_from_spec(spec_from_loader("audit", loader))
    loader.exec_module(audit)
    known = {"id": "PYSEC-2018-28", "fix_versions": ["2.20.0"], "aliases": [], "description": ""}
    report = {
        "dependencies": [
            {"name": "requests", "version": "2.19.0", "vulns": [known]},
            {"name": "flask", "version": "0.5", "vulns": [known | {"fix_versions": []}]},
            {"name": "numpy", "version": "2.4.6", "vulns": []},
            {"name": "tfp-nightly", "skip_reason": "Dependency not found on PyPI"},
        ],
        "fixes": [],
    }
    assert audit.fixable(report) == ["requests 2.19.0: PYSEC-2018-28, fixed in 2.20.0"]
