"""The engine against steering-vectors 0.12.2 and against the papers' own way, in one run on one machine.

Same work, same model (random Llama, 8 layers, width 512, vocabulary 32,000, float32, two threads), same 64 prompts of
about 80 tokens: times, ratios and the largest difference of the results. Absolute times mean little on a shared machine,
ratios do. The peer runs at the best of several batch sizes. The papers' way is one full forward pass per option and
multiplier, batch 1, logits of all positions. Then how the engine's cost grows with layers, multipliers, prompts and
length, and the peak of memory. Last, steered generation (tests/bench_generate.py).

reads   nothing; the peer library is installed into .bench/ by `make bench`, and left out of the table if it is not there
writes  report/bench.md, report/bench.png, report/bench.json

    make bench
"""
import json
import platform
import resource
import sys
import tempfile
import time

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch

import bench_generate
import tiny
from lib import engine
from lib.artifacts import ROOT

LAYERS, WIDTH, VOCABULARY, THREADS = 8, 512, 32000, 2
PROMPTS, LENGTH, MULTIPLIERS = 64, 80, (-1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5)
BATCHES = (1, 8, 32, 64)            # that the peer is given the choice of
REPEATS = 3                         # the fastest of which counts, for each side
GOALS = {"read": 2.5, "one": 9, "papers": 20, "every": 40, "bare": 2.5}
sys.path.insert(0, str(ROOT / ".bench"))


def timed(work, repeats=REPEATS):
    """(result, seconds of the fastest of `repeats` runs)"""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        result = work()
        best = min(best, time.perf_counter() - start)
    return result, best


