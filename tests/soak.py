"""Soak: kills, full disks, crowds and damaged files, again and again; nothing may be lost and nothing silent.

    kills    a process that runs a stage, ranks of one, a save or the report is killed at a random time or beside one of
             its renames and deletions, and started again, until it ends; then its bytes are those of a run nobody killed
    inputs   committed and generated files, changed by bytes or by JSON values, go to the readers: each must give
             UserError or load, within LIMIT seconds
    disks    the n-th file that is opened to be written fails, or files may not grow beyond a size: one line, status 2,
             and the next run ends with the right bytes
    crowds   two and four runs of one stage on one folder: one works, the others say who does

A chain of kills goes on from what the last one left, and each kill in it counts as one; at its end the bytes are compared.
As many processes do all this side by side as there are cores, four at most.

    python -m tests.soak --seconds 600 --seed 1 --write     (make soak)
"""
import argparse
import contextlib
import copy
import errno
import io
import json
import os
import random
import resource
import runpy
import shutil
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
from tqdm import tqdm                                                         # noqa: E402
tqdm.monitor_interval = 0          # its thread holds a lock now and then: a process forked just then would wait for ever
from lib import artifacts, identity, models, stage, suite as suites          # noqa: E402
from lib.artifacts import ROOT, UserError                                     # noqa: E402
from lib.judging import endpoint                                              # noqa: E402
import numpy as np                                                            # noqa: E402
from report import build, claims, declared, trace                                 # noqa: E402
from tests import planted, tiny                                               # noqa: E402

STAGES = ("01_extract", "02_tune", "03_transfer", "04_compose", "05_reliability")
PATCHED = ("rename", "replace", "unlink", "rmdir", "mkdir")
LIMIT = 20                # seconds for one damaged input
MOST = 30                 # kills in one chain
RUN = 300                 # seconds for one process that nobody kills
ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS, errno.EIO)
WORST = [None, [], {}, "", " ", 0, -1, 1e308, 2**70, True, "\0", "x" * 5000, "../x", "{x.__class__}", "{{", "|", "\x1b[31m",
         [[]], {"a": {}}, ["a"], 0.5, "A", "-"]
TEXTS = [b"", b"[", b"NaN", b"1e999", b"9" * 5000, b"[" * 100000, b'"\\ud800"', b"\xff\xfe", b"\x00" * 100, b"version https://git-lfs"]


class Soak:
    def __init__(self, folder, seed, seconds):
        self.folder, self.random, self.end = Path(folder), random.Random(seed), time.time() + seconds
        self.tried, self.survived, self.found = {}, {}, []

    def count(self, what, fault=None):
        self.tried[what] = self.tried.get(what, 0) + 1
        self.survived[what] = self.survived.get(what, 0) + (not fault)
        if fault:
            self.found.append(f"{what}: {fault}")
            print(f"FOUND {what}: {fault}", flush=True)

    # --- processes ----------------------------------------------------------------------------------------
    def start(self, job, before=None, **env):
        """(process id, file of its output) of a forked process that does job()."""
        said = self.folder / f"said-{self.random.randrange(10**9)}"
        pid = os.fork()
        if pid:
            return pid, said
        status = 1
        try:
            os.environ.update(env)
            with open(said, "w", buffering=1) as out:
                os.dup2(out.fileno(), 1)
                os.dup2(out.fileno(), 2)
                sys.stdout, sys.stderr = out, out
                before() if before else None
                try:
                    job()
                    status = 0
                except SystemExit as error:
                    status = error.code or 0
                except BaseException:
                    traceback.print_exc()
        finally:
            os._exit(status)

    def wait(self, pid, seconds=RUN):
        """Exit status (negative: its signal) of a process, which is killed after `seconds`."""
        stop = time.time() + seconds
        while time.time() < stop:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.002)
        os.kill(pid, signal.SIGKILL)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def finish(self, job, **env):
        """None, or what was wrong with a run that nobody kills."""
        pid, said = self.start(job, **env)
        status, text = self.wait(pid), said.read_text()
        said.unlink()
        return None if status == 0 else f"exit {status}: {text[-400:]}"

    def kill(self, job, ranks=1, longest=2.0):
        """Start job() and kill it: at a random time, or beside its n-th change of a folder. True if it was killed."""
        at = self.random.choice((None, self.random.randrange(1, 12), self.random.randrange(1, 60)))
        delay = self.random.uniform(0, longest)
        after = self.random.random() < 0.5
        before = None if at is None else lambda: _die(at, after)
        crew = [self.start(job, before if rank == ranks - 1 else None, RANK=str(rank), WORLD_SIZE=str(ranks))
                for rank in range(ranks)]
        if at is None:
            self.random.shuffle(crew)
            time.sleep(delay)
            os.kill(crew[0][0], signal.SIGKILL)
        statuses = [self.wait(crew[-1 if at else 0][0], 20)]
        for pid, _ in crew[:-1] if at else crew[1:]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            statuses.append(self.wait(pid))
        texts = [said.read_text() if said.exists() else "" for _, said in crew]
        for _, said in crew:
            said.unlink(missing_ok=True)
        if not set(statuses) <= {0, -9}:
            return f"{statuses}: {' '.join(texts)[-400:]}"
        return -9 in statuses

    def killed(self, what, job, out, want, ranks=1, longest=2.0, invariant=lambda: None):
        """One chain: kill job() and start it again, which goes on from where it was, until it ends or MOST kills; then
        let it end and compare."""
        for _ in range(MOST):
            done = self.kill(job, ranks, longest)
            fault = done if isinstance(done, str) else invariant()
            self.count(f"kills {what}", fault) if done is True or fault else None
            if done is not True or time.time() > self.end:
                break
        fault = self.finish(job) or differs(want, out)
        left = [path.name for path in out.parent.glob(f"{out.name}.*")]
        self.count(f"ends {what}", fault or (f"left behind: {left}" if left else None))
        shutil.rmtree(out, ignore_errors=True)


