"""Hooks on decoder blocks: read their outputs, add vectors to them.

Layer l is the 0-based decoder block and always means that block's output (batch, token, d_model), taken
before any final norm. Both context managers remove their hooks on every way out and never edit a tensor in
place.

A *row* is a tuple of (layer, vector) pairs, the vector a float32 (d_model,) array that is already scaled; ()
is the unsteered model.
"""
from contextlib import contextmanager

import numpy as np
import torch

from lib.artifacts import UserError


def find_layers(model):
    """The decoder blocks of a transformers causal language model, in order.

    The block list is the shallowest ModuleList with one entry per `num_hidden_layers`; a module list of the
    same length deeper inside (experts, say) does not count.

    returns  list of modules
    Raises UserError if no list, or more than one at the same depth, fits.
    """
    config = model.config.get_text_config(decoder=True)
    n_layers = getattr(config, "num_hidden_layers", None)
    found = [(name.count("."), name, module) for name, module in model.named_modules()
             if isinstance(module, torch.nn.ModuleList) and len(module) == n_layers]
    top = [item for item in found if item[0] == min(depth for depth, _, _ in found)]
    if len(top) != 1:
        names = ", ".join(name for _, name, _ in top) or "none"
        raise UserError(f"{type(model).__name__}: expected {n_layers} decoder blocks, found {names}")
    return list(top[0][2])


def stack(rows, n_layers, d_model):
    """Rows as one float32 tensor (row, d_model) per layer in use, zeros where a row has no vector there.

    Several vectors of one row at the same layer add up. Raises UserError for a layer that the model does not
    have, a vector of another width and a value that is not finite: vectors made for another model end here.
    """
    added = {}
    for i, row in enumerate(rows):
        for layer, vector in row:
            vector = np.asarray(vector, dtype=np.float32)
            if not 0 <= layer < n_layers:
                raise UserError(f"row {i}: layer {layer}, but the model has layers 0 to {n_layers - 1}")
            if vector.shape != (d_model,):
                raise UserError(f"row {i}, layer {layer}: vector {vector.shape}, expected ({d_model},)")
            if not np.isfinite(vector).all():
                raise UserError(f"row {i}, layer {layer}: the vector holds values that are not finite")
            added.setdefault(int(layer), np.zeros((len(rows), d_model), np.float32))[i] += vector
    return {layer: torch.from_numpy(matrix) for layer, matrix in sorted(added.items())}


@contextmanager
def capture(layers, batch, position, counts=None):
    """Read every layer at chosen positions while the model runs once inside the `with` block.

    batch, position  (M,) int64 tensors: the entries of (batch, token) that are kept, nothing else is stored
    counts           None, or (G,) int64 tensor summing to M: how many consecutive entries to average
    yields           list with one float32 tensor (M or G, d_model) per layer, filled by the forward pass

    Raises RuntimeError if a layer was not run, or was run more than once.
    """
    kept = [None] * len(layers)

    def reader(index):
        def hook(_module, _args, output):
            if kept[index] is not None:
                raise RuntimeError(f"layer {index} was run twice inside one capture")
            hidden = _hidden(output)
            chosen = hidden[batch.to(hidden.device), position.to(hidden.device)].float()
            if counts is not None:    # unlike index_add, this sums in a fixed order on a GPU
                chosen = torch.segment_reduce(chosen, "mean", lengths=counts.to(chosen.device), axis=0)
            kept[index] = chosen
        return hook

    with _registered((layer, reader(i)) for i, layer in enumerate(layers)):
        yield kept
    missing = [i for i, value in enumerate(kept) if value is None]
    if missing:
        raise RuntimeError(f"layers {missing} were not run inside the capture")


@contextmanager
def steer(layers, vectors, last=0, skip=0):
    """Add vectors to block outputs while the `with` block runs.

    vectors  {layer: tensor} as from `stack`. Without `last` it is added as it is, so it must broadcast
             against (batch, token, d_model).
    last     n > 0: the tensor is (batch, d_model) and is added at the last n positions of each call. With
             left padding and n = 1 that is the last prompt token in the first call, the new token in each
             later one.
    skip     number of first calls of each layer that are left unsteered

    Raises UserError for a layer that the model does not have, TypeError for an output that holds no hidden
    states.
    """
    for layer in vectors:
        if not 0 <= layer < len(layers):
            raise UserError(f"layer {layer}, but the model has layers 0 to {len(layers) - 1}")

    def adder(vector):
        calls = 0

        def hook(_module, _args, output):
            nonlocal calls, vector
            calls += 1
            if calls <= skip:
                return output
            hidden = _hidden(output)
            vector = vector.to(hidden)        # device and dtype of this layer; moves on the first call only
            if not last:
                steered = hidden + vector
            elif hidden.shape[1] <= last:
                steered = hidden + vector[:, None]
            else:
                steered = torch.cat([hidden[:, :-last], hidden[:, -last:] + vector[:, None]], dim=1)
            if steered.shape != hidden.shape:
                raise RuntimeError(f"vectors {tuple(vector.shape)} do not fit outputs {tuple(hidden.shape)}")
            return steered if isinstance(output, torch.Tensor) else (steered, *output[1:])
        return hook

    with _registered((layers[layer], adder(vector)) for layer, vector in vectors.items()):
        yield


@contextmanager
def _registered(hooks):
    """Forward hooks on (module, hook) pairs, removed on every way out."""
    handles = []
    try:
        for module, hook in hooks:
            handles.append(module.register_forward_hook(hook))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hidden(output):
    """The (batch, token, d_model) tensor of a block output: the output itself, or first in a tuple."""
    hidden = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
        shape = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(output).__name__
        raise TypeError(f"a decoder block gave {shape}, expected (batch, token, d_model) or a tuple with it")
    return hidden
