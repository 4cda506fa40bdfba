"""Artifacts: the files a stage leaves behind, and the proof that they are what they were.

    <name>.npy, <name>.json, <name>.jsonl     one file per array or table
    manifest.json   identity: stage, config, digests of the inputs, hashes of the outputs, results, and
                    `digest`, the SHA-256 over all of these; the same inputs give the same bytes
    run.json        circumstance: time, seconds, command, versions, machine, commit, the sources by meaning
                    (lib.identity), and hashes of the data files

A stage folder is written beside its place and renamed into it, so one that has a manifest is complete; what a kill
left between the two renames is finished at the next start (`settle`). One process at a time works on it (`hold`).
"""
import contextlib
import fcntl
import hashlib
import json
import math
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from glob import escape as glob_escape
from pathlib import Path

import numpy as np

from lib import identity
from lib.identity import ROOT, sha256

SCHEMA = 1
MARK = ".made"                   # in a stage folder, not tracked: what it was made from here (lib.stage)
LARGEST = 2**63                  # of whole numbers that are read: beyond it they fit into no array
NUMBER = (int, float)
DIGEST = {"sha256": str}
# What must stand in the files that stages leave, beside free keys (see `check`).
MANIFEST = {"schema": int, "stage": str, "config": dict, "inputs": {str: str}, "outputs": {str: DIGEST}, "results": dict,
            "digest": str}
RUN = {"time": str, "argv": [str], "wall_s": (*NUMBER, None), "versions": {str: str}, "sources": {str: {str: str}},
       "commit": (str, None), "dirty": (bool, None)}
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


# --- reading and writing ------------------------------------------------------------------------------------
def check(where, value, shape):
    """`value`, if it has the shape: a type; None; a tuple of shapes, one of which fits; [shape], a list; {str: shape}, an
    object; {"key": shape}, an object with at least these keys. True is no number. UserError names the place."""
    if isinstance(shape, tuple):
        for one in shape:
            with contextlib.suppress(UserError):
                return check(where, value, one)
    elif shape is None and value is None or isinstance(shape, type) and type(value) is shape:
        return value
    elif isinstance(shape, list) and isinstance(value, list):
        for i, item in enumerate(value):
            check(f"{where}[{i}]", item, shape[0])
        return value
    elif isinstance(shape, dict) and isinstance(value, dict):
        for key, part in ({key: shape[str] for key in value} if str in shape else shape).items():
            if key not in value:
                raise UserError(f"{where}: no key {key!r}")
            check(f"{where}, {key}", value[key], part)
        return value
    raise UserError(f"{where}: is {_short(value)}, expected {_named(shape)}")


def _named(shape):
    """A shape in words."""
    if isinstance(shape, tuple):
        return " or ".join(dict.fromkeys(map(_named, shape)))
    kind = shape if isinstance(shape, type) or shape is None else type(shape)
    return {None: "null", str: "text", int: "a number", float: "a number", bool: "true or false", list: "a list",
            dict: "an object"}[kind]


def _short(value):
    try:
        text = json.dumps(value)
    except RecursionError:                       # what could just be read may be too deep to be written
        text = f"{type(value).__name__} nested too deeply"
    return text if len(text) <= 60 else f"{text[:57]}..."


def read_json(path, shape=None):
    """Content of a JSON file; of a .jsonl file, the list of its lines; of `shape`, if one is given (see `check`).
    UserError names file and line: also for a key that stands twice, a number that is none or fits nowhere, and half of
    a surrogate pair, which no file can hold again."""
    rows, jsonl = [], str(path).endswith(".jsonl")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, ValueError) as error:                     # ValueError: not UTF-8, or a NUL in the path
        raise UserError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})") from None
    for number, line in enumerate(text.removesuffix("\n").split("\n") if jsonl else [text], 1):
        try:
            rows.append(json.loads(line, object_pairs_hook=_once, parse_constant=_no_number, parse_int=_whole))
            if "\\u" in line:
                json.dumps(rows[-1], ensure_ascii=False).encode()
        except json.JSONDecodeError as error:
            raise UserError(f"{path}, line {number + error.lineno - 1}: not JSON ({error.msg})") from None
        except UnicodeEncodeError:
            raise UserError(f"{path}, line {number}: a \\u escape is half of a surrogate pair") from None
        except (ValueError, RecursionError) as error:
            why = "nested too deeply" if isinstance(error, RecursionError) else error
            raise UserError(f"{path}{f', line {number}' * jsonl}: not JSON that can be used ({why})") from None
    value = rows if jsonl else rows[0]
    return value if shape is None else check(path, value, shape)


