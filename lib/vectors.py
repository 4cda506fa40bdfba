"""Vectors: steering vectors to and from the files of other tools.

Inside, a file is {layer: (d_model,) float32}, layer the 0-based decoder block at whose output the vector is added,
as everywhere in the project. What each format calls a layer, and where its tool adds the vector:

    gguf              control vector of llama.cpp, repeng and EasySteer: tensor direction.N, F32, 1-D. All three add
                      it to the output of block N, counted from 0, at all positions. llama.cpp's buffer begins at
                      block 1, and it drops a file with direction.0; repeng reads and writes direction.0. llama.cpp
                      sums tensors of one name, here they are refused. controlvector.layer_count is not read: tools
                      write the number of directions, that of the model's layers or the last layer there
    lm-eval           lm-evaluation-harness, --model steered: torch.save of {hook point: {"steering_vector",
                      "steering_coefficient", "action", "bias", "head_index"}}. A hook point is a module's name under
                      model.base_model, and its one number the block; coefficient times vector is added at all
                      positions. Clamping, vectors of single heads, encoders and experts are refused
    steering-vectors  package of that name: SteeringVector(layer_activations {N: tensor}, layer_type), as its object,
                      as a dict of its fields or the activations alone. Added to block N's output from
                      min_token_index on, by default at all positions; other layer types are refused
    svec              steerability: JSON {"model_type", "directions": {"N": [[...]]}}, one direction a block
    safetensors       tensors direction.N, layers.N or, with `layer` given or in the metadata, steering_vector
    tensor, npy       one array. (d_model,): of block `layer`. (n_layers, d_model): row l is block l.
                      (n_layers + 1, d_model): rows as transformers' hidden_states, row l + 1 is block l, and row 0,
                      the embeddings, is left out: persona_vectors. Needs `n_layers`, since the two differ by one row

Metadata that names another n_layers than the model's is of another model: refused. Of several layers `layer` takes one.
The format is told by content. No pickle is run: torch reads with weights_only, and SteeringVector becomes a class of
this module. Lengths that a file states are held to its size before anything is allocated.

    python -m lib.vectors FILE             what is in a file
"""
import argparse
import contextlib
import io
import json
import mmap
import os
import re
import struct
import zipfile
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import safetensors.torch
import torch

from lib.artifacts import UserError, _once, plain, read_json, run, write_json

EXTENSIONS = {"gguf": ".gguf", "safetensors": ".safetensors", "lm-eval": ".lm-eval.pt", "svec": ".svec",
              "steering-vectors": ".steering-vectors.pt", "npy": ".npy"}      # lm-eval demands .pt
SIDECAR = ("steering-vectors", "npy")          # have no place for metadata; <file>.json beside them has it
NAMED = re.compile(r"(?:direction|layers)\.(\d{1,5})")
HOOK = re.compile(r"(?!.*(?:encoder|vision|visual|audio|expert))(?:[A-Za-z_]\w*\.)+(\d{1,5})")  # h.3, decoder.layers.3
# GGUF: value types by number as struct letters, and those that have none
SCALARS = dict(enumerate("BbHhIif?")) | {10: "Q", 11: "q", 12: "d"}
STRING, ARRAY, F32, ALIGNMENT, DIRECTION = 8, 9, 0, 32, "direction."
METADATA = "controlvector.metadata"            # ours: what `save` was told, as JSON
QUIET = np.errstate(over="ignore", invalid="ignore")             # what overflows is refused in one line


@dataclass
class Vectors:
    """What a file holds. `coefficient` is the factor that stands beside the vectors (1 where a format has none),
    `hint` the model type that it names, `meta` its other metadata."""
    layers: dict
    format: str
    coefficient: float = 1.0
    hint: str | None = None
    meta: dict = field(default_factory=dict)

    def row(self):
        """As a row of lib.hooks: what the tool would add."""
        return tuple((layer, np.float32(self.coefficient) * vector) for layer, vector in self.layers.items())


