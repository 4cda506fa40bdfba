"""Hooks on decoder blocks: read their outputs, add vectors to them, or put other values in their place.

Layer l is the 0-based decoder block and always means that block's output (batch, token, d_model), taken
before any final norm. Both context managers remove their hooks on every way out and never edit a tensor in
place.

A *row* is a tuple of (layer, vector) pairs, the vector a float32 (d_model,) array that is already scaled; ()
is the unsteered model.
"""
from collections import namedtuple
from contextlib import contextmanager

import numpy as np
import torch

from lib.artifacts import UserError

# Where values are read or replaced: one module per layer, the width of what is there, and whether that is what the
# modules are given (True) or what they put out.
Place = namedtuple("Place", "modules width inputs")


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


def stack(rows, n_layers, d_model, fill=0.0):
    """Rows as one float32 tensor (row, d_model) per layer in use, `fill` where a row has no vector there.

    Several vectors of one row at the same layer add up. With fill=nan, for `patch`, they may hold nan, which changes
    nothing, and a later one goes before an earlier one. Raises as `checked` does.
    """
    added = {}
    for i, layer, vector in checked(rows, n_layers, d_model, fill):
        matrix = added.setdefault(layer, np.full((len(rows), d_model), fill, np.float32))
        matrix[i] = np.where(np.isnan(vector), matrix[i], vector) if np.isnan(fill) else matrix[i] + vector
    return {layer: torch.from_numpy(matrix) for layer, matrix in sorted(added.items())}


def checked(rows, n_layers, d_model, fill=0.0):
    """Yields (row number, layer, float32 vector) of all parts of rows. UserError for a layer that the model does not
    have, a vector of another width and a value that is not finite (or nan, with fill=nan): vectors made for another
    model end here."""
    for i, row in enumerate(rows):
        for layer, vector in row:
            vector = np.asarray(vector, dtype=np.float32)
            if not 0 <= layer < n_layers:
                raise UserError(f"row {i}: layer {layer}, but the model has layers 0 to {n_layers - 1}")
            if vector.shape != (d_model,):
                raise UserError(f"row {i}, layer {layer}: vector {vector.shape}, expected ({d_model},)")
            if not (np.isfinite(vector) | (np.isnan(vector) & np.isnan(fill))).all():
                raise UserError(f"row {i}, layer {layer}: the vector holds values that are not finite")
            yield i, int(layer), vector


@contextmanager
def capture(layers, batch, position, counts=None, inputs=False):
    """Read every layer at chosen positions while the model runs once inside the `with` block.

    batch, position  (M,) int64 tensors: the entries of (batch, token) that are kept, nothing else is stored
    counts           None, or (G,) int64 tensor summing to M: how many consecutive entries to average
    inputs           True reads what the modules are given instead of what they put out
    yields           list with one float32 tensor (M or G, d_model) per layer, filled by the forward pass

    Raises RuntimeError if a layer was not run, or was run more than once.
    """
    kept = [None] * len(layers)

    def reader(index):
        def hook(_module, args, output):
            if kept[index] is not None:
                raise RuntimeError(f"layer {index} was run twice inside one capture")
            hidden = _hidden(args if inputs else output)
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
            steered = _changed(hidden, vector, last, torch.add)
            return steered if isinstance(output, torch.Tensor) else (steered, *output[1:])
        return hook

    with _registered((layers[layer], adder(vector)) for layer, vector in vectors.items()):
        yield


@contextmanager
def patch(place, values, last=0):
    """Put values in place of what is there while the `with` block runs: activation patching.

    place   Place
    values  {layer: tensor} as from `stack` with fill=nan; where it is nan, what is there stays
    last    as in `steer`
    """
    def replace(hidden, vector):
        return torch.where(vector.isnan(), hidden, vector)

    def replacer(vector):
        def before(_module, args):
            hidden = _hidden(args)
            return (_changed(hidden, vector.to(hidden), last, replace), *args[1:])

        def after(_module, _args, output):
            hidden = _hidden(output)
            changed = _changed(hidden, vector.to(hidden), last, replace)
            return changed if isinstance(output, torch.Tensor) else (changed, *output[1:])
        return before if place.inputs else after

    with _registered(((place.modules[layer], replacer(vector)) for layer, vector in values.items()), place.inputs):
        yield


def _changed(hidden, vector, last, change):
    """`hidden` (batch, token, d) with change(hidden, vector) at its last `last` tokens; 0: at all, by broadcasting."""
    if not last:
        changed = change(hidden, vector)
    elif hidden.shape[1] <= last:
        changed = change(hidden, vector[:, None])
    else:
        changed = torch.cat([hidden[:, :-last], change(hidden[:, -last:], vector[:, None])], dim=1)
    if changed.shape != hidden.shape:
        raise RuntimeError(f"vectors {tuple(vector.shape)} do not fit outputs {tuple(hidden.shape)}")
    return changed


@contextmanager
def _registered(hooks, before=False):
    """Forward hooks on (module, hook) pairs, or hooks before the forward pass; removed on every way out."""
    handles = []
    try:
        for module, hook in hooks:
            register = module.register_forward_pre_hook if before else module.register_forward_hook
            handles.append(register(hook))
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