def _die(at, after):
    """In this process, the at-th change of a folder is its last act, or not even done."""
    seen = [0]

    def guard(function):
        def call(*args, **named):
            seen[0] += 1
            if seen[0] == at and not after:
                os.kill(os.getpid(), signal.SIGKILL)
            found = function(*args, **named)
            if seen[0] >= at:
                os.kill(os.getpid(), signal.SIGKILL)
            return found
        return call

    for name in PATCHED:
        setattr(os, name, guard(getattr(os, name)))


def _full(at, code):
    """In this process, the at-th file opened to be written cannot be."""
    import builtins
    import io
    seen, real = [0], io.open

    def opened(file, mode="r", *args, **named):
        if set(mode) & set("wax+") and not isinstance(file, int) and not str(file).endswith(".lock"):
            seen[0] += 1
            if seen[0] == at:
                raise OSError(code, os.strerror(code), str(file))
        return real(file, mode, *args, **named)

    builtins.open = io.open = opened


def small(size):
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name not in ("run.json", stage.MARK) and not path.name.endswith(".pdf")}


def differs(want, folder):
    found = contents(folder)
    wrong = sorted(name for name in {*want, *found} if want.get(name) != found.get(name))
    return f"{folder.name}: other bytes in {wrong[:5]}" if wrong else None


# --- what is run ---------------------------------------------------------------------------------------------
def small_suite(to):
    """The testbed with the first few of everything, for stages that take a second."""
    shutil.copytree(ROOT / "data/suites/testbed", to)

    def cut(name, change):
        value = json.loads((to / name).read_text())
        (to / name).write_text(json.dumps(change(value)))

    cut("traits.json", lambda traits: traits[:2])
    cut("tasks.json", lambda tasks: {task: {part: items[:2] for part, items in parts.items()} for task, parts in tasks.items()})
    cut("behaviours.json", lambda found: found[:1] + [b for b in found if b["format"] != found[0]["format"]][:1])
    cut("templates.json", lambda found: found[:2])
    cut("suite.json", lambda head: head | {"max_new_tokens": 4})
    cut("values.json", lambda v: v | {"facts": v["facts"][:10], "values": [
        one | {"pairs": one["pairs"][:4], "probes": one["probes"][:10]} for one in v["values"][:1]]})
    for path in (to / "relations").glob("*.json"):
        path.unlink() if path.stem not in ("antonym", "synonym", "plural") else None
    for behaviour in json.loads((to / "behaviours.json").read_text()):
        path = to / behaviour["file"]
        path.write_text("".join(line + "\n" for line in path.read_text().splitlines()[:40]))
    used = {Path(b["file"]).name for b in json.loads((to / "behaviours.json").read_text())}
    for path in (to / "behaviours").iterdir():             # files that no one reads would be spoiled in vain
        path.unlink() if path.name not in used else None
    return to


