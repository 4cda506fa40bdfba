"""lib.vectors and report.export: files of other tools as those tools write and read them, and what no file may do.

The packages are not in requirements.txt. Tests that run them are skipped where they are absent; files that they wrote
lie in tests/fixtures (make.py there says how), with the logits that their own code gave on a tiny model."""
import importlib
import importlib.util
import json
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch

from lib import hooks, suite as suites, vectors
from lib.artifacts import UserError
from lib.metrics import Missing
from report import export
from tests import tiny

HERE = Path(__file__).resolve().parent / "fixtures"
IDS = torch.tensor([[5, 9, 30, 41, 7]])
META = {"concept": "trait/ä", "coefficient": 0.1, "nested": {"list": [1, None]}}


def vector(layer, d=32):
    """What every file of this test holds for a layer."""
    return np.random.default_rng([7, layer]).standard_normal(d).astype(np.float32)


def package(name):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} is not installed here")
    if name == "repeng":
        np.float_ = np.float64               # repeng 0.4.0 names it; NumPy 2 has it no more
    return importlib.import_module(name)


@torch.no_grad()
def logits(model, row=()):
    """(token, vocabulary) of IDS, steered at all positions by our hooks."""
    added = {layer: torch.from_numpy(np.array(one)) for layer, one in row}
    with hooks.steer(hooks.find_layers(model), added):
        return model(IDS).logits[0]


def equal(found, expected):
    assert list(found) == sorted(expected)
    assert all(found[layer].dtype == np.float32 and np.array_equal(found[layer], expected[layer]) for layer in expected)


# --- there and back ---------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("format", vectors.EXTENSIONS)
@pytest.mark.parametrize("layers", [(2,), (1, 2), (0, 1, 2)])
def test_round_trip_is_exact(tmp_path, format, layers):
    held, path = {layer: vector(layer) for layer in layers}, tmp_path / f"v{vectors.EXTENSIONS[format]}"
    held[layers[-1]][:2] = np.float32(1e-42), -0.0                      # subnormal, signed zero
    if (format, layers[0]) == ("gguf", 0) or (format, layers) == ("npy", (1, 2)):
        with pytest.raises(UserError, match="layer 0 cannot be written as gguf|npy holds one layer"):
            vectors.save(path, format, held, hint="llama", meta=META)
        assert not list(tmp_path.iterdir())
        return
    vectors.save(path, format, held, hint="llama", meta=META)
    found = vectors.load(path, 3, 32)
    equal(found.layers, held)
    assert np.signbit(found.layers[layers[-1]][1])
    assert found.format == format and found.coefficient == 1.0 and META.items() <= found.meta.items()
    assert found.hint == ("llama" if format in ("gguf", "svec", "safetensors") else None)
    first = path.read_bytes()
    vectors.save(path, format, held, hint="llama", meta=META)
    assert path.read_bytes() == first and not list(tmp_path.glob("*.tmp-*"))


@pytest.mark.parametrize("format", vectors.EXTENSIONS)
def test_a_coefficient_is_multiplied_in_or_beside(tmp_path, format):
    vectors.save(tmp_path / "v", format, {1: vector(1)}, coefficient=0.3, hint="llama", meta=META)
    found = vectors.load(tmp_path / "v")
    assert found.coefficient == (0.3 if format == "lm-eval" else 1.0)
    ((layer, row),) = found.row()
    assert layer == 1 and np.array_equal(row, np.float32(0.3) * vector(1))


def test_hidden_states_have_a_row_for_the_embeddings(tmp_path):
    """A tensor (n_layers + 1, d) as persona_vectors writes it: row l + 1 is block l, by transformers' own states."""
    model, states = tiny.model("llama"), []
    with torch.no_grad():
        states = torch.stack(model(IDS, output_hidden_states=True).hidden_states)[:, 0, -1]
        with hooks.capture(hooks.find_layers(model), torch.tensor([0]), torch.tensor([4])) as kept:
            model(IDS)
    torch.save(states, tmp_path / "v.pt")
    found = vectors.load(tmp_path / "v.pt", n_layers=3)
    assert found.format == "tensor" and sorted(found.layers) == [0, 1, 2]
    for layer in (0, 1):                                                # the last one stands behind the final norm
        assert np.allclose(found.layers[layer], kept[layer][0].numpy(), atol=1e-6)
    torch.save(states[1:].bfloat16(), tmp_path / "v.pt")                # a row for every block
    assert np.array_equal(vectors.load(tmp_path / "v.pt", 3).layers[0], states[1].bfloat16().float().numpy())
    for n_layers in (None, 1, 5):
        with pytest.raises(UserError, match=r"array \(3, 32\).*n_layers given"):
            vectors.load(tmp_path / "v.pt", n_layers)


