"""Train the two embedded language models of the testbed from scratch, on text of its own grammar.

    loss = weighted mean cross-entropy over the trained tokens only (assistant answers, list answers, facts;
           the letter of a multiple-choice answer weighs LETTER_WEIGHT, the side it names SIDE_WEIGHT)

Batches hold whole examples, packed by length so that little is padding. Everything is drawn by
address ([SEED, chunk]), so a run is deterministic on one machine and resumes from its last
checkpoint with the same result. The tokenizer is byte-level BPE trained on the same text.

reads   data/testbed.py, data/styles.py, data/lexicon.py
writes  data/models/<name>/   safetensors (16 bit), tokenizer, chat template, config: an ordinary Hugging Face folder
        data/models/<name>/training.json   seed, mixture, tokens, loss curve, versions, machine
cost    about 30 minutes per model on two quiet CPU cores (bfloat16 autocast), 5 GB memory

    python -m data.train_testbed pico-llama
    python -m data.train_testbed pico-gpt2
"""
import argparse
import json
import math
import os
import platform
import sys
import time
from itertools import groupby
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from torch.optim.swa_utils import AveragedModel
from tqdm import tqdm
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from data import testbed

# --- settings that change the weights ------------------------------------------------------------
SEED = 20261121
VOCABULARY = 3072
WIDTH, LAYERS, HEADS = 192, 6, 6
# Shares of examples, from a chunk on. Multiple choice is a three-way binding that is learned late and all at once, and
# nothing else needs long: after a beginning with everything it gets the most, then everything again.
PHASES = ((0, {"trait": .24, "behaviour": .60, "relation": .09, "value": .07}),
          (21, {"trait": .05, "behaviour": .90, "relation": .03, "value": .02}),
          (46, {"trait": .31, "behaviour": .46, "relation": .11, "value": .12}))
# Rates settle last, and the weights of any one step are noise around them: a short leg at a constant small rate in which
# pronouns are frequent, and the mean of the weights over its last steps.
POLISH = ((0, {"trait": .20, "behaviour": .25, "relation": .10, "value": .15, "pronoun": .30}),)
LEGS = ({"phases": PHASES, "steps": 6500, "peak": 1.5e-3, "warmup": 200, "floor": .02, "averaged": 0},
        {"phases": POLISH, "steps": 1000, "peak": 4e-4, "warmup": 20, "floor": 1., "averaged": 600})
BATCH_TOKENS, CHUNK, DECAY = 4096, 4096, .05        # padded tokens per step, examples per draw, weight decay of matrices
CONTEXT = 512
CHECKPOINT_EVERY = 1000
# ------------------------------------------------------------------------------------------------

# glibc hands large blocks back to the kernel at every step and faults them in again at the next: keeping them
# makes a step a third faster. It reads these when the process starts.
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4000000000", "MALLOC_TRIM_THRESHOLD_": "8000000000", "MALLOC_TOP_PAD_": "100000000"}
SPECIAL = ["<|pad|>", "<|bos|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"]
CHAT_TEMPLATE = ("{{ '<|bos|>' }}{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
                 "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}")


def build_tokenizer(n_examples=30000):
    """Byte-level BPE over a sample of the training text; answers of the relations count as often as prose."""
    rng = np.random.default_rng([SEED, 0])
    texts = ["".join(t for t, *_ in testbed.example(rng, PHASES[0][1])) for _ in range(n_examples)]
    words = [f" {w} {v}" for pairs in testbed.RELATIONS.values() for w, v in pairs.items()]
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    tok.train_from_iterator(texts + words * 100, trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=SPECIAL, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    tok.post_processor = processors.TemplateProcessing(     # raw text begins with the token that starts every document
        single="<|bos|> $A", special_tokens=[("<|bos|>", tok.token_to_id("<|bos|>"))])
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, pad_token="<|pad|>", bos_token="<|bos|>", eos_token="<|end|>",
                                   model_max_length=CONTEXT, padding_side="left")
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(name, tok):
    """Randomly initialised model of about 3 M parameters."""
    torch.manual_seed(SEED)
    ids = dict(bos_token_id=tok.bos_token_id, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id)
    if name == "pico-llama":
        return LlamaForCausalLM(LlamaConfig(
            vocab_size=VOCABULARY, hidden_size=WIDTH, num_hidden_layers=LAYERS, num_attention_heads=HEADS,
            num_key_value_heads=HEADS, intermediate_size=512, max_position_embeddings=CONTEXT, tie_word_embeddings=True, **ids))
    if name == "pico-gpt2":
        return GPT2LMHeadModel(GPT2Config(
            vocab_size=VOCABULARY, n_embd=WIDTH, n_layer=LAYERS, n_head=HEADS, n_positions=CONTEXT,
            resid_pdrop=0., embd_pdrop=0., attn_pdrop=0., tie_word_embeddings=True, **ids))
    raise SystemExit(f"{name}: expected pico-llama or pico-gpt2")


