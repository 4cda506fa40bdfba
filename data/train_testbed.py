"""Train the two embedded language models of the testbed from scratch, on text of its own grammar.

    loss = weighted mean cross-entropy over the trained tokens only (assistant answers, list answers, facts;
           the letter of a multiple-choice answer weighs LETTER_WEIGHT)

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
from pathlib import Path

import numpy as np
import torch
import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
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
          (46, {"trait": .34, "behaviour": .46, "relation": .12, "value": .08}))
STEPS, BATCH_TOKENS, CHUNK = 6500, 4096, 4096       # optimizer steps, padded tokens per step, examples per draw
PEAK_LR, WARMUP, FLOOR, DECAY = 1.5e-3, 200, .02, .05
CONTEXT = 512
CHECKPOINT_EVERY = 500
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
    texts = ["".join(t for t, _ in testbed.example(rng, PHASES[0][1])) for _ in range(n_examples)]
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
    """Token ids and loss weights of one example."""
    ids, weights = [], []
    for text, weight in segments:
        piece = raw.encode(text, add_special_tokens=False).ids
        ids += piece
        weights += [weight] * len(piece)
    return ids[:CONTEXT], weights[:CONTEXT]


def batches(tok, chunk):
    """The batches of one chunk of examples: [(input ids (B, T), loss weights (B, T))], about BATCH_TOKENS each."""
    rng, raw = np.random.default_rng([SEED, 1, chunk]), tok.backend_tokenizer
    mixture = [m for start, m in PHASES if chunk >= start][-1]
    rows = sorted((encode(raw, testbed.example(rng, mixture)) for _ in range(CHUNK)), key=lambda r: len(r[0]))
    wide = lambda row: -(-len(row[0]) // 16) * 16       # few distinct shapes: compiled kernels and memory are reused
    out, i = [], 0
    while i < len(rows):
        j = i + 1
        while j < len(rows) and wide(rows[j]) == wide(rows[i]) and wide(rows[i]) * (j + 1 - i) <= BATCH_TOKENS:
            j += 1
        width = wide(rows[i])
        x = np.full((j - i, width), tok.pad_token_id, np.int64)
        w = np.zeros((j - i, width), np.float32)
        for r, (ids, weights) in enumerate(rows[i:j]):
            x[r, :len(ids)], w[r, :len(ids)] = ids, weights
        out.append((torch.from_numpy(x), torch.from_numpy(w)))
        i = j
    return [out[k] for k in rng.permutation(len(out))]


def learning_rate(step):
    if step < WARMUP:
        return PEAK_LR * (step + 1) / WARMUP
    x = (step - WARMUP) / (STEPS - WARMUP)
    return PEAK_LR * (FLOOR + (1 - FLOOR) * .5 * (1 + math.cos(math.pi * x)))


def loss_of(model, base, x, weights):
    """Weighted mean cross-entropy, and its mean over the letters alone; right padding needs no mask."""
    hidden = base(input_ids=x, use_cache=False).last_hidden_state[:, :-1]
    keep = weights[:, 1:] > 0
    each = torch.nn.functional.cross_entropy(model.lm_head(hidden[keep]).float(), x[:, 1:][keep], reduction="none")
    w = weights[:, 1:][keep]
    return (each * w).sum() / w.sum(), each.detach()[w > 1]


def main():
    cli = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    cli.add_argument("name", choices=["pico-llama", "pico-gpt2"])
    cli.add_argument("--out", default="data/models")
    cli.add_argument("--steps", type=int, default=STEPS, help="stop after this many steps (for a trial)")
    args = cli.parse_args()
    if not MALLOC.items() <= os.environ.items():
        os.execve(sys.executable, [sys.executable, "-m", "data.train_testbed", *sys.argv[1:]], os.environ | MALLOC)
    out, t0 = Path(args.out) / args.name, time.time()
    out.mkdir(parents=True, exist_ok=True)

    # 1. tokenizer, model, optimizer; decay on matrices only
    tok = build_tokenizer()
    model = build_model(args.name, tok)
    base = model.base_model
    model.set_attn_implementation("eager")      # on a CPU, at these lengths, twice as fast as the fused kernel
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim < 2]
    opt = torch.optim.AdamW([{"params": matrices, "weight_decay": DECAY}, {"params": vectors, "weight_decay": 0.}],
                            lr=PEAK_LR, betas=(.9, .98), fused=True)
    step, chunk, tokens, curve, recent, letters = 0, 0, 0, [], [], []

    # 2. resume from the last checkpoint, at the beginning of a chunk
    checkpoint = out / "checkpoint.pt"
    if checkpoint.exists():
        state = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])
        step, chunk, tokens, curve = state["step"], state["chunk"], state["tokens"], state["curve"]
        recent, letters, t0 = state["recent"], state["letters"], t0 - state["seconds"]

    # 3. train
    bar = tqdm(total=args.steps, initial=step, disable=not sys.stderr.isatty(), desc=args.name)
    saved = step
    while step < args.steps:
        for x, weights in batches(tok, chunk):
            if step >= args.steps:
                break
            for group in opt.param_groups:
                group["lr"] = learning_rate(step)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss, letter = loss_of(model, base, x, weights)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            opt.step()
            opt.zero_grad(set_to_none=True)
            step, tokens = step + 1, tokens + x.numel()
            recent.append(loss.item())
            letters += letter.tolist()
            bar.update()
            if step % 100 == 0:
                curve.append([step, round(float(np.mean(recent)), 4), round(float(np.mean(letters)), 4)])
                recent, letters = [], []
                if not sys.stderr.isatty():
                    print(f"{args.name} step {step} tokens {tokens} loss {curve[-1][1]} letters {curve[-1][2]} {time.time() - t0:.0f} s", flush=True)
        chunk += 1
        if step - saved >= CHECKPOINT_EVERY and step < args.steps:
            torch.save({"model": model.state_dict(), "opt": opt.state_dict(), "step": step, "chunk": chunk,
                        "tokens": tokens, "curve": curve, "recent": recent, "letters": letters,
                        "seconds": time.time() - t0}, checkpoint.with_suffix(".tmp"))
            os.replace(checkpoint.with_suffix(".tmp"), checkpoint)
            saved = step

    # 4. an ordinary Hugging Face folder
    model.to(torch.bfloat16).save_pretrained(out)
    tok.save_pretrained(out)
    (out / "training.json").write_text(json.dumps({
        "command": f"python -m data.train_testbed {args.name}", "seed": SEED, "phases (chunk, shares)": PHASES, "steps": step,
        "padded_tokens": tokens, "parameters": sum(p.numel() for p in model.parameters()), "loss (step, all, letters)": curve,
        "seconds": round(time.time() - t0), "torch": torch.__version__, "transformers": transformers.__version__,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads"}, indent=1) + "\n")
    checkpoint.unlink(missing_ok=True)
    print(f"{args.name}  {step} steps, {tokens} tokens, {time.time() - t0:.0f} s -> {out}")


if __name__ == "__main__":
    main()
