"""Measure greedy decoding against CTranslate2, onnxruntime and OpenVINO, int8 all, in one run, and print ratios.

    python benches/serving.py PROGRAM [--quick] [--json] [--size small|base]

PROGRAM is the example `speed` of crate `decoder`. Every side has a T5 v1.1 of the same shape with random weights,
reads 64 tokens and writes 32, on the same threads; a figure is tokens a second over encoder and decoder, the median
of nine runs after a warm-up. This project is measured before and behind its peers, and its lower median counts. A
ratio is ours over the peer's.
"""

import argparse
import json
import math
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

SOURCE, TARGET, RUNS, VOCABULARY, BUCKETS = 64, 32, 9, 32_128, 32
# d_model, d_kv, d_ff, layers, heads
SHAPES = {"small": (512, 64, 1024, 8, 6), "base": (768, 64, 2048, 12, 12)}
BATCHES = (1, 16)


def ids(rows: int) -> np.ndarray:
    numbers = [[3 + (row * 7919 + place * 104_729) % 32_000 for place in range(SOURCE)] for row in range(rows)]
    return np.array(numbers, np.int64)


def tokens_per_second(rows: int, generate) -> list[float]:
    """Median, least and most of nine runs."""
    generate()
    found = []
    for _ in range(RUNS):
        began = time.perf_counter()
        generate()
        found.append(rows * TARGET / (time.perf_counter() - began))
    return [statistics.median(found), min(found), max(found)]


def weights(size: str) -> dict[str, np.ndarray]:
    width, head, inner_width, layers, heads = SHAPES[size]
    inner = heads * head
    draw = np.random.default_rng(0)

    def normal(rows: int, columns: int, deviation: float) -> np.ndarray:
        return draw.standard_normal((rows, columns), np.float32) * np.float32(deviation)

    found = {"shared": normal(VOCABULARY, width, 1.0), "head": normal(VOCABULARY, width, width**-0.5)}
    for stack, attentions in (("encoder", ["self"]), ("decoder", ["self", "cross"])):
        found[f"{stack}.bias"] = normal(BUCKETS, heads, width**-0.5)
        found[f"{stack}.norm"] = np.ones(width, np.float32)
        for layer in range(layers):
            for attention in attentions:
                name = f"{stack}.{layer}.{attention}"
                found[f"{name}.q"] = normal(inner, width, (width * head) ** -0.5)
                found[f"{name}.k"] = normal(inner, width, width**-0.5)
                found[f"{name}.v"] = normal(inner, width, width**-0.5)
                found[f"{name}.o"] = normal(width, inner, inner**-0.5)
                found[f"{name}.norm"] = np.ones(width, np.float32)
            name = f"{stack}.{layer}.wide"
            found[f"{name}.gate"] = normal(inner_width, width, width**-0.5)
            found[f"{name}.value"] = normal(inner_width, width, width**-0.5)
            found[f"{name}.out"] = normal(width, inner_width, inner_width**-0.5)
            found[f"{name}.norm"] = np.ones(width, np.float32)
    return found


