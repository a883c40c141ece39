"""The four walls between the rooms of `cradl_jax`, kept by following its import statements."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
MODULES = {
    ".".join(path.relative_to(REPOSITORY).with_suffix("").parts).removesuffix(".__init__"): path
    for path in (REPOSITORY / "cradl_jax").rglob("*.py")
}
METHOD = (
    *("augment", "losses", "objectives", "methods", "scoring", "postprocess"),
    "corruptions",
    *("models", "densities", "training", "ops"),
)
DRAWING = ("matplotlib", "cradl_jax.reporting", "cradl_jax.prediction.viewer")
WALLS = {
    "the formulas open no file": (METHOD, ("pathlib", "cradl_jax.storage")),
    "the method knows arrays, not scans": (METHOD, ("nibabel", "cradl_jax.data")),
    "a metric knows no scan": (("evaluation",), ("cradl_jax.data", "cradl_jax.prediction")),
    "loading a run draws nothing": (("runs",), DRAWING),
}


def within(module: str, rooms: tuple[str, ...]) -> bool:
    return any(module == room or module.startswith(f"{room}.") for room in rooms)


def statements(node: ast.AST, in_functions: bool) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if in_functions or not isinstance(child, ast.FunctionDef):
            yield child
            yield from statements(child, in_functions)


@functools.cache
def imports(module: str, in_functions: bool) -> list[str]:
    """What a module imports, and the packages that these lie in, but for the root."""
    if module not in MODULES:
        return []
    found, tree = [], ast.parse(MODULES[module].read_text(encoding="utf-8"))
    for node in statements(tree, in_functions):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{module}: a relative import"
            members = (f"{node.module}.{alias.name}" for alias in node.names)
            names = [node.module, *(name for name in members if name in MODULES)]
        for name in names:
            parts = name.split(".")
            found += [".".join(parts[:end]) for end in range(2, len(parts) + 1)] or [name]
    return [name for name in found if name != "cradl_jax"]


def breach(module: str, forbidden: tuple[str, ...], in_functions: bool = True) -> str | None:
    """The shortest way from a module to what it must not import."""
    ways, seen = [(module,)], {module}
    for way in ways:
        for name in imports(way[-1], in_functions):
            if within(name, forbidden):
                return " -> ".join((*way, name))
            if name not in seen:
                seen.add(name)
                ways.append((*way, name))
    return None


@pytest.mark.parametrize("wall", WALLS)
def test_wall(wall):
    rooms, forbidden = WALLS[wall]
    inside = [name for name in MODULES if within(name, tuple(f"cradl_jax.{r}" for r in rooms))]
    assert len(inside) >= len(rooms)
    at_import = wall == "loading a run draws nothing"  # a function may import what draws
    ways = [breach(name, forbidden, in_functions=not at_import) for name in sorted(inside)]
    assert not list(filter(None, ways))


def test_a_breach_is_named_with_its_way():
    way = "cradl_jax.models.layers -> cradl_jax.ops.convolutions -> numpy"
    assert breach("cradl_jax.models.layers", ("numpy",)) == way
    assert breach("cradl_jax.intensity", ("jax", "numpy")) is None
