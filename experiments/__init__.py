"""Entry points: each loads, calls the library, and saves."""

import os
from collections.abc import Mapping
from pathlib import Path

CPU = Path("/proc/cpuinfo")
ZEN4 = "cpu family\t: 25\n"  # AMD's Zen 3 too, which has no AVX-512 and heeds none of this
WIDTH = "--xla_cpu_prefer_vector_width"


def tuned(cpuinfo: str, environment: Mapping[str, str]) -> dict[str, str]:
    """Variables that make NumPy and JAX faster on a CPU; those of the user's win.

    On Zen 4 the AVX-512 sort of NumPy 2, which the metrics wait for, takes six times as long as its
    AVX2 sort (github.com/numpy/x86-simd-sort/issues/6). And XLA keeps to half of an AVX-512
    register, for older CPUs that slow down when they use all of it; Zen 4 does not, and augments a
    fifth faster with all. Both are read when the package is first imported.
    """
    if ZEN4 not in cpuinfo:
        return {}
    features = environment.get("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL")
    flags = environment.get("XLA_FLAGS", "")
    if WIDTH not in flags:
        flags = f"{flags} {WIDTH}=512".strip()
    return {"NPY_DISABLE_CPU_FEATURES": features, "XLA_FLAGS": flags}


if CPU.exists():
    os.environ.update(tuned(CPU.read_text(), os.environ))
