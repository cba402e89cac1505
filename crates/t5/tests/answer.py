"""Opens checkpoints with `transformers` and says what they answer: the other side of transformers.rs.

Arguments: folders that hold a checkpoint each and `given.safetensors` (`input_ids`, `input_mask`, `labels`). Beside it
goes `answered.safetensors`: `logits`, and greedy ids as `generate` returns them.
"""

import pathlib
import sys

import torch
from safetensors.torch import load_file, save_file
from transformers import T5ForConditionalGeneration
from transformers.utils.logging import disable_progress_bar

disable_progress_bar()
for name in sys.argv[1:]:
    folder = pathlib.Path(name)
    given = load_file(folder / "given.safetensors")
    model, loading = T5ForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
    # Older versions call them lists, newer ones sets.
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        if loading[kind]:
            raise SystemExit(f"{folder}: {kind}: {sorted(loading[kind])}")
    if model.dtype != torch.float32:
        raise SystemExit(f"{folder}: loaded as {model.dtype}")
    model.eval()
    with torch.no_grad():
        logits = model(input_ids=given["input_ids"], attention_mask=given["input_mask"], labels=given["labels"]).logits
        # Without the cache: transformers sizes it by the encoder's blocks, and fails where the decoder has more.
        greedy = model.generate(
            input_ids=given["input_ids"],
            attention_mask=given["input_mask"],
            max_new_tokens=12,
            num_beams=1,
            do_sample=False,
            use_cache=False,
        )
    save_file({"logits": logits.contiguous(), "greedy": greedy.contiguous()}, folder / "answered.safetensors")
