"""Precision: what bfloat16 does to a vector's effect, against a naive pass, and what it may do before a run is refused."""
import numpy as np
import pytest
import torch

from lib import models
from lib.artifacts import UserError
from lib.studies import precision
from tests import tiny


def row(layer, error, correlation=1.0):
    return {"layer": layer, "error": error, "correlation": correlation}


def test_effects_are_those_of_a_naive_pass(tmp_path):
    lm = tiny.load(tmp_path / "m", "llama")
    rng, ids = np.random.default_rng([12, 1]), [[1, 7, 30, 12], [1, 9, 44]]
    vectors, tokens = rng.normal(size=(3, 32)).astype(np.float32), [[3, 5], [8, 2]]
    found = precision.effects(lm, ids, tokens, vectors)
    for p, prompt in enumerate(ids):
        for layer, block in enumerate(lm.model.model.layers):
            m = []
            for sign in (1, -1):
                def steer(_, __, out, sign=sign):
                    out[:, -1] += sign * torch.from_numpy(vectors[layer])
                hook = block.register_forward_hook(steer)
                with torch.inference_mode():
                    logits = lm.model(torch.tensor([prompt])).logits[0, -1]
                hook.remove()
                m.append(float(logits[tokens[p][0]] - logits[tokens[p][1]]))
            assert found[p, layer] == pytest.approx((m[0] - m[1]) / 2, abs=1e-4)


def test_the_error_is_told_in_half_widths():
    rng = np.random.default_rng([12, 2])
    exact = rng.normal(1, 1, size=(50, 2))
    half = 1.96 * exact.std(axis=0, ddof=1) / np.sqrt(50)
    told = precision.compare(exact, exact + [0, 0.75] * half)
    assert [r["error"] for r in told] == pytest.approx([0, 0.75]) and told[0]["flips"] == 0
    assert [r["half_width"] for r in told] == pytest.approx(list(half)) and told[1]["correlation"] == pytest.approx(1)


def test_only_the_layers_that_are_used_are_held_to_the_limit():
    rows = [row(0, 0.1), row(1, 3.0, 0.2), row(2, 0.4, 0.9)]
    assert precision.check("m", rows, {0, 2}) == {"worst": 0.4, "layer": 2, "correlation": 0.9}
    precision.check("m", rows)                               # not known yet: one layer that is near enough will do
    with pytest.raises(UserError, match="m: in bfloat16 .* layer 1 is off by 3.00 half-widths.*DTYPE=float32"):
        precision.check("m", rows, {0, 1})
    with pytest.raises(UserError, match="layer 0"):
        precision.check("m", [row(0, 0.6), row(1, 0.7)])


def test_measure_sees_the_rounding_of_a_model(tmp_path):
    lm = tiny.load(tmp_path / "m", "llama", dtype="bfloat16")
    rng = np.random.default_rng([12, 3])
    asked = [(rng.integers(3, 300, size=6).tolist(), 1) for _ in range(12)]
    strong, weak = (precision.measure(str(tmp_path / "m"), lm, asked, size * rng.normal(size=(3, 32))) for size in (1, 1e-4))
    assert all(r["correlation"] > 0.9 for r in strong) and min(r["correlation"] for r in weak) < 0.9
    assert models.load(str(tmp_path / "m")).model.dtype == torch.float32
