#!/usr/bin/env python3
"""Compares exported models with `transformers`, which loads them from the same folders.

    compare.py FOLDER...

A folder is what `regla export` wrote, with two files more: `logits.safetensors`, of `regla logits`
for `ids.json`, and `generated.json`, of `regla generate --temperature 0 --json`. For each one line:
the largest difference of the logits over the largest, and how many tokens agree. Exits with 1 where
logits differ by more than 2e-5 of the largest or one token does, with 77 where a package is missing.
"""

import json
import pathlib
import sys

try:
    import torch
    import transformers
    from safetensors.torch import load_file
except ImportError as error:
    print(f"no comparison with transformers: {error}")
    sys.exit(77)

BOUND = 2e-5  # an exact GELU in place of the approximate one would hide at 1e-4


@torch.no_grad()
def compare(folder):
    """Whether a folder's model computes the same there."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = torch.tensor(json.loads((folder / "ids.json").read_text()))
    expected = load_file(folder / "logits.safetensors")["logits"]
    difference = ((model(ids).logits - expected).abs().max() / expected.abs().max()).item()

    generated = json.loads((folder / "generated.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    prompt = tokenizer(generated["prompt"], return_tensors="pt")
    same_prompt = prompt["input_ids"][0].tolist() == generated["prompt_ids"]
    count = len(generated["ids"])
    answer = model.generate(**prompt, max_new_tokens=count, do_sample=False)
    tokens = answer[0, prompt["input_ids"].shape[1]:].tolist()
    same = sum(a == b for a, b in zip(tokens, generated["ids"]))
    print(f"{folder.name}: logits differ by {difference:.1e} of the largest, "
          f"{same} of {count} tokens agree{'' if same_prompt else ', the prompt does not'}")
    return difference <= BOUND and same_prompt and same == count


def main():
    transformers.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    print(f"transformers {transformers.__version__}, torch {torch.__version__}")
    results = [compare(pathlib.Path(folder)) for folder in sys.argv[1:]]
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
