"""Work units: a stage's computation in pieces that survive a kill and can be shared among processes.

Each unit's result is a file, <out>.units/<identity>/<unit>.npz, written beside its place and renamed into it. A rerun
skips the files that are there; `artifacts.save` deletes <out>.units when the stage is complete. <identity> is a hash
over what the caller names, over the meaning of the code and over versions (lib.identity), so units of other settings,
inputs or code are never read.

Under torchrun (RANK and WORLD_SIZE in the environment) rank r computes every WORLD_SIZE-th unit; the ranks meet
through files on a shared file system and need no network of their own. A rank that fails leaves the others waiting:
torchrun ends them.
"""
import json
import os
import secrets
import sys
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from lib import identity as what_ran
from lib.artifacts import ROOT, UserError, digest_of, plain

POLL = 0.1                       # seconds between two looks at the folder
# Read once per process, at import: that is the code that runs, whatever is edited meanwhile.
MAIN = Path(getattr(sys.modules["__main__"], "__file__", None) or ".").resolve()
CODE = [what_ran.sources([MAIN] if MAIN.parent == ROOT else ROOT.glob("lib/**/*.py")), what_ran.versions()]


def ranks():
    """(rank, world size); (0, 1) outside torchrun."""
    rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    if not 0 <= rank < world:
        raise UserError(f"RANK={rank} does not fit WORLD_SIZE={world}")
    return rank, world


def is_main():
    """True in the one process that goes on to write the stage."""
    return ranks()[0] == 0


def units(out, identity, keys, fn, desc):
    """{key: fn(key)} in the order of `keys`, in every rank; each unit is computed once and kept until `save`.

    out       the stage folder that will be written
    identity  JSON-able: everything that changes a result and is not in the project's code (settings, input digests)
    fn(key)   -> {name: ndarray or JSON-able}; results come back from the file, so a resumed run sees the same types
    UserError for no keys or a damaged unit file; ValueError for repeated keys."""
    keys = list(keys)
    if not keys:
        raise UserError(f"{out}: {desc}: nothing to compute")
    folder = Path(f"{out}.units") / digest_of([identity, CODE])[:16]
    paths = {key: folder / (quote(key, safe="")[:150] + "-" + digest_of(key)[:8] + ".npz") for key in keys}
    if len(paths) < len(keys):
        raise ValueError(f"{desc}: repeated keys")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error})") from None
    rank, world = ranks()
    for key in tqdm(keys[rank::world], desc=desc, unit="unit", disable=None if rank == 0 else True):
        if not paths[key].exists():
            _write(paths[key], fn(key))
    results = {}
    for key in keys:
        while not paths[key].exists():                     # another rank's
            time.sleep(POLL)
        results[key] = _read(paths[key])
    if world > 1:
        _meet(folder, rank, world)
    return results


def _write(path, result):
    arrays = {name: value for name, value in result.items() if isinstance(value, np.ndarray)}
    rest = {name: plain(value, f"{path.stem}.{name}") for name, value in result.items() if name not in arrays}
    if "json" in arrays or any(array.dtype.hasobject for array in arrays.values()):
        raise TypeError(f"{path.stem}: expected numeric arrays, none called json, and JSON-able values")
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    with open(tmp, "wb") as file:
        np.savez(file, json=np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8), **arrays)
    tmp.replace(path)


def _read(path):
    try:
        with np.load(path, allow_pickle=False) as file:
            result = {name: file[name] for name in file.files}
        return json.loads(result.pop("json").tobytes()) | result
    except (zipfile.BadZipFile, ValueError, KeyError, EOFError, OSError) as error:
        raise UserError(f"{path}: damaged ({error}); delete it and run the stage again") from None


def _meet(folder, rank, world):
    """Return when every rank has read all units: rank 0 deletes them soon after.

    Files of an earlier, killed run may lie here, so each side proves that it is alive: rank 0 writes a fresh word,
    the others answer with it and a word of their own, and rank 0 lists those words when all have answered."""
    word = secrets.token_hex(8)
    if rank == 0:
        _post(folder / "word", word)
        answers = [[] for _ in range(1, world)]
        while not all(answer[:1] == [word] for answer in answers):
            time.sleep(POLL)
            answers = [_look(folder / f"answer-{other}") for other in range(1, world)]
        _post(folder / "all", *(answer[1] for answer in answers))
        return
    heard = None
    while word not in _look(folder / "all"):
        if heard and not folder.exists():                  # all had answered, and rank 0 has saved the stage
            return
        now = _look(folder / "word")
        if now and now != heard:
            heard = now
            _post(folder / f"answer-{rank}", *heard, word)
        time.sleep(POLL)


def _post(path, *words):
    tmp = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    tmp.write_text(" ".join(words))
    tmp.replace(path)


def _look(path):
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []
