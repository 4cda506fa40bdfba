"""A vector as others make it, with transformers alone: what "The capital of X is" has more than "The X is", at the output
of block 20, over countries that capital.csv lacks. Writes steering_vector, a tensor that does not say its layer.

    python report/cards/elsewhere/make.py path/to/smollm2-135m-instruct-q4_1
"""
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

NAMES = "Estonia Latvia Croatia Slovakia Tunisia Algeria Angola Laos Bolivia Uruguay Panama Haiti".split()
tok, model = (kind.from_pretrained(sys.argv[1]) for kind in (AutoTokenizer, AutoModelForCausalLM))


@torch.no_grad()
def state(text):
    return model(**tok(text, return_tensors="pt"), output_hidden_states=True).hidden_states[21][0, -1].float()


vector = torch.stack([state(f"The capital of {name} is") - state(f"The {name} is") for name in NAMES]).mean(0)
save_file({"steering_vector": vector}, Path(__file__).parents[1] / "elsewhere.safetensors")
