"""Cards and exports at smoke size on models that people have: an embedded one, and the one that CARD_MODEL names.

    CARD_MODEL=data/checkpoints/qwen2.5-coder-0.5b-instruct-q4_k_m python -m pytest tests/test_card_models.py
"""
import os
import sys
from pathlib import Path

import numpy as np
import pytest

from data import concept
from lib import artifacts, vectors
from lib.artifacts import ROOT, UserError
from report import card, export
from tests.test_card import check_numbers, in_process

# the four kinds of data/README.md, of concepts that the models can be asked for
CONCEPTS = {"trait": "trait/allcaps", "behaviour": "behaviour/openness", "relation": "relation/past", "value": "value/pronoun"}
EMBEDDED = ROOT / "data/models/pico-llama"
MODELS = [EMBEDDED, *(Path(name).resolve() for name in os.environ.get("CARD_MODEL", "").split())]    # real ones take minutes


def call(module, *words):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module.__name__, *map(str, words)])
        module.main()


@pytest.fixture(scope="module", params=MODELS, ids=lambda path: path.name)
def made(request, tmp_path_factory):
    """(model, {kind: folder of its card}); the stages run in this process."""
    folder, found = tmp_path_factory.mktemp("cards"), {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(card, "run_stage", in_process)
        for kind, key in CONCEPTS.items():
            at = Path("outputs", request.param.name, f"card-{key.partition('/')[2]}")
            call(concept, "--model", request.param, "--concept", key, "--profile", "smoke")
            call(card, "--model", request.param, "--suite", at / "suite", "--profile", "smoke")
            found[kind] = folder / f"{at}-smoke"
        yield request.param, found


@pytest.mark.parametrize("kind", CONCEPTS)
def test_each_kind_makes_a_card(made, kind):
    """Numbers that are the stages' own and a first line; or, where stage 01 refused, its reason and nothing else."""
    model, found = made
    told = artifacts.read_json(found[kind] / "card.json")
    assert told["concept"] == CONCEPTS[kind] and told["model"] == model.name
    assert told["verdict"] in (found[kind] / "card.md").read_text()
    if told["word"] == "no vector":
        assert model != EMBEDDED and "nothing is extractable" in told["verdict"]
        assert not (found[kind] / "01_extract").exists()
    else:
        check_numbers(found[kind], told)
        assert told["word"] in ("works", "nothing", "undecided", "backwards")


@pytest.mark.parametrize("format", vectors.EXTENSIONS)
def test_every_format_gives_back_the_vector_of_the_stage(made, format, tmp_path):
    """Bit for bit what 01 made, times the coefficient that the file was written with; block 0 has no place in GGUF."""
    model, found = made
    kinds = [kind for kind in CONCEPTS if (found[kind] / "02_tune").is_dir()]
    for kind in kinds:
        folder, path, key = found[kind], tmp_path / f"{kind}{vectors.EXTENSIONS[format]}", CONCEPTS[kind]
        layer = artifacts.load(folder / "02_tune").table("tuned")[key]["layer"]
        stage = artifacts.load(folder / "01_extract")
        vector = stage.array("vectors")[[row["key"] for row in stage.table("concepts")].index(key), layer]
        suite = folder.with_name(folder.name.removesuffix("-smoke")) / "suite"
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder.parents[2])
            words = ["--model", model, "--suite", suite, "--profile", "smoke", "--concept", key, "--format", format,
                     "--to", path, "--measure", int(kind == "relation")]
            if (format, layer) == ("gguf", 0):
                with pytest.raises(UserError, match="layer 0 cannot be written as gguf"):
                    call(export, *words)
                continue
            call(export, *words)
        read = vectors.load(path, *stage.array("vectors").shape[1:], layer if format == "npy" else None)
        meta = read.meta
        assert meta["concept"] == key and meta["layer"] == layer and (meta["measured"] is not None) == (kind == "relation")
        ((at, row),) = read.row()
        assert at == layer and np.array_equal(row, np.float32(meta["written"]) * vector), kind
    assert len(kinds) >= 2
