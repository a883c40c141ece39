"""Entry points: each loads, calls the library, and saves."""

import os
from pathlib import Path

CPU = Path("/proc/cpuinfo")

# AMD's Zen 4 is family 25. There the AVX-512 sort of NumPy 2, which the metrics wait for, takes six
# times as long as its AVX2 sort (github.com/numpy/x86-simd-sort/issues/6). NumPy chooses when it is
# first imported.
if CPU.exists() and "cpu family\t: 25\n" in CPU.read_text():
    os.environ.setdefault("NPY_DISABLE_CPU_FEATURES", "X86_V4 AVX512_ICL")
