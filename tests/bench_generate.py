"""Steered generation: rows of one batch against one configuration at a time, on the testbed's first model.

A configuration is a trait's vector at one layer with one strength; every configuration answers the same four
questions, as in stage 02. The usual way sets a forward hook per configuration and calls transformers' `generate`
on its four prompts; the engine writes all of them as rows of the same batches. Same texts, so the same tokens:
greedy, float32, two threads, and every answer is compared. Beside it, what unsteered batches of transformers' own
`generate` take for as many tokens: every text of the same length there, for both, so that neither gains from texts
that end early.

Part of `make bench` (tests/bench_engine.py); alone, it prints its lines of the table:

    PYTHONPATH=. python tests/bench_generate.py
"""
import time

import numpy as np
import torch

from lib import engine, models, suite as suites
from lib.artifacts import ROOT

TRAITS, QUESTIONS, LAYERS, STRENGTHS = 8, 4, (1, 2, 3, 4), (0.2, 0.4)       # 64 configurations, 256 texts
LONGEST, FIXED = 96, 48              # tokens: at most, as in the stages; of every text in the comparison of pace
ROUNDS, THREADS = 4, 2
BATCH = 64                           # rows of the unsteered batches: about the fastest
GOALS = {"one": 5, "plain": 1.5}


def prepare():
    """(lm, prompts (4), configurations [row]): vectors are mean differences of instructed prompts, read at the end."""
    lm, suite = models.load(str(ROOT / "data/models/pico-llama")), suites.load("testbed")
    asked = [item["prompt"] for item in suite.tasks["question"]["extract"][:4]]
    prompts = [lm.chat(suite.system, item["prompt"]) for item in suite.tasks["question"]["tune"][:QUESTIONS]]
    norms, rows = engine.residual_norm(lm, prompts), []
    for trait in suite.traits[:TRAITS]:
        vector = sum(sign * engine.read(lm, [lm.chat(pair[side], text) for pair in trait["instructions"]
                                             for text in asked]).mean(axis=0)
                     for sign, side in ((1, "positive"), (-1, "negative")))
        rows += [((layer, np.float32(s * norms[layer] / np.linalg.norm(vector[layer])) * vector[layer]),)
                 for layer in LAYERS for s in STRENGTHS]
    return lm, prompts, rows


def padded(lm, prompts):
    width, pad = max(map(len, prompts)), lm.model.generation_config.pad_token_id
    return {"input_ids": torch.tensor([[pad] * (width - len(p)) + p for p in prompts]),
            "attention_mask": torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])}


@torch.inference_mode()
def one_at_a_time(lm, prompts, rows, longest):
    """Answers, configuration by configuration: a hook that adds the vector at the last position, then `generate`."""
    batch, answers = padded(lm, prompts), []
    width = batch["input_ids"].shape[1]
    for ((layer, vector),) in rows:
        added = torch.from_numpy(vector)

        def add(_, __, output):
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[:, -1] += added
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        handle = lm.layers[layer].register_forward_hook(add)
        found = lm.model.generate(**batch, max_new_tokens=longest, do_sample=False)[:, width:].tolist()
        handle.remove()
        answers += [ids[:next((k for k, token in enumerate(ids) if token in lm.eos), longest)] for ids in found]
    return answers


def batched(lm, prompts, rows, longest):
    """The same answers by the engine."""
    return engine.generate_ids(lm, prompts * len(rows), [row for row in rows for _ in prompts], longest)


@torch.inference_mode()
def unsteered(lm, prompts, copies, longest):
    """As many texts by plain `generate`, BATCH at a time."""
    many = prompts * copies
    for start in range(0, len(many), BATCH):
        lm.model.generate(**padded(lm, many[start:start + BATCH]), max_new_tokens=longest, do_sample=False)


def rounds(contenders, count=ROUNDS):
    """{name: (result, least seconds)}; the contenders take turns, so that a busy spell meets them all."""
    found = {}
    for _ in range(count):
        for name, work in contenders.items():
            start = time.perf_counter()
            result = work()
            took = time.perf_counter() - start
            found[name] = result, min(took, found[name][1] if name in found else took)
    return found


def compare():
    """[{work, against, theirs, ours (seconds), ratio, goal, tokens, identical, note}]"""
    torch.set_num_threads(THREADS)
    lm, prompts, rows = prepare()
    batched(lm, prompts, rows[:8], LONGEST), one_at_a_time(lm, prompts, rows[:2], LONGEST)          # warm both up
    timed = rounds({"theirs": lambda: one_at_a_time(lm, prompts, rows, LONGEST),
                    "ours": lambda: batched(lm, prompts, rows, LONGEST)})
    (slow, t_slow), (fast, t_fast) = timed["theirs"], timed["ours"]
    tokens = sum(len(ids) + (len(ids) < LONGEST) for ids in fast)
    texts = f"{len(rows)} configurations x {len(prompts)} prompts"
    found = [{"work": texts, "against": "generate, one configuration at a time", "theirs": t_slow, "ours": t_fast,
              "ratio": t_slow / t_fast, "goal": GOALS["one"], "tokens": tokens, "texts": len(fast),
              "same": sum(a == b for a, b in zip(slow, fast))}]
    ends, lm.eos, lm.model.generation_config.eos_token_id = lm.eos, (), None
    timed = rounds({"theirs": lambda: unsteered(lm, prompts, len(rows), FIXED),
                    "ours": lambda: batched(lm, prompts, rows, FIXED)})
    lm.eos, lm.model.generation_config.eos_token_id = ends, list(ends)
    (_, t_plain), (fast, t_fast) = timed["theirs"], timed["ours"]
    found.append({"work": f"the same, {FIXED} tokens each", "against": f"unsteered generate, batch {BATCH}",
                  "theirs": t_plain, "ours": t_fast, "ratio": t_fast / t_plain, "goal": GOALS["plain"],
                  "tokens": sum(map(len, fast)), "texts": len(fast), "same": None})
    return found


def lines(found):
    """The section of report/bench.md."""
    one, plain = found
    out = ["## Steered generation", "",
           f"pico-llama, float32, {THREADS} threads; {one['work']} = {one['texts']} greedy answers of at most "
           f"{LONGEST} tokens, {one['tokens']:,} in all. The fastest of {ROUNDS} rounds in which both take turns.",
           "",
           "| work | against | theirs, s | ours, s | tokens per s, both | ratio | goal | identical answers |",
           "|---|---|---|---|---|---|---|---|"]
    for row, goal in ((one, f"at least {one['goal']}x"), (plain, f"at most {plain['goal']}x")):
        same = "" if row["same"] is None else f"{row['same']} of {row['texts']}"
        pace = " and ".join(f"{row['tokens'] / row[side]:,.0f}" for side in ("theirs", "ours"))
        out.append(f"| {row['work']} | {row['against']} | {row['theirs']:.2f} | {row['ours']:.2f} | {pace} | "
                   f"{row['ratio']:.2f}x | {goal} | {same} |")
    return [*out, "", "The second ratio is the share of the unsteered time, ours over theirs: lower is better.", ""]


if __name__ == "__main__":
    print("\n".join(lines(compare())))
