"""Models: a Hugging Face causal language model, its tokenizer, and how text becomes token ids.

Prompts are made by the tokenizer's chat template (lib.chat); `LM.identity` says what that is and how it is used.
"""
import contextlib
import json
import logging
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING
from transformers.utils import cached_file, logging as told

from lib import identity, probe
from lib.artifacts import UserError, digest_of, panicked
from lib.chat import Chat
from lib.hooks import find_layers

# Old checkpoints hold these beside their weights; the models compute them.
BUFFERS = ("rotary_emb.inv_freq", "attn.bias", "attn.masked_bias", "attention.bias", "attention.masked_bias",
           "position_ids")
ZERO = ("xlstm",)                # kinds of models with matrices that are zero before training, and may stay so
JSON = ("config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json", "special_tokens_map.json")
REACH = 10                       # seconds for the first word of a hub


@dataclass(eq=False)
class LM:
    """A loaded model with its tokenizer. `identity` goes into the manifest of everything made with it."""
    model: torch.nn.Module
    tokenizer: object
    layers: list
    n_layers: int
    d_model: int
    device: torch.device
    name: str                # folder name, or hub id with "/" as "--": names output folders
    identity: dict
    eos: tuple               # token ids that end an answer
    max_tokens: int | None   # longest sequence the position embeddings allow
    template: Chat           # makes the text of a prompt
    # Which paths agree with a plain pass, found by lib.probe; the engine takes the others never.
    branches: bool | None = None    # many suffixes share one pass, side by side; None: not tried
    skips: bool = False             # ... and blocks before the first that is steered are not run
    copies: bool = True             # a cache goes on in copies; False: every row runs the whole prompt
    steps: bool = False             # ... by one token at a time only
    pads: bool = True               # answers to prompts of several lengths in one batch; False: of one length only
    keeps: bool = True              # generation keeps a cache; False: each token runs the whole sequence

    def chat(self, system, user):
        """Token ids of the chat prompt, generation prompt included; `system` may be None or "": then there is none.

        Special tokens come from the template alone, so there is never a second BOS.
        """
        text = self.template.text(system, user)
        return self.encode(text) if self.template.kind == "plain" else self.tokens(text)

    def encode(self, text):
        """Token ids of raw text, with a BOS where the tokenizer adds one and never an EOS at the end."""
        ids = self.tokenizer(text).input_ids
        if self.tokenizer.eos_token_id in ids[-1:] and ids[-1:] != self.tokens(text)[-1:]:
            ids = ids[:-1]
        return ids

    def tokens(self, text):
        """Token ids of text without special tokens added."""
        return self.tokenizer(text, add_special_tokens=False).input_ids

    def answer_token(self, prompt, answer):
        """First token id of `answer` as it follows `prompt`.

        prompt  raw text, or token ids (then the answer is tokenised after a neutral letter, so that a
                tokenizer which marks the beginning of a text does not mark the answer)
        answer  text, with its leading space where the prompt does not end in one
        Raises UserError if prompt and answer merge into one token, or the answer is empty.
        """
        before, tokenise = (prompt, self.encode) if isinstance(prompt, str) else ("x", self.tokens)
        head, whole = tokenise(before), tokenise(before + answer)
        if len(whole) <= len(head) or whole[:len(head)] != head:
            raise UserError(f"{self.name}: the tokenizer merges {answer!r} into the text before it")
        return whole[len(head)]

    def continuation(self, behind, text):
        """Token ids of `text` as it follows the text `behind`; None where the tokenizer merges the two, or where the
        ids read otherwise: SentencePiece may write "▁(" for "("."""
        head, whole = self.tokens(behind), self.tokens(behind + text)
        def read(ids):
            return self.tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        good = len(whole) > len(head) and whole[:len(head)] == head and read(whole) == read(head) + text
        return whole[len(head):] if good else None

    def letter_ids(self):
        """(id of A, id of B) as they follow "(" in "(A)" and "(B)".

        Raises UserError if a letter is merged with a bracket, is several tokens, or both have the same id.
        """
        bracket, ids = self.tokens("("), []
        for letter in "AB":
            alone, closed = self.tokens(f"({letter}"), self.tokens(f"({letter})")
            if alone[:-1] != bracket or closed[:len(alone)] != alone:
                raise UserError(f"{self.name}: {letter!r} is not a token of its own in '({letter})': "
                                f"{self.tokenizer.convert_ids_to_tokens(closed)}")
            ids.append(alone[-1])
        if ids[0] == ids[1]:
            raise UserError(f"{self.name}: the letters A and B have the same token id {ids[0]}")
        return tuple(ids)


# GPT-2 warns of pads without a mask; ours stand at the right, where no token that is read can see them.
told.get_logger("transformers.modeling_utils").addFilter(lambda record: "may be padded" not in record.getMessage())


