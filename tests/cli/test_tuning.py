"""What NumPy and JAX are told before they start, and that a second start is faster."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cradl_jax.cli import tuning

ZEN4 = "vendor_id\t: AuthenticAMD\ncpu family\t: 25\nmodel\t\t: 17\n"
INTEL = "vendor_id\t: GenuineIntel\ncpu family\t: 6\n"
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


def test_other_processors_are_told_of_loops_alone():
    assert tuning.tuned(INTEL, {}, accelerated=False) == {"XLA_FLAGS": tuning.LOOPS}


def test_kernels_of_an_accelerator_are_left_alone():
    assert tuning.tuned(INTEL, {}, accelerated=True) == {}
    assert tuning.tuned(ZEN4, {}, accelerated=True)["XLA_FLAGS"] == tuning.WIDTH


def test_flags_of_the_user_stay():
    given = {"XLA_FLAGS": "--xla_dump_to='a  b'", "NPY_DISABLE_CPU_FEATURES": ""}
    tuned = tuning.tuned(ZEN4, given, accelerated=False)
    assert tuned["NPY_DISABLE_CPU_FEATURES"] == ""
    assert tuned["XLA_FLAGS"] == f"--xla_dump_to='a  b' {tuning.WIDTH} {tuning.LOOPS}"


@pytest.mark.parametrize(
    "flags",
    [
        "--xla_cpu_prefer_vector_width=256 --xla_backend_extra_options=-x",
        "flags.txt",  # XLA reads a file that does not look like a flag
    ],
)
def test_values_of_the_user_win(flags):
    tuned = tuning.tuned(ZEN4, {"XLA_FLAGS": flags}, accelerated=False)
    assert tuned["XLA_FLAGS"] == flags


def test_all_is_said_once():
    once = tuning.tuned(ZEN4, {}, accelerated=False)
    assert tuning.tuned(ZEN4, once, accelerated=False) == once


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
