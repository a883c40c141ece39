"""Environment variables that make a command faster; set before NumPy and JAX are imported."""

import contextlib
import hashlib
import os
import platform
import re
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import entry_points, version
from pathlib import Path

CPU = Path("/proc/cpuinfo")
WIDE = "avx512_vbmi2"  # of Intel's Ice Lake, AMD's Zen 4 and later: no slower with whole registers
WIDTH = "--xla_cpu_prefer_vector_width=512"
LOOPS = "--xla_backend_extra_options=-unroll-full-max-count=15"
SHORTEST = 0.5  # seconds of compilation that are worth a file
SORT = "NPY_DISABLE_CPU_FEATURES"
NO_AVX512_SORT = "X86_V4 AVX512_ICL"
SLOWER = 2  # times as long is no noise: where it is slow, it takes six times as long
SECONDS_OF_A_SORT = """
import time, numpy
def seconds():
    values = unsorted.copy()
    start = time.perf_counter()
    values.sort()
    return time.perf_counter() - start
unsorted = numpy.random.default_rng(0).random(100_000, dtype=numpy.float32)
print(min(seconds() for _ in range(5)))
"""


def set_environment() -> None:
    """Set the variables of `tuned` for this machine."""
    accelerated = bool(entry_points(group="jax_plugins"))
    features = _features().split()
    slow_sort = SORT not in os.environ and "avx512f" in features and _avx512_sort_is_slow()
    os.environ.update(tuned(features, os.environ, accelerated, slow_sort))


def tuned(
    features: Sequence[str], environment: Mapping[str, str], accelerated: bool, slow_sort: bool
) -> dict[str, str]:
    """Choose variables that make NumPy and JAX faster on a CPU; those of the user win.

    LLVM unrolls loops over 16 channels, as in the phantom's first layers, before it could vectorize
    them, and they take up to six times as long; it is told to unroll shorter ones only. It compiles
    the kernels of an accelerator too, where this was not measured: it is not told so where JAX is
    `accelerated`.

    XLA keeps to half of an AVX-512 register, for older CPUs that slow down when they use all of it;
    those with the `features` of later ones augment a fifth faster with all, or more.

    On some CPUs, such as Zen 4, NumPy 2 has a `slow_sort` with AVX-512, which the metrics wait for:
    it takes six times as long as that with AVX2 (github.com/numpy/x86-simd-sort/issues/6).
    """
    flags = environment.get("XLA_FLAGS", "")
    if not flags or flags.lstrip().startswith("-"):  # else it names a file of flags
        for flag in [WIDTH] * (WIDE in features) + [LOOPS] * (not accelerated):
            if flag.partition("=")[0] not in flags:
                flags = f"{flags} {flag}".strip()
    values = {"XLA_FLAGS": flags} if flags else {}
    if slow_sort:
        values[SORT] = environment.get(SORT, NO_AVX512_SORT)
    return values


def _avx512_sort_is_slow() -> bool:
    """Return whether NumPy sorts faster without AVX-512: measured once, and kept."""
    kept = _cache() / f"slow-sort-of-numpy-{version('numpy')}"
    try:
        return kept.read_text() == "yes"
    except OSError:
        slow = _sorts_slower()
    with contextlib.suppress(OSError):  # a folder that cannot be written to
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text("yes" if slow else "no")
    return slow


def _sorts_slower() -> bool:
    """Sort with AVX-512 and without, in a third of a second."""
    command = [sys.executable, "-P", "-c", SECONDS_OF_A_SORT]
    with_all, without = (
        subprocess.run(
            command, env={**os.environ, SORT: disabled}, capture_output=True, text=True, check=False
        )
        for disabled in ("", NO_AVX512_SORT)
    )
    try:
        return float(with_all.stdout) > SLOWER * float(without.stdout)
    except ValueError:
        return False  # of NumPy's troubles the command will tell


def keep_compiled() -> None:
    """Keep what XLA compiles in the user's cache folder, so that the second start is faster.

    $JAX_COMPILATION_CACHE_DIR names another folder; empty, it turns this off.
    """
    if "JAX_COMPILATION_CACHE_DIR" in os.environ:
        return
    os.environ["JAX_COMPILATION_CACHE_DIR"] = str(_cache())
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", str(SHORTEST))


def _cache() -> Path:
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "cradl_jax" / _processor()


def _processor() -> str:
    """Name machines of one instruction set alike: code for one may not run on another."""
    text = _features() or platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(text.encode()).hexdigest()[:8]}"


def _features() -> str:
    """Return the line of what the processor can do, empty where it is not to be read."""
    text = CPU.read_text() if CPU.exists() else ""
    line = re.search(r"^(flags|Features)\s*:.*$", text, re.MULTILINE)
    return line[0] if line else ""
