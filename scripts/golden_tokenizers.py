"""Writes tiny SentencePiece models, and the tokenizers that `transformers` makes of them.

Each folder under crates/checkpoints/tests/golden holds what a checkpoint without tokenizer.json has (config.json,
spiece.model, tokenizer_config.json), and `expected.json`: texts, their ids, and what the ids decode to. `tokenizer` there is
what `transformers` saves as tokenizer.json. scripts/golden.sh sets up Python and runs this; the same versions write the
same bytes.
"""

import io
import json
import pathlib
import shutil
import tempfile

import sentencepiece
from transformers import AutoTokenizer

FOLDER = pathlib.Path(__file__).resolve().parent.parent / "crates" / "checkpoints" / "tests" / "golden"
CORPUS = """Ann has 73 pens and gives away 18.
How many pens are left? The answer is (73 - 18) = 55.
Bob buys 12 apples and eats three of them every day.
There are 24 children in the class and 8 leave early.
Äpfel und Birnen kosten 3 Euro; naïve café déjà vu.
She reads twenty pages a day for a week, then stops.
Each box holds 6 jars, and each jar holds 10 beans.""".splitlines()
# A small map of characters: that of the published models is a quarter of a megabyte.
RULES = "FF21\t41\nFF22\t42\n3000\t20\n9\t20\nA\t20\nD\t20\nFB01\t66 69\nAD\t\n"
TEXTS = [
    "Ann has 73 pens and gives away 18.",
    "  two  spaces,   and three  ",
    "ＡＢ　ﬁne so\u00adft",
    "a line\nand\r\nanother\twith a tab",
    "日本 and 🙂 are unknown",
    "naïve café — déjà vu",
    "predict: <extra_id_0> is <extra_id_1>.",
    "an end</s> in the middle",
    "▁written▁so",
    "</s>",
    " ",
    "",
]


def train(**options) -> bytes:
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(RULES)
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(CORPUS * 4),
            model_writer=model,
            model_type="unigram",
            character_coverage=1.0,
            normalization_rule_tsv=rules.name,
            # Not the name of a file that is gone when the model is read.
            self_test_sample_size=0,
            num_threads=1,
            hard_vocab_limit=False,
            minloglevel=2,
            **options,
        )
    return model.getvalue()


def fresh(name: str, config: dict, tokenizer: dict | None) -> pathlib.Path:
    folder = FOLDER / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = dict(d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2) | config
    (folder / "config.json").write_text(json.dumps(config) + "\n")
    if tokenizer is not None:
        (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer) + "\n")
    return folder


def save(folder: pathlib.Path, expected: dict) -> None:
    text = json.dumps(expected, ensure_ascii=False, indent=1, sort_keys=True)
    (folder / "expected.json").write_text(text + "\n")
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{folder.name}: {size / 1000:.0f} kB")


def by_transformers(folder: pathlib.Path, texts: list[str], with_file: bool) -> dict:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = [(text, tokenizer(text)["input_ids"]) for text in texts]
    expected = {
        "texts": [
            {"text": text, "ids": ids, "decoded": tokenizer.decode(ids, skip_special_tokens=True)} for text, ids in rows
        ]
    }
    if with_file:
        with tempfile.TemporaryDirectory() as saved:
            tokenizer.save_pretrained(saved)
            expected["tokenizer"] = json.loads((pathlib.Path(saved) / "tokenizer.json").read_text())
    return expected


def main() -> None:
    t5 = dict(pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    # As google/t5-v1_1-* is published: no tokenizer_config.json that would say how many extra ids there are.
    folder = fresh("t5", dict(model_type="t5", vocab_size=256), None)
    (folder / "spiece.model").write_bytes(train(vocab_size=120, **t5))
    save(folder, by_transformers(folder, TEXTS, True))
    # As google/mt5-* is published: bytes among the pieces, and no extra ids.
    options = dict(tokenizer_class="T5Tokenizer", extra_ids=0)
    folder = fresh("mt5", dict(model_type="mt5", vocab_size=512), options)
    (folder / "spiece.model").write_bytes(train(vocab_size=370, byte_fallback=True, **t5))
    save(folder, by_transformers(folder, TEXTS, True))
    # The ids of MADLAD-400. `transformers` takes the unknown token to be id 2 whatever the model says: the expected ids are
    # those of SentencePiece itself, for texts without a token of its own in them.
    folder = fresh("madlad", dict(model_type="t5", vocab_size=128, pad_token_id=1, eos_token_id=2), dict(extra_ids=0))
    (folder / "spiece.model").write_bytes(train(vocab_size=120, unk_id=0, bos_id=1, eos_id=2, pad_id=-1))
    processor = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    plain = [text for text in TEXTS if "<" not in text]
    # `tokenizers` takes the sign for a space in a text to be a space already, SentencePiece does not.
    rows = [(text, processor.encode(text)) for text in plain if "▁" not in text]
    save(folder, {"texts": [{"text": text, "ids": [*ids, 2]} for text, ids in rows]})
    # Bytes, and no file of a vocabulary. In `transformers` the sentinels are no special tokens, as they are for every other
    # T5, and an end that is there already is not set again: texts with a token of its own in them are left out.
    folder = fresh("byt5", dict(model_type="t5", vocab_size=384, tokenizer_class="ByT5Tokenizer"), None)
    save(folder, by_transformers(folder, plain, False))
    # A vocabulary of another algorithm.
    folder = fresh("bpe", dict(model_type="t5", vocab_size=128), None)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        model_type="bpe",
        vocab_size=90,
        normalization_rule_name="identity",
        num_threads=1,
        hard_vocab_limit=False,
        minloglevel=2,
        **t5,
    )
    (folder / "spiece.model").write_bytes(model.getvalue())
    print(f"{folder.name}: {len(model.getvalue()) / 1000:.0f} kB")


if __name__ == "__main__":
    main()
