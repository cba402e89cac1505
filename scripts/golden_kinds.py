"""Writes a tiny checkpoint of every kind of T5 that is read, and what `transformers` computes with it.

Each folder under crates/t5/tests/golden/kinds holds config.json and weights as checkpoints of that kind have them, and
`expected.safetensors`: inputs, logits, loss, greedy output, and the gradients of the embeddings and the output projection.
`transformers` opens the finished folder for that, so that what is expected is what it reads there. docs/MODELS.md lists the
kinds, and those that are refused, which have no `expected.safetensors`. scripts/golden.sh sets up Python and runs this; the
same versions write the same bytes.
"""

import json
import pathlib
import shutil
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoModelForSeq2SeqLM,
    MT5Config,
    MT5ForConditionalGeneration,
    T5Config,
    T5EncoderModel,
    T5ForConditionalGeneration,
    UMT5Config,
    UMT5ForConditionalGeneration,
)
from transformers.utils.logging import disable_progress_bar, set_verbosity_error

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "crates" / "t5" / "tests" / "golden" / "kinds"
VOCABULARY = 28
TOKENS_MAX = 8
SEEDS_MAX = 3_000
IGNORED = -100
# Least distance between a choice and the next best one: no rounding, on whatever device, may turn it round.
MARGIN = 0.02
SHAPE = dict(
    vocab_size=VOCABULARY,
    d_model=8,
    d_kv=4,
    d_ff=12,
    num_layers=1,
    num_decoder_layers=1,
    num_heads=2,
    relative_attention_num_buckets=8,
    relative_attention_max_distance=20,
    dropout_rate=0.0,
    decoder_start_token_id=0,
)
SHARED, ENCODER, DECODER, HEAD = (
    "shared.weight",
    "encoder.embed_tokens.weight",
    "decoder.embed_tokens.weight",
    "lm_head.weight",
)
TABLES = (SHARED, ENCODER, DECODER, HEAD)

Tensors = dict[str, torch.Tensor]
Fields = dict[str, object]


def draw(config: T5Config | MT5Config | UMT5Config, seed: int) -> Tensors:
    """Weights of which every one matters, under the names of a checkpoint; no table but the shared one."""
    classes = {"t5": T5ForConditionalGeneration, "mt5": MT5ForConditionalGeneration, "umt5": UMT5ForConditionalGeneration}
    model = classes[config.model_type](config)
    torch.manual_seed(seed)
    tensors = {}
    for name, weight in model.named_parameters():
        if "layer_norm" in name:
            tensors[name] = 1 + 0.3 * torch.randn_like(weight)
        elif "relative_attention_bias" in name or name == SHARED:
            tensors[name] = 1.5 * torch.randn_like(weight)
        elif name not in TABLES:
            tensors[name] = 1.5 * torch.randn_like(weight) / weight.shape[1] ** 0.5
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def table() -> torch.Tensor:
    return torch.randn(VOCABULARY, SHAPE["d_model"])


def own_head(tensors: Tensors) -> None:
    tensors[HEAD] = table()


def head_only(tensors: Tensors) -> None:
    tensors[HEAD] = tensors.pop(SHARED)


def decoder_only(tensors: Tensors) -> None:
    tensors[DECODER] = tensors.pop(SHARED)
    tensors[HEAD] = table()


def two_embeddings(tensors: Tensors) -> None:
    tensors[ENCODER] = tensors.pop(SHARED)
    tensors[DECODER] = 1.5 * table()
    tensors[HEAD] = table()


def second_embedding(tensors: Tensors) -> None:
    tensors[DECODER] = 1.5 * table()
    own_head(tensors)


def as_is(_: Tensors) -> None:
    pass


def to(dtype: torch.dtype) -> Callable[[Tensors], None]:
    def convert(tensors: Tensors) -> None:
        own_head(tensors)
        tensors.update({name: tensor.to(dtype) for name, tensor in tensors.items()})

    return convert