def _once(pairs):
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"the key {_short(next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i])))} "
                         "stands twice in one object")
    return found


def _no_number(word):
    raise ValueError(f"{word} is not a finite number")


def _whole(digits):
    if len(digits) > 20 or not -LARGEST <= int(digits) < LARGEST:
        raise ValueError(f"the number {digits[:20]}... has {len(digits)} digits")
    return int(digits)


@contextlib.contextmanager
def writing(path):
    """Yields the path of a file beside `path` that takes its place at the end, so that nobody meets half a file. An
    error leaves what was there; UserError if it is one of the disk."""
    path = Path(path)
    beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        yield beside
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror or error})") from None
    finally:
        with contextlib.suppress(OSError):
            beside.unlink(missing_ok=True)


def write_json(path, value):
    """Deterministic bytes: keys sorted, one space of indent (.jsonl: one row a line), final newline; see `writing`."""
    rows, indent = (value, None) if Path(path).suffix == ".jsonl" else ([value], 1)
    text = [json.dumps(row, sort_keys=True, ensure_ascii=False, indent=indent) + "\n" for row in rows]
    with writing(path) as beside:
        beside.write_text("".join(text), encoding="utf-8", newline="\n")


# --- one process at a time, and what a killed one left ------------------------------------------------------
def hold(folder):
    """Keep every other process out of `folder` until `release`, or until this process ends: <folder>.lock holds its id
    under a lock of the kernel, so that one left by a killed process binds nobody. UserError says who holds it."""
    path = Path(folder).with_name(f"{Path(folder).name}.lock")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            file = open(path, "a+", encoding="utf-8")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                file.seek(0)
                holder = file.read(20).strip() or "another"
                raise UserError(f"{folder}: process {holder} is working on it; wait until it ends") from None
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):
                break                                      # else its holder deleted it as we opened it
            file.close()
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
    except OSError as error:
        raise UserError(f"{path}: cannot be locked ({error.strerror or error})") from None
    return path, file


def release(held):
    path, file = held
    with contextlib.suppress(OSError):
        path.unlink()
    file.close()


def settle(out):
    """Finish or remove what a killed `save` left beside `out`: a complete new folder, else the old one, takes the place
    where there is none; a folder beside a complete one goes."""
    left = [path for kind in ("tmp", "old") for path in sorted(out.parent.glob(f"{glob_escape(out.name)}.{kind}-*"))
            if path.name.rpartition("-")[2].isdigit()]
    try:
        for path in left:
            if not out.exists() and (path / "manifest.json").is_file():
                path.rename(out)
            else:
                shutil.rmtree(path)
    except OSError as error:
        raise UserError(f"{out}: what a killed run left beside it cannot be removed ({error})") from None