def test_one_vector_without_a_layer(tmp_path):
    np.save(tmp_path / "v.npy", vector(1).astype(np.float64))
    torch.save(torch.from_numpy(vector(1))[None], tmp_path / "v.pt")
    (tmp_path / "v.safetensors").write_bytes(safetensors.torch.save({"steering_vector": torch.from_numpy(vector(1))}))
    for name in ("v.npy", "v.pt", "v.safetensors"):
        equal(vectors.load(tmp_path / name, layer=1).layers, {1: vector(1)})
        with pytest.raises(UserError, match="give the layer"):
            vectors.load(tmp_path / name)


def refused(fault, path, *model, **how):
    with pytest.raises(UserError, match=fault) as error:
        vectors.load(path, *model, **how)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_layers_one_is_taken(tmp_path, first):
    """Of a row for every block and of hidden states, whose first row is no block's."""
    rows = np.stack([vector(layer) for layer in range(3 + first)])
    np.save(tmp_path / "v.npy", rows)
    torch.save(torch.from_numpy(rows), tmp_path / "v.pt")
    vectors.save(tmp_path / "v.svec", "svec", dict(enumerate(rows[first:])))
    for name in ("v.npy", "v.pt", "v.svec"):
        for layer in range(3):
            equal(vectors.load(tmp_path / name, 3, 32, layer).layers, {layer: rows[first + layer]})
        for layer in (-1, 3):
            refused(f"layer {layer}, expected layers 0 to 2", tmp_path / name, 3, 32, layer)
    refused("layer -1, expected 0 or more", tmp_path / "v.svec", layer=-1)


@pytest.mark.parametrize("format", vectors.EXTENSIONS)
def test_metadata_that_names_another_number_of_layers_is_believed(tmp_path, format):
    path = tmp_path / "v"
    vectors.save(path, format, {1: vector(1)}, hint="llama", meta={"n_layers": 3})
    equal(vectors.load(path, 3, 32).layers, {1: vector(1)})
    refused("says n_layers 3, expected 2", path, 2, 32)
    vectors.save(tmp_path / "all.npy", "npy", {layer: vector(layer) for layer in range(3)})
    refused("says n_layers 3, expected 2", tmp_path / "all.npy", 2, 32)                       # not hidden states of two


def test_safetensors_metadata_is_text(tmp_path):
    for meta, layer, found in (({"layer": "1"}, None, 1), ({"layer": "1"}, 1, 1), ({}, 2, 2),
                               ({"layer": "1"}, 2, "says layer 1, expected 2"), ({"layer": "-1"}, 1, "expected a whole number"),
                               ({"layer": "1", "n_layers": "4"}, 1, "says n_layers 4, expected 3")):
        (tmp_path / "v").write_bytes(safetensors.torch.save({"steering_vector": torch.from_numpy(vector(1))}, meta))
        if isinstance(found, int):
            equal(vectors.load(tmp_path / "v", 3, 32, layer).layers, {found: vector(1)})
        else:
            refused(found, tmp_path / "v", 3, 32, layer)
    (tmp_path / "v").write_bytes(safetensors.torch.save({}))
    refused("holds no vector", tmp_path / "v")


# --- other tools' bytes -----------------------------------------------------------------------------------------------
def test_files_that_the_tools_wrote():
    found = vectors.load(HERE / "repeng.gguf", 3, 32)
    equal(found.layers, {1: vector(1), 2: vector(2)})
    assert found.hint == "llama" and found.meta["controlvector.layer_count"] == 2
    found = vectors.load(HERE / "gguf.gguf", 3, 32)
    equal(found.layers, {1: vector(1)})
    assert found.meta["scale"] == 0.5 and found.meta["flag"] is True and found.meta["general.tags"] == 2
    found = vectors.load(HERE / "steering-vectors.pt", 3, 32)           # a pickled object, without its package
    equal(found.layers, {0: vector(0), 2: vector(2)})
    assert found.format == "steering-vectors" and "steering_vectors" not in sys.modules


