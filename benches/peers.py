"""Measure transformers and CTranslate2 on the model that `measure` saved, and print one table, ratios last.

    python peers.py FOLDER OURS.jsonl

FOLDER contains the model in Hugging Face layout; OURS.jsonl is the output of `measure`. Lengths, threads, rows and weights
are the same for all; each figure is the median of five rounds after a warm-up round.
"""

import argparse
import json
import os
import pathlib
import statistics
import time

import ctranslate2
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import PreTrainedTokenizerFast, T5ForConditionalGeneration

VOCABULARY, SOURCE, TARGET, EXAMPLES, ROUNDS = 32_128, 64, 32, 16, 5
THREADS = os.cpu_count() or 1


def ids(rows: int, length: int) -> torch.Tensor:
    numbers = [[3 + (row * 7919 + place * 104_729) % 32_000 for place in range(length)] for row in range(rows)]
    return torch.tensor(numbers)


def median_seconds(work) -> float:
    work()
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        work()
        rounds.append(time.perf_counter() - began)
    return statistics.median(rounds)


def train(folder: str, bfloat16: bool) -> float:
    model = T5ForConditionalGeneration.from_pretrained(folder).train()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-9, weight_decay=0.0, fused=True)
    rows = EXAMPLES * 2
    batch = {"input_ids": ids(rows, SOURCE), "attention_mask": torch.ones(rows, SOURCE), "labels": ids(rows, TARGET)}

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bfloat16):
            loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    return median_seconds(step)


def decode(folder: str, rows: int, dtype: torch.dtype) -> tuple[float, list[int]]:
    model = T5ForConditionalGeneration.from_pretrained(folder, dtype=dtype).eval()
    given = {"input_ids": ids(rows, SOURCE), "attention_mask": torch.ones(rows, SOURCE, dtype=torch.int64)}
    written = []

    def generate() -> None:
        with torch.inference_mode():
            output = model.generate(**given, min_new_tokens=TARGET, max_new_tokens=TARGET, do_sample=False, num_beams=1)
        written[:] = output[0, 1:].tolist()

    return median_seconds(generate), written


def ctranslate2_model(folder: pathlib.Path) -> pathlib.Path:
    words = {"<pad>": 0, "</s>": 1, "<unk>": 2} | {f"w{number}": number for number in range(3, VOCABULARY)}
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, unk_token="<unk>")),
        pad_token="<pad>",
        eos_token="</s>",
        unk_token="<unk>",
    )
    tokenizer.save_pretrained(folder)
    out = folder / "ctranslate2"
    ctranslate2.converters.TransformersConverter(str(folder)).convert(str(out), force=True)
    return out


def decode_ctranslate2(folder: pathlib.Path, rows: int, compute_type: str) -> float:
    translator = ctranslate2.Translator(str(folder), compute_type=compute_type, inter_threads=1, intra_threads=THREADS)
    source = [[f"w{number}" for number in row] for row in ids(rows, SOURCE).tolist()]
    options = dict(beam_size=1, min_decoding_length=TARGET, max_decoding_length=TARGET, max_batch_size=rows)
    return median_seconds(lambda: translator.translate_batch(source, **options))


def measure_all(folder: pathlib.Path, ours: list[dict]) -> None:
    mine = {row["what"]: row["seconds"] for row in ours}
    lines = []

    def compare(what: str, unit: str, amount: float, key: str, peers: dict[str, float]) -> None:
        own = amount / mine[key]
        shown = ", ".join(f"{name} {amount / seconds:.1f}" for name, seconds in peers.items())
        fastest = min(peers.values())
        lines.append((what, unit, f"{own:.1f}", shown, f"{fastest / mine[key]:.2f}"))

    rows = EXAMPLES
    for name, bfloat16 in [("float32", False), ("bfloat16", True)]:
        peers = {"transformers": train(str(folder), bfloat16)}
        compare(f"training step, {rows} examples, both tasks, {name}", "examples/s", rows, f"train {name}", peers)
    exported = ctranslate2_model(folder)
    for name, dtype in [("float32", torch.float32), ("bfloat16", torch.bfloat16)]:
        for rows in (1, 16):
            seconds, written = decode(str(folder), rows, dtype)
            if name == "float32" and rows == 1:
                own = next(row["first"] for row in ours if row["what"] == "decode float32 1")
                print(f"greedy float32 tokens agree with transformers: {own == written}")
            peers = {"transformers": seconds}
            for compute_type in ("float32", "int8"):
                peers[f"CTranslate2 {compute_type}"] = decode_ctranslate2(exported, rows, compute_type)
            compare(
                f"greedy decoding, {TARGET} tokens, batch {rows}, {name}",
                "tokens/s",
                rows * TARGET,
                f"decode {name} {rows}",
                peers,
            )
    print(f"\n{THREADS} threads; T5 v1.1 small shape, random weights, {SOURCE} tokens in\n")
    print("| what | unit | here | peers | here / fastest peer |\n| --- | --- | --- | --- | --- |")
    for line in lines:
        print(f"| {' | '.join(line)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("ours", type=pathlib.Path)
    arguments = parser.parse_args()
    torch.set_num_threads(THREADS)
    torch.manual_seed(0)
    measure_all(arguments.folder, [json.loads(line) for line in arguments.ours.read_text().splitlines()])


if __name__ == "__main__":
    main()