def save(out, *, stage, config, inputs, arrays=None, tables=None, results=None, sources=(), data=None, t0=None,
         made=None):
    """Write one stage folder, delete the work units in <out>.units, return the folder loaded.

    arrays  {name: (ndarray, axis names)} -> <name>.npy, C order
    tables  {name: JSON-able} -> <name>.json; a name that ends in .jsonl takes a list of rows
    inputs  {label: digest}; a label that names a stage folder beside `out` is followed by `verify`
    sources scripts whose meaning (lib.identity) goes to run.json, with that of all project modules they import
    data    {"licence", "source", "files": {name: sha256}} of the suite, for run.json; t0 time.time() at the start
    made    digest of what it is made from here, for MARK
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
        settle(out)
        tmp.mkdir()
        for name, (value, axes) in sorted(files.items()):
            manifest["outputs"][name] = _write(tmp / name, value, axes)
        digest = digest_of(manifest)
        write_json(tmp / "run.json", _circumstance(sources, data, t0))
        if made:
            write_json(tmp / MARK, {"of": made, "digest": digest})
        write_json(tmp / "manifest.json", manifest | {"digest": digest})
        if out.exists():
            out.rename(old)
        tmp.rename(out)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error})") from None
    finally:
        if out.exists() or not (tmp / "manifest.json").is_file():      # else the next start puts it in its place
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
    run = property(lambda self: read_json(self.path / "run.json", RUN))

    def file(self, name):
        """Path of an output whose hash is right. UserError says which folder to delete."""
        path, entry = self.path / name, self.manifest["outputs"].get(name)
        if entry is None or not path.is_file() or sha256(path) != entry["sha256"]:
            fault = "not in the manifest" if entry is None else "changed" if path.is_file() else "missing"
            raise UserError(f"{path}: {fault}; delete {self.path} and run {self.manifest['stage']} again")
        return path

    def array(self, name):
        """The array saved as `name`."""
        path = self.file(f"{name}.npy")
        try:
            return np.load(path, allow_pickle=False)
        except (ValueError, EOFError) as error:            # a right hash, so it was written so: by nothing of ours
            raise UserError(f"{path}: no array ({error})") from None

    def table(self, name):
        """The table saved as `name`, with or without its extension."""
        names = [n for n in (name, f"{name}.json", f"{name}.jsonl") if n in self.manifest["outputs"]]
        return read_json(self.file(names[0] if names else name))


def load(path, stage=None):
    """The stage folder at `path`. UserError if it is missing, was edited, or is not of `stage`."""
    path = Path(path)
    if not (path / "manifest.json").is_file():
        raise UserError(f"{path}: no manifest.json; run {stage or path.name} first")
    manifest, rest = read_json(path / "manifest.json"), {}
    with contextlib.suppress(UserError):
        rest = {key: part for key, part in check("", manifest, MANIFEST).items() if key != "digest"}
    if rest.get("schema") != SCHEMA or manifest["digest"] != digest_of(rest):
        name = rest.get("stage", stage or path.name)
        raise UserError(f"{path / 'manifest.json'}: changed; delete {path} and run {name} again")
    if stage not in (None, manifest["stage"]):
        raise UserError(f"{path}: written by {manifest['stage']}, expected {stage}")
    return Artifact(path, manifest)


def shown(text):
    """Text as one line that a terminal can show as it is: what is not printable stands as its escape."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in " ".join(str(text).split()))


def run(main):
    """Call main(); what the user or the machine can put right becomes one line on stderr: exit status 2, of a signal
    128 and its number."""
    def stop(number, _):
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    try:
        main()
        return
    except UserError as error:
        told, status = f"error: {shown(error)}", 2
    except (KeyboardInterrupt, Stopped) as error:
        number = error.args[0] if error.args else signal.SIGINT
        told, status = f"stopped by {signal.Signals(number).name}; what is finished is kept, a rerun goes on", 128 + number
    except BrokenPipeError:                                # whoever read our output has gone, as `head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        told, status = "", 2
    except OSError as error:
        place = error.filename if error.filename is not None else "a file"
        told, status = f"error: {shown(place)}: {shown(error.strerror or error)}", 2
    except MemoryError as error:
        told, status = f"error: out of memory {shown(error)}".rstrip(), 2
    except BaseException as error:
        if not panicked(error):
            raise
        told, status = f"error: the tokenizer failed at a text ({shown(error)})", 2
    with contextlib.suppress(OSError):
        print(told, file=sys.stderr) if told else None
    sys.exit(status)


def panicked(error):
    """Whether compiled Rust code gave up, as tokenizers do at a damaged tokenizer.json: it raises what is no Exception."""
    return type(error).__name__ == "PanicException"


class Stopped(BaseException):
    """A signal that ends the process; not an Exception, so that no handler of faults keeps it."""
