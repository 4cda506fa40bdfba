"""Artifacts: the files a stage leaves behind, and the proof that they are what they were.

    <name>.npy, <name>.json, <name>.jsonl     one file per array or table
    manifest.json   identity: stage, config, digests of the inputs, hashes of the outputs, results, and
                    `digest`, the SHA-256 over all of these; the same inputs give the same bytes
    run.json        circumstance: time, seconds, command, versions, machine, commit, the sources by meaning
                    (lib.identity), and hashes of the data files

A stage folder is written beside its place and renamed into it, so one that has a manifest is complete.
"""
import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib import identity
from lib.identity import ROOT, sha256

SCHEMA = 1
DIGITS = 6                       # significant digits kept in `results`; arrays and tables are kept exactly


class UserError(Exception):
    """Something the user can put right. Shown as one line, exit status 2 (see `run`)."""


def digest_of(value):
    """Hex SHA-256 of a JSON-able value; the order of dict keys does not matter."""
    return hashlib.sha256(json.dumps(plain(value), sort_keys=True).encode()).hexdigest()


def plain(value, where="value", digits=None):
    """NumPy values, tuples and nested dicts as plain JSON types, floats to `digits` significant digits.
    UserError names the place of a non-finite number; TypeError for what JSON cannot hold."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return {key: plain(item, f"{where}.{key}", digits) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item, f"{where}[{i}]", digits) for i, item in enumerate(value)]
    if isinstance(value, float):
        if not math.isfinite(value):
            raise UserError(f"{where}: {value} is not a finite number")
        return value if digits is None else float(f"{value:.{digits}g}") + 0.0     # + 0.0: no negative zero
    if value is None or isinstance(value, (str, int)):
        return value
    raise TypeError(f"{where}: JSON cannot hold {type(value).__name__} (keys of a dict must be strings)")


def read_json(path):
    """Content of a JSON file; of a .jsonl file, the list of its lines. UserError names file and line."""
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    rows, jsonl = [], str(path).endswith(".jsonl")
    for number, line in enumerate(text.removesuffix("\n").split("\n") if jsonl else [text], 1):
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg})") from None
    return rows if jsonl else rows[0]


def write_json(path, value):
    """Deterministic bytes: keys sorted, one space of indent (.jsonl: one row a line), final newline. Renamed into its
    place, so that nobody meets half a file."""
    rows, indent = (value, None) if path.suffix == ".jsonl" else ([value], 1)
    text = [json.dumps(row, sort_keys=True, ensure_ascii=False, indent=indent) + "\n" for row in rows]
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    beside.write_text("".join(text), encoding="utf-8", newline="\n")
    beside.replace(path)


def save(out, *, stage, config, inputs, arrays=None, tables=None, results=None, sources=(), data=None, t0=None):
    """Write one stage folder, delete the work units in <out>.units, return the folder loaded.

    arrays  {name: (ndarray, axis names)} -> <name>.npy, C order
    tables  {name: JSON-able} -> <name>.json; a name that ends in .jsonl takes a list of rows
    inputs  {label: digest}; a label that names a stage folder beside `out` is followed by `verify`
    sources scripts whose meaning (lib.identity) goes to run.json, with that of all project modules they import
    data    {"licence", "source", "files": {name: sha256}} of the suite, for run.json; t0 time.time() at the start
    UserError for an empty array or table, a non-finite number, or an `out` that is no stage folder."""
    out = Path(out)
    if out.is_dir() and any(out.iterdir()) and not (out / "manifest.json").is_file():
        raise UserError(f"{out}: has files but no manifest.json; move them away or choose another --out")
    arrays, tables = arrays or {}, tables or {}
    manifest = {"schema": SCHEMA, "stage": stage, "config": plain(config, "config"), "outputs": {},
                "inputs": plain(inputs, "inputs"), "results": plain(results or {}, "results", DIGITS)}
    files = {f"{name}.npy": pair for name, pair in arrays.items()}
    for name, table in tables.items():
        files[name if name.endswith((".json", ".jsonl")) else f"{name}.json"] = (table, None)
    if len(files) < len(arrays) + len(tables) or {"manifest.json", "run.json"} & set(files):
        raise ValueError(f"{out}: two outputs of one name, or a name save writes itself: {sorted(files)}")
    tmp, old = (out.with_name(f"{out.name}.{kind}-{os.getpid()}") for kind in ("tmp", "old"))
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.iterdir():                  # by a save that was killed
            if left.name.startswith((f"{out.name}.tmp-", f"{out.name}.old-")):
                shutil.rmtree(left)
        tmp.mkdir()
        for name, (value, axes) in sorted(files.items()):
            manifest["outputs"][name] = _write(tmp / name, value, axes)
        write_json(tmp / "run.json", _circumstance(sources, data, t0))
        write_json(tmp / "manifest.json", manifest | {"digest": digest_of(manifest)})
        if out.exists():
            out.rename(old)
        tmp.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None
    finally:
        shutil.rmtree(tmp, ignore_errors=True)
    for done in (old, out.with_name(f"{out.name}.units")):
        shutil.rmtree(done, ignore_errors=True)
    return load(out)


def _write(path, value, axes):
    """Write one array (axes given) or table (axes None); return its entry in the manifest."""
    if axes is None:
        table = plain(value, path.name)
        if not table:
            raise UserError(f"{path.name}: empty table")
        write_json(path, table)
        return {"sha256": sha256(path), "rows": len(table)}
    array = np.asarray(value, order="C")
    if array.dtype.kind not in "biuf" or array.ndim != len(axes):
        raise TypeError(f"{path.name}: {array.dtype} of shape {array.shape} does not fit axes {tuple(axes)}")
    if array.size == 0 or not np.isfinite(array).all():
        bad = np.argwhere(~np.isfinite(array))
        first = dict(zip(axes, bad[0].tolist())) if len(bad) else None
        fault = f"{len(bad)} numbers are not finite, the first at {first}" if len(bad) else "empty"
        raise UserError(f"{path.name} of shape {array.shape}: {fault}")
    np.save(path, array, allow_pickle=False)
    return {"sha256": sha256(path), "shape": list(array.shape), "axes": list(axes), "dtype": str(array.dtype)}


def _circumstance(sources, data, t0):
    def git(*args):                                        # None without git or before the first commit
        if shutil.which("git"):
            done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True)
            return done.stdout.strip() if done.returncode == 0 else None
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!outputs", ":!report")
    cuda = "torch" in sys.modules and sys.modules["torch"].cuda.is_available()
    return {"time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "argv": [Path(sys.argv[0]).name, *sys.argv[1:]],
            "wall_s": None if t0 is None else round(time.time() - t0, 1),
            "versions": identity.versions(),
            "machine": {"system": platform.system(), "cpu": platform.machine(), "cpus": os.cpu_count(),
                        "gpu": sys.modules["torch"].cuda.get_device_name() if cuda else None,
                        "ranks": int(os.environ.get("WORLD_SIZE", 1))},
            "commit": git("rev-parse", "HEAD"), "dirty": None if dirty is None else bool(dirty),
            "sources": identity.sources(sources),
            **({} if data is None else {"data": data})}


@dataclass(frozen=True)
class Artifact:
    """A stage folder whose manifest fits its digest; each file is checked when it is read."""
    path: Path
    manifest: dict
    digest = property(lambda self: self.manifest["digest"])
    results = property(lambda self: self.manifest["results"])
    config = property(lambda self: self.manifest["config"])
    run = property(lambda self: read_json(self.path / "run.json"))

    def file(self, name):
        """Path of an output whose hash is right. UserError says which folder to delete."""
        path, entry = self.path / name, self.manifest["outputs"].get(name)
        if entry is None or not path.is_file() or sha256(path) != entry["sha256"]:
            fault = "not in the manifest" if entry is None else "changed" if path.is_file() else "missing"
            raise UserError(f"{path}: {fault}; delete {self.path} and run {self.manifest['stage']} again")
        return path

    def array(self, name):
        """The array saved as `name`."""
        return np.load(self.file(f"{name}.npy"), allow_pickle=False)

    def table(self, name):
        """The table saved as `name`, with or without its extension."""
        names = [n for n in (name, f"{name}.json", f"{name}.jsonl") if n in self.manifest["outputs"]]
        return read_json(self.file(names[0] if names else name))


def load(path, stage=None):
    """The stage folder at `path`. UserError if it is missing, was edited, or is not of `stage`."""
    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise UserError(f"{path}: no manifest.json; run {stage or path.name} first")
    manifest = read_json(path / "manifest.json")
    rest = {k: v for k, v in manifest.items() if k != "digest"} if isinstance(manifest, dict) else {}
    if rest.get("schema") != SCHEMA or manifest.get("digest") != digest_of(rest):
        name = rest.get("stage", path.name)
        raise UserError(f"{path / 'manifest.json'}: changed; delete {path} and run {name} again")
    if stage not in (None, manifest["stage"]):
        raise UserError(f"{path}: written by {manifest['stage']}, expected {stage}")
    return Artifact(path, manifest)


def run(main):
    """Call main(); a UserError becomes one line on stderr and exit status 2."""
    try:
        main()
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        sys.exit(2)
