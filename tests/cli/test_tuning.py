"""What NumPy and JAX are told before they start, and that a second start is faster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cradl_jax.cli import tuning

WIDE = ["avx512f", "avx512_vbmi2"]
NARROW = ["avx2", "avx512f"]
COMPILE = """
from cradl_jax.cli import tuning
tuning.SHORTEST = 0
tuning.keep_compiled()
import jax, jax.numpy as jnp
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))))
print(sum("cache_hits" in event for event in hits))
"""
CACHE = ("JAX_COMPILATION_CACHE_DIR", "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS")


def tuned(features, environment, accelerated=False, slow_sort=False):
    return tuning.tuned(features, environment, accelerated, slow_sort)


def test_processors_that_slow_down_by_wide_registers_are_told_of_loops_alone():
    assert tuned(NARROW, {}) == {"XLA_FLAGS": tuning.LOOPS}
    assert tuned(WIDE, {}) == {"XLA_FLAGS": f"{tuning.WIDTH} {tuning.LOOPS}"}


def test_a_sort_that_is_slow_is_turned_off():
    assert tuned(NARROW, {}, slow_sort=True)[tuning.SORT] == "X86_V4 AVX512_ICL"


def test_kernels_of_an_accelerator_are_left_alone():
    assert tuned(NARROW, {}, accelerated=True) == {}
    assert tuned(WIDE, {}, accelerated=True)["XLA_FLAGS"] == tuning.WIDTH


def test_flags_of_the_user_stay():
    given = {"XLA_FLAGS": "--xla_dump_to='a  b'", "NPY_DISABLE_CPU_FEATURES": ""}
    found = tuned(WIDE, given, slow_sort=True)
    assert found["NPY_DISABLE_CPU_FEATURES"] == ""
    assert found["XLA_FLAGS"] == f"--xla_dump_to='a  b' {tuning.WIDTH} {tuning.LOOPS}"


@pytest.mark.parametrize(
    "flags",
    [
        "--xla_cpu_prefer_vector_width=256 --xla_backend_extra_options=-x",
        "flags.txt",  # XLA reads a file that does not look like a flag
    ],
)
def test_values_of_the_user_win(flags):
    assert tuned(WIDE, {"XLA_FLAGS": flags})["XLA_FLAGS"] == flags


def test_all_is_said_once():
    once = tuned(WIDE, {}, slow_sort=True)
    assert tuned(WIDE, once, slow_sort=True) == once


def seconds(value):
    """A measurement in place of the real one, for sorting with and without AVX-512."""

    def run(command, env, **_):
        taken = value if env[tuning.SORT] == "" else 1.0
        return subprocess.CompletedProcess(command, 0, str(taken), "")

    return run


@pytest.mark.parametrize("slow", [True, False])
def test_sorting_is_measured_once_and_kept(tmp_path, monkeypatch, slow):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(tuning.subprocess, "run", seconds(6.0 if slow else 1.5))
    assert tuning._avx512_sort_is_slow() == slow
    (kept,) = (tmp_path / "cradl_jax").rglob("slow-sort-of-numpy-*")
    monkeypatch.setattr(tuning.subprocess, "run", None)
    assert tuning._avx512_sort_is_slow() == slow
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("no folder")
    monkeypatch.setattr(tuning.subprocess, "run", seconds(6.0 if slow else 1.5))
    assert tuning._avx512_sort_is_slow() == slow


def test_a_measurement_that_fails_changes_nothing(monkeypatch):
    monkeypatch.setattr(tuning.subprocess, "run", seconds("Traceback"))
    assert not tuning._sorts_slower()


def test_the_measurement_runs_here():
    """The figure itself depends on the machine; without AVX-512 both are the same."""
    assert tuning._sorts_slower() in (True, False)
    command = [sys.executable, "-c", tuning.SECONDS_OF_A_SORT]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert 0 < float(found) < 1


def hits(**environment):
    """How many functions a process finds compiled."""
    inherited = {name: value for name, value in os.environ.items() if name not in CACHE}
    result = subprocess.run(
        [sys.executable, "-c", COMPILE],
        cwd=Path(__file__).parents[2],
        env={**inherited, "XLA_FLAGS": "", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return int(result.stdout)


def test_second_start_finds_what_the_first_compiled(tmp_path):
    environment = {"XDG_CACHE_HOME": str(tmp_path)}
    assert hits(**environment) == 0
    assert list((tmp_path / "cradl_jax").glob("*/*"))
    assert hits(**environment) > 0


def test_it_can_be_turned_off(tmp_path):
    assert hits(XDG_CACHE_HOME=str(tmp_path), JAX_COMPILATION_CACHE_DIR="") == 0
    assert not list(tmp_path.iterdir())
