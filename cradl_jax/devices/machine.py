"""What this machine computes on, and what it lacks: said before anything is read or computed."""

import os
from pathlib import Path

import jax

from cradl_jax.errors import InputError, cause

NVIDIA = Path("/proc/driver/nvidia/version")  # there where a driver is


def devices_in_words() -> str:
    """Return which devices compute, and whether JAX leaves a GPU unused.

    Raises:
        InputError: JAX finds no device of the platform that it was told to use, or computes in 64
            bits, so that sound weights would not be those of their fingerprints.
    """
    if jax.config.read("jax_enable_x64"):
        raise InputError(
            "JAX_ENABLE_X64: expected JAX to compute in 32 bits, as runs are made and read, found "
            "64; unset it"
        )
    try:
        devices = jax.devices()
    except (RuntimeError, AssertionError) as fault:  # of which JAX raises one or the other
        wanted = os.environ.get("JAX_PLATFORMS", "the default")
        raise InputError(
            f"JAX_PLATFORMS: expected a platform that JAX can use here, found {wanted!r} "
            f"({cause(fault)}); unset it, or install JAX for that device "
            '(pip install "jax[cuda13]")'
        ) from fault
    first = devices[0]
    words = f"{len(devices)} {first.platform.upper()} device{'s' if len(devices) > 1 else ''}"
    if first.device_kind.lower() != first.platform:
        words += f" ({first.device_kind})"
    if first.platform == "cpu" and NVIDIA.exists():
        words += (
            '; this machine has an NVIDIA GPU, which JAX does not see: pip install "jax[cuda13]"'
        )
    return words
