"""Writes tiny T5 checkpoints with random weights, and what `transformers` computes with them.

Each folder under crates/t5/tests/golden is a checkpoint as `save_pretrained` writes it, with `expected.safetensors`
beside it: inputs, logits, loss, gradients, greedy and beam output, the likelihoods of given answers, and the buckets of
the relative position bias. scripts/golden.sh sets up Python and runs this; the same versions write the same bytes.

    v1_0       ReLU, tied embeddings, more decoder blocks than encoder blocks
    v1_1       gated GELU, a head of its own, fewer decoder blocks, sources beyond the farthest bucket
    sharded    v1_0 again, in several files
    bfloat16   v1_1 in bfloat16
"""

import argparse
import copy
import json
import pathlib
import shutil

import torch
from safetensors.torch import save_file
from transformers import T5Config, T5ForConditionalGeneration
from transformers.models.t5.modeling_t5 import T5Attention
from transformers.utils.logging import disable_progress_bar

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "crates" / "t5" / "tests" / "golden"
IGNORED = -100
END = 1
TOKENS_MAX = 12
BEAMS = 3
SEEDS_MAX = 2_000
# Least distance between a choice and the next best one: no rounding, on whatever device, may turn it round.
MARGIN = 0.02

SHAPES = {
    "v1_0": dict(
        vocab_size=64,
        d_model=16,
        d_kv=4,
        d_ff=24,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=3,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
        feed_forward_proj="relu",
    ),
    "v1_1": dict(
        vocab_size=80,
        d_model=24,
        d_kv=8,
        d_ff=32,
        num_layers=2,
        num_decoder_layers=1,
        num_heads=2,
        feed_forward_proj="gated-gelu",
        tie_word_embeddings=False,
    ),
}
SOURCES = {"v1_0": [26, 17, 5], "v1_1": [140, 33, 6]}
TARGETS = [9, 4, 12]


def draw(name: str, seed: int) -> T5ForConditionalGeneration:
    """A model whose every weight matters: norms away from 1, biases that tell places apart."""
    torch.manual_seed(seed)
    config = T5Config(dropout_rate=0.0, decoder_start_token_id=0, **SHAPES[name])
    model = T5ForConditionalGeneration(config).eval()
    # Loading unties the head where a checkpoint has one of its own; a fresh model must be told to.
    if name == "v1_1":
        model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.shared.weight))
    with torch.no_grad():
        for parameter, weight in model.named_parameters():
            if "layer_norm" in parameter:
                weight.copy_(1 + 0.3 * torch.randn_like(weight))
            elif "relative_attention_bias" in parameter:
                weight.copy_(1.5 * torch.randn_like(weight))
            elif parameter == "shared.weight":
                weight.copy_(1.5 * torch.randn_like(weight))
            else:
                weight.copy_(1.5 * torch.randn_like(weight) / weight.shape[1] ** 0.5)
    return model


def inputs(name: str, vocabulary: int) -> dict[str, torch.Tensor]:
    lengths, targets = SOURCES[name], TARGETS
    generator = torch.Generator().manual_seed(7)
    input_ids = torch.zeros(len(lengths), max(lengths), dtype=torch.int64)
    labels = torch.full((len(targets), max(targets)), IGNORED)
    for row, (source, target) in enumerate(zip(lengths, targets, strict=True)):
        input_ids[row, : source - 1] = torch.randint(2, vocabulary, (source - 1,), generator=generator)
        input_ids[row, source - 1] = END
        labels[row, : target - 1] = torch.randint(2, vocabulary, (target - 1,), generator=generator)
        labels[row, target - 1] = END
    # A label in the middle that counts in no loss: the decoder reads padding in its place.
    labels[0, 3] = IGNORED
    mask = torch.arange(max(lengths)).unsqueeze(0) < torch.tensor(lengths).unsqueeze(1)
    candidates = torch.full((4, 5), IGNORED)
    for row, length in enumerate([1, 5, 3, 3]):
        candidates[row, :length] = torch.randint(2, vocabulary, (length,), generator=generator)
    return {"input_ids": input_ids, "input_mask": mask.long(), "labels": labels, "candidates": candidates}


def text(sequences: torch.Tensor) -> torch.Tensor:
    """Ids between the start token and the end token, -1 behind them."""
    rows = torch.full((sequences.shape[0], TOKENS_MAX), -1)
    for row, sequence in enumerate(sequences[:, 1:].tolist()):
        ids = sequence[: sequence.index(END)] if END in sequence else sequence
        rows[row, : len(ids)] = torch.tensor(ids, dtype=torch.int64)
    return rows