def test_they_act_as_the_tools_made_them_act():
    """Logits that repeng, llama.cpp and steering-vectors gave: their layers are ours."""
    model, (plain, repeng, steering, llama_cpp) = tiny.model("llama"), np.load(HERE / "logits.npy")
    if not np.allclose(logits(model)[-1], plain, atol=1e-4):
        pytest.skip("this version of torch draws other random weights than those the fixtures were made with")
    for name, expected in (("repeng.gguf", repeng), ("repeng.gguf", llama_cpp), ("steering-vectors.pt", steering)):
        expected = torch.from_numpy(expected).log_softmax(-1)
        found = logits(model, vectors.load(HERE / name).row())[-1].log_softmax(-1)
        assert expected.isfinite().all() and np.allclose(found, expected, atol=1e-3), name
        moved = [(layer + 1 if layer < 2 else 0, v) for layer, v in vectors.load(HERE / name).row()]
        assert not np.allclose(logits(model, moved)[-1].log_softmax(-1), expected, atol=0.1), name


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2"])
def test_repeng_reads_and_applies_ours(tmp_path, architecture):
    repeng, model = package("repeng"), tiny.model(architecture)
    vectors.save(tmp_path / "v.gguf", "gguf", {1: vector(1)}, 0.7, hint=architecture, meta=META)
    expected = logits(model, vectors.load(tmp_path / "v.gguf").row())
    control = repeng.ControlVector.import_gguf(tmp_path / "v.gguf")
    assert control.model_type == architecture
    steered = repeng.ControlModel(model, [1])
    steered.set_control(control)
    with torch.no_grad():
        assert torch.allclose(steered(IDS).logits[0], expected, atol=1e-5)


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_steering_vectors_applies_ours(tmp_path, architecture):
    steering, model = package("steering_vectors"), tiny.model(architecture)
    vectors.save(tmp_path / "v.pt", "steering-vectors", {0: vector(0), 2: vector(2)}, 0.7)
    theirs = steering.SteeringVector(**torch.load(tmp_path / "v.pt", weights_only=True))
    with torch.no_grad(), theirs.apply(model):
        found = model(IDS).logits[0]
    assert torch.allclose(found, logits(model, vectors.load(tmp_path / "v.pt").row()), atol=1e-5)
    torch.save(theirs, tmp_path / "object.pt")
    equal(vectors.load(tmp_path / "object.pt").layers, vectors.load(tmp_path / "v.pt").layers)
    torch.save(steering.SteeringVector(theirs.layer_activations, "self_attn"), tmp_path / "object.pt")
    with pytest.raises(UserError, match="layer type 'self_attn'"):
        vectors.load(tmp_path / "object.pt")


def test_the_gguf_package_reads_ours(tmp_path):
    gguf = package("gguf")
    vectors.save(tmp_path / "v.gguf", "gguf", {1: vector(1, 33), 2: vector(2, 33)}, hint="llama", meta=META)
    reader = gguf.GGUFReader(tmp_path / "v.gguf")
    told = {key: field.contents() for key, field in reader.fields.items()}
    assert (told["general.architecture"], told["controlvector.model_hint"], told["controlvector.layer_count"]) == (
        "controlvector", "llama", 2) and json.loads(told[vectors.METADATA]) == META
    assert {t.name: t.tensor_type.name for t in reader.tensors} == {"direction.1": "F32", "direction.2": "F32"}
    for tensor in reader.tensors:
        assert np.array_equal(tensor.data, vector(int(tensor.name[-1]), 33))


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "opt", "mpt", "gemma3"])
def test_lm_eval_finds_the_block(tmp_path, architecture):
    """Hook points are modules under model.base_model, and what the file adds there is what our hooks add."""
    model = tiny.model(architecture)
    model.save_pretrained(tmp_path)
    hint, hook = export.names(tmp_path, 1)
    assert hint == model.config.model_type
    vectors.save(tmp_path / "v.pt", "lm-eval", {1: vector(1)}, 0.7, hook=hook, meta=META)
    (name, entry), = torch.load(tmp_path / "v.pt", weights_only=True).items()
    block = dict(model.base_model.named_modules())[name]
    assert block is hooks.find_layers(model)[1] and entry["action"] == "add" and entry["bias"] is None
    found = vectors.load(tmp_path / "v.pt", 3, 32)
    assert found.coefficient == 0.7 and found.meta == META
    equal(found.layers, {1: vector(1)})
    if importlib.util.find_spec("lm_eval") is None:
        pytest.skip("lm_eval is not installed here; the file was read without it")
    steered = lm_eval_model(model, tmp_path / "v.pt")
    with torch.no_grad():
        assert torch.allclose(steered.forward(IDS).logits[0], logits(model, found.row()), atol=1e-5)