def load(name_or_path, dtype="float32", device=None):
    """Load a model folder or hub id, in eval mode, without gradients.

    dtype   "float32", "bfloat16" or "float16"; the language-model head is float32 always: in bfloat16 logits come in
            steps of .06 to .125 nats
    device  None: a GPU if there is one, else the CPU; "auto": spread over all devices (transformers'
            device_map)
    Raises UserError in one line if the path or id does not exist, needs code of its own, is no causal language
    model, if its weights are not those that its configuration asks for, or if it does not do what the engine takes
    for granted (lib.probe). Only safetensors are read and no code of the repository is run.
    """
    torch_dtype = getattr(torch, str(dtype), None)
    if not (isinstance(torch_dtype, torch.dtype) and torch_dtype.is_floating_point):
        raise UserError(f"dtype {dtype!r}: expected float32, bfloat16 or float16")
    source, path = str(name_or_path), Path(name_or_path)
    local = path.is_dir()
    slashes = source.count("/")      # a hub id has one at most, and its first half is not a folder here
    if not local and (path.exists() or source.startswith((".", "/", "~")) or slashes > 1
                      or slashes == 1 and path.parent.is_dir()):
        raise UserError(f"{source}: no such model folder")
    if local and not (path / "config.json").is_file():
        raise UserError(f"{source}: not a model folder, it has no config.json")
    if device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if not sys.stderr.isatty():
        told.disable_progress_bar()      # thousands of bar updates would fill a log
    before = told.get_verbosity()
    told.set_verbosity(logging.CRITICAL)     # what they would say ends in one line of ours, or is not wanted
    try:
        if local:
            for file in sorted(path.glob("*.safetensors")):
                _readable(file)
            for file in [path / name for name in JSON if (path / name).is_file()]:
                _object(file)
        else:
            _reach(source)
        _refuse(source, AutoConfig.from_pretrained(source, trust_remote_code=False))
        with _unsaid():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch_dtype, device_map="auto" if device == "auto" else None,
            trust_remote_code=False, use_safetensors=True, output_loading_info=True, ignore_mismatched_sizes=True)
        found = _assemble(source, model, tokenizer, info, dtype, device, path if local else None)
    except UserError as error:
        raise UserError(f"{'' if source in str(error) else f'{source}: '}{error}") from None
    except BaseException as error:     # whatever a folder from elsewhere holds, it ends in one line
        if not isinstance(error, Exception) and not panicked(error):
            raise
        raise UserError(f"{source}: cannot be loaded: {type(error).__name__}: {' '.join(str(error).split())[:300]}"
                        ) from error
    finally:
        told.set_verbosity(before)
    _look(source, found.model)
    return probe.check(found)


@contextlib.contextmanager
def _unsaid():
    """What compiled code writes to stderr waits, and is dropped if it fails: a panic prints its stack, dozens of lines."""
    with tempfile.TemporaryFile() as said:
        before = os.dup(2)
        os.dup2(said.fileno(), 2)
        try:
            yield
        except BaseException:
            said.truncate(0)
            raise
        finally:
            os.dup2(before, 2)
            os.close(before)
            said.seek(0)
            os.write(2, said.read())


def _reach(source):
    """UserError in seconds, not after a minute of retries, if a hub id is neither here nor to be had."""
    from huggingface_hub import constants, hf_hub_download, utils
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    try:
        if not identity.model_folder(source):
            utils.get_session().head(f"{constants.ENDPOINT}/{source}/resolve/main/config.json", timeout=REACH)
            hf_hub_download(source, "config.json")
    except Exception as error:     # of the network, of the hub, of the name: each has its own
        raise UserError(f"{source}: no such folder here, and the hub does not give it ({type(error).__name__}: "
                        f"{' '.join(str(error).split())[:160]})") from None


def _object(file):
    """UserError for a file that holds no JSON object, some of which transformers would pass over in silence."""
    try:
        if isinstance(json.loads(file.read_text(encoding="utf-8")), dict):
            return
        why = "expected an object"
    except (ValueError, RecursionError) as error:
        why = f"not JSON ({error})"
    raise UserError(f"{file}: {why}")


def _readable(file):
    """UserError for a safetensors file that is not whole: empty, cut, a pointer of git LFS, or something else."""
    with open(file, "rb") as stream:
        head, size = stream.read(100), file.stat().st_size
    if head.startswith(b"version https://git-lfs"):
        raise UserError(f"{file}: a pointer of git LFS, not the weights; run git lfs pull")
    length = int.from_bytes(head[:8], "little")
    try:
        if size < 8 or length > size - 8:
            raise ValueError(f"{size} bytes are less than its head names")
        with open(file, "rb") as stream:
            stream.seek(8)
            tensors = json.loads(stream.read(length))
        ends = [entry["data_offsets"][1] for name, entry in tensors.items() if name != "__metadata__"]
        if max(ends, default=0) != size - 8 - length:
            raise ValueError(f"{size} bytes, its head names {max(ends, default=0) + 8 + length}")
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError, MemoryError) as error:
        raise UserError(f"{file}: no whole safetensors file ({' '.join(str(error).split())[:100]})") from None


