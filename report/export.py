"""Export: one vector of stage 01, at its tuned layer and strength, as a file for another tool (lib/vectors.py).

The folder of a card of a vector from elsewhere has that vector in stage 01, and it is what is written.

The project steers from the last prompt token on. llama.cpp, repeng and lm-evaluation-harness, and steering-vectors by
default, add at all positions, where the tuned coefficient is another dose. On PROMPTS tuning prompts of the concept:

    effect(c)   mean over prompts of KL(p unsteered || p steered by c * v[layer]), nats, p of the next token at the
                prompt's end; for traits also at the first ANSWER tokens of the unsteered answer, averaged

The coefficient at all positions is the smallest with the effect of the tuned one from the last prompt token on. The
file is written with it: multiplied into the vector, or in lm-eval beside it, so that the tool's own factor 1 is the
measured dose. Without it (--measure 0, or none is found) that is the tuned coefficient. Both stand in the metadata.

    python -m report.export --model data/models/pico-llama --concept trait/allcaps --format gguf --frozen
"""
import contextlib
import difflib
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from lib import artifacts, engine, hooks, models, stage, suite as suites, vectors
from lib.artifacts import UserError
from lib.metrics import Missing
from lib.studies import propensity, values

# --- settings that change the numbers -----------------------------------------------------------------------
PROMPTS = 8                              # tuning prompts
ANSWER = 16                              # tokens of a trait's answer
SCAN = 2.0 ** np.arange(-4, 3.01, 0.5)   # factors on the tuned coefficient among which the first crossing is sought
STEPS = 7                                # bisections of it: a third of a percent
# ------------------------------------------------------------------------------------------------------------
AFTER = ("01_extract", "02_tune")


def prompts(lm, suite, key, extract):
    """At most PROMPTS tuning prompts of a concept: [(token ids, how many of the last ones stage 02 steers, behind how
    many of the last ones p is measured)]."""
    kind, _, name = key.partition("/")
    if kind == "trait":
        items = suites.tasks(suite, "question", "tune", name)[:PROMPTS]
        found = [lm.chat(suite.system, item["prompt"]) for item in items]
        answers = engine.generate_ids(lm, found, [()] * len(found), ANSWER)
        return [(ids + answer, 1 + len(answer), 1 + len(answer)) for ids, answer in zip(found, answers)]
    if kind == "behaviour":
        behaviour, read_out = next(b for b in suite.behaviours if b["name"] == name), propensity.read_out(extract)
        asked, _ = propensity.ask(lm, read_out, suite, behaviour, suites.split(behaviour["items"], "tune")[:PROMPTS])
        return [(ids, read_out.suffix, 1) for ids in asked]
    if kind == "relation":
        pairs, template = suites.relation_split(suites.relation(suite, name), "tune"), suite.templates[0]["query"]
        return [(lm.encode(template.format(x=x)), 1, 1) for x, _ in pairs[:PROMPTS]]
    probes = suites.probe_split(next(v for v in suite.values if v["name"] == name)["probes"], "tune")[:PROMPTS]
    found = [(lm.encode(probe["prompt"]), 1) if "prompt" in probe else
             (values.raw_text(lm, probe["positive_text"]), None) for probe in probes]        # None: all of it
    return [(ids, last or len(ids), 1) for ids, last in found]


def effects(lm, asked, layer, vector):
    """effect(coefficient, everywhere): mean KL, nats, steered as stage 02 does or at all positions.

    One prompt at a time without cache or pads: what any model agrees to."""
    inputs = [(torch.tensor([ids], device=lm.device), last, counted) for ids, last, counted in asked]

    @torch.inference_mode()
    def logp(ids, counted, added=None, last=0):
        with hooks.steer(lm.layers, {} if added is None else {layer: added}, last=last):
            return lm.model(input_ids=ids, use_cache=False).logits[0, -counted:].double().log_softmax(-1)

    plain = [logp(ids, counted) for ids, _, counted in inputs]

    def effect(coefficient, everywhere):
        added = torch.from_numpy(np.float32(coefficient) * vector)
        found = [logp(ids, counted, added if everywhere else added[None], 0 if everywhere else last)
                 for ids, last, counted in inputs]
        return float(np.mean([(p.exp() * (p - q)).sum(-1).mean().item() for p, q in zip(plain, found)]))

    return effect


def same(effect, target):
    """The smallest factor at which `effect` (a function of it) reaches target; Missing if SCAN does not."""
    low = 0.0
    for high in SCAN:
        if effect(high) >= target:
            break
        low = high
    else:
        return Missing(f"no coefficient up to {SCAN[-1]:g} times the tuned one has its effect at all positions")
    for _ in range(STEPS):
        middle = (low + high) / 2
        low, high = (low, middle) if effect(middle) >= target else (middle, high)
    return float(high)


def measure(lm, asked, layer, vector, coefficient):
    """{"n", "kl" of the tuned coefficient as stage 02 steers, "kl_at_all_positions" of the same coefficient,
    "coefficient_at_all_positions" with the effect of the first (null, with "why")}."""
    effect = effects(lm, asked, layer, vector)
    kl = effect(coefficient, False)
    factor = same(lambda f: effect(f * coefficient, True), kl)
    told = {"n": len(asked), "kl": kl, "kl_at_all_positions": effect(coefficient, True)}
    if isinstance(factor, Missing):
        return told | {"coefficient_at_all_positions": None, "why": str(factor)}
    return told | {"coefficient_at_all_positions": factor * coefficient}


