"""Links, paths and commands in the READMEs and the configs' docstrings exist."""

import ast
import importlib
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]
PAGES = sorted(
    page.relative_to(REPOSITORY).as_posix()
    for folder in (".", ".github", "cradl_jax", "configs", "experiments", "tests")
    for page in (REPOSITORY / folder).glob("**/*.md" if folder != "." else "*.md")
)
CONFIGS = sorted(f"configs/{path.name}" for path in REPOSITORY.glob("configs/*.py"))
ROOTS = ("cradl_jax", "configs", "experiments", "tests", ".github", ".ci")
ON_GITHUB = ("http", "../../actions/")  # the latter from the README to the runs of the CI
COMMANDS = ("experiments", "cradl_jax.cli")  # where flags are defined
COMMAND = re.compile(r"(?:python -m (?:experiments|tests)\.(?!X)|cradl-predict --)[^`#\n]*")


def text(page: str) -> str:
    return (REPOSITORY / page).read_text()


def without_code(page: str) -> str:
    return re.sub(r"```.*?```", "", text(page), flags=re.S)


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub makes of the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        if link.startswith(ON_GITHUB):
            continue
        place, _, anchor = link.partition("#")
        target = (REPOSITORY / page).parent / place if place else REPOSITORY / page
        assert target.resolve().is_relative_to(REPOSITORY), f"{link} leaves the repository"
        assert target.exists(), f"{link} does not exist"
        assert not anchor or anchor in anchors(target), f"{link}: no heading has this anchor"


@pytest.mark.parametrize("page", PAGES)
def test_paths_exist(page):
    if page.endswith("CHANGELOG.md"):
        return  # tells of files that are gone, too
    for path in re.findall(rf"(?<![\w/.])(?:{'|'.join(ROOTS)})/[\w./-]*", text(page)):
        assert (REPOSITORY / path.rstrip(".")).exists(), f"{path} does not exist"


def commands() -> Iterator[tuple[str, str]]:
    """Every command of ours that a page or a config prints, and where."""
    for page in [*PAGES, *CONFIGS]:
        content = text(page) if page.endswith(".md") else ast.get_docstring(ast.parse(text(page)))
        joined = re.sub(r"\\\n\s*", " ", content or "")
        for command in COMMAND.findall(joined):
            yield page, command.strip()


def flag_names(module: str) -> set[str]:
    """The strings in a command and in what it imports of ours, among them its flags' names."""
    names, seen, waiting = set(), set(), [module]
    while waiting:
        name = waiting.pop()
        file = REPOSITORY.joinpath(*name.split(".")).with_suffix(".py")
        if name in seen or not file.exists():
            continue
        seen.add(name)
        for node in ast.walk(ast.parse(file.read_text())):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                names.add(node.value)
            elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith(COMMANDS):
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@pytest.mark.parametrize(("page", "command"), sorted(set(commands())))
def test_commands_exist_with_their_flags(page, command):
    words = shlex.split(command.split("'")[0] if command.count("'") % 2 else command)
    module = "cradl_jax.cli.predict" if words[0] == "cradl-predict" else words[2]
    file = REPOSITORY.joinpath(*module.split(".")).with_suffix(".py")
    assert file.exists(), f"{module} is no command"
    settings = [word for word in words if word.startswith("--config.")]
    flags = [word for word in words if word.startswith("--") and word not in settings]
    for flag in flags if module.startswith(COMMANDS) else ():
        assert flag[2:].partition("=")[0] in flag_names(module) | {"help"}, flag
    configs = [flag.partition("=")[2] for flag in flags if flag.startswith("--config=")]
    for setting in settings:
        value = importlib.import_module(configs[0][:-3].replace("/", ".")).get_config()
        for name in setting.partition("=")[0].split(".")[1:]:
            assert name in value, f"{configs[0]} has no setting {setting}"
            value = value[name]


def test_the_front_page_is_short_and_has_the_two_commands_that_are_run_as_printed():
    lines = text("README.md").splitlines()
    assert len(lines) <= 160
    for name, ending in (("main", "--workdir=runs/phantom"), ("tests", "-m pytest")):
        place = lines.index(f"<!-- command: {name} -->")
        assert lines[place + 1] == "```bash" and lines[place + 3] == "```"
        assert lines[place + 2].endswith(ending)


def test_configs_print_a_command():
    assert {page for page, _ in commands()} >= {*CONFIGS} - {"configs/default.py"}