# --- reading --------------------------------------------------------------------------------------------------------
@QUIET
def load(path, n_layers=None, d_model=None, layer=None):
    """The Vectors of a file.

    n_layers, d_model  of the model that they are for: what does not fit is refused
    layer              the block: of a file with several the one to take, of one that does not say it, its own

    UserError in one line for whatever is no such file, and where what a tool would add is zero or not finite."""
    path = Path(path)
    try:
        with open(path, "rb") as file:
            head = file.read(16)
        read = (_gguf if head[:4] == b"GGUF" else _torch if head[:4] == b"PK\3\4" else _npy if head[1:6] == b"NUMPY"
                else _safetensors if head[8:9] == b"{" else _svec if head.lstrip()[:1] == b"{" else None)
        if read is None:
            raise UserError("no format of steering vectors that is known here")
        found = read(path)
        if found.format in (*SIDECAR, "tensor") and Path(f"{path}.json").is_file():
            found.meta = _dict(read_json(f"{path}.json"))
        n_layers = _agreed(found.meta, "n_layers", n_layers)
        if not isinstance(found.layers, dict):
            found.layers = _bare(found, n_layers, layer)
        if layer is not None:
            _in_model(layer, n_layers)
            if layer not in found.layers:
                raise UserError(f"holds layers {sorted(found.layers)}, expected {layer}")
            found.layers = {layer: found.layers[layer]}
        found.layers = checked(found.layers, n_layers, d_model, found.coefficient)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:             # whatever a file from elsewhere holds, it ends in one line
        told = getattr(error, "strerror", None) or " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{path}: cannot be read: {told}") from error
    return found


def _in_model(layer, n_layers):
    if layer < 0 or n_layers is not None and layer >= n_layers:
        raise UserError(f"layer {layer}, expected " + (f"layers 0 to {n_layers - 1}" if n_layers else "0 or more"))


@QUIET
def checked(layers, n_layers=None, d_model=None, coefficient=1.0):
    """{layer: (d,) float32} by layer. UserError for what no model, or not this one, could be given times coefficient."""
    if not layers:
        raise UserError("holds no vector")
    out, width = {}, d_model
    for layer in sorted(layers):
        vector = np.array(layers[layer], dtype=np.float32)
        added = np.float32(coefficient) * vector
        width = width or vector.size
        if vector.shape != (width,):
            raise UserError(f"layer {layer}: vector {vector.shape}, expected ({width},)")
        _in_model(layer, n_layers)
        if not np.isfinite(added).all() or not added.any():
            times = "" if coefficient == 1 else f" times {coefficient:g}"
            raise UserError(f"layer {layer}: the vector{times} is zero or holds values that are not finite")
        out[layer] = vector
    return out


def _bare(found, n_layers, layer):
    """{layer: vector} of an array whose rows are not named."""
    rows = found.layers[0] if found.layers.ndim == 2 and len(found.layers) == 1 else found.layers
    if rows.ndim == 1:
        layer = _agreed(found.meta, "layer", layer)
        if layer is None:
            raise UserError("one vector, and nothing says of which layer: give the layer")
        return {layer: rows}
    if rows.ndim != 2 or n_layers is None or len(rows) not in (n_layers, n_layers + 1):
        raise UserError(f"array {rows.shape}; expected (d_model,), (n_layers, d_model) or (n_layers + 1, d_model), "
                        f"with n_layers given; it is {n_layers}")
    return dict(enumerate(rows[len(rows) - n_layers:]))


def _agreed(meta, key, given):
    """`given`, or what the metadata says where it is None. UserError if they differ."""
    told = given if meta.get(key) is None else _whole(meta[key], key)
    if given is not None and told != given:
        raise UserError(f"its metadata says {key} {told}, expected {given}")
    return told


def _floats(path, tensors):
    """{key: tensor} as {key: array}; (1, d) becomes (d,)."""
    for value in tensors.values():
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or value.layout != torch.strided:
            raise UserError(f"{type(value).__name__} {getattr(value, 'dtype', '')}, expected a tensor of floats")
    stated, size = sum(value.numel() * value.element_size() for value in tensors.values()), os.path.getsize(path)
    if stated > size:                      # strides of 0 and shared storages make much of little
        raise UserError(f"tensors of {stated} bytes in a file of {size}")
    return {key: value.detach().float().reshape(value.shape[1:] if value.shape[:1] == (1,) else value.shape).numpy()
            for key, value in tensors.items()}