def _look(source, model):
    """UserError that names the first tensor with a value that is not finite, or a matrix that is all zero."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise UserError(f"{source}: the weights are damaged, {name} holds values that are not finite")
        if weight.ndim > 1 and not weight.any() and model.config.model_type not in ZERO:
            raise UserError(f"{source}: the weights are damaged, {name} is all zero")


def _refuse(source, config):
    """UserError for what is known by its configuration, before gigabytes of weights are read."""
    text, senses = config.get_text_config(decoder=True), ("vision", "audio")
    if getattr(config, "is_encoder_decoder", False):
        kind = "an encoder-decoder model"
    elif type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        other = [sense for sense in senses if getattr(config, f"{sense}_config", None)]
        kind = f"a model with {' and '.join(other)} input" if other else "no causal language model of transformers"
    else:
        kind = None
    if kind:
        raise UserError(f"{source}: {config.model_type} is {kind}, expected a causal language model")
    if not getattr(text, "num_hidden_layers", None):
        raise UserError(f"{source}: its config.json names no number of layers")


def _assemble(source, model, tokenizer, info, dtype, device, folder):
    """The LM of a model that has been read, not yet probed. folder: a Path, or None for a hub id."""
    for name, found, expected in map(tuple, info["mismatched_keys"]):
        raise UserError(f"{source}: {name} of the weights is {tuple(found)}, expected {tuple(expected)}")
    if info["missing_keys"]:     # transformers would go on with random weights in their place
        raise UserError(f"{source}: the weights lack {sorted(info['missing_keys'])[:3]}")
    extra = sorted(key for key in info["unexpected_keys"] if not key.endswith(BUFFERS))
    if extra:                    # a config with fewer layers, say: another model than the weights are
        raise UserError(f"{source}: the weights hold {len(extra)} tensors that the model of its config.json has no "
                        f"place for: {extra[:3]}")
    n_parameters = model.num_parameters()                    # before the head is given weights of its own
    if model.dtype != torch.float32:
        _exact_head(model)
    if device != "auto":
        model.to(device)
    model.eval().requires_grad_(False)
    parts = identity.model_parts(identity.model_files(folder or Path(cached_file(source, "config.json")).parent))
    template = Chat(tokenizer)
    config = model.config.get_text_config(decoder=True)
    # Any of them ends an answer: hub configs often lack the token that ends a turn.
    eos = model.generation_config.eos_token_id
    eos = [*(eos if isinstance(eos, (list, tuple)) else [eos]), tokenizer.eos_token_id, *template.ends]
    eos = tuple(dict.fromkeys(i for i in eos if i is not None))
    if not all(type(i) is int and i >= 0 for i in eos):
        raise UserError(f"{source}: its configuration ends an answer with {list(eos)}, expected token ids")
    pad = next((i for i in (tokenizer.pad_token_id, *eos) if i is not None), 0)
    # Hub generation configs carry penalties and sampling settings that would change what greedy means.
    model.generation_config = GenerationConfig(eos_token_id=list(eos) or None, pad_token_id=pad)
    layers = find_layers(model)
    name = folder.resolve().name if folder else source.replace("/", "--")
    found = {
        "id": name if folder else source,
        "revision": None if folder else getattr(model.config, "_commit_hash", None),
        "weights": parts["weights"],
        "config": parts["config"],
        "tokenizer": digest_of(parts["tokenizer"]),
        "chat_template": template.identity,
        "dtype": str(dtype),
        "n_parameters": n_parameters,
    }
    return LM(model=model, tokenizer=tokenizer, layers=layers, n_layers=len(layers),
              d_model=config.hidden_size, device=model.get_input_embeddings().weight.device, name=name,
              identity=found, eos=eos, max_tokens=_most_tokens(config), template=template)


def _exact_head(model):
    """Give a model its language-model head in float32; an embedding that shares the weights keeps its own."""
    head = model.get_output_embeddings()
    for name, value in list(head.named_parameters(recurse=False)):
        setattr(head, name, torch.nn.Parameter(value.detach().float(), requires_grad=False))
    head.register_forward_pre_hook(lambda _, given: (given[0].float(),))


def _most_tokens(config):
    try:
        most = getattr(config, "max_position_embeddings", None)
    except NotImplementedError:     # XLNet's way to say that there is no limit
        return None
    if most == 0:
        raise UserError("max_position_embeddings of its config.json is 0, expected a number above 0")
    return None if most is None or most < 0 else most       # -1: no limit

