"""Tiny random models of several architectures with a tokenizer of their own, as ordinary model folders."""
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lib import models as lib_models

GATED = {"intermediate_size": 48, "num_key_value_heads": 2}
OWN = {"llama": GATED, "qwen2": GATED, "gpt2": {"n_inner": 48}, "gptj": {"rotary_dim": 4}, "bloom": {},
       "mistral": GATED | {"sliding_window": 12},
       "lfm2": GATED | {"layer_types": ["conv", "full_attention", "conv"]}}
ARCHITECTURES = ("llama", "qwen2", "gpt2")
CHAT = ("{{ '<s>' }}{% for m in messages %}{{ '<' + m.role + '>' + m.content + '</s>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}")
NO_SYSTEM = CHAT.replace(
    "in messages %}", "in messages %}{% if m.role == 'system' %}{{ raise_exception('no') }}{% endif %}")
TEXT = ["the cat sat on the mat (A) yes (B) no", "User: what is this? Assistant: it is a small test.",
        "Paris is in France; a big house, a red car.", "(A): Yes\n(B): No\nAnswer ( A ) or ( B )."] * 4


def tokenizer(chat_template=CHAT, add_bos=True):
    """A byte-level BPE tokenizer of at most 320 tokens that adds a BOS to raw text."""
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    special = ["<pad>", "<s>", "</s>", "<system>", "<user>", "<assistant>"]
    tok.train_from_iterator(TEXT, trainers.BpeTrainer(
        vocab_size=320, special_tokens=special, show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet()))
    if add_bos:
        tok.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tok, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = chat_template
    return fast


def model(architecture, seed=0, **extra):
    """A random model of 3 layers and width 32, its weights large enough that its answers vary."""
    settings = {"vocab_size": 320, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
                "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
                "initializer_range": 0.3, "tie_word_embeddings": False}
    config = AutoConfig.for_model(architecture, **settings | OWN[architecture] | extra)
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config).eval()
    torch.random.set_rng_state(state)
    return made


def save(folder, architecture, chat_template=CHAT, add_bos=True, **extra):
    """Write a model folder and return its path."""
    model(architecture, **extra).save_pretrained(folder)
    tokenizer(chat_template, add_bos).save_pretrained(folder)
    return folder


def load(folder, architecture, **extra):
    """Write a model folder and load it the way the stages do."""
    dtype, attention = extra.pop("dtype", "float32"), extra.pop("attn_implementation", None)
    lm = lib_models.load(str(save(folder, architecture, **extra)), dtype=dtype)
    if attention:
        lm.model.set_attn_implementation(attention)
    return lm
