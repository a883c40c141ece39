"""What is answered without the networks imports none of what they need."""

import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
HEAVY = ("jax", "flax", "orbax", "optax", "matplotlib", "scipy", "sklearn", "nibabel", "pandas")
COMMANDS = sorted(
    path.stem for path in (REPOSITORY / "experiments").glob("*.py") if path.stem != "__init__"
)
REPORT = f"""
import atexit, sys
def report():
    print("heavy:", *sorted({{name.partition(".")[0] for name in sys.modules}} & set({HEAVY})))
atexit.register(report)
"""


def heavy(code: str, *arguments: str, status: int = 0) -> str:
    """The heavy packages that a process has imported at its end."""
    result = subprocess.run(
        [sys.executable, "-c", REPORT + code, *arguments],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == status, result.stderr
    return result.stdout.rpartition("heavy:")[2].strip()


def command(name: str) -> str:
    """Code that runs a command as `python -m` does."""
    return f"import runpy; runpy.run_module('experiments.{name}', run_name='__main__')"


def test_the_package_is_imported_without_jax():
    assert not heavy("import cradl_jax; dir(cradl_jax); cradl_jax.__version__")
    assert "jax" in heavy("from cradl_jax import load_run, Run, ScanResult").split()


def test_the_package_names_what_it_has():
    import cradl_jax

    assert {*cradl_jax.__all__, "__version__"} <= {*dir(cradl_jax)}
    assert all(getattr(cradl_jax, name).__name__ == name for name in cradl_jax.__all__)
    with pytest.raises(AttributeError, match="'cradl_jax' has no attribute 'load_runs'"):
        _ = cradl_jax.load_runs


@pytest.mark.parametrize("name", COMMANDS)
def test_help_and_mistyped_flags_are_answered_without_jax(name):
    assert not heavy(command(name), "--help")
    assert not heavy(command(name), "--nope=1", status=2)


def test_the_installed_command_answers_without_jax():
    main = "from cradl_jax.cli.predict import main; main()"
    assert not heavy(main, "--help")
    assert not heavy(main, "--run=a", status=2)
