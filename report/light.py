"""Light: a stage folder as it is committed, without what would make it heavy.

Left out are arrays of vectors of more than LARGE bytes, but for the concepts' own, and task items of suites that are not
ours to pass on; left_out.json says which. Of such an array the vectors at tuned layers stay, in <name>.tuned.npz: later
stages read no others, so that `spot` can compute these again. A concept's tuned layers are all that its entry in
tuned.json names: its own, and those of the ways to make a relation's vector.
"""
from dataclasses import dataclass
from zipfile import BadZipFile

import numpy as np

from lib.artifacts import Artifact, UserError, read_json, write_json, writing

LARGE = 2_000_000                # bytes
PASSED_ON = ("testbed",)         # suites whose texts are the project's own
LEFT_OUT = "left_out.json"       # beside the manifest, which has their hashes: {file: bytes}
TUNED = ".tuned.npz"
KINDS = ("behaviour", "relation")     # axes that run over the concepts of one kind; an axis "concept" over all


def left_out(path):
    """{file: bytes} that `lighten` left out of a stage folder."""
    return read_json(path / LEFT_OUT) if (path / LEFT_OUT).is_file() else {}


def lighten(artifact, tuned):
    """Delete what is heavy from the folder of a stage, and write down which; one that came from there may lack some
    already. tuned: the table of stage 02, or {} where there is none."""
    path, outputs = artifact.path, artifact.manifest["outputs"]
    sizes = {name: (path / name).stat().st_size for name in outputs if (path / name).is_file()}
    gone = {name: size for name, size in sizes.items()
            if name != "vectors.npy" and size > LARGE and outputs[name].get("axes", [""])[-1:] == ["d_model"]
            or name == "prompts.jsonl" and artifact.config.get("suite") not in PASSED_ON}
    for name in gone:
        if (at := places(artifact, name, tuned)) is not None:
            with writing(path / name.replace(".npy", TUNED)) as beside, open(beside, "wb") as file:
                np.savez(file, at=at, vectors=artifact.array(name.removesuffix(".npy"))[tuple(at.T)])
        (path / name).unlink()
    if gone:
        write_json(path / LEFT_OUT, left_out(path) | gone)


def places(artifact, name, tuned):
    """(n, axes - 1) indices of the vectors of an array that later stages read, or None if it has no layers."""
    entry = artifact.manifest["outputs"][name]
    axes, shape = entry.get("axes", [])[:-1], entry.get("shape", [])[:-1]
    over = next((axis for axis in axes if axis == "concept" or axis in KINDS), None)
    if "layer" not in axes or over is None:
        return None
    keys = [c["key"] for c in artifact.table("concepts") if over == "concept" or c["kind"] == over]
    used = np.zeros(shape, bool)
    read = {key: set(layers(tuned.get(key, {}))) for key in keys}
    if over == "relation":                           # each is a control of the others, at their layers
        read = dict.fromkeys(keys, set().union(*read.values()))
    for row, key in enumerate(keys):
        here = {over: row, "layer": sorted(read[key])}
        used[tuple(here.get(axis, slice(None)) for axis in axes)] = True
    return np.argwhere(used)


def layers(entry):
    """Every layer that an entry of tuned.json names, at any depth."""
    for key, value in entry.items():
        if isinstance(value, dict):
            yield from layers(value)
        elif key == "layer":
            yield value


@dataclass(frozen=True)
class Light(Artifact):
    """An Artifact whose arrays may be there at tuned layers only; nan elsewhere."""

    def holds(self, name):
        """Whether the array is there, at least at tuned layers."""
        return (self.path / f"{name}.npy").is_file() or (self.path / f"{name}{TUNED}").is_file()

    def array(self, name):
        path = self.path / f"{name}{TUNED}"
        if (self.path / f"{name}.npy").is_file() or not path.is_file():
            return super().array(name)
        entry = self.manifest["outputs"][f"{name}.npy"]
        try:
            with np.load(path, allow_pickle=False) as kept:
                array = np.full(entry["shape"], np.nan, entry["dtype"])
                array[tuple(kept["at"].T)] = kept["vectors"]
        except (OSError, ValueError, KeyError, IndexError, EOFError, BadZipFile) as error:
            raise UserError(f"{path}: cannot be read ({error}); publish {self.path} again") from None
        return array