GATED = dict(feed_forward_proj="gated-gelu")
V1_1 = dict(model_type="t5", tie_word_embeddings=False, **GATED)
# Fields of config.json beyond the shape, and what the files hold; fields of generation_config.json where there is one.
KINDS: dict[str, tuple[Fields, Callable[[Tensors], None], Fields | None]] = {
    "v1_0": (dict(model_type="t5", feed_forward_proj="relu"), as_is, None),
    "v1_1": (V1_1, own_head, None),
    "flan": (V1_1 | dict(n_positions=512, output_past=True, dense_act_fn="gelu_new", is_gated_act=True), own_head, None),
    "v1_1-transformers-5": (
        dict(model_type="t5", tie_word_embeddings=True, scale_decoder_outputs=False, **GATED),
        own_head,
        None,
    ),
    "v1_1-scratch-transformers-5": (
        dict(model_type="t5", tie_word_embeddings=True, scale_decoder_outputs=False, **GATED),
        as_is,
        None,
    ),
    "mt5": (dict(model_type="mt5", tie_word_embeddings=False, **GATED), own_head, None),
    "mt5-transformers-5": (dict(model_type="mt5", tie_word_embeddings=True, **GATED), own_head, None),
    "mt5-scratch-transformers-5": (dict(model_type="mt5", tie_word_embeddings=True, **GATED), as_is, None),
    "ul2": (
        dict(
            model_type="t5",
            tie_word_embeddings=False,
            feed_forward_proj="gated-silu",
            dense_act_fn="silu",
            is_gated_act=True,
        ),
        own_head,
        None,
    ),
    "gated-gelu-erf": (V1_1 | dict(dense_act_fn="gelu", is_gated_act=True), own_head, None),
    "gated-relu": (V1_1 | dict(feed_forward_proj="gated-relu"), own_head, None),
    "gelu-new": (dict(model_type="t5", feed_forward_proj="gelu_new"), as_is, None),
    "dense-act-fn-silu": (V1_1 | dict(dense_act_fn="silu", is_gated_act=True), own_head, None),
    "madlad": (V1_1 | dict(pad_token_id=1, eos_token_id=2), decoder_only, None),
    "scaled-own-head": (
        dict(model_type="t5", tie_word_embeddings=True, scale_decoder_outputs=True, **GATED),
        own_head,
        None,
    ),
    "head-only": (dict(model_type="t5", feed_forward_proj="relu"), head_only, None),
    "two-embeddings": (V1_1, two_embeddings, None),
    "second-embedding": (V1_1, second_embedding, None),
    "float64": (V1_1 | dict(dtype="float64"), to(torch.float64), None),
    "float16": (V1_1, to(torch.float16), None),
    "several-ends": (
        V1_1 | dict(eos_token_id=[1]),
        own_head,
        dict(eos_token_id=[1, 5, 6], pad_token_id=0, decoder_start_token_id=0),
    ),
}


def inputs() -> Tensors:
    generator = torch.Generator().manual_seed(11)
    input_ids = torch.randint(3, VOCABULARY, (3, 7), generator=generator)
    labels = torch.randint(3, VOCABULARY, (3, 5), generator=generator)
    mask = torch.arange(7).unsqueeze(0) < torch.tensor([7, 4, 2]).unsqueeze(1)
    # A label in the middle that counts in no loss: the decoder reads padding in its place.
    labels[0, 2] = IGNORED
    labels[1, 3:] = IGNORED
    return {"input_ids": input_ids, "input_mask": mask.long(), "labels": labels}


def greedy(model: T5ForConditionalGeneration, given: Tensors) -> torch.Tensor | None:
    """Ids between the start token and the end, then -1; `None` if they would show little, or depend on rounding."""
    output = model.generate(
        input_ids=given["input_ids"],
        attention_mask=given["input_mask"],
        max_new_tokens=TOKENS_MAX,
        do_sample=False,
        num_beams=1,
        output_logits=True,
        return_dict_in_generate=True,
    )
    ends = model.generation_config.eos_token_id
    ends = set(ends if isinstance(ends, list) else [ends])
    rows = torch.full((len(output.sequences), TOKENS_MAX), -1)
    stopped = set()
    for row, sequence in enumerate(output.sequences[:, 1:].tolist()):
        for place, token in enumerate(sequence):
            best = output.logits[place][row].topk(2).values
            if best[0] - best[1] < MARGIN:
                return None
            if token in ends:
                stopped.add(token)
                break
            rows[row, place] = token
    lengths = (rows >= 0).sum(1).tolist()
    # Where there are several ends, one that is not the first must show.
    if max(lengths) < 4 or min(lengths) > 6 or (len(ends) > 1 and not stopped - {1}):
        return None
    return rows