def _dict(value):
    if not isinstance(value, dict):
        raise UserError(f"{type(value).__name__} where a dict is expected")
    return value


def _json(text):
    return _dict(json.loads(text, object_pairs_hook=_once))


def _whole(told, what="layer"):
    """An int, or its digits."""
    if not re.fullmatch(r"\d{1,5}", str(told)):
        raise UserError(f"{what} {str(told)[:40]!r}, expected a whole number")
    return int(told)


def _by_layer(found):
    """{key: value} with whole numbers for keys."""
    layers = {_whole(key): value for key, value in _dict(found).items()}
    if len(layers) < len(found):
        raise UserError(f"holds {len(found)} vectors of {len(layers)} layers, expected one of each")
    return layers


def _npy(path):
    array = np.load(path, mmap_mode="r", allow_pickle=False)       # a map is refused where the file is too short
    if array.dtype.kind != "f":
        raise UserError(f"an array of {array.dtype}, expected floats")
    return Vectors(np.array(array, dtype=np.float32), "npy")


def _safetensors(path):
    with safetensors.safe_open(path, "pt") as file:                # holds its header to the size of the file
        names, meta = list(file.keys()), dict(file.metadata() or {})
        layers = {int(match[1]): name for name in names if (match := NAMED.fullmatch(name))}
        layers = {None: names[0]} if names == ["steering_vector"] else layers
        if len(layers) < len(names):
            other = next(name for name in names if name not in layers.values())
            raise UserError(f"tensor {other[:40]!r}; expected direction.N, layers.N or steering_vector, each N once")
        tensors = _floats(path, {key: file.get_tensor(name) for key, name in layers.items()})
    meta = _json(meta["metadata"]) if "metadata" in meta else meta
    return Vectors(tensors.get(None, tensors), "safetensors", hint=meta.pop("model_type", None), meta=meta)


def _svec(path):
    told = _json(path.read_text(encoding="utf-8"))
    layers = _by_layer(told.get("directions"))
    for layer, rows in layers.items():
        rows = np.array(rows, dtype=np.float64)
        if rows.ndim == 2 and len(rows) != 1:
            raise UserError(f"layer {layer}: {len(rows)} directions, expected one")
        layers[layer] = rows.reshape(-1) if rows.ndim == 2 else rows
    return Vectors(layers, "svec", hint=told.get("model_type"), meta=_dict(told.get("meta") or {}))


class _SteeringVector:
    """Stands in for the package's class while torch reads; a plain holder of what was pickled."""
    layer_type, layer_activations = "decoder_block", None


def _torch(path):
    with zipfile.ZipFile(path) as archive:                         # torch stores; what inflates is no tensor file
        if sum(part.file_size for part in archive.infolist()) > os.path.getsize(path):
            raise UserError("its parts state more bytes than the file has")
    with torch.serialization.safe_globals([(_SteeringVector, "steering_vectors.steering_vector.SteeringVector")]):
        # Mapped storages cannot grow, so a tensor that states more numbers than there are bytes is refused.
        found = torch.load(path, weights_only=True, mmap=True, map_location="cpu")
    if isinstance(found, torch.Tensor):
        return Vectors(_floats(path, {0: found})[0], "tensor")
    found = _dict(vars(found) if isinstance(found, _SteeringVector) else found)
    if "layer_activations" in found or found and all(isinstance(key, int) for key in found):
        kind = found.get("layer_type", "decoder_block")
        if kind != "decoder_block":
            raise UserError(f"vectors of layer type {str(kind)[:40]!r}, expected decoder_block")
        return Vectors(_floats(path, _by_layer(found.get("layer_activations", found))), "steering-vectors")
    return _lm_eval(path, found)


