"""Environment variables that make a command faster; set before NumPy and JAX are imported."""

import hashlib
import os
import platform
import re
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

CPU = Path("/proc/cpuinfo")
ZEN4 = "cpu family\t: 25\n"  # AMD's Zen 3 too, which has no AVX-512 and heeds none of this
WIDTH = "--xla_cpu_prefer_vector_width=512"
LOOPS = "--xla_backend_extra_options=-unroll-full-max-count=15"
SHORTEST = 0.5  # seconds of compilation that are worth a file


def set_environment() -> None:
    """Set the variables of `tuned` for this machine."""
    accelerated = bool(entry_points(group="jax_plugins"))
    os.environ.update(tuned(_cpuinfo(), os.environ, accelerated))


def tuned(cpuinfo: str, environment: Mapping[str, str], accelerated: bool) -> dict[str, str]:
    """Choose variables that make NumPy and JAX faster on a CPU; those of the user win.

    LLVM unrolls loops over 16 channels, as in the phantom's first layers, before it could vectorize
    them, and they take up to six times as long; it is told to unroll shorter ones only. It compiles
    the kernels of an accelerator too, where this was not measured: it is not told so where JAX is
    `accelerated`.

    On Zen 4 the AVX-512 sort of NumPy 2, which the metrics wait for, takes six times as long as its
    AVX2 sort (github.com/numpy/x86-simd-sort/issues/6). And XLA keeps to half of an AVX-512
    register, for older CPUs that slow down when they use all of it; Zen 4 does not, and augments a
    fifth faster with all.
    """
    zen4, flags = ZEN4 in cpuinfo, environment.get("XLA_FLAGS", "")
    if not flags or flags.lstrip().startswith("-"):  # else it names a file of flags
        for flag in [WIDTH] * zen4 + [LOOPS] * (not accelerated):
            if flag.partition("=")[0] not in flags:
                flags = f"{flags} {flag}".strip()
    values = {"XLA_FLAGS": flags} if flags else {}
    if zen4:
        features = environment.get("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL")
        values["NPY_DISABLE_CPU_FEATURES"] = features
    return values


def keep_compiled() -> None:
    """Keep what XLA compiles in the user's cache folder, so that the second start is faster.

    $JAX_COMPILATION_CACHE_DIR names another folder; empty, it turns this off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(root / "cradl_jax" / _processor())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORTEST))


def _processor() -> str:
    """Name machines of one instruction set alike: code for one may not run on another."""
    text = _cpuinfo() or platform.processor()
    features = re.search(r"^(flags|Features)\s*:.*$", text, re.MULTILINE)
    digest = hashlib.sha256((features[0] if features else text).encode()).hexdigest()
    return f"{platform.machine()}-{digest[:8]}"


def _cpuinfo() -> str:
    return CPU.read_text() if CPU.exists() else ""