class Graph:
    """One ONNX graph: the encoder with all keys and values of cross-attention, or one step of the decoder."""

    def __init__(self, size: str, found: dict[str, np.ndarray]) -> None:
        self.found = found
        _, self.head, _, self.layers, self.heads = SHAPES[size]
        self.nodes, self.constants, self.inputs, self.outputs, self.count = [], [], [], [], 0

    def name(self) -> str:
        self.count += 1
        return f"t{self.count}"

    def constant(self, value: np.ndarray) -> str:
        name = self.name()
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def op(self, kind: str, *inputs: str, outputs: int = 1, **settings):
        names = [self.name() for _ in range(outputs)]
        self.nodes.append(helper.make_node(kind, list(inputs), names, **settings))
        return names[0] if outputs == 1 else names

    def given(self, name: str, shape: list, kind: int = TensorProto.FLOAT) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, kind, shape))
        return name

    def result(self, name: str, value: str, shape: list, kind: int = TensorProto.FLOAT) -> None:
        self.nodes.append(helper.make_node("Identity", [value], [name]))
        self.outputs.append(helper.make_tensor_value_info(name, kind, shape))

    def linear(self, x: str, *names: str) -> str:
        return self.op("MatMul", x, self.constant(np.concatenate([self.found[name] for name in names]).T))

    def norm(self, x: str, name: str) -> str:
        squares = self.op("ReduceMean", self.op("Mul", x, x), self.constant(np.array([-1])), keepdims=1)
        root = self.op("Sqrt", self.op("Add", squares, self.constant(np.array(1e-6, np.float32))))
        scaled = self.op("Mul", x, self.op("Reciprocal", root))
        return self.op("Mul", scaled, self.constant(self.found[name]))

    def split_heads(self, x: str) -> str:
        shape = self.constant(np.array([0, -1, self.heads, self.head]))
        return self.op("Transpose", self.op("Reshape", x, shape), perm=[0, 2, 1, 3])

    def attend(self, query: str, key: str, value: str, bias: str | None) -> str:
        scores = self.op("MatMul", query, self.op("Transpose", key, perm=[0, 1, 3, 2]))
        if bias:
            scores = self.op("Add", scores, bias)
        mixed = self.op("Transpose", self.op("MatMul", self.op("Softmax", scores, axis=-1), value), perm=[0, 2, 1, 3])
        return self.op("Reshape", mixed, self.constant(np.array([0, -1, self.heads * self.head])))

    def feed_forward(self, x: str, name: str) -> str:
        normed = self.norm(x, f"{name}.norm")
        gate = self.op("Gelu", self.linear(normed, f"{name}.gate"), approximate="tanh")
        wide = self.op("Mul", gate, self.linear(normed, f"{name}.value"))
        return self.op("Add", x, self.linear(wide, f"{name}.out"))

    def queries_keys_values(self, x: str, name: str) -> list[str]:
        projected = self.linear(self.norm(x, f"{name}.norm"), f"{name}.q", f"{name}.k", f"{name}.v")
        parts = self.op("Split", projected, outputs=3, axis=-1, num_outputs=3)
        return [self.split_heads(part) for part in parts]

    def encoder(self) -> "Graph":
        bias = self.given("bias", [1, self.heads, "S", "S"])
        x = self.op("Gather", self.constant(self.found["shared"]), self.given("ids", ["B", "S"], TensorProto.INT64))
        for layer in range(self.layers):
            name = f"encoder.{layer}"
            query, key, value = self.queries_keys_values(x, f"{name}.self")
            x = self.op("Add", x, self.linear(self.attend(query, key, value, bias), f"{name}.self.o"))
            x = self.feed_forward(x, f"{name}.wide")
        x = self.norm(x, "encoder.norm")
        for layer in range(self.layers):
            for part, short in (("k", "ck"), ("v", "cv")):
                projected = self.split_heads(self.linear(x, f"decoder.{layer}.cross.{part}"))
                self.result(f"{short}{layer}", projected, ["B", self.heads, "S", self.head])
        return self

    def decoder(self) -> "Graph":
        bias = self.given("bias", [1, self.heads, 1, "Q"])
        x = self.op("Gather", self.constant(self.found["shared"]), self.given("token", ["B", 1], TensorProto.INT64))
        later = []
        for layer in range(self.layers):
            name = f"decoder.{layer}"
            query, *next_ones = self.queries_keys_values(x, f"{name}.self")
            caches = []
            for short, part in zip(("k", "v"), next_ones, strict=True):
                past = self.given(f"{short}{layer}", ["B", self.heads, "T", self.head])
                caches.append(self.op("Concat", past, part, axis=2))
                later.append((f"next_{short}{layer}", caches[-1]))
            x = self.op("Add", x, self.linear(self.attend(query, *caches, bias), f"{name}.self.o"))
            cross = [self.given(f"{short}{layer}", ["B", self.heads, "S", self.head]) for short in ("ck", "cv")]
            query = self.split_heads(self.linear(self.norm(x, f"{name}.cross.norm"), f"{name}.cross.q"))
            x = self.op("Add", x, self.linear(self.attend(query, *cross, None), f"{name}.cross.o"))
            x = self.feed_forward(x, f"{name}.wide")
        logits = self.linear(self.norm(x, "decoder.norm"), "head")
        self.result("next", self.op("ArgMax", logits, axis=-1, keepdims=0), ["B", 1], TensorProto.INT64)
        for name, value in later:
            self.result(name, value, ["B", self.heads, "Q", self.head])
        return self

    def save(self, path: pathlib.Path) -> None:
        graph = helper.make_graph(self.nodes, path.stem, self.inputs, self.outputs, self.constants)
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), path)