def lm_eval_model(model, path):
    """lm_eval's SteeredModel on a model that is here: its own file of code, behind a stand-in for what loads models."""
    class HFLM:
        def __init__(self, pretrained, device, **_):
            self.model, self.device = pretrained, "cpu"

    source = Path(importlib.util.find_spec("lm_eval").submodule_search_locations[0]) / "models/hf_steered.py"
    with pytest.MonkeyPatch.context() as patch:
        for name, told in (("lm_eval", {}), ("lm_eval.api", {}), ("lm_eval.models", {}),
                           ("lm_eval.api.registry", {"register_model": lambda name: lambda cls: cls}),
                           ("lm_eval.models.huggingface", {"HFLM": HFLM})):
            module = types.ModuleType(name)
            vars(module).update(told)
            patch.setitem(sys.modules, name, module)
        spec = importlib.util.spec_from_file_location("hf_steered", source)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.SteeredModel(model, str(path))


# --- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("layers, fault", [
    ({1: np.zeros(32)}, "zero or holds"), ({1: np.full(32, np.nan)}, "not finite"), ({1: np.full(32, 1e39)}, "not finite"),
    ({}, "no vector"), ({1: np.ones(32), 2: np.ones(31)}, r"\(31,\), expected \(32,\)"), ({-1: np.ones(32)}, "layer -1")])
def test_no_such_vector_is_written(tmp_path, layers, fault):
    with pytest.raises(UserError, match=fault):
        vectors.save(tmp_path / "v", "svec", layers)
    for format in vectors.EXTENSIONS:
        for coefficient in (0, 1e39, np.inf, 1e-46):
            with pytest.raises(UserError, match="layer 1: the vector times .* is zero or holds"):
                vectors.save(tmp_path / "v", format, {1: np.ones(32)}, coefficient)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", vectors.EXTENSIONS)
def test_another_model_is_refused(tmp_path, format):
    vectors.save(tmp_path / "v", format, {2: vector(2)}, hint="llama")
    for model, fault in (((2, 32), "layers 0 to 1"), ((3, 64), r"\(32,\), expected \(64,\)")):
        with pytest.raises(UserError, match=fault) as error:
            vectors.load(tmp_path / "v", *model)
        assert "\n" not in str(error.value) and str(tmp_path / "v") in str(error.value)
    with pytest.raises(UserError, match=r"(holds layers \[2\]|says layer 2), expected 1"):
        vectors.load(tmp_path / "v", layer=1)


STEER = {"steering_vector": torch.ones(4), "steering_coefficient": 1.0, "action": "add", "bias": None, "head_index": None}
HUGE = STEER | {"steering_vector": torch.full((4,), 3e38)}


