"""Work units: a stage's computation in pieces that survive a kill and can be shared among processes.

Each unit's result is a file, <out>.units/<identity>/<unit>.npz, written beside its place and renamed into it. A rerun
skips the files that are there; `artifacts.save` deletes <out>.units when the stage is complete. <identity> is a hash
over what the caller names, over the meaning of the code and over versions (lib.identity), so units of other settings,
inputs or code are never read.

With RANK and WORLD_SIZE in the environment, rank r computes every WORLD_SIZE-th unit; the ranks meet through files on
a shared file system and need no network of their own. A rank that fails leaves the others waiting: who started them,
`main` or torchrun, ends them.

    python -m lib.work 4 01_extract.py --model ...      a script in four processes
"""
import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path
from urllib.parse import quote

import numpy as np
from tqdm import tqdm

from lib import identity as what_ran
from lib.artifacts import ROOT, UserError, digest_of, plain, run, writing

POLL = 0.1                       # seconds between two looks at the folder
GRACE = 3                        # seconds in which the first rank may say itself what another rank failed of
# Read once per process, at import: that is the code that runs, whatever is edited meanwhile.
MAIN = Path(getattr(sys.modules["__main__"], "__file__", None) or ".").resolve()
CODE = [what_ran.sources([MAIN] if MAIN.parent == ROOT else ROOT.glob("lib/**/*.py")), what_ran.versions()]


def ranks():
    """(rank, world size); (0, 1) in a process that is alone."""
    rank, world = (os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1")))
    if not (rank.isdecimal() and world.isdecimal() and int(rank) < int(world)):
        raise UserError(f"RANK={rank} does not fit WORLD_SIZE={world}")
    return int(rank), int(world)


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
    whole = io.BytesIO()             # in memory first: a zip file that a full disk cuts complains when it is closed
    np.savez(whole, json=np.frombuffer(json.dumps(rest).encode(), dtype=np.uint8), **arrays)
    with writing(path) as beside:
        beside.write_bytes(whole.getbuffer())


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
    with writing(path) as beside:
        beside.write_text(" ".join(words))


def _look(path):
    try:
        return path.read_text().split()
    except FileNotFoundError:
        return []


def main():
    """A script in N processes. The first one speaks for all; what another failed of is said in its place."""
    n, *command = sys.argv[1:] or [""]
    if not (n.isascii() and n.isdecimal() and 1 <= int(n) <= 1024 and command):
        raise UserError(f"NPROC={n}: expected a whole number from 1 to 1024, and a script")
    env = {"OMP_NUM_THREADS": "1"} | os.environ | {"WORLD_SIZE": n}
    with tempfile.TemporaryDirectory() as told:
        ranks = []
        try:
            for rank in range(int(n)):
                with open(Path(told) / str(rank), "wb") as said:
                    ranks.append(subprocess.Popen(
                        [sys.executable, *command], env=env | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
                        start_new_session=True, **({"stdout": said, "stderr": said} if rank else {})))
            while all(one.poll() in (None, 0) for one in ranks) and any(one.poll() is None for one in ranks):
                time.sleep(POLL)
            bad = next((rank for rank, one in enumerate(ranks) if one.returncode), None)
            if bad:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    ranks[0].wait(GRACE)
        finally:
            for one in ranks:                              # units are renamed into place: a kill costs one at most
                one.kill()
                one.wait()
        if bad is None:
            return
        if ranks[0].returncode > 0:
            sys.exit(ranks[0].returncode)
        said = (Path(told) / str(bad)).read_text(errors="replace").strip().splitlines()[-1:]
        ended = signal.Signals(-ranks[bad].returncode).name if ranks[bad].returncode < 0 else ""
        raise UserError(f"process {bad} of {n}: " + (f"ended by {ended}, as where memory runs out" if ended else
                                                     "".join(said).removeprefix("error: ") or "failed"))


if __name__ == "__main__":
    run(main)