def _lm_eval(path, found):
    tensors, factors, meta = {}, {}, {}
    for name, entry in found.items():
        match, entry = HOOK.fullmatch(str(name)), _dict(entry)
        if not match or int(match[1]) in tensors or "steering_vector" not in entry:
            raise UserError(f"{str(name)[:40]!r} is no hook point of a decoder block with a vector of its own")
        if entry.get("action") != "add" or entry.get("bias") is not None or entry.get("head_index") is not None:
            raise UserError(f"{name}: action {entry.get('action')!r}, bias or head_index; expected a plain add")
        tensors[int(match[1])] = entry["steering_vector"]
        factors[int(match[1])] = float(entry.get("steering_coefficient", 1.0))
        meta |= _json(entry.get("metadata", "{}"))
    layers, common = _floats(path, tensors), next(iter(factors.values()), 1.0)
    if set(factors.values()) != {common}:                          # of several factors each goes into its vector
        layers, common = {layer: factors[layer] * vector for layer, vector in layers.items()}, 1.0
    return Vectors(layers, "lm-eval", coefficient=common, meta=meta)


# --- GGUF -----------------------------------------------------------------------------------------------------------
class _Bytes:
    """A file's bytes in order. UserError where more are wanted than there are."""

    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, n):
        if n > len(self.data) - self.at:
            raise UserError(f"ends at byte {len(self.data)}, {n} more are stated at {self.at}")
        self.at += n
        return self.data[self.at - n:self.at]

    def number(self, letter):
        return struct.unpack(f"<{letter}", self.take(struct.calcsize(letter)))[0]

    def string(self):
        return self.take(self.number("Q")).decode("utf-8")

    def value(self, kind):
        """A metadata value; of arrays, which no control vector needs, the length."""
        if kind in SCALARS:
            return self.number(SCALARS[kind])
        if kind == STRING:
            return self.string()
        inner, n = (self.number("I"), self.number("Q")) if kind == ARRAY else (None, 0)
        if inner in SCALARS:
            self.take(n * struct.calcsize(SCALARS[inner]))
        elif inner == STRING:
            for _ in range(n):
                self.take(self.number("Q"))
        else:
            raise UserError(f"a metadata value of type {kind} of {inner} is unknown")
        return n


def _gguf(path):
    with open(path, "rb") as file, contextlib.closing(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)) as data:
        source = _Bytes(data)
        source.take(4)
        version, n_tensors, n_keys = (source.number(letter) for letter in "IQQ")
        if version not in (2, 3):
            raise UserError(f"GGUF version {version}, expected 2 or 3")
        told = {}
        for _ in range(n_keys):
            key = source.string()
            if key in told:
                raise UserError(f"metadata {key[:40]!r} stands twice")
            told[key] = source.value(source.number("I"))
        if told.get("general.architecture") != "controlvector":
            raise UserError(f"a GGUF of architecture {str(told.get('general.architecture'))[:40]!r}, "
                            "expected controlvector")
        placed = {}
        for _ in range(n_tensors):
            name, n_axes, n, kind = source.string(), source.number("I"), source.number("Q"), source.number("I")
            match = NAMED.fullmatch(name)
            if not match or not name.startswith(DIRECTION) or int(match[1]) in placed:
                raise UserError(f"tensor {name[:40]!r}; expected direction.N, each N once")
            if kind != F32 or n_axes != 1:
                raise UserError(f"{name}: {n_axes} axes, type {kind}; expected one axis of F32")
            placed[int(match[1])] = n, source.number("Q")
        align = told.get("general.alignment", ALIGNMENT)
        if not isinstance(align, int) or align < 1:
            raise UserError(f"alignment {align!r}")
        start, layers = source.at + -source.at % align, {}
        if 4 * sum(n for n, _ in placed.values()) > len(data):
            raise UserError(f"states more numbers than its {len(data)} bytes hold")
        for layer, (n, offset) in placed.items():
            source.at = min(start + offset, len(data))
            layers[layer] = np.frombuffer(source.take(4 * n), "<f4")
    meta = _json(told.pop(METADATA)) if METADATA in told else told
    return Vectors(layers, "gguf", hint=told.get("controlvector.model_hint"), meta=meta)