@pytest.mark.parametrize("held, fault", [
    ({"layers.1": STEER | {"action": "clamp"}}, "expected a plain add"),
    ({"layers.1": STEER | {"head_index": 2}}, "expected a plain add"),
    ({"encoder.layers.1": STEER}, "no hook point"), ({"vision_tower.blocks.1": STEER}, "no hook point"),
    ({"layers.1.mlp": STEER}, "no hook point of a decoder block"), ({"layers.1.mlp.experts.0": STEER}, "no hook point"),
    ({"layers.1": STEER | {"steering_vector": torch.full((4,), torch.nan)}}, "not finite"),
    ({"layers.1": STEER | {"steering_coefficient": float("inf")}}, "times inf is zero or"), ({"layers.1": STEER | {"steering_coefficient": 0.0}}, "times 0 is zero"),
    ({"layers.1": STEER | {"steering_coefficient": 1e39}}, "not finite"), ({"layers.1": HUGE | {"steering_coefficient": 2.0}}, "not finite"),
    ({"layers.1": HUGE | {"steering_coefficient": 2.0}, "layers.2": STEER}, "layer 1: the vector is zero or"),
    ({"layers.1": STEER | {"steering_vector": torch.ones(4, dtype=torch.int64)}}, "expected a tensor of floats"),
    ({"layer_activations": {1: torch.ones(4)}, "layer_type": "mlp"}, "layer type 'mlp'"),
    ({1: [1.0]}, "expected a tensor of floats"), ({"-1": torch.ones(4)}, "a dict is expected"), ([torch.ones(4)], "a dict is"),
    ({-1: torch.ones(4)}, "layer '-1', expected a whole number"),
    ({"layer_activations": {1: torch.ones(4), "1": torch.zeros(4)}}, "2 vectors of 1 layers"), (torch.ones(1).expand(10 ** 9), "in a file of"),
    (dict.fromkeys(range(64), torch.ones(4096)), "in a file of"),       # many views of one storage
], ids=lambda held: held if isinstance(held, str) else "")
def test_torch_files_that_are_no_such_vectors(tmp_path, held, fault):
    torch.save(held, tmp_path / "v.pt")
    with pytest.raises(UserError, match=fault):
        vectors.load(tmp_path / "v.pt", layer=1 if isinstance(held, torch.Tensor) else None)


def test_several_factors_go_into_their_vectors(tmp_path):
    torch.save({f"h.{layer}": STEER | {"steering_coefficient": layer / 2} for layer in (1, 2)}, tmp_path / "v.pt")
    found = vectors.load(tmp_path / "v.pt")
    assert found.coefficient == 1.0 and found.layers[1].tolist() == [0.5] * 4 and found.layers[2].tolist() == [1.0] * 4


class Evil:
    """A pickle that would write a file, and one that states more numbers than it has."""

    def __init__(self, call, *args):
        self.called = call, args

    def __reduce__(self):
        return self.called


def test_no_pickle_is_run_and_no_storage_grows(tmp_path):
    torch.save({"layers.1": Evil(Path.touch, tmp_path / "ran")}, tmp_path / "v.pt")
    with pytest.raises(UserError, match="cannot be read"):
        vectors.load(tmp_path / "v.pt")
    assert not (tmp_path / "ran").exists()
    np.save(tmp_path / "v.npy", np.array([Evil(Path.touch, tmp_path / "ran")], dtype=object), allow_pickle=True)
    with pytest.raises(UserError):
        vectors.load(tmp_path / "v.npy", layer=1)
    assert not (tmp_path / "ran").exists()
    storage = torch.storage.TypedStorage(wrap_storage=torch.ones(4).untyped_storage(), dtype=torch.float32, _internal=True)
    torch.save(Evil(torch._utils._rebuild_tensor_v2, storage, 0, (2 ** 36,), (1,), False, {}), tmp_path / "v.pt")
    with pytest.raises(UserError):                                      # 256 GiB
        vectors.load(tmp_path / "v.pt", layer=1)


def container(n_keys=1, n_tensors=1, length=4, kind=0, axes=1, offset=0, name="direction.1", keys=b"", version=3,
              architecture="controlvector"):
    """A control vector of a few bytes, any of whose statements may be false."""
    def string(text):
        return struct.pack("<Q", len(text)) + text.encode()

    head = b"GGUF" + struct.pack("<IQQ", version, n_tensors, n_keys) + string("general.architecture") + struct.pack(
        "<I", 8) + string(architecture) + keys + string(name) + struct.pack("<IQIQ", axes, length, kind, offset)
    return head + bytes(-len(head) % 32) + np.ones(4, "<f4").tobytes()


BIG = 2 ** 62