def stage_job(script, *argv):
    def job():
        sys.argv = [script, *map(str, argv)]
        runpy.run_path(str(ROOT / script), run_name="__main__")
    return job


def save_job(out, rng):
    array = np.arange(60, dtype=np.float32).reshape(3, 20)

    def job():
        held = artifacts.hold(out)
        artifacts.settle(out)
        artifacts.save(out, stage=out.name, config={"a": 1}, inputs={}, results={"n": 1}, made="x",
                       arrays={"a": (array, ("row", "d")), "b": (array + 1, ("row", "d"))}, tables={"t": [1, 2], "u.jsonl": [{}]})
        artifacts.release(held)
    return job


def report_job(out, to):
    def job():
        sys.argv = ["build", "--model", "one", "--model", "two", "--suite", "planted", "--out", str(out), "--to", str(to)]
        artifacts.run(build.main)
    return job


def plain_pictures():
    """Drawing takes most of a report's time and renames nothing: a word stands for every picture."""
    build.draw.save = lambda figure, path, smoke=False: Path(path).write_bytes(b"picture")
    build.figures.ALL = [figure._replace(draw=lambda rows, names: None) for figure in build.figures.ALL]
    build.figures.VERDICTS = next(figure for figure in build.figures.ALL if figure.name == build.figures.VERDICTS.name)
    build.trail = lambda figure, number, rows, seen: {"number": number, "title": figure.title, "csv": "", "n_rows": len(rows),
                                                      "rows": "", "draw": "", "tables": [], "reads": []}
    build.latex.ENGINES = ()


# --- damaged inputs ------------------------------------------------------------------------------------------
def spoil(rng, text):
    """Bytes of a file, changed: as bytes, or one value of its JSON by another."""
    if rng.random() < 0.5:
        lines = text.split(b"\n")
        which = rng.randrange(len(lines)) if rng.random() < 0.5 else None
        try:
            value = json.loads(text if which is None else lines[which])
        except ValueError:
            return spoil_bytes(rng, text)
        value = spoil_value(rng, copy.deepcopy(value))
        changed = json.dumps(value).encode()
        return changed if which is None else b"\n".join([*lines[:which], changed, *lines[which + 1:]])
    return spoil_bytes(rng, text)


def spoil_value(rng, value):
    if not isinstance(value, (dict, list)) or not value or rng.random() < 0.15:
        return copy.deepcopy(rng.choice(WORST))
    keys = list(value) if isinstance(value, dict) else range(len(value))
    key, act = rng.choice(list(keys)), rng.random()
    if act < 0.1:
        del value[key]
    elif act < 0.2 and isinstance(value, list):
        value.append(value[key])
    elif act < 0.2:
        value[rng.choice(["name", "id", "", "x"])] = value[key]
    else:
        value[key] = spoil_value(rng, value[key])
    return value


def spoil_bytes(rng, text):
    at, n = rng.randrange(len(text) + 1), rng.choice((1, 2, 10, 1000))
    some = bytes(rng.randrange(256) for _ in range(min(n, 10)))
    return rng.choice((text[:at], text[at:], text[:at] + some + text[at + n:], text[:at] + some + text[at:],
                       text[:at] + text[at + n:], text[:at] + text[at:at + n] * 2 + text[at + n:], text[:at] + bytes(n) + text[at + n:],
                       text[:at] + rng.choice(TEXTS) + text[at:], rng.choice(TEXTS)))


def use_suite(folder):
    suite = suites.load(folder)
    for behaviour in suite.behaviours:
        suites.behaviour_prompts(suite, behaviour, suites.split(behaviour["items"], "tune")[0], "USER_POS")
    for template in suite.templates:
        suites.fill(template["pair"], "a", "b")
    for trait in suite.traits:
        suites.tasks(suite, "email", "tune", trait["name"])
    suites.load(folder, "smoke")


