"""Identity: what can change a stage's numbers, read from files alone, without torch and in a moment.

    sources    the modules a script imports, by meaning: syntax trees without comments, docstrings and layout, one digest
               per top-level definition, so that prose can be mended freely and a change is named
    model      every file of a model's folder that can change a number; its card and its training log cannot
    versions   of the packages that compute
"""
import ast
import functools
import hashlib
import importlib.metadata
import platform
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("lib", "data", "report")                # packages of the project, whose modules count as sources
PACKAGES = ("numpy", "tokenizers", "torch", "transformers")
CONFIG_FILES = ("config.json", "generation_config.json")
TEMPLATES = "additional_chat_templates"          # the one folder in a model's folder that is read
# Files of a model's folder that change no number: prose, pictures and code, which is never run; weights in formats
# that are never read; logs of a training, and where a checkpoint is from.
PROSE = (".md", ".rst", ".html", ".pdf", ".csv", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp", ".mp4", ".py",
         ".ipynb")
UNREAD = (".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx", ".onnx_data", ".gguf", ".ot", ".tflite", ".pkl")
LOGS = ("card.json", "training.json", "SOURCE.json", "trainer_state.json", "all_results.json", "train_results.json",
        "eval_results.json")
TERMS = ("LICENSE", "LICENCE", "NOTICE", "COPYING", "USE_POLICY", "README")


def sha256(path):
    """Hex SHA-256 of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- sources ------------------------------------------------------------------------------------------------
def imports(path):
    """Project files that a file imports: at the top, inside a function, or by a constant name."""
    names = set()
    for node in ast.walk(_tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            names |= {arg.value for arg in node.args if isinstance(arg, ast.Constant)}
    files = {ROOT / (name.replace(".", "/") + ".py") for name in names if name.split(".")[0] in ROOMS}
    return {file for file in files if file.is_file()}


def closure(paths):
    """Sorted paths of the files `paths` and of all project modules that they import, at any depth."""
    found, left = set(), {Path(path).resolve() for path in paths}
    while left:
        path = left.pop()
        found.add(path)
        left |= imports(path) - found
    return sorted(found)


def sources(paths):
    """{path from the project's root: meaning} of the files `paths` and of all that they import."""
    return {str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name: meaning(path)
            for path in closure(paths)}


def meaning(path):
    """{name of a top-level definition: digest of its syntax tree}; what has no name counts as "(module)".

    Comments, docstrings, layout and the order of definitions are not in it."""
    parts = {}
    for node in _tree(path).body:
        if not _is_prose(node):
            parts.setdefault(_name(node), []).append(_plain(node))
    return {name: hashlib.sha256(repr(part).encode()).hexdigest()[:16] for name, part in sorted(parts.items())}


def moved(before, now):
    """Texts that name what differs between two results of `sources`: "lib/metrics.py bootstrap"."""
    told = []
    for path in sorted({*before, *now}):
        old, new = before.get(path, {}), now.get(path, {})
        names = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
        if names:
            told.append(f"{path} {'is gone' if not new else 'is new' if not old else ', '.join(names)}")
    return told


@functools.cache
def _tree(path):
    """Parsed once per process, at first sight: that is the code that runs, whatever is edited meanwhile."""
    return ast.parse(Path(path).read_text(encoding="utf-8"))


def _is_prose(node):
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _name(node):
    if hasattr(node, "name"):
        return node.name
    targets = getattr(node, "targets", [getattr(node, "target", None)])
    return ", ".join(n.id for t in targets if t is not None for n in ast.walk(t) if isinstance(n, ast.Name)) or "(module)"


def _plain(node):
    """A syntax tree as nested tuples. Empty fields are left out: newer Pythons have more of them."""
    if isinstance(node, ast.AST):
        return (type(node).__name__, *((field, _plain(value)) for field, value in ast.iter_fields(node)
                                       if field not in ("ctx", "kind", "type_comment") and value not in (None, [])))
    if isinstance(node, list):
        return [_plain(part) for part in node if not _is_prose(part)]
    return type(node).__name__, repr(node)


# --- models and versions ------------------------------------------------------------------------------------
def model_folder(source):
    """Folder of a model's files: `source` itself, or the local copy of a hub id; None if there is none yet."""
    if Path(source).is_dir():
        return Path(source)
    from huggingface_hub import try_to_load_from_cache          # half a second that a folder does not need
    from huggingface_hub.errors import HFValidationError
    try:
        found = try_to_load_from_cache(str(source), "config.json")
    except HFValidationError:
        return None
    return Path(found).parent if isinstance(found, str) else None


def model_files(folder):
    """{name: sha256} of all files of a model's folder that can change a number: every one but those named above,
    hidden ones and what lies in folders that are not read."""
    folder = Path(folder)
    files = [path for path in (*folder.iterdir(), *folder.glob(f"{TEMPLATES}/*")) if path.is_file()]
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(files) if not (
        path.name.startswith(".") or path.suffix.lower() in PROSE + UNREAD or path.name in LOGS
        or path.name.split(".")[0].upper() in TERMS)}


def model_parts(files):
    """`model_files` in three, {"weights", "config", "tokenizer"}: what is neither of the first two is the third."""
    weights = {name: digest for name, digest in files.items() if ".safetensors" in name}
    config = {name: digest for name, digest in files.items() if name in CONFIG_FILES}
    rest = {name: digest for name, digest in files.items() if name not in weights | config}
    return {"weights": weights, "config": config, "tokenizer": rest}


def versions():
    """{package: version} of what computes, read without importing it."""
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in PACKAGES}}
