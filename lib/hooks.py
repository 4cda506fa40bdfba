"""Hooks on decoder blocks: read their outputs, add vectors to them, or put other values in their place.

Layer l is the 0-based decoder block and always means that block's output (batch, token, d_model), taken before any
final norm. The context managers remove their hooks on every way out and never edit a tensor in place.

A *row* is a tuple of (layer, vector) pairs, the vector a float32 (d_model,) array that is already scaled; () is the
unsteered model.
"""
from collections import Counter, namedtuple
from contextlib import contextmanager

import numpy as np
import torch

from lib.artifacts import UserError

# Where values are read or replaced: one module per layer, the width of what is there, and whether that is what the
# modules are given (True) or what they put out.
Place = namedtuple("Place", "modules width inputs")


def find_layers(model):
    """The decoder blocks of a transformers causal language model, a list of modules in order.

    The block list is the shallowest ModuleList with one entry per `num_hidden_layers`; a module list of the same
    length deeper inside (experts, say) does not count. UserError if no list, or more than one at one depth, fits."""
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
    nothing, and a later one goes before an earlier one. Raises as `checked` does."""
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

    RuntimeError if a layer was not run, or was run more than once."""
    kept = [None] * len(layers)

    def read(index, hidden):
        if kept[index] is not None:
            raise RuntimeError(f"layer {index} was run twice inside one capture")
        kept[index] = hidden[batch.to(hidden.device), position.to(hidden.device)].float()
        if counts is not None:        # unlike index_add, this sums in a fixed order on a GPU
            kept[index] = torch.segment_reduce(kept[index], "mean", lengths=counts.to(hidden.device), axis=0)

    with _acting(dict(enumerate(layers)), read, inputs):
        yield kept
    missing = [i for i, value in enumerate(kept) if value is None]
    if missing:
        raise RuntimeError(f"layers {missing} were not run inside the capture")


def steer(layers, vectors, last=0, skip=0):
    """Context in which vectors are added to block outputs.

    vectors  {layer: tensor} as from `stack`. Without `last` it is added as it is, so it must broadcast against
             (batch, token, d_model).
    last     n > 0: the tensor is (batch, d_model) and is added at the last n positions of each call. With left
             padding and n = 1 that is the last prompt token in the first call, the new token in each later one.
    skip     number of first calls of each layer that are left unsteered

    UserError for a layer that the model does not have, TypeError for an output that holds no hidden states."""
    for layer in vectors:
        if not 0 <= layer < len(layers):
            raise UserError(f"layer {layer}, but the model has layers 0 to {len(layers) - 1}")
    return _changing(layers, vectors, torch.add, last, skip)


def patch(place, values, last=0):
    """Context in which values stand in place of what is there: activation patching.

    place   Place
    values  {layer: tensor} as from `stack` with fill=nan; where it is nan, what is there stays
    last    as in `steer`"""
    return _changing(place.modules, values, lambda hidden, value: torch.where(value.isnan(), hidden, value), last,
                     inputs=place.inputs)


def _changing(modules, vectors, change, last, skip=0, inputs=False):
    """Context in which hidden states become change(hidden, vector of the layer); last, skip as in `steer`."""
    vectors, calls = dict(vectors), Counter()

    def changed(layer, hidden):
        calls[layer] += 1
        if calls[layer] <= skip:
            return None
        vector = vectors[layer] = vectors[layer].to(hidden)    # device and dtype of this layer; moves only once
        if last and last < hidden.shape[1]:
            found = torch.cat([hidden[:, :-last], change(hidden[:, -last:], vector[:, None])], dim=1)
        else:
            found = change(hidden, vector[:, None] if last else vector)
        if found.shape != hidden.shape:
            raise RuntimeError(f"vectors {tuple(vector.shape)} do not fit outputs {tuple(hidden.shape)}")
        return found

    return _acting({layer: modules[layer] for layer in vectors}, changed, inputs)


@contextmanager
def _acting(modules, act, inputs):
    """Call act(key, hidden states) at every call of the modules {key: module}: on what they put out, or on what they
    are given (inputs). What it returns is put in their place; None leaves them."""
    def hook(key):
        def act_on(_module, *given):       # (args) before the pass, (args, output) after it
            hidden = _hidden(given[-1])
            found = act(key, hidden)
            return found if found is None or given[-1] is hidden else (found, *given[-1][1:])
        return act_on

    handles = []
    try:
        for key, module in modules.items():
            register = module.register_forward_pre_hook if inputs else module.register_forward_hook
            handles.append(register(hook(key)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def standing(blocks, output, n):
    """The blocks are not run: each puts out `output`, which the last of them did, n times side by side. What is added
    to block outputs is added to it too."""
    hidden = _hidden(output)
    made = hidden.repeat(1, n, 1)
    made = made if output is hidden else (made, *output[1:])
    before = [block.__dict__.get("forward") for block in blocks]         # device_map puts one there
    try:
        for block in blocks:
            block.forward = lambda *_, **__: made
        yield
    finally:
        for block, kept in zip(blocks, before):
            del block.forward
            if kept is not None:
                block.forward = kept


def _hidden(output):
    """The (batch, token, d_model) tensor of a block output: the output itself, or first in a tuple."""
    hidden = output[0] if isinstance(output, (tuple, list)) and output else output
    if not isinstance(hidden, torch.Tensor) or hidden.ndim != 3:
        shape = tuple(hidden.shape) if isinstance(hidden, torch.Tensor) else type(output).__name__
        raise TypeError(f"a decoder block gave {shape}, expected (batch, token, d_model) or a tuple with it")
    return hidden