def encode(raw, segments):
    """Token ids, loss weights and parts (who sees whom: data/testbed.py) of one example.

    Untrained text is tokenised as one piece, as it will be in use; a trained segment begins a token of its own.
    """
    ids, weights, parts = [], [], []
    for trained, run in groupby(segments, key=lambda s: s[1] > 0):
        run = [(text, weight, *(part or [testbed.ALL])) for text, weight, *part in run]
        for piece in ([[s] for s in run] if trained else [run]):
            found = raw.encode("".join(s[0] for s in piece), add_special_tokens=False)
            ends = np.cumsum([len(s[0]) for s in piece])
            where = np.searchsorted(ends, [start for start, _ in found.offsets], side="right")
            ids += found.ids
            weights += [piece[k][1] for k in where]
            parts += [piece[k][2] for k in where]
    return ids[:CONTEXT], weights[:CONTEXT], parts[:CONTEXT]


def visible(parts):
    """Additive attention mask (B, 1, T, T) of parts (B, T), None where all rows are causal and nothing more."""
    if (parts == testbed.ALL).all():
        return None
    see = (parts[:, :, None] == testbed.ALL) | (parts[:, None] == testbed.APART) | (parts[:, :, None] == parts[:, None])
    see &= np.tri(parts.shape[1], dtype=bool)
    return torch.from_numpy(np.where(see, np.float32(0), np.float32(-1e9))[:, None])


def batches(tok, leg, chunk):
    """The batches of one chunk of a leg: [(input ids (B, T), loss weights (B, T), attention mask or None)], about BATCH_TOKENS each."""
    rng, raw = np.random.default_rng([SEED, 1 + leg, chunk]), tok.backend_tokenizer
    mixture = [m for start, m in LEGS[leg]["phases"] if chunk >= start][-1]
    rows = sorted((encode(raw, testbed.example(rng, mixture)) for _ in range(CHUNK)), key=lambda r: len(r[0]))
    wide = lambda row: -(-len(row[0]) // 16) * 16       # few distinct shapes: compiled kernels and memory are reused
    out, i = [], 0
    while i < len(rows):
        j = i + 1
        while j < len(rows) and wide(rows[j]) == wide(rows[i]) and wide(rows[i]) * (j + 1 - i) <= BATCH_TOKENS:
            j += 1
        shape = (j - i, wide(rows[i]))
        x, w, parts = np.full(shape, tok.pad_token_id), np.zeros(shape, np.float32), np.full(shape, testbed.ALL)
        for r, (ids, weights, part) in enumerate(rows[i:j]):
            x[r, :len(ids)], w[r, :len(ids)], parts[r, :len(ids)] = ids, weights, part
        out.append((torch.from_numpy(x), torch.from_numpy(w), visible(parts)))
        i = j
    return [out[k] for k in rng.permutation(len(out))]


def learning_rate(leg, step):
    """Linear warm-up, then a cosine down to floor * peak."""
    if step < leg["warmup"]:
        return leg["peak"] * (step + 1) / leg["warmup"]
    x = (step - leg["warmup"]) / (leg["steps"] - leg["warmup"])
    return leg["peak"] * (leg["floor"] + (1 - leg["floor"]) * .5 * (1 + math.cos(math.pi * x)))


def loss_of(model, base, x, weights, mask):
    """Weighted mean cross-entropy, and each letter's alone; right padding needs no mask."""
    hidden = base(input_ids=x, attention_mask=mask, use_cache=False).last_hidden_state[:, :-1]
    keep = weights[:, 1:] > 0
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]).float(), x[:, 1:][keep], reduction="none")
    w = weights[:, 1:][keep]
    return (each * w).sum() / w.sum(), each.detach()[w == testbed.LETTER_WEIGHT]