def compute(folder: pathlib.Path, given: Tensors) -> Tensors | None:
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    if model.dtype == torch.float16:
        # What the rounded weights compute in float32.
        model = model.float()
    written = greedy(model, given)
    if written is None:
        return None
    output = model(input_ids=given["input_ids"], attention_mask=given["input_mask"], labels=given["labels"])
    output.loss.backward()
    gradients = {f"gradient.{name}": weight.grad.float() for name, weight in model.named_parameters() if name in TABLES}
    return {
        "logits": output.logits.detach().float(),
        "loss": output.loss.detach().float().reshape(1),
        "greedy": written,
        **gradients,
    }


def write(name: str, fields: Fields, store: Callable[[Tensors], None], generation: Fields | None, seed: int) -> pathlib.Path:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    ids = dict(pad_token_id=0, eos_token_id=1, is_encoder_decoder=True)
    config = SHAPE | ids | fields
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    if generation:
        (folder / "generation_config.json").write_text(json.dumps(generation, indent=2) + "\n")
    classes = {"t5": T5Config, "mt5": MT5Config, "umt5": UMT5Config}
    tensors = draw(classes[fields["model_type"]].from_pretrained(folder), seed)
    store(tensors)
    tensors = {key: tensors[key].contiguous() for key in sorted(tensors)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def write_refused() -> None:
    """Kinds that are refused."""
    write("umt5", dict(model_type="umt5", **GATED), as_is, None, 0)
    write("unknown-activation", V1_1 | dict(dense_act_fn="mish", is_gated_act=True), own_head, None, 0)
    # `transformers` before 5 ties this head, and version 5 scales it.
    write("head-differs", dict(model_type="t5", **GATED), own_head, None, 0)
    write("ends-differ", V1_1, own_head, dict(eos_token_id=2, decoder_start_token_id=0), 0)
    # An encoder alone, as image generators carry it.
    folder = FOLDER / "encoder-only"
    shutil.rmtree(folder, ignore_errors=True)
    torch.manual_seed(0)
    T5EncoderModel(T5Config(feed_forward_proj="gated-gelu", tie_word_embeddings=False, **SHAPE)).save_pretrained(folder)
    name = "decoder.block.0.layer.2.DenseReluDense.wo.weight"
    for kind, dtype in [("overflowed", torch.float16), ("int8", torch.int8)]:
        folder = write(kind, V1_1, own_head, None, 0)
        tensors = load_file(folder / "model.safetensors")
        # Beyond float16: a conversion makes it infinite.
        tensors[name][3, 5] = 70_000
        converted = {key: tensor.half() for key, tensor in tensors.items()} | {name: tensors[name].to(dtype)}
        save_file(converted, folder / "model.safetensors", metadata={"format": "pt"})
    print("refused kinds: written")


def main() -> None:
    torch.set_num_threads(1)
    disable_progress_bar()
    set_verbosity_error()
    given = inputs()
    for name, (fields, store, generation) in KINDS.items():
        for seed in range(SEEDS_MAX):
            folder = write(name, fields, store, generation, seed)
            found = compute(folder, given)
            if found is not None:
                break
        else:
            raise SystemExit(f"{name}: no seed below {SEEDS_MAX} writes texts worth comparing")
        tensors = {key: tensor.contiguous() for key, tensor in {**given, **found}.items()}
        save_file(tensors, folder / "expected.safetensors")
        size = sum(file.stat().st_size for file in folder.iterdir())
        print(f"{name}: seed {seed}, {size / 1000:.0f} kB, greedy {found['greedy'].tolist()}", flush=True)
    write_refused()


if __name__ == "__main__":
    main()
