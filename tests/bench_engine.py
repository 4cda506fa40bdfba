"""The engine against the plain way of doing the same work, in one run on one machine: times, ratios, agreement.

The plain way is one full forward pass per prompt and row, batch 1, logits of every position: what the
published codes of the three studies do. Absolute times mean little on a shared machine; ratios do.

    make bench
"""
import tempfile
import time

import numpy as np
import torch

import tiny
from lib import engine, hooks

LAYERS, WIDTH, VOCABULARY = 8, 512, 32000
PROMPTS, LENGTH, MULTIPLIERS = 16, 80, (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)


def timed(work):
    start = time.perf_counter()
    return work(), time.perf_counter() - start


def plain_sweep(lm, prompts, rows, tokens):
    """(N, S, K) logits by one full pass per prompt and row; rows are added at the last prompt token only."""
    out = np.empty((len(prompts), len(rows), tokens.shape[1]), np.float32)
    for i, prompt in enumerate(prompts):
        for s, row in enumerate(rows):
            added = {l: m[:, None] for l, m in hooks.stack([row], lm.n_layers, lm.d_model).items()}
            at_end = {l: torch.cat([torch.zeros(1, len(prompt) - 1, lm.d_model), m], 1) for l, m in added.items()}
            with torch.no_grad(), hooks.steer(lm.layers, at_end):
                out[i, s] = lm.model(torch.tensor([prompt])).logits[0, -1, tokens[i]].numpy()
    return out


def plain_read(lm, prompts):
    """(N, layer, d) by one full pass per prompt with every hidden state kept; the last layer is after the norm."""
    out = []
    for prompt in prompts:
        with torch.no_grad():
            states = lm.model(torch.tensor([prompt]), output_hidden_states=True).hidden_states[1:]
        out.append(torch.stack([s[0, -1] for s in states]).numpy())
    return np.stack(out)


def main():
    rng = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        lm = tiny.load(folder, "llama", vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=8,
                       num_key_value_heads=8, intermediate_size=4 * WIDTH, initializer_range=.02)
    prompts = [rng.integers(10, VOCABULARY, LENGTH + i % 7).tolist() for i in range(PROMPTS)]
    tokens = rng.integers(10, VOCABULARY, (PROMPTS, 2))
    vector = rng.standard_normal(WIDTH).astype(np.float32)
    one = [((4, np.float32(m) * vector),) for m in MULTIPLIERS]
    every = [((l, np.float32(m) * vector),) for l in range(LAYERS) for m in MULTIPLIERS]
    forward = timed(lambda: [lm.model.base_model(torch.tensor([p])) for p in prompts])[1]
    print(f"{PROMPTS} prompts of about {LENGTH} tokens, Llama {LAYERS} layers x {WIDTH}, {torch.get_num_threads()} threads")
    for name, plain, fast, skip_last in (
            ("all layers at the last token", lambda: plain_read(lm, prompts), lambda: engine.read(lm, prompts), True),
            ("7 multipliers, 1 layer", lambda: plain_sweep(lm, prompts, one, tokens), lambda: engine.sweep(lm, prompts, one, tokens)["logits"], False),
            ("7 multipliers, 8 layers", lambda: plain_sweep(lm, prompts, every, tokens), lambda: engine.sweep(lm, prompts, every, tokens)["logits"], False)):
        (slow, t_slow), (quick, t_quick) = timed(plain), timed(fast)
        if skip_last:
            slow, quick = slow[:, :-1], quick[:, :-1]
        print(f"{name:30s} plain {t_slow:7.2f} s   engine {t_quick:6.2f} s   {t_slow / t_quick:6.1f}x   "
              f"{t_quick / forward:5.2f} bare passes   largest difference {np.abs(slow - quick).max():.1e}")


if __name__ == "__main__":
    main()
