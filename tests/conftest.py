"""Before any test, and before NumPy: `lib` says which kernels its BLAS uses (lib/__init__.py)."""
import lib  # noqa: F401