def use_stage(folder):
    artifact = artifacts.load(folder)
    artifact.run
    for name in artifact.manifest["outputs"]:
        artifact.array(name[:-4]) if name.endswith(".npy") else artifact.table(name)


def use_claims(path, made):
    some, names = declared.listed(path), ["one", "two"]
    cells = {(claim["id"], name): claims.decide(claim, name, made) for claim in some for name in names}
    claims.verdict_table(some, names, cells, made, path.parent)
    claims.claim_list(some, names, cells, made)
    claims.changed_table(some)


def use_null(path):
    told = declared.measured(path)
    for claim in declared.listed():
        claims.null_rate(claim, told)


def use_reply(path):
    with contextlib.suppress(ValueError):                # what _answer turns into an attempt that failed
        endpoint._parse(path.read_bytes())


def readers(folder):
    """{name: (folder of files, function that reads it, files to spoil)}."""
    suite = small_suite(folder / "suite-read")
    saved = folder / "m" / "01_extract"
    save_job(saved, None)()
    cache, reply = folder / "cache" / "one.json", folder / "reply" / "one.json"
    artifacts_of = {cache: {"text": "7", "refused": False, "tokens": {"7": -0.1, " 8": -2.0}},
                    reply: {"model": "m", "choices": [{"message": {"content": "7"}, "finish_reason": "stop", "logprobs": {"content": [
                        {"token": "7", "logprob": -0.1, "top_logprobs": [{"token": "8", "logprob": -2.0}]}]}}]}}
    for path, value in artifacts_of.items():
        path.parent.mkdir()
        path.write_text(json.dumps(value))
    index = folder / "page" / "index.json"
    index.parent.mkdir()
    shutil.copy(ROOT / "report/index.json", index)
    tiny.save(folder / "model-read", "llama")
    made = planted.plant(folder / "planted-read", ["one", "two"])
    for kind in ("claims", "published", "null"):
        (folder / kind).mkdir()
    shutil.copy(ROOT / "report/claims.json", folder / "claims/claims.json")
    shutil.copy(ROOT / "data/published.json", folder / "published/published.json")
    count = {"n": 3, "undecided": 3, "rate": [0, 0, 0.5]}
    (folder / "null/null.json").write_text(json.dumps({"claims": {"P1": {
        "chains": {"random": count}, "what": "more", "false": count, "planted": count}}}))
    return {"claims": (folder / "claims", lambda at: use_claims(at / "claims.json", made)),
            "published": (folder / "published", lambda at: declared.published(at / "published.json")),
            "null": (folder / "null", lambda at: use_null(at / "null.json")),
            "suite": (suite, use_suite), "stage": (saved, use_stage), "cache": (cache.parent, lambda at: endpoint._weigh(cache, ("7", "8"))),
            "reply": (reply.parent, lambda at: use_reply(reply)), "index": (index.parent, lambda at: trace.trace("P1", at)),
            "model": (folder / "model-read", lambda at: models.load(str(at)))}


def damage(soak, name, folder, read):
    path = soak.random.choice([path for path in sorted(folder.rglob("*")) if path.is_file()])
    kept = path.read_bytes()
    fault, state = None, soak.random.getstate()[1][:2]
    try:
        path.write_bytes(spoil(soak.random, kept))
        signal.alarm(LIMIT)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            read(folder)
    except UserError as error:
        line = artifacts.shown(error)
        fault = None if line and line.isprintable() else "an empty line"
    except BaseException as error:
        at = traceback.extract_tb(error.__traceback__)[-1]
        fault = f"{path.name}: {type(error).__name__}: {str(error)[:120]} at {Path(at.filename).name}:{at.lineno} {state}"
        (soak.folder.parent / f"spoiled-{len(soak.found)}").write_bytes(path.read_bytes()) if soak.folder.exists() else None
    finally:
        signal.alarm(0)
        path.write_bytes(kept)
    soak.count(f"inputs {name}", fault)