def padded(prompts):
    """Left-padded ids and attention mask of prompts."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(p)) + p for p in prompts])
    return ids, torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])


class Numbers:
    """A tokenizer for the peer, whose interface takes texts: numbers in words of decimal digits."""
    pad_token_id = 0

    def __call__(self, texts, **_):
        ids, mask = padded([[int(word) for word in text.split()] for text in texts])
        return type("Batch", (dict,), {"to": lambda self, device: self})(input_ids=ids, attention_mask=mask)


def peer_read(peer, lm, pairs, batch):
    """(layer, d) mean differences."""
    texts = [tuple(" ".join(map(str, side)) for side in pair) for pair in pairs]
    vector = peer.train_steering_vector(lm.model, Numbers(), texts, batch_size=batch, move_to_cpu=True)
    return np.stack([vector.layer_activations[l].numpy() for l in range(lm.n_layers)])


@torch.no_grad()
def peer_sweep(peer, lm, prompts, rows, tokens, batch):
    """(prompt, row, option) logits at the last position, one forward pass per batch and row."""
    out = np.empty((len(prompts), len(rows), tokens.shape[1]), np.float32)
    for start in range(0, len(prompts), batch):
        ids, mask = padded(prompts[start:start + batch])
        for s, ((layer, vector),) in enumerate(rows):
            steering = peer.SteeringVector({layer: torch.from_numpy(vector)})
            with steering.apply(lm.model, min_token_index=-1):
                logits = lm.model(ids, attention_mask=mask).logits[:, -1]
            out[start:start + batch, s] = logits.gather(1, torch.from_numpy(tokens[start:start + batch])).numpy()
    return out


@torch.no_grad()
def papers_sweep(lm, prompts, rows, tokens):
    """(prompt, row, option) logits: a pass over prompt and option for each option, and each row, one at a time."""
    out = np.empty((len(prompts), len(rows), tokens.shape[1]), np.float32)
    for i, prompt in enumerate(prompts):
        for s, ((layer, vector),) in enumerate(rows):
            added = torch.from_numpy(vector)

            def add(_, __, output):
                hidden = (output[0] if isinstance(output, tuple) else output).clone()
                hidden[:, len(prompt) - 1:] += added
                return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

            for o, option in enumerate(tokens[i]):
                handle = lm.layers[layer].register_forward_hook(add)
                logits = lm.model(torch.tensor([prompt + [int(option)]])).logits
                handle.remove()
                out[i, s, o] = torch.log_softmax(logits[0], -1)[len(prompt) - 1, option]   # over all positions
    return out


@torch.no_grad()
def bare(lm, prompts, batch):
    """One forward pass over the prompts, without the head."""
    for start in range(0, len(prompts), batch):
        ids, mask = padded(prompts[start:start + batch])
        lm.model.base_model(ids, attention_mask=mask, use_cache=False)


def model(folder, **change):
    return tiny.load(folder, "llama", **{"vocab_size": VOCABULARY, "hidden_size": WIDTH, "num_hidden_layers": LAYERS,
                                         "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 4 * WIDTH,
                                         "initializer_range": .02, "max_position_embeddings": 1024} | change)


def workload(n=PROMPTS, length=LENGTH, layers=LAYERS, multipliers=MULTIPLIERS, only=None):
    """Prompts, option tokens, and rows: every multiplier at each layer (or at one)."""
    rng = np.random.default_rng([n, length])
    prompts = [rng.integers(10, VOCABULARY, length - 3 + i % 7).tolist() for i in range(n)]
    vector = rng.standard_normal(WIDTH).astype(np.float32)
    rows = [((l, np.float32(m) * vector),) for l in (range(layers) if only is None else [only]) for m in multipliers]
    return prompts, rng.integers(10, VOCABULARY, (n, 2)), rows


def compare(lm, peer):
    """[{work, against, seconds of both, ratio, goal, difference}]"""
    prompts, tokens, every = workload()
    one, found = workload(only=4)[2], []
    pairs = [(p + [int(a)], p + [int(b)]) for p, (a, b) in zip(prompts, tokens)]
    read = lambda: engine.read_pairs(lm, prompts, [[int(a)] for a, _ in tokens], [[int(b)] for _, b in tokens])
    states, t_read = timed(read)
    (quick, t_one), (all_rows, t_every) = (timed(lambda r=r: engine.sweep(lm, prompts, r, tokens)["logits"]) for r in (one, every))

    def add(key, work, against, slow, t_slow, fast, t_fast, note=""):
        found.append({"work": work, "against": against, "theirs": t_slow, "ours": t_fast, "ratio": t_slow / t_fast,
                      "goal": GOALS[key], "difference": float(np.abs(slow - fast).max()), "note": note})

    def best(work, repeats):
        runs = [(*timed(lambda b=b: work(b), repeats), b) for b in BATCHES]
        return min(runs, key=lambda run: run[1])

    if peer:
        slow, t, b = best(lambda b: peer_read(peer, lm, pairs, b), REPEATS)
        add("read", "mean difference, all layers, 64 pairs", "steering-vectors", slow, t, (states[:, 0] - states[:, 1]).mean(axis=0),
            t_read, f"batch {b}")
        slow, t, b = best(lambda b: peer_sweep(peer, lm, prompts, one, tokens, b), 1)
        add("one", "7 multipliers, one layer", "steering-vectors", slow, t, quick, t_one, f"batch {b}")
        slow, t = timed(lambda: peer_sweep(peer, lm, prompts, every, tokens, b), 1)
        add("every", "7 multipliers x 8 layers", "steering-vectors", slow, t, all_rows, t_every, f"batch {b}")
    slow, t = timed(lambda: papers_sweep(lm, prompts, one, tokens), 1)
    add("papers", "7 multipliers, one layer", "the papers' way", slow[..., 0] - slow[..., 1], t, quick[..., 0] - quick[..., 1], t_one)
    t_bare = min(timed(lambda b=b: bare(lm, prompts, b))[1] for b in BATCHES)
    found.append({"work": "7 multipliers x 8 layers", "against": "one bare forward pass", "theirs": t_bare, "ours": t_every,
                  "ratio": t_every / t_bare, "goal": GOALS["bare"], "difference": None, "note": "times the pass: lower is better"})
    return found


def scaling(folder):
    """{axis: [[value, seconds]]}: one thing grows at a time from 4 layers, 7 multipliers at one layer, 32 prompts, 80 tokens."""
    start, out = {"n": 32, "length": 80, "layers": 4, "multipliers": 7}, {}
    for axis, values in {"layers": (2, 4, 8, 16), "multipliers": (7, 14, 28, 56), "n": (8, 16, 32, 64), "length": (40, 80, 160, 320)}.items():
        out[axis] = []
        for value in values:
            size = start | {axis: value}
            lm = model(f"{folder}/{axis}{value}", num_hidden_layers=size["layers"])
            prompts, tokens, rows = workload(size["n"], size["length"], size["layers"], np.linspace(-1.5, 1.5, size["multipliers"]), only=1)
            out[axis].append([value, timed(lambda: engine.sweep(lm, prompts, rows, tokens))[1]])
    return out


def draw(grown, path):
    plt.style.use(ROOT / "report" / "style.mplstyle")
    figure, axes = plt.subplots(1, 4, figsize=(12, 2.8), sharey=True)
    names = {"layers": "layers", "multipliers": "multipliers", "n": "prompts", "length": "tokens per prompt"}
    for axis, (key, points) in zip(axes, grown.items()):
        x, y = np.array(points).T
        axis.loglog(x, y, marker="o")
        axis.loglog(x, y[0] * x / x[0], linestyle="--", color="#8C8C8C", linewidth=1)
        axis.set(xlabel=names[key], xticks=x, xticklabels=[f"{v:.0f}" for v in x],
                 yticks=(seconds := [2.0 ** k for k in range(-4, 5)]), yticklabels=[f"{v:g}" for v in seconds])
        axis.minorticks_off()
        axis.set_ylim(min(0.9 * p[1] for part in grown.values() for p in part), 4 * max(p[1] for part in grown.values() for p in part))
    axes[0].set_ylabel("seconds (dashed: in proportion)")
    figure.savefig(path, metadata={"Software": None})


def main():
    torch.set_num_threads(THREADS)
    try:
        import steering_vectors as peer
    except ImportError as error:
        print(f"steering-vectors is not there ({error}): its rows are left out", file=sys.stderr)
        peer = None
    with tempfile.TemporaryDirectory() as folder:
        found = compare(model(f"{folder}/main"), peer)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        grown = scaling(folder)
    written = bench_generate.compare()
    lines = ["# The engine beside others", "",
             f"{PROMPTS} prompts of about {LENGTH} tokens, random Llama of {LAYERS} layers, width {WIDTH}, vocabulary {VOCABULARY:,}, float32, "
             f"{THREADS} threads, {platform.machine()}, torch {torch.__version__}. One run of `make bench`; the fastest of {REPEATS} for each side, "
             "of one where a side takes minutes. Peak memory of the process "
             f"{peak:.1f} GiB.", "",
             "| work | against | theirs, s | ours, s | ratio | goal | largest difference |", "|---|---|---|---|---|---|---|"]
    for row in found:
        goal = f"at most {row['goal']}" if row["difference"] is None else f"at least {row['goal']}"
        lines.append(f"| {row['work']} | {row['against']}{', ' + row['note'] if row['note'].startswith('batch') else ''} | {row['theirs']:.2f} | {row['ours']:.2f} | "
                     f"{row['ratio']:.1f}x | {goal}x | {'' if row['difference'] is None else format(row['difference'], '.0e')} |")
    lines += ["", "How the time of a propensity sweep grows when one thing grows (from 4 layers, 7 multipliers at one layer, 32 prompts, 80 tokens):",
              "", "![Cost of a sweep](bench.png)", "", *bench_generate.lines(written)]
    report = ROOT / "report"
    draw(grown, report / "bench.png")
    (report / "bench.md").write_text("\n".join(lines), encoding="utf-8")
    (report / "bench.json").write_text(json.dumps({"compared": found, "generated": written, "grown": grown, "peak_gib": round(peak, 2)}, indent=1) + "\n")
    print("\n".join(lines[2:]))


if __name__ == "__main__":
    main()
