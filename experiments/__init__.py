"""Entry points: each loads, calls the library, and saves."""

import os
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

CPU = Path("/proc/cpuinfo")
ZEN4 = "cpu family\t: 25\n"  # AMD's Zen 3 too, which has no AVX-512 and heeds none of this
WIDTH = "--xla_cpu_prefer_vector_width=512"
LOOPS = "--xla_backend_extra_options=-unroll-full-max-count=15"


def tuned(cpuinfo: str, environment: Mapping[str, str], accelerated: bool) -> dict[str, str]:
    """Variables that make NumPy and JAX faster on a CPU; those of the user win.

    LLVM writes out loops over 16 channels, as in the phantom's first layers, before it could
    vectorize them, and they take up to six times as long; it is told to write out shorter ones
    only. It compiles the kernels of an accelerator too, where this was not measured: it is not told
    so where JAX is `accelerated`.

    On Zen 4 the AVX-512 sort of NumPy 2, which the metrics wait for, takes six times as long as its
    AVX2 sort (github.com/numpy/x86-simd-sort/issues/6). And XLA keeps to half of an AVX-512
    register, for older CPUs that slow down when they use all of it; Zen 4 does not, and augments a
    fifth faster with all. All of these are read when the package is first imported.
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


os.environ.update(
    tuned(
        CPU.read_text() if CPU.exists() else "",
        os.environ,
        accelerated=bool(entry_points(group="jax_plugins")),
    )
)
