"""A second start finds what the first compiled."""

import os
import subprocess
import sys
from pathlib import Path

CODE = """
import jax, jax.numpy as jnp
from experiments import compiled
compiled.SHORTEST = 0
compiled.keep()
hits = []
jax.monitoring.register_event_listener(lambda event, **_: hits.append(event))
jax.block_until_ready(jax.jit(lambda x: jnp.sin(x) @ x)(jnp.ones((8, 8))))
print(sum("cache_hits" in event for event in hits))
"""


def hits(**environment):
    inherited = {k: v for k, v in os.environ.items() if k != "JAX_COMPILATION_CACHE_DIR"}
    result = subprocess.run(
        [sys.executable, "-c", CODE],
        cwd=Path(__file__).parents[3],
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
