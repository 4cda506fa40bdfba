"""Tiny random models of several architectures with a tokenizer of their own, as ordinary model folders."""
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lib import models as lib_models, probe

GATED = {"intermediate_size": 48, "num_key_value_heads": 2}
WIDE = GATED | {"head_dim": 8}
EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
LOCAL = {"num_local_experts": 4, "num_experts_per_tok": 2}
WINDOW = {"sliding_window": 12}
MIXED = WINDOW | {"layer_types": ["sliding_attention", "full_attention", "sliding_attention"]}
STATES = {"n_groups": 1, "state_size": 8, "num_heads": 4, "head_dim": 16}
# What a family's configuration needs beyond `settings` below; "type" where transformers calls it otherwise.
OWN = {
    "llama": GATED, "gpt2": {"n_inner": 48}, "qwen2": GATED, "gptj": {"rotary_dim": 4},
    "gpt_neo": {"attention_types": [[["global", "local"], 1], [["global"], 1]], "window_size": 8, "num_layers": 3},
    "gpt_neox": {"intermediate_size": 48}, "opt": {"ffn_dim": 48, "word_embed_proj_dim": 32}, "bloom": {}, "mpt": {},
    "mistral": GATED | WINDOW, "mixtral": GATED | LOCAL, "qwen3": WIDE, "qwen3_moe": WIDE | EXPERTS, "gemma": WIDE,
    "gemma2": WIDE | WINDOW | {"query_pre_attn_scalar": 8},
    "gemma3": WIDE | MIXED | {"type": "gemma3_text", "query_pre_attn_scalar": 8},
    "phi": {"intermediate_size": 48}, "phi3": GATED, "olmo2": GATED, "stablelm": GATED, "granite": GATED,
    "smollm3": GATED, "cohere": GATED | {"logit_scale": 1.0}, "cohere2": WIDE | WINDOW | {"logit_scale": 1.0},
    "falcon": {"multi_query": False}, "falcon-alibi": {"type": "falcon", "multi_query": False, "alibi": True},
    "gpt_oss": WIDE | MIXED | LOCAL | {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
    "llama4": WIDE | {"type": "llama4_text", "intermediate_size_mlp": 48, "num_local_experts": 2,
                      "attention_chunk_size": 12},
    "lfm2": GATED | {"layer_types": ["conv", "full_attention", "conv"]},
    "mamba": {"state_size": 4}, "mamba2": STATES | {"chunk_size": 8},
    "rwkv": {"attention_hidden_size": 32, "intermediate_size": 48, "num_attention_heads": None},
    "jamba": GATED | {"attn_layer_period": 3, "attn_layer_offset": 1, "num_experts": 2, "mamba_d_state": 4,
                      "mamba_dt_rank": 4},
    "qwen3_next": WIDE | EXPERTS | {
        "shared_expert_intermediate_size": 24, "linear_num_value_heads": 4, "linear_num_key_heads": 2,
        "linear_key_head_dim": 8, "linear_value_head_dim": 8,
        "layer_types": ["linear_attention", "full_attention", "linear_attention"]},
    "recurrent_gemma": {"intermediate_size": 48, "lru_width": 32, "attention_window_size": 12,
                        "w_init_variance_scale": 3.0},
    "xlstm": {}, "openai-gpt": {}, "codegen": {"rotary_dim": 4}, "xglm": {"ffn_dim": 48},
    "bart-decoder": {"type": "bart", "decoder_layers": 3, "decoder_attention_heads": 4, "decoder_ffn_dim": 48},
    "bert": {"intermediate_size": 48}, "roberta": {"intermediate_size": 48},
    "xlnet": {"d_inner": 48, "d_head": 8, "max_position_embeddings": None},
    "gemma3n": WIDE | {"type": "gemma3n_text", "layer_types": ["sliding_attention", "full_attention"] * 2,
                       "num_hidden_layers": 4, "num_kv_shared_layers": 2, "hidden_size_per_layer_input": 8,
                       "vocab_size_per_layer_input": 320, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4}}
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
    own = settings | OWN[architecture] | extra
    config = AutoConfig.for_model(own.pop("type", architecture), **{k: v for k, v in own.items() if v is not None})
    state = torch.random.get_rng_state()
    torch.manual_seed(seed)
    made = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():                    # biases and the pad start as zeros, behind which errors could hide
        for name, weight in made.named_parameters():
            if name.endswith("bias") and not weight.any():
                weight.normal_(0, 0.1)
        made.get_input_embeddings().weight[0].normal_(0, 0.3)
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
        probe.check(lm)
    return lm