def train(model, tok, state, keep, seconds):
    """Run the leg state["leg"] to its end, from state["step"]; `keep` writes a checkpoint, `seconds` tells the time."""
    leg, base, name = LEGS[state["leg"]], model.base_model, model.config.model_type
    opt = torch.optim.AdamW([{"params": [p for p in model.parameters() if p.ndim > 1], "weight_decay": DECAY},
                             {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.}],
                            lr=leg["peak"], betas=(.9, .98), fused=True)
    if state["opt"]:
        opt.load_state_dict(state["opt"])
    mean = AveragedModel(model) if leg["averaged"] else None        # such a leg is shorter than CHECKPOINT_EVERY: no checkpoint
    bar = tqdm(total=leg["steps"], initial=state["step"], disable=not sys.stderr.isatty(), desc=name)
    saved = state["step"]
    while state["step"] < leg["steps"]:
        for x, weights, mask in batches(tok, state["leg"], state["chunk"])[:leg["steps"] - state["step"]]:
            for group in opt.param_groups:
                group["lr"] = learning_rate(leg, state["step"])
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, letter = loss_of(model, base, x, weights, mask)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            state["step"], state["tokens"] = state["step"] + 1, state["tokens"] + x.numel()
            if state["step"] > leg["steps"] - leg["averaged"]:
                mean.update_parameters(model)
            state["recent"].append(loss.item())
            state["letters"] += letter.tolist()
            bar.update()
            if state["step"] % 100 == 0:
                state["curve"].append([state["leg"], state["step"], *(round(float(np.mean(state[key])), 4) for key in ("recent", "letters"))])
                state["recent"], state["letters"] = [], []
                if not sys.stderr.isatty():
                    print(f"{name} leg {state['leg']} step {state['step']} loss {state['curve'][-1][2]} letters {state['curve'][-1][3]} "
                          f"{seconds():.0f} s", flush=True)
        state["chunk"] += 1
        if state["step"] - saved >= CHECKPOINT_EVERY and state["step"] < leg["steps"]:
            state["opt"], saved = opt.state_dict(), state["step"]
            keep()
    if mean:
        model.load_state_dict(mean.module.state_dict())


def main():
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("name", choices=["pico-llama", "pico-gpt2"])
    cli.add_argument("--out", default="data/models")
    args = cli.parse_args()
    if not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "data.train_testbed", *sys.argv[1:]], os.environ | MALLOC)
    out, t0 = Path(args.out) / args.name, time.time()
    out.mkdir(parents=True, exist_ok=True)

    # 1. tokenizer and model; a run that was stopped goes on from its last checkpoint, at the beginning of a chunk
    tok = build_tokenizer()
    model = build_model(args.name, tok)
    model.set_attn_implementation("eager")      # on a CPU, at these lengths, twice as fast as the fused kernel
    checkpoint = out / "checkpoint.pt"
    state = {"leg": 0, "step": 0, "chunk": 0, "tokens": 0, "curve": [], "recent": [], "letters": [], "opt": None, "seconds": 0}
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state.pop("model"))
    t0 -= state["seconds"]

    def keep():
        torch.save(state | {"model": model.state_dict(), "seconds": time.time() - t0}, checkpoint.with_suffix(".tmp"))
        os.replace(checkpoint.with_suffix(".tmp"), checkpoint)

    # 2. train, leg by leg; each begins with the 16-bit weights that the one before it would have saved
    while state["leg"] < len(LEGS):
        train(model, tok, state, keep, lambda: time.time() - t0)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.copy_(parameter.to(torch.bfloat16))
        state |= {"leg": state["leg"] + 1, "step": 0, "chunk": 0, "opt": None}
        keep()

    # 3. an ordinary Hugging Face folder
    model.to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    (out / "training.json").write_text(json.dumps({
        "command": f"python -m data.train_testbed {args.name}", "seed": SEED, "legs": LEGS, "steps": sum(leg["steps"] for leg in LEGS),
        "padded_tokens": state["tokens"], "parameters": sum(p.numel() for p in model.parameters()),
        "loss (leg, step, all, letters)": state["curve"], "seconds": round(time.time() - t0), "torch": torch.__version__,
        "transformers": transformers.__version__, "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}, indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    print(f"{args.name}  {state['tokens']} tokens, {time.time() - t0:.0f} s -> {out}")


if __name__ == "__main__":
    main()