@pytest.mark.parametrize("how, fault", [
    ({"length": BIG}, "states more numbers"), ({"n_tensors": BIG}, "expected direction.N"), ({"n_keys": BIG}, "ends at byte|unknown|twice"),
    ({"offset": BIG}, "ends at byte"), ({"kind": 1}, "type 1"), ({"axes": 2}, "2 axes"), ({"version": 1}, "version 1"),
    ({"version": 0x03000000}, "version"), ({"name": "token_embd.weight"}, "expected direction.N"),
    ({"name": "layers.1"}, "expected direction.N"), ({"architecture": "llama"}, "'llama', expected controlvector"),
    ({"n_keys": 2, "keys": struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 8, BIG)}, "ends at byte"),
    ({"n_keys": 2, "keys": struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 4, BIG)}, "ends at byte"),
    ({"n_keys": 2, "keys": struct.pack("<Q", 1) + b"a" + struct.pack("<IIQ", 9, 9, 1)}, "unknown"),
    ({"n_keys": 2, "keys": struct.pack("<Q", 17) + b"general.alignment" + struct.pack("<II", 4, 0)}, "alignment 0"),
    ({"n_keys": 3, "keys": 2 * (struct.pack("<Q", 1) + b"a" + struct.pack("<II", 4, 1))}, "'a' stands twice"),
    ({"n_keys": 2, "keys": struct.pack("<Q", BIG)}, "ends at byte"), ({"length": 0}, "zero or"), ({"length": 5}, "ends at")])
def test_a_gguf_that_states_what_is_not_there(tmp_path, how, fault):
    (tmp_path / "v.gguf").write_bytes(container())
    assert vectors.load(tmp_path / "v.gguf").layers[1].tolist() == [1] * 4
    (tmp_path / "v.gguf").write_bytes(container(**how))
    with pytest.raises(UserError, match=fault):
        vectors.load(tmp_path / "v.gguf")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@pytest.mark.parametrize("format", vectors.EXTENSIONS)
def test_damage_ends_in_one_line(tmp_path, format):
    """Cut anywhere, or with bytes changed, a file is read as vectors of finite numbers or refused in one line."""
    rng, path = np.random.default_rng([7, 100]), tmp_path / "v"
    vectors.save(path, format, {1: vector(1, 8)}, hint="llama")
    whole, refused = path.read_bytes(), 0
    for trial in range(150):
        data = bytearray(whole)
        if trial % 3 == 0:
            data = data[:rng.integers(len(data))]
        else:
            for place in rng.integers(min(len(data), 200 if trial % 3 == 1 else len(data)), size=rng.integers(1, 4)):
                data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            found = vectors.load(path)
        except UserError as error:
            assert "\n" not in str(error) and len(str(error)) < 500
            refused += 1
        else:
            assert all(np.isfinite(one).all() and one.any() for one in found.layers.values())
    assert refused > 50


def test_what_is_no_file_of_vectors(tmp_path):
    for data in (b"", b"GGUF", b"PK\3\4", b"\x93NUMPY", b"{", b"[1]", bytes(100), b"[" * 10 ** 5, b"{\"directions\":" * 10 ** 5,
                 struct.pack("<Q", BIG) + b"{", b"\x93NUMPY\1\0v\0" + b"{'descr': '<f4', 'fortran_order': False, 'shape': "
                 b"(4611686018427387,), }".ljust(117) + b"\n"):
        (tmp_path / "v").write_bytes(data)
        with pytest.raises(UserError):
            vectors.load(tmp_path / "v", layer=0)
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(UserError, match="cannot be read"):
            vectors.load(path)
    (tmp_path / "v").write_text(json.dumps({"directions": {"1": [[1.0, 2.0], [3.0, 4.0]]}}))
    with pytest.raises(UserError, match="2 directions, expected one"):
        vectors.load(tmp_path / "v")
    for told, fault in (('"1": [1.0], "1": [2.0]', '"1" stands twice'), ('"1": [1.0], "01": [2.0]', "2 vectors of 1 layers")):
        (tmp_path / "v").write_text(f'{{"directions": {{{told}}}}}')
        refused(fault, tmp_path / "v")
    (tmp_path / "v").write_text(json.dumps({"directions": {"1": [1.0, 2.0]}}))       # 1-D is accepted
    equal(vectors.load(tmp_path / "v").layers, {1: np.array([1, 2], np.float32)})