def biases(found: dict[str, np.ndarray]) -> tuple[np.ndarray, list[np.ndarray]]:
    """Of the encoder `[1, heads, query, key]`, and of each step of the decoder."""

    def bucket(distance: int, count: int, base: int) -> int:
        exact = count // 2
        if distance < exact:
            return base + distance
        return base + min(count - 1, exact + int(math.log(distance / exact) / math.log(128 / exact) * (count - exact)))

    encoder, decoder = found["encoder.bias"], found["decoder.bias"]

    def two_sided(distance: int) -> np.ndarray:
        return encoder[bucket(abs(distance), BUCKETS // 2, BUCKETS // 2 if distance > 0 else 0)]

    table = np.array([[two_sided(key - query) for key in range(SOURCE)] for query in range(SOURCE)])
    steps = [
        np.array([decoder[bucket(place - key, BUCKETS, 0)] for key in range(place + 1)]).T[None, :, None, :]
        for place in range(TARGET)
    ]
    return np.ascontiguousarray(table.transpose(2, 0, 1)[None]), [np.ascontiguousarray(step) for step in steps]


def graphs(size: str, found: dict[str, np.ndarray], folder: pathlib.Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for kind in ("encoder", "decoder"):
        getattr(Graph(size, found), kind)().save(folder / f"{kind}.onnx")
        quantize_dynamic(
            folder / f"{kind}.onnx",
            folder / f"{kind}.int8.onnx",
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=["MatMul"],
            extra_options={"MatMulConstBOnly": True},
        )


def onnxruntime(size: str, folder: pathlib.Path, found: dict, threads: int):
    import onnxruntime as runtime

    _, head, _, layers, heads = SHAPES[size]
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1

    def session(kind: str):
        return runtime.InferenceSession(folder / f"{kind}.int8.onnx", options, providers=["CPUExecutionProvider"])

    encoder, decoder = session("encoder"), session("decoder")
    names = [output.name for output in decoder.get_outputs()]
    encoder_bias, step_bias = biases(found)
    value = runtime.OrtValue.ortvalue_from_numpy

    def generate(rows: int) -> None:
        read = encoder.run_with_ort_values(None, {"ids": value(ids(rows)), "bias": value(encoder_bias)})
        feeds = {output.name: read[place] for place, output in enumerate(encoder.get_outputs())}
        nothing = value(np.zeros((rows, heads, 0, head), np.float32))
        feeds |= {f"{short}{layer}": nothing for layer in range(layers) for short in ("k", "v")}
        feeds["token"] = value(np.zeros((rows, 1), np.int64))
        for place in range(TARGET):
            feeds["bias"] = value(step_bias[place])
            feeds["token"], *caches = decoder.run_with_ort_values(names, feeds)
            feeds |= {name.removeprefix("next_"): cache for name, cache in zip(names[1:], caches, strict=True)}

    return generate


def openvino(size: str, folder: pathlib.Path, found: dict, threads: int):
    import openvino as runtime

    _, head, _, layers, heads = SHAPES[size]
    settings = {"INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1, "PERFORMANCE_HINT": "LATENCY"}
    core = runtime.Core()
    encoder, decoder = (core.compile_model(folder / f"{kind}.int8.onnx", "CPU", settings) for kind in ("encoder", "decoder"))
    reading, writing = encoder.create_infer_request(), decoder.create_infer_request()

    def name(output) -> str:
        return next(name for name in output.names if name.startswith(("next", "ck", "cv")))

    encoder_names = [name(output) for output in encoder.outputs]
    names = [name(output) for output in decoder.outputs]
    encoder_bias, step_bias = biases(found)

    def generate(rows: int) -> None:
        reading.infer({"ids": ids(rows), "bias": encoder_bias})
        for place, given in enumerate(encoder_names):
            writing.set_tensor(given, reading.get_output_tensor(place))
        nothing = np.zeros((rows, heads, 0, head), np.float32)
        for layer in range(layers):
            for short in ("k", "v"):
                writing.set_tensor(f"{short}{layer}", runtime.Tensor(nothing))
        token = np.zeros((rows, 1), np.int64)
        for place in range(TARGET):
            writing.set_tensor("token", runtime.Tensor(token))
            writing.set_tensor("bias", runtime.Tensor(step_bias[place]))
            writing.infer()
            token = writing.get_output_tensor(0).data.copy()
            for number, given in enumerate(names[1:], start=1):
                kept = runtime.Tensor(writing.get_output_tensor(number).data.copy())
                writing.set_tensor(given.removeprefix("next_"), kept)

    return generate


def ctranslate2(size: str, folder: pathlib.Path, found: dict, threads: int):
    import ctranslate2 as runtime
    from ctranslate2.specs import common_spec, transformer_spec

    _, _, _, layers, heads = SHAPES[size]
    spec = transformer_spec.TransformerSpec.from_config(
        (layers, layers),
        heads,
        pre_norm=True,
        activation=common_spec.Activation.GELUTanh,
        ffn_glu=True,
        relative_attention_bias=True,
        rms_norm=True,
    )
    for stack, part in (("encoder", spec.encoder), ("decoder", spec.decoder)):
        part.layer_norm.gamma = found[f"{stack}.norm"]
        embedding = part.embeddings[0] if isinstance(part.embeddings, list) else part.embeddings
        embedding.weight, part.scale_embeddings = found["shared"], False
        for layer, block in enumerate(part.layer):
            name = f"{stack}.{layer}"
            own, wide = block.self_attention, block.ffn
            own.queries_scale = 1.0
            own.linear[0].weight = np.concatenate([found[f"{name}.self.{part}"] for part in "qkv"])
            own.linear[-1].weight, own.layer_norm.gamma = found[f"{name}.self.o"], found[f"{name}.self.norm"]
            own.relative_attention_bias = found[f"{stack}.bias"]
            own.relative_attention_max_distance = np.dtype("int32").type(128)
            if stack == "decoder":
                cross = block.attention
                cross.queries_scale, cross.linear[0].weight = 1.0, found[f"{name}.cross.q"]
                cross.linear[1].weight = np.concatenate([found[f"{name}.cross.{part}"] for part in "kv"])
                cross.linear[-1].weight, cross.layer_norm.gamma = found[f"{name}.cross.o"], found[f"{name}.cross.norm"]
            wide.linear_0.weight, wide.linear_0_noact.weight = found[f"{name}.wide.gate"], found[f"{name}.wide.value"]
            wide.linear_1.weight, wide.layer_norm.gamma = found[f"{name}.wide.out"], found[f"{name}.wide.norm"]
    spec.decoder.projection.weight = found["head"]
    words = ["<pad>", "</s>", "<unk>", *(f"w{number}" for number in range(3, VOCABULARY))]
    spec.register_source_vocabulary(words)
    spec.register_target_vocabulary(words)
    config = spec.config
    config.bos_token, config.eos_token, config.unk_token, config.decoder_start_token = "<pad>", "</s>", "<unk>", "<pad>"
    config.add_source_eos = False
    spec.validate()
    spec.optimize(quantization=None)
    out = folder / "ctranslate2"
    out.mkdir()
    spec.save(str(out))
    translator = runtime.Translator(str(out), compute_type="int8", inter_threads=1, intra_threads=threads)

    def generate(rows: int) -> None:
        source = [[f"w{number}" for number in row] for row in ids(rows).tolist()]
        translator.translate_batch(
            source, beam_size=1, min_decoding_length=TARGET, max_decoding_length=TARGET, max_batch_size=rows
        )

    return generate


def ours(program: str, size: str, threads: int) -> tuple[dict[int, list[float]], list[dict]]:
    said = subprocess.run([program, size, "1,16", str(threads)], check=True, capture_output=True, text=True).stdout
    rows = [json.loads(line) for line in said.splitlines()]
    return {row["batch"]: row["tokens_per_second"] for row in rows if "batch" in row}, rows


def measure(program: str, size: str, threads: int, is_quiet: bool) -> dict[str, dict[str, float]]:
    found = weights(size)
    peers: dict[str, dict[int, list[float]]] = {}
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        before, _ = ours(program, size, threads)
        graphs(size, found, folder)
        for peer in (ctranslate2, onnxruntime, openvino):
            generate = peer(size, folder, found, threads)
            peers[peer.__name__] = {
                rows: tokens_per_second(rows, lambda rows=rows, generate=generate: generate(rows)) for rows in BATCHES
            }
            del generate
        behind, rows = ours(program, size, threads)
    ratios = {}
    for batch in BATCHES:
        own = min(before[batch], behind[batch])
        of = {peer: figures[batch][0] for peer, figures in peers.items()}
        ratios[f"{size}_b{batch}"] = {"best_peer": round(own[0] / max(of.values()), 2)} | {
            peer: round(own[0] / figure, 2) for peer, figure in of.items()
        }
        if not is_quiet:
            everyone = {"here": own} | {peer: figures[batch] for peer, figures in peers.items()}
            shown = (f"{who} {a:,.0f} ({low:,.0f} to {high:,.0f})" for who, (a, low, high) in everyone.items())
            print(f"{size}, batch {batch}, {threads} threads, tokens a second: {', '.join(shown)}", flush=True)
    if not is_quiet:
        for row in rows:
            print(json.dumps(row))
    return ratios


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--quick", action="store_true", help="only the small shape")
    parser.add_argument("--json", action="store_true", help="one object with the ratios, and nothing else")
    parser.add_argument("--size", choices=sorted(SHAPES))
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    arguments = parser.parse_args()
    sizes = [arguments.size] if arguments.size else ["small"] if arguments.quick else ["small", "base"]
    ratios: dict[str, dict[str, float]] = {}
    for size in sizes:
        ratios |= measure(arguments.program, size, arguments.threads, arguments.json)
    print(json.dumps({"serving": ratios}))


if __name__ == "__main__":
    main()