def _gguf_bytes(layers, hint, meta):
    def string(text):
        return struct.pack("<Q", len(text.encode())) + text.encode()

    def kept(key, text):
        return string(key) + struct.pack("<I", STRING) + string(text)

    if 0 in layers:
        raise UserError("llama.cpp has no control vector for the first block: layer 0 cannot be written as gguf")
    keys = [kept("general.architecture", "controlvector"), kept("controlvector.model_hint", hint),
            string("controlvector.layer_count") + struct.pack("<II", 4, len(layers)),
            kept(METADATA, _text(meta))]
    infos, data = b"", b""
    for layer, vector in layers.items():
        infos += string(f"{DIRECTION}{layer}") + struct.pack("<IQIQ", 1, vector.size, F32, len(data))
        data += vector.astype("<f4").tobytes()
        data += bytes(-len(data) % ALIGNMENT)
    head = b"GGUF" + struct.pack("<IQQ", 3, len(layers), len(keys)) + b"".join(keys) + infos
    return head + bytes(-len(head) % ALIGNMENT) + data


# --- writing --------------------------------------------------------------------------------------------------------
def _text(meta):
    return json.dumps(meta, sort_keys=True, ensure_ascii=False)


def save(path, format, layers, coefficient=1.0, hint="", hook="layers.{}", meta=None):
    """Write {layer: (d,)} as one of EXTENSIONS, and <path>.json where the format has no place for metadata.

    coefficient  is multiplied in; lm-eval keeps it beside the vector
    hint         model type (config.json's model_type): GGUF readers refuse a file without it
    hook         lm-eval: name of a block under model.base_model
    meta         JSON-able
    UserError for layer 0 in gguf, for layers that are not 0, 1, ... in npy unless there is one, and as `checked`."""
    path, layers, meta = Path(path), checked(layers, coefficient=coefficient), plain(meta or {}, "meta")
    if format not in EXTENSIONS:
        raise UserError(f"format {format!r}: expected one of {', '.join(EXTENSIONS)}")
    if format != "lm-eval":
        layers = {layer: np.float32(coefficient) * vector for layer, vector in layers.items()}
    tensors = {layer: torch.from_numpy(vector) for layer, vector in layers.items()}
    buffer = io.BytesIO()
    if format == "gguf":
        buffer.write(_gguf_bytes(layers, hint, meta))
    elif format == "safetensors":
        buffer.write(safetensors.torch.save({f"{DIRECTION}{layer}": tensor for layer, tensor in tensors.items()},
                                            {"metadata": _text(meta | {"model_type": hint})}))
    elif format == "svec":
        buffer.write(json.dumps({"model_type": hint, "meta": meta, "directions": {
            str(layer): [vector.tolist()] for layer, vector in layers.items()}}).encode())
    elif format == "lm-eval":              # its reader looks at no key but its own
        torch.save({hook.format(layer): {"steering_vector": tensor, "steering_coefficient": float(coefficient),
                                         "action": "add", "bias": None, "head_index": None, "metadata": _text(meta)}
                    for layer, tensor in tensors.items()}, buffer)
    elif format == "steering-vectors":     # SteeringVector(**torch.load(path, weights_only=True))
        torch.save({"layer_activations": tensors, "layer_type": "decoder_block"}, buffer)
    else:
        if len(layers) > 1 and list(layers) != list(range(len(layers))):
            raise UserError(f"npy holds one layer, or all of them from 0 on, not {list(layers)}")
        one = {"layer": next(iter(layers))} if len(layers) == 1 else {"n_layers": len(layers)}
        meta = meta | one
        np.save(buffer, np.stack(list(layers.values())) if len(layers) > 1 else layers[one["layer"]])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f"{path.name}.tmp-{os.getpid()}")
        beside.write_bytes(buffer.getvalue())
        if format in SIDECAR:
            write_json(path.with_name(f"{path.name}.json"), meta)
        beside.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error})") from None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--layers", type=int, help="number of layers of the model, for an array with a row per layer")
    parser.add_argument("--layer", type=int, help="one of several, or that of a file that does not say it")
    args = parser.parse_args()
    found = load(args.file, args.layers, layer=args.layer)
    print(f"{args.file}: {found.format}, coefficient {found.coefficient:g}, model type {found.hint or 'not said'}")
    for layer, vector in found.layers.items():
        print(f"layer {layer}: {vector.size} numbers, norm {np.linalg.norm(vector):.6g}")
    if found.meta:
        print(json.dumps(found.meta, indent=1, sort_keys=True))


if __name__ == "__main__":
    run(main)
