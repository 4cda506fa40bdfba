"""lib.hooks against transformers' own hidden states, and every way a hook can go wrong."""
import numpy as np
import pytest
import torch

from lib.artifacts import UserError
from lib.hooks import capture, find_layers, stack, steer
from tests import tiny

IDS = torch.tensor([[5, 9, 30, 41, 7], [8, 8, 60, 3, 2]])


class Tupled(torch.nn.Module):
    """A block in the older style, its output a tuple."""

    def __init__(self, block):
        super().__init__()
        self.block = block

    def forward(self, *args, **kwargs):
        return (self.block(*args, **kwargs), "kept")


class First(torch.nn.Module):
    """Undoes Tupled, so that the model around it still runs."""

    def __init__(self, block):
        super().__init__()
        self.inner = Tupled(block)

    def forward(self, *args, **kwargs):
        output = self.inner(*args, **kwargs)
        assert output[1] == "kept"
        return output[0]


def outputs(model, layers, vectors=None, **how):
    """(final hidden states, block outputs (layer, batch, token, d)) of one forward pass, perhaps steered."""
    batch, position = torch.meshgrid(torch.arange(2), torch.arange(5), indexing="ij")
    reading = capture(layers, batch.flatten(), position.flatten())
    with torch.no_grad(), steer(layers, vectors or {}, **how), reading as kept:
        final = model.base_model(input_ids=IDS).last_hidden_state
    return final, torch.stack(kept).view(len(layers), 2, 5, -1)


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_layers_are_block_outputs(architecture):
    model = tiny.model(architecture)
    layers = find_layers(model)
    assert len(layers) == 3
    final, kept = outputs(model, layers)
    with torch.no_grad():
        hidden = model(input_ids=IDS, output_hidden_states=True).hidden_states
    for layer in (0, 1):      # hidden_states[l + 1] is block l's output; the last one is after the final norm
        torch.testing.assert_close(kept[layer], hidden[layer + 1], rtol=0, atol=0)
    norm = model.transformer.ln_f if architecture == "gpt2" else model.model.norm
    torch.testing.assert_close(norm(kept[2]), final)
    assert (kept[2] - hidden[3]).abs().max() > 0.1


@pytest.mark.parametrize("architecture", tiny.ARCHITECTURES)
def test_tuple_outputs(architecture):
    plain, wrapped = tiny.model(architecture), tiny.model(architecture)
    blocks = wrapped.transformer.h if architecture == "gpt2" else wrapped.model.layers
    for i in range(3):
        blocks[i] = First(blocks[i])
    inner = [block.inner for block in blocks]
    vectors = {1: torch.randn(2, 1, 32)}
    for how in ({}, {"last": 1}):
        given = {1: vectors[1][:, 0]} if how else vectors
        found = outputs(plain, find_layers(plain), given, **how), outputs(wrapped, inner, given, **how)
        for a, b in zip(*found):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_capture_means_over_segments():
    model = tiny.model("llama")
    layers = find_layers(model)
    _, every = outputs(model, layers)
    with torch.no_grad(), capture(layers, torch.tensor([0, 0, 0, 1]), torch.tensor([1, 2, 3, 4]),
                                  torch.tensor([3, 1])) as kept:
        model.base_model(input_ids=IDS)
    kept = torch.stack(kept)
    torch.testing.assert_close(kept[:, 0], every[:, 0, 1:4].mean(1))
    torch.testing.assert_close(kept[:, 1], every[:, 1, 4], rtol=0, atol=0)


def test_steering_adds_the_vector_and_nothing_else():
    model = tiny.model("llama")
    layers = find_layers(model)
    vector = torch.randn(2, 32)
    final, before = outputs(model, layers)
    steered, after = outputs(model, layers, {1: vector}, last=1)
    torch.testing.assert_close(after[0], before[0], rtol=0, atol=0)                   # the layer below
    torch.testing.assert_close(after[1, :, :-1], before[1, :, :-1], rtol=0, atol=0)   # earlier tokens
    torch.testing.assert_close(after[1, :, -1], before[1, :, -1] + vector, rtol=0, atol=0)
    assert (after[2, :, -1] - before[2, :, -1]).abs().max() > 0.1
    assert (steered - final).abs().max() > 0.1
    for how in ({"vectors": {1: torch.zeros(2, 32)}}, {"vectors": {1: vector}, "skip": 1}):
        for a, b in zip(outputs(model, layers, last=1, **how), (final, before)):
            assert torch.equal(a, b)


def test_steering_is_out_of_place():
    block = torch.nn.Identity()
    hidden = torch.ones(1, 2, 4)
    with steer([block], {0: torch.ones(1, 4)}, last=1):
        changed = block(hidden)
    assert torch.equal(hidden, torch.ones(1, 2, 4)) and changed[0, 1, 0] == 2 and changed[0, 0, 0] == 1


@pytest.mark.parametrize("manager", ["capture", "steer"])
def test_hooks_are_removed_when_the_body_fails(manager):
    layers = find_layers(tiny.model("llama"))
    opened = (capture(layers, torch.tensor([0]), torch.tensor([0])) if manager == "capture"
              else steer(layers, {0: torch.zeros(1, 32)}))
    with pytest.raises(KeyError), opened:
        raise KeyError
    assert not any(layer._forward_hooks for layer in layers)


def test_loud_failures():
    model = tiny.model("llama")
    layers = find_layers(model)
    nowhere = torch.tensor([0])
    with pytest.raises(RuntimeError, match="were not run"), capture(layers, nowhere, nowhere):
        pass
    with pytest.raises(UserError, match="layer 3"), steer(layers, {3: torch.zeros(1, 32)}):
        pass
    with pytest.raises(RuntimeError, match="do not fit"), steer(layers, {0: torch.zeros(3, 2, 5, 32)}):
        model.base_model(input_ids=IDS)
    flat = torch.nn.Linear(4, 4)
    with pytest.raises(TypeError, match="decoder block"), steer([flat], {0: torch.zeros(4)}):
        flat(torch.zeros(2, 4))
    model.model.layers = torch.nn.Sequential(*model.model.layers)
    with pytest.raises(UserError, match="decoder blocks, found none"):
        find_layers(model)


def test_stack():
    one, two = np.ones(4, np.float32), np.full(4, 2, np.float64)
    found = stack([(), ((1, one), (1, two)), ((0, two),)], 2, 4)
    assert list(found) == [0, 1] and found[0].dtype == torch.float32
    assert found[1].tolist() == [[0] * 4, [3] * 4, [0] * 4]
    assert found[0].tolist() == [[0] * 4, [0] * 4, [2] * 4]
    for row, text in ((((2, one),), "layer 2"), (((-1, one),), "layer -1"), (((0, one[:3]),), "expected"),
                      (((0, one * np.nan),), "finite")):
        with pytest.raises(UserError, match=text):
            stack([row], 2, 4)
