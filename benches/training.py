"""Measure optimiser steps against `transformers`, by turns in one run, and print ratios.

    python benches/training.py PROGRAM [--quick] [--json] [--case TEXT] [--format NAME]

PROGRAM is the example `training` of this project. The reference is the paper's trainer: two forwards a step (labels
and rationales, each padded to its longest row), `alpha * label + (1 - alpha) * rationale`, float32 weights, autocast
for bfloat16, fused AdamW, gradients clipped at 1, dropout 0.1; plain, and compiled where that works. Every side is a
process of its own with the same threads; all make the same steps by turns: two warm up, then each round times one
step of each side. A ratio is the reference's median over ours.
"""

import argparse
import json
import os
import pathlib
import random
import resource
import statistics
import subprocess
import sys
import time

EXAMPLES, VOCABULARY, DROPOUT, ALPHA = 16, 32_128, 0.1, 0.5
LENGTHS = json.loads((pathlib.Path(__file__).parent / "lengths.json").read_text())
CASES = {
    "small 64/32": [[64, 32, 32]],
    "small 256/64": [[256, 64, 64]],
    "small svamp": LENGTHS["svamp"],
    "small cqa": LENGTHS["cqa"],
}
QUICK = ["small 64/32", "small svamp", "small cqa"]
ROUNDS, QUICK_ROUNDS, WARM_UP = 9, 5, 2


def batch_lengths(case: str, number: int) -> list[list[int]]:
    lengths = CASES[case]
    return [lengths[(number * EXAMPLES + place) % len(lengths)] for place in range(EXAMPLES)]


def peer(case: str, number_format: str, threads: int, is_compiled: bool) -> None:
    """Answer lines of standard input as PROGRAM does: a step's number, or `figures`."""
    import torch
    from transformers import T5Config, T5ForConditionalGeneration

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=VOCABULARY,
        d_model=512,
        d_kv=64,
        d_ff=1024,
        num_layers=8,
        num_heads=6,
        feed_forward_proj="gated-gelu",
        dropout_rate=DROPOUT,
        tie_word_embeddings=False,
        decoder_start_token_id=0,
    )
    model = T5ForConditionalGeneration(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)
    forward = torch.compile(model, dynamic=True) if is_compiled else model

    def padded(rows: list[int], source: random.Random, filling: int) -> "torch.Tensor":
        widest = max(rows)
        ids = [[source.randrange(3, VOCABULARY) for _ in range(row)] + [filling] * (widest - row) for row in rows]
        return torch.tensor(ids)

    def batches(number: int) -> list[dict]:
        lengths, source = batch_lengths(case, number), random.Random(number)
        inputs = padded([row[0] for row in lengths], source, 0)
        mask = (inputs != 0).long()
        targets = [padded([row[place] for row in lengths], source, -100) for place in (1, 2)]
        return [{"input_ids": inputs, "attention_mask": mask, "labels": target} for target in targets]

    def step(number: int) -> dict:
        label, rationale = batches(number)
        began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=number_format == "bfloat16"):
            loss = ALPHA * forward(**label).loss + (1 - ALPHA) * forward(**rationale).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        seconds = time.perf_counter() - began
        computed = sum(batch[key].numel() for batch in (label, rationale) for key in ("input_ids", "labels"))
        return {"seconds": seconds, "real": real_tokens(case, number), "computed": computed}

    for line in sys.stdin:
        if line.strip() == "figures":
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
            print(json.dumps({"peak_mb": round(peak)}), flush=True)
        else:
            print(json.dumps(step(int(line))), flush=True)


def real_tokens(case: str, number: int) -> int:
    return sum(2 * source + label + rationale for source, label, rationale in batch_lengths(case, number))


class Side:
    """A process that makes steps."""

    def __init__(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        self.name = name
        self.seconds: list[float] = []
        self.told: dict = {}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
        )

    def ask(self, line: str) -> dict:
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            said = self.process.stderr.read().strip().splitlines()
            raise RuntimeError(f"{self.name} ended: {said[-1] if said else 'without a word'}")
        return json.loads(answer)

    def step(self, number: int, *, is_timed: bool) -> None:
        self.told = self.ask(str(number))
        if is_timed:
            self.seconds.append(self.told["seconds"])

    def close(self) -> dict:
        figures = self.ask("figures")
        self.process.stdin.close()
        self.process.wait(timeout=60)
        return figures


