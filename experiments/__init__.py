"""Entry points: each loads, calls the library, and saves."""

from cradl_jax.cli import tuning

tuning.set_environment()