# --- all of it -----------------------------------------------------------------------------------------------
def soak(folder, seed, seconds, kills=1000, inputs=10000):
    stages = STAGES if seconds > 60 else STAGES[:1]
    self = Soak(folder, seed, seconds)

    def late(*_):
        raise TimeoutError(f"took more than {LIMIT} s")
    signal.signal(signal.SIGALRM, late)
    begun, rng = time.time(), self.random
    shutil.which = lambda *_: None                         # no git, no TeX: they say nothing about results and take a second

    # 1. inputs: a third of the time
    known = readers(self.folder)
    weights = {"model": 20, "index": 1, "claims": 40}
    while sum(n for what, n in self.tried.items() if what.startswith("inputs")) < inputs and time.time() < begun + seconds / 3:
        name = rng.choices(list(known), [weights.get(name, 400) for name in known])[0]
        damage(self, name, *known[name])

    # 2. saves, and a report of planted results
    plain_pictures()
    out = self.folder / "save" / "01_extract"
    job = save_job(out, rng)
    self.finish(job)
    want = contents(out)
    pages = self.folder / "planted"
    planted.plant(pages, ["one", "two"])
    to = self.folder / "page-of" / "report"
    page = report_job(pages, to)
    fault = self.finish(page)
    self.count("report", fault)
    want_page = contents(to)

    def whole():
        new = to.with_name("report.new")
        lost = [name for name in want_page if not (to / name).exists() and not (new / name).exists()]
        return f"lost {lost[:3]}" if to.exists() and pages_there[0] and lost else None
    pages_there = [False]

    # 3. stages of a tiny model; sources are parsed once, here, so that a process that is started again soon works
    for name in stages:
        identity.sources([ROOT / f"{name}.py"])
    suite, model = small_suite(self.folder / "tiny-suite"), tiny.save(self.folder / "tiny", "llama", max_position_embeddings=1024)
    flags = ("--model", model, "--suite", suite, "--profile", "smoke")
    jobs, wants, took, root = {}, {}, {}, Path("tiny") / "tiny-suite-smoke"
    for name in stages:
        t = time.time()
        fault = self.finish(stage_job(f"{name}.py", *flags, "--out", self.folder / "ref"))
        self.count(f"runs {name}", fault)
        if fault:
            break
        took[name], wants[name] = time.time() - t, contents(self.folder / "ref" / root / name)
        jobs[name] = stage_job(f"{name}.py", *flags, "--out", self.folder / "vic")
        shutil.copytree(self.folder / "ref" / root / name, self.folder / "vic" / root / name)
    vic = self.folder / "vic" / root

    def clear(name):
        for path in vic.glob(f"{name}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def one_kill():
        what = rng.choice([*["save"] * 12, *["report"] * 4, *jobs, *(f"ranks {name}" for name in jobs)])
        if what == "save":
            self.killed(what, job, out, want, longest=0.05)
        elif what == "report":
            if rng.random() < 0.7 and not to.exists():
                self.finish(page)
            pages_there[0] = to.exists()
            self.killed(what, page, to, want_page, longest=1.0, invariant=whole)
        else:
            name = what.split()[-1]
            clear(name)
            ranks = rng.choice((2, 2, 4)) if what.startswith("ranks") else 1
            self.killed(what.split()[0] if ranks > 1 else name, jobs[name], vic / name, wants[name], ranks, took[name])
            shutil.copytree(self.folder / "ref" / root / name, vic / name)

    def one_disk():
        what = rng.choice(["save", "report", *jobs])
        job_, at, wanted = ((job, out, want) if what == "save" else (page, to, want_page) if what == "report" else
                            (jobs[what], vic / what, wants[what]))
        clear(what) if what in jobs else None
        n, code = rng.randrange(1, 12 if what != "report" else 80), rng.choice(ERRNOS)
        size = rng.choice((None, 0, 100, 1000, 10000)) if what != "report" else None
        inner = (lambda: artifacts.run(job_)) if what == "save" else job_
        pid, said = self.start(inner, (lambda: _full(n, code)) if size is None else (lambda: small(size)))
        status = self.wait(pid)
        text = said.read_text() if said.exists() else ""
        said.unlink(missing_ok=True)
        lines = [line for line in text.splitlines() if "Traceback" in line or line.startswith("error:")]
        fault = None if status == 0 or size is not None and not text or (status == 2 and len(lines) == 1 and "Traceback" not in text) \
            else f"{what} n={n} {errno.errorcode[code]} size={size}: exit {status}: {text[-500:]}"
        fault = fault or self.finish(job_) or differs(wanted, at)
        self.count(f"disks {what if what in ('save', 'report') else 'stages'}", fault)
        if what in jobs:
            clear(what)
            shutil.copytree(self.folder / "ref" / root / what, vic / what)

    def one_crowd():
        name, n = rng.choice(list(jobs)), rng.choice((2, 4))
        clear(name)
        crew = [self.start(jobs[name]) for _ in range(n)]
        ended = [(self.wait(pid), said.read_text()) for pid, said in crew]
        bad = [(status, text[-300:]) for status, text in ended if not (status == 0 or status == 2 and "is working on it" in text
                                                                        and text.count("\n") == 1)]
        fault = f"{bad[:2]}" if bad else None if any(status == 0 for status, _ in ended) else "nobody ended"
        self.count(f"crowds of {n}", fault or differs(wants[name], vic / name))

    total = lambda what: sum(n for key, n in self.tried.items() if key.startswith(what))
    self.end = max(self.end, time.time() + seconds / 2)     # a busy machine took long to come here
    while time.time() < self.end and jobs:
        act = rng.choices((one_kill, one_disk, one_crowd), (8, 2, 1))[0]
        if act is one_kill and total("kills") >= kills and time.time() > begun + seconds * 0.95:
            break
        act()
    while time.time() < self.end and total("inputs") < inputs:
        name = rng.choices(list(known), [weights.get(name, 400) for name in known])[0]
        damage(self, name, *known[name])
    return self


def side_by_side(folder, seed, seconds, n):
    """`soak` in n processes, each with a folder and a seed of its own: what all of them tried, survived and found."""
    pids, whole = [], Soak(folder, seed, seconds)
    for i in range(n):
        pids.append(os.fork())
        if not pids[i]:
            status = 1
            try:
                (folder / str(i)).mkdir()
                done = soak(folder / str(i), seed + i, seconds, -(-1000 // n), -(-10000 // n))
                (folder / f"{i}.json").write_text(json.dumps([done.tried, done.survived, done.found]))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
    for i, pid in enumerate(pids):
        if os.waitpid(pid, 0)[1]:
            whole.found.append(f"process {i} of the soak itself failed")
            continue
        tried, survived, found = json.loads((folder / f"{i}.json").read_text())
        for mine, theirs in ((whole.tried, tried), (whole.survived, survived)):
            mine |= {what: mine.get(what, 0) + k for what, k in theirs.items()}
        whole.found += found
    return whole


def together(kept, run):
    """The record with one more run, and the sums over its runs. A run that found something is replaced by the next one:
    what it found is told under "mended"."""
    runs = [*(one for one in kept.get("runs", []) if not one["found"]), run]
    sums = {kind: {what: sum(one[kind].get(what, 0) for one in runs) for what in sorted({*(w for one in runs for w in one[kind])})}
            for kind in ("tried", "survived")}
    return {"runs": runs, **sums, "kills": sum(n for what, n in sums["tried"].items() if what.startswith("kills")),
            "inputs": sum(n for what, n in sums["tried"].items() if what.startswith("inputs")),
            "found": run["found"], "mended": kept.get("mended", [])}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=900)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--write", action="store_true", help="add this run to report/soak.json")
    args = parser.parse_args()
    seed = random.randrange(10**6) if args.seed is None else args.seed
    print(f"seed {seed}", flush=True)
    begun = time.time()
    with tempfile.TemporaryDirectory() as folder:
        found = side_by_side(Path(folder), seed, args.seconds, min(os.cpu_count() or 1, 4))
    run = {"seed": seed, "seconds": round(time.time() - begun), "tried": dict(sorted(found.tried.items())),
           "survived": dict(sorted(found.survived.items())), "found": found.found}
    for what, n in run["tried"].items():
        print(f"{what:24s} {run['survived'][what]} of {n}")
    if args.write:
        path = ROOT / "report" / "soak.json"
        artifacts.write_json(path, together(artifacts.read_json(path) if path.is_file() else {}, run))
    sys.exit(bool(found.found))


if __name__ == "__main__":
    main()
