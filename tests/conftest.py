"""Before any test, and before NumPy: `lib` says which kernels its BLAS uses (lib/__init__.py). And the files that one of
several processes runs (tests/__main__.py)."""
import os
from pathlib import Path

import lib  # noqa: F401

CLAIMED = os.environ.pop("TESTS_CLAIMED", None)          # folder; not for processes that a test starts
RANK = int(os.environ.pop("TESTS_RANK", 0))
_mine = {}


def claim(path):
    """Whether the tests of a file are this process's: of the one that asks first."""
    if path not in _mine:
        try:
            os.close(os.open(Path(CLAIMED) / path.name, os.O_CREAT | os.O_EXCL))
            _mine[path] = True
        except FileExistsError:
            _mine[path] = False
    return _mine[path]


def pytest_configure(config):
    config.addinivalue_line("filterwarnings", "error:constrained_layout not applied")      # a figure whose axes vanish


def pytest_collection_modifyitems(items):
    if RANK:                                             # files from the end, the tests of each in their order
        places = {path: i for i, path in enumerate(dict.fromkeys(item.path for item in items))}
        items.sort(key=lambda item: -places[item.path])


def pytest_runtest_protocol(item):
    return None if CLAIMED is None or claim(item.path) else True
