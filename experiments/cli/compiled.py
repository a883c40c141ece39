"""Keep what XLA compiles, so that a command starts faster the second time."""

import hashlib
import os
import platform
import re
from pathlib import Path

import jax

SHORTEST = 0.5  # seconds of compilation that are worth a file


def keep() -> None:
    """Keep compiled functions in the user's cache folder, unless JAX is told where already.

    $JAX_COMPILATION_CACHE_DIR names another folder; empty, it turns this off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    jax.config.update("jax_compilation_cache_dir", str(root / "cradl_jax" / _processor()))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", SHORTEST)


def _processor() -> str:
    """A name for machines of one instruction set: code for one may not run on another."""
    described = Path("/proc/cpuinfo")
    text = described.read_text() if described.exists() else platform.processor()
    found = re.search(r"^(flags|Features)\s*:.*$", text, re.MULTILINE)
    digest = hashlib.sha256((found[0] if found else text).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"