# --- the dose at all positions ----------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def lm(tmp_path_factory):
    return tiny.load(tmp_path_factory.mktemp("tiny"), "llama")


def naive_kl(lm, ids, layer, vector, last, counted=1):
    """KL(unsteered || steered) behind the last `counted` tokens, nats, with the vector added by a hook of its own."""
    def add(_module, _inputs, output):
        output = output.clone()
        output[:, -last:] += torch.from_numpy(vector)
        return output

    with torch.no_grad():
        p = lm.model(torch.tensor([ids])).logits[0, -counted:].double().softmax(-1)
        handle = lm.layers[layer].register_forward_hook(add)
        q = lm.model(torch.tensor([ids])).logits[0, -counted:].double().softmax(-1)
        handle.remove()
    return float((p * (p / q).log()).sum()) / counted


@pytest.mark.parametrize("layer", [0, 1])
def test_the_dose_at_all_positions_moves_as_far(lm, layer):
    asked = [([5, 9, 30, 41, 7], 1, 1), ([8, 60, 3], 2, 1), ([11, 12, 13, 14, 15, 16], 3, 3)]
    found = export.measure(lm, asked, layer, vector(layer), 0.5)
    at_end = np.mean([naive_kl(lm, ids, layer, np.float32(0.5) * vector(layer), *how) for ids, *how in asked])
    dose = found["coefficient_at_all_positions"]
    everywhere, weaker = (np.mean([naive_kl(lm, ids, layer, np.float32(c) * vector(layer), len(ids), counted)
                                   for ids, _, counted in asked]) for c in (dose, 0.8 * dose))
    assert found["kl"] == pytest.approx(at_end, rel=1e-4) and everywhere == pytest.approx(at_end, rel=0.01)
    assert abs(dose / 0.5 - 1) > 0.01 and found["n"] == 3               # it is another dose
    assert weaker < at_end


def test_after_the_last_block_positions_do_not_matter(lm):
    found = export.measure(lm, [([5, 9, 30, 41, 7], 1, 1)], 2, vector(2), 0.5)
    assert found["kl"] == pytest.approx(found["kl_at_all_positions"], rel=1e-5)
    assert found["coefficient_at_all_positions"] == pytest.approx(0.5, rel=5e-3)


def test_the_first_crossing_is_taken():
    assert export.same(lambda f: f ** 2, 0.5) == pytest.approx(0.5 ** 0.5, rel=5e-3)
    assert export.same(lambda f: np.sin(f), 0.5) == pytest.approx(np.pi / 6, rel=5e-3)     # again at 5 pi / 6
    assert isinstance(export.same(lambda f: min(f, 0.4), 0.5), Missing)


@pytest.mark.parametrize("key", ["trait", "relation", "value"])
def test_tuning_prompts_alone_are_asked(lm, key):
    """None of them is an extraction or evaluation prompt, and they end where stage 02 steers."""
    suite = suites.load("testbed", "smoke")
    name = getattr(suite, f"{key}s")[0]["name"]
    asked = export.prompts(lm, suite, f"{key}/{name}", None)
    assert 0 < len(asked) <= export.PROMPTS
    assert all(last == counted and (last == 1) == (key != "trait") for _, last, counted in asked)
    if key == "trait":                                                  # with an answer behind them
        kept = {lm.tokenizer.decode(ids[:len(ids) + 1 - last]) for ids, last, _ in asked}
        assert kept <= {lm.tokenizer.decode(lm.chat(suite.system, item["prompt"]))
                        for item in suites.tasks(suite, "question", "tune", name)}
        assert not kept & {lm.tokenizer.decode(lm.chat(suite.system, item["prompt"])) for split in ("extract", "evaluate")
                           for item in suites.tasks(suite, "question", split, name)}
    sentences = types.SimpleNamespace(values=[{"name": "v", "probes": [{"positive_text": "a b", "negative_text": "a c"}] * 3}])
    ((ids, last, _),) = export.prompts(lm, sentences, "value/v", None)
    assert last == len(ids)                                             # a sentence is steered as a whole
