"""What must be said before NumPy is loaded: which kernels its BLAS uses.

OpenBLAS chooses them by the kind of processor, so that one machine room gives two results in the last bits (directions
by SVD and Newton's method, d'). All processors with AVX2 run those called Haswell; here all of them do.
"""
import os
from pathlib import Path

try:
    if {"avx2", "fma"} <= set(Path("/proc/cpuinfo").read_text(encoding="utf-8").split("flags", 2)[1].split()):
        os.environ.setdefault("OPENBLAS_CORETYPE", "Haswell")
except (OSError, IndexError):            # another system or processor: it keeps its own choice
    pass
