"""Models: a Hugging Face causal language model, its tokenizer, and how text becomes token ids.

Prompts are made by the tokenizer's chat template (lib.chat); `LM.identity` says what that is and how it is used.
"""
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig
from transformers.utils import cached_file, logging

from lib import identity
from lib.artifacts import UserError, digest_of
from lib.chat import Chat
from lib.hooks import find_layers


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
    branches: bool | None = None    # found by lib.engine: can many suffixes share one pass? None: not tried

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
logging.get_logger("transformers.modeling_utils").addFilter(lambda record: "may be padded" not in record.getMessage())


def load(name_or_path, dtype="float32", device=None):
    """Load a model folder or hub id, in eval mode, without gradients.

    dtype   "float32", "bfloat16" or "float16"
    device  None: a GPU if there is one, else the CPU; "auto": spread over all devices (transformers'
            device_map)
    Raises UserError if the path or id does not exist, needs code of its own, or its weights are incomplete.
    Only safetensors are read and no code of the repository is run.
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
        logging.disable_progress_bar()      # thousands of bar updates would fill a log
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=False)
        model, info = AutoModelForCausalLM.from_pretrained(
            source, dtype=torch_dtype, device_map="auto" if device == "auto" else None,
            trust_remote_code=False, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, ImportError) as error:
        raise UserError(f"{source}: cannot be loaded: {' '.join(str(error).split())[:300]}") from error
    if info["missing_keys"]:     # transformers would go on with random weights in their place
        raise UserError(f"{source}: the weights lack {sorted(info['missing_keys'])[:3]}")
    if device != "auto":
        model.to(device)
    model.eval().requires_grad_(False)
    files = identity.model_files(path if local else Path(cached_file(source, "config.json")).parent)
    template = Chat(tokenizer)
    config = model.config.get_text_config(decoder=True)
    # Any of them ends an answer: hub configs often lack the token that ends a turn.
    eos = model.generation_config.eos_token_id
    eos = [*(eos if isinstance(eos, (list, tuple)) else [eos]), tokenizer.eos_token_id, *template.ends]
    eos = tuple(dict.fromkeys(i for i in eos if i is not None))
    pad = next((i for i in (tokenizer.pad_token_id, *eos) if i is not None), 0)
    # Hub generation configs carry penalties and sampling settings that would change what greedy means.
    model.generation_config = GenerationConfig(eos_token_id=list(eos) or None, pad_token_id=pad)
    layers = find_layers(model)
    name = path.resolve().name if local else source.replace("/", "--")
    found = {
        "id": name if local else source,
        "revision": None if local else getattr(model.config, "_commit_hash", None),
        "weights": {name: digest for name, digest in files.items() if ".safetensors" in name},
        "config": {name: digest for name, digest in files.items() if name in identity.CONFIG_FILES},
        "tokenizer": digest_of({name: digest for name, digest in files.items() if name in identity.TOKENIZER_FILES}),
        "chat_template": template.identity,
        "dtype": str(dtype),
        "n_parameters": model.num_parameters(),
    }
    return LM(model=model, tokenizer=tokenizer, layers=layers, n_layers=len(layers),
              d_model=config.hidden_size, device=model.get_input_embeddings().weight.device, name=name,
              identity=found, eos=eos, max_tokens=getattr(config, "max_position_embeddings", None),
              template=template)