@contextlib.contextmanager
def reading(model):
    """Whatever transformers says of a configuration that it cannot read is one line."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise UserError(f"{model}: its configuration cannot be read: {' '.join(str(error).split())[:200]}") from None


def shape(model):
    """(layers, width) from the configuration alone; None for what it does not name."""
    with reading(model):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False).get_text_config(decoder=True)
    return getattr(config, "num_hidden_layers", None), getattr(config, "hidden_size", None)


def names(model, layer):
    """(model type, name of a block under model.base_model with {} for its number) from the configuration alone."""
    with reading(model), torch.device("meta"):
        config = AutoConfig.from_pretrained(model, trust_remote_code=False)
        built = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    block = hooks.find_layers(built)[layer]
    name = next(name for name, module in built.base_model.named_modules() if module is block)
    return config.model_type, name.rpartition(".")[0] + ".{}"


def export(args, model):
    """Write one concept of one model; returns the path and the metadata. UserError if there is no such concept, or
    model, suite and stages do not belong together."""
    folder = stage.paths(args, model)
    source = stage.COMMITTED / folder.relative_to(args.out) if args.frozen else folder
    extract, tune = (artifacts.load(source / name, name) for name in AFTER)
    keys, tuned = [concept["key"] for concept in extract.table("concepts")], tune.table("tuned")
    if tune.manifest["inputs"][AFTER[0]] != extract.digest:
        raise UserError(f"{tune.path}: made from another {AFTER[0]} than the one beside it; run {AFTER[1]} again")
    if args.concept not in tuned:
        near = difflib.get_close_matches(args.concept, tuned, 5, 0) if args.concept else sorted(tuned)
        raise UserError(f"{tune.path}: no vector {args.concept!r}; there are {', '.join(near)}")
    record, config = tuned[args.concept], extract.config
    layer, coefficient, (_, n_layers, d_model) = record["layer"], record["coefficient"], (
        extract.manifest["outputs"]["vectors.npy"]["shape"])
    vector, measured = extract.array("vectors")[keys.index(args.concept), layer], None
    if args.measure:
        lm, suite = models.load(model), suites.load(args.suite, args.profile)
        if lm.identity != config["model"] or suite.digest != extract.manifest["inputs"]["suite"]:
            raise UserError(f"{extract.path}: made from another model or suite")
        measured = measure(lm, prompts(lm, suite, args.concept, extract), layer, vector, coefficient)
    written = (measured or {}).get("coefficient_at_all_positions") or coefficient
    meta = {"concept": args.concept, "layer": layer, "layer_is": "decoder block from 0, added to its output",
            "n_layers": n_layers, "d_model": d_model, "positions": "from the last prompt token on, answer included",
            "coefficient": coefficient, "written": written, "measured": measured, "tuned": record,
            "written_as": "beside the vector" if args.format == "lm-eval" else "multiplied into the vector",
            **{key: config["model"][key] for key in ("id", "revision", "weights")},
            **{key: config[key] for key in ("suite", "profile", "judge", "vector") if key in config},
            "digests": {artifact.path.name: artifact.digest for artifact in (extract, tune)}}
    path = Path(args.to or folder / "export" / f"{args.concept}{vectors.EXTENSIONS[args.format]}")
    hint, hook = names(model, layer)
    vectors.save(path, args.format, {layer: vector}, written, hint, hook, meta)
    return path, meta


def main():
    parser = stage.cli(__doc__, many=True)
    parser.add_argument("--concept", default="", help="key of a vector, trait/<name> say; none: the list")
    parser.add_argument("--format", choices=vectors.EXTENSIONS, default="gguf")
    parser.add_argument("--to", help="file; default: <out>/<model>/<suite>/export/<concept>.<extension>")
    parser.add_argument("--measure", type=int, choices=(0, 1), default=1, help="0: loads no model")
    parser.add_argument("--frozen", action="store_true", help=f"read {stage.COMMITTED} instead of --out")
    args = parser.parse_args()
    if args.to and len(args.model) > 1:
        raise UserError(f"--to {args.to}: one file, but {len(args.model)} models")
    answers = " and the first of the answer" * args.concept.startswith("trait/")
    for model in args.model:
        path, meta = export(args, model)
        found, layer = meta["measured"], f"layer {meta['layer']} of {meta['n_layers']}"
        if found:
            print(f"{meta['concept']}, {layer}: {meta['coefficient']:.4g} from the last prompt token on moves "
                  f"the next token{answers} by KL {found['kl']:.3g} nats (n {found['n']}), at all positions by "
                  f"{found['kl_at_all_positions']:.3g}; "
                  + found.get("why", f"there {meta['written']:.4g} moves it as far"))
        print(f"{path}  {layer}, coefficient {meta['written']:.4g} {meta['written_as']}")


if __name__ == "__main__":
    artifacts.run(main)