def side(program: str, case: str, number_format: str, threads: int, kind: str) -> Side:
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if kind == "ours":
        return Side(kind, [program, "rounds", case, number_format, str(threads)], environment)
    words = [sys.executable, __file__, program, "--peer", kind, "--case", case]
    return Side(kind, [*words, "--format", number_format, "--threads", str(threads)], environment)


def measure(program: str, case: str, number_format: str, threads: int, kinds: list[str], rounds: int) -> dict:
    sides, refused = [], {}
    for kind in kinds:
        made = side(program, case, number_format, threads, kind)
        try:
            for number in range(WARM_UP):
                made.step(number, is_timed=False)
        except RuntimeError as error:
            refused[kind] = str(error)
            made.process.kill()
        else:
            sides.append(made)
    for number in range(rounds):
        for one in sides:
            one.step(number, is_timed=True)
    out = {"case": case, "format": number_format, "rounds": rounds, "refused": refused, "sides": {}}
    for one in sides:
        low, middle, high = min(one.seconds), statistics.median(one.seconds), max(one.seconds)
        told = one.told
        out["sides"][one.name] = {
            "median_s": round(middle, 4),
            "least_s": round(low, 4),
            "most_s": round(high, 4),
            "padded_over_real": round(told["computed"] / told["real"], 3),
        } | one.close()
    ours = out["sides"]["ours"]
    ours["products_share"] = round(ours["products_ms"] / ours["median_s"] / 1e3, 3)
    ours["update_share"] = round(ours["update_ms"] / ours["median_s"] / 1e3, 3)
    out["ratios"] = {
        name: round(figures["median_s"] / ours["median_s"], 2) for name, figures in out["sides"].items() if name != "ours"
    }
    return out


def key(case: str) -> str:
    return case.removeprefix("small ").replace("/", "_")


def show(result: dict) -> None:
    print(f"\n{result['case']} {result['format']}, {result['rounds']} rounds")
    for name, figures in result["sides"].items():
        spread = f"{figures['median_s']:.3f} s ({figures['least_s']:.3f} to {figures['most_s']:.3f})"
        more = [f"{figures['padded_over_real']} computed/real", f"peak {figures['peak_mb']:,.0f} MB"]
        if name == "ours":
            more.append(f"products {figures['products_share']:.0%} at {figures['products_gflops']:,.0f} GFLOP/s")
            more.append(f"AdamW {figures['update_share']:.1%}")
        print(f"  {name:12} {spread}, {', '.join(more)}")
    for name, reason in result["refused"].items():
        print(f"  {name:12} not measured: {reason}")
    print("  " + ", ".join(f"{ratio:.2f} times {name}" for name, ratio in result["ratios"].items()), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="bfloat16 at three lengths, three rounds, nothing compiled")
    parser.add_argument("--json", action="store_true", help="one object with the ratios, and nothing else")
    parser.add_argument("--case", default="", help="only cases with this in their name")
    parser.add_argument("--format", default="", choices=["", "float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--peer", choices=["plain", "compiled"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        peer(arguments.case, arguments.format, arguments.threads, arguments.peer == "compiled")
        return
    cases = [case for case in (QUICK if arguments.quick else CASES) if arguments.case in case]
    formats = [arguments.format] if arguments.format else ["bfloat16"] if arguments.quick else ["bfloat16", "float32"]
    kinds = ["ours", "plain"] if arguments.quick else ["ours", "plain", "compiled"]
    ratios = {}
    for case in cases:
        for number_format in formats:
            rounds = QUICK_ROUNDS if arguments.quick else ROUNDS
            result = measure(arguments.program, case, number_format, arguments.threads, kinds, rounds)
            if not arguments.json:
                show(result)
            if number_format == "bfloat16" and "plain" in result["ratios"]:
                ratios[key(case)] = result["ratios"]["plain"]
    print(json.dumps({"training": ratios}))


if __name__ == "__main__":
    main()