def written(model: T5ForConditionalGeneration, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor] | None:
    """Greedy and beam output; `None` where they would show little, or hang on a rounding."""
    # Without the cache: transformers sizes it by the encoder's blocks, and fails where the decoder has more.
    common = dict(
        input_ids=given["input_ids"],
        attention_mask=given["input_mask"],
        max_new_tokens=TOKENS_MAX,
        do_sample=False,
        output_scores=True,
        return_dict_in_generate=True,
        use_cache=False,
    )
    greedy = model.generate(num_beams=1, **common)
    rows = text(greedy.sequences)
    lengths = (rows >= 0).sum(1).tolist()
    # Rows that end early and rows that do not; several tokens in each.
    if min(lengths) < 2 or max(lengths) < TOKENS_MAX or min(lengths) == TOKENS_MAX:
        return None
    for place, logits in enumerate(greedy.scores):
        best = logits.topk(2, dim=-1).values
        open_rows = torch.tensor([place <= length for length in lengths])
        if ((best[:, 0] - best[:, 1])[open_rows] < MARGIN).any():
            return None
    beam = model.generate(num_beams=BEAMS, num_return_sequences=BEAMS, length_penalty=1.0, early_stopping=False, **common)
    scores = beam.sequences_scores.reshape(-1, BEAMS)
    found = text(beam.sequences).reshape(-1, BEAMS, TOKENS_MAX)[:, 0]
    if (scores[:, 0] - scores[:, 1] < MARGIN).any() or (found[:, 0] < 0).any():
        return None
    lengths = (found >= 0).sum(1).tolist()
    if (found == rows).all() or min(lengths) == TOKENS_MAX or max(lengths) < TOKENS_MAX:
        return None
    # Long texts wanted: here it shows when the search is given up.
    long = model.generate(num_beams=2, length_penalty=2.0, early_stopping=False, **common)
    return {"greedy": rows, "beam": found.contiguous(), "beam_long": text(long.sequences)}


def likelihoods(model: T5ForConditionalGeneration, given: dict[str, torch.Tensor]) -> torch.Tensor:
    """`[row, candidate]`: the log-likelihood of each candidate, its end token counted."""
    scores = torch.zeros(len(given["input_ids"]), len(given["candidates"]))
    for row in range(len(given["input_ids"])):
        for place, candidate in enumerate(given["candidates"].tolist()):
            labels = torch.tensor([[id for id in candidate if id != IGNORED] + [END]])
            logits = model(
                input_ids=given["input_ids"][row : row + 1],
                attention_mask=given["input_mask"][row : row + 1],
                labels=labels,
            ).logits
            taken = logits.log_softmax(-1).gather(-1, labels.unsqueeze(-1))
            scores[row, place] = taken.sum()
    return scores


def buckets(config: T5Config) -> dict[str, torch.Tensor]:
    """The bucket of every distance from -300 to 300."""
    distances = torch.arange(-300, 301)
    return {
        f"buckets.{stack}": T5Attention._relative_position_bucket(
            distances,
            bidirectional=stack == "encoder",
            num_buckets=config.relative_attention_num_buckets,
            max_distance=config.relative_attention_max_distance,
        )
        for stack in ("encoder", "decoder")
    }


def expected(model: T5ForConditionalGeneration, given: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    model.zero_grad()
    output = model(input_ids=given["input_ids"], attention_mask=given["input_mask"], labels=given["labels"])
    output.loss.backward()
    gradients = {f"gradient.{name}": weight.grad for name, weight in model.named_parameters()}
    with torch.no_grad():
        scores = likelihoods(model, given)
        # How far its own bfloat16 goes astray: the measure for ours.
        half = copy.deepcopy(model).to(torch.bfloat16)
        rounded = half(input_ids=given["input_ids"], attention_mask=given["input_mask"], labels=given["labels"])
    return {
        "logits": output.logits.detach(),
        "loss": output.loss.detach().reshape(1),
        "logits_bfloat16": rounded.logits.float(),
        "candidate_scores": scores,
        **gradients,
        **buckets(model.config),
    }


def write(folder: pathlib.Path, model: T5ForConditionalGeneration, tensors: dict, **options) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    model.save_pretrained(folder, **options)
    (folder / "generation_config.json").unlink(missing_ok=True)
    if tensors:
        tensors = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(tensors, folder / "expected.safetensors")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: {size / 1000:.0f} kB")


def publish(folder: pathlib.Path) -> None:
    """config.json as the published checkpoints have it. Since version 5, `transformers` writes that every T5 is tied,
    and whether it is v1.0 into `scale_decoder_outputs`; `sharded` and `bfloat16` stay so."""
    path = folder / "config.json"
    fields = json.loads(path.read_text())
    scaled, _ = fields.pop("scale_decoder_outputs"), fields.pop("tie_word_embeddings")
    if not scaled:
        fields["tie_word_embeddings"] = False
    path.write_text(json.dumps(fields, indent=2) + "\n")


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    torch.set_num_threads(1)
    disable_progress_bar()
    for name in SHAPES:
        given = inputs(name, SHAPES[name]["vocab_size"])
        for seed in range(SEEDS_MAX):
            model = draw(name, seed)
            output = written(model, given)
            if output is not None:
                break
        else:
            raise SystemExit(f"{name}: no seed below {SEEDS_MAX} writes texts worth comparing")
        print(f"{name}: seed {seed}, greedy {output['greedy'].tolist()}, beam {output['beam'].tolist()}")
        tensors = {**given, **output, **expected(model, given)}
        write(FOLDER / name, model, tensors)
        publish(FOLDER / name)
        if name == "v1_0":
            write(FOLDER / "sharded", model, {}, max_shard_size="20KB")
        else:
            half = model.to(torch.bfloat16)
            rounded = draw(name, seed)
            rounded.load_state_dict({key: value.float() for key, value in half.state_dict().items()})
            # What the rounded weights compute in float32.
            write(FOLDER / "bfloat16", half, {**given, **expected(rounded, given)})


if __name__ == "__main__":
    main()
