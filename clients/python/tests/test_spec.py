"""Specifications and rows as people write them."""

import json
from pathlib import Path

import pytest

from distillery_client import DistilleryError
from distillery_client._holdout import Holdout, normalised
from distillery_client._proto import spec_pb2, types_pb2
from distillery_client._rows import examples
from distillery_client._spec import read

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
SOUND: dict[str, object] = {"name": "job", "task": "equation"}
TASK: dict[str, object] = {
    "name": "t",
    "template": "{{ example.input }}",
    "stop": ["\n"],
    "labels": "open",
    "metric": "text",
    "answer": {"marker": "So", "shape": "text"},
}


def violations(spec: dict[str, object]) -> list[str]:
    with pytest.raises(DistilleryError) as caught:
        read(spec)
    assert caught.value.code == "INVALID_ARGUMENT"
    return [str(violation) for violation in caught.value.violations]


@pytest.mark.skipif(not EXAMPLES.is_dir(), reason="the examples are not beside this package")
def test_every_example_can_be_read() -> None:
    found = [path for path in sorted(EXAMPLES.glob("*/*.toml")) if "[data]" in path.read_text()]
    specs = [read(path) for path in found if "\ninit =" not in path.read_text()]
    assert len(specs) >= 8
    reviews = read(EXAMPLES / "reviews/spec.toml")
    assert reviews.message.judging.label == spec_pb2.LABEL_SOURCE_TEACHER
    assert (reviews.message.training.steps, reviews.message.training.learning_rate) == (500, 5e-4)
    assert reviews.closed_labels == ["positive", "negative"]
    assert len(reviews.message.task.exemplars) > 1
    assert reviews.data is not None and [split for split, _ in reviews.data.files] == ["train", "test"]


def test_values_become_those_of_the_message() -> None:
    message = read(
        SOUND
        | {
            "teacher": {"profiles": ["a", "b"], "until": "no_gain", "budget": {"prompts": 7}, "rows": None},
            "judging": {"hint": True, "agree": False},
            "student": {"size": "tiny"},
            "training": {"objective": "step_by_step", "alpha": 1, "seed": 2**63},
            "study": {"seeds": [1]},
        }
    ).message
    assert (list(message.teacher.profiles), message.teacher.until) == (["a", "b"], spec_pb2.ASK_UNTIL_NO_GAIN)
    assert (message.teacher.budget.prompts, message.teacher.HasField("rows")) == (7, False)
    assert (message.judging.hint, message.judging.HasField("agree"), message.judging.agree) == (2, True, False)
    assert (message.student.size, message.training.objective) == (1, spec_pb2.OBJECTIVE_STEP_BY_STEP)
    assert (message.training.alpha, message.training.seed) == (1.0, 2**63)


def test_every_mistake_of_a_specification_is_named_by_its_key() -> None:
    found = violations(
        {
            "trainnig": {},
            "task": "equatoin",
            "teacher": {"samples": -1, "batch": 1, "profiles": "a", "budget": {"promts": 1}},
            "judging": [],
            "student": {"size": "giant", "init": "folder"},
            "training": {"steps": "many", "alpha": True, "seed": 2**64},
        }
    )
    wanted = [
        "trainnig: is not a known key: did you mean `training`?",
        "name: is missing",
        "task: `equatoin` is neither a built-in task nor a path that ends in .toml: did you mean `equation`?",
        "teacher.samples: must be an integer from 0, and is -1",
        "teacher.batch: must be true or false, and is 1",
        "teacher.profiles: must be a list of texts, and is `a`",
        "teacher.budget.promts: is not a known key: did you mean `prompts`?",
        "judging: must be a table, and is of type list",
        "student.init: is the command line's: register the folder with it, and name it as `base`",
        "student.size: is `giant`: write one of tiny, mini, small, base, large",
        "training.steps: must be an integer from 0, and is `many`",
        "training.alpha: must be a number, and is True",
        "training.seed: must be an integer from 0, and is 18446744073709551616",
    ]
    assert found == wanted


def test_every_mistake_of_a_task_is_named_by_its_key(tmp_path: Path) -> None:
    assert read(SOUND | {"task": TASK}).message.task.answer_marker == "So"
    wrong = TASK | {"stop": ["\n", 7], "labels": {"close": []}, "metric": "txt", "exemplars": [{"rational": "x"}]}
    assert violations(SOUND | {"task": {key: value for key, value in wrong.items() if key != "answer"}}) == [
        "task.answer: is missing",
        "task.stop[1]: must be text, and is 7",
        "task.metric: is `txt`: write one of text, equation",
        "task.exemplars[0].rational: is not a known key: did you mean `rationale`?",
        "task.labels: must be `open`, `choices`, or a table with the list `closed`",
    ]
    assert violations(SOUND | {"task": TASK | {"answer": {"markr": "So"}}}) == [
        "task.answer.markr: is not a known key: did you mean `marker`?",
        "task.answer.marker: is missing",
        "task.answer.shape: is missing",
    ]
    assert "none.toml: cannot be read" in violations(SOUND | {"task": "none.toml"})[0]
    (tmp_path / "t.toml").write_text("name =")
    with pytest.raises(DistilleryError, match="is not TOML"):
        read(tmp_path / "t.toml")


def test_every_mistake_of_the_data_is_named_by_its_key() -> None:
    def data(**table: object) -> list[str]:
        return violations(SOUND | {"data": table})

    assert data(trian="r.csv")[0] == "data.trian: is not a known key: did you mean `train`?"
    assert data(dataset="d", train="r.csv")[0].startswith("data.dataset: names an imported dataset")
    assert data(train="r.csv", test="t.csv", test_share=0.2) == [
        "data.test_share: contradicts `data.test`, which names these rows: remove one of them"
    ]
    assert data(train="r.csv", test_share=0.5, validation_share=0.5)[0].startswith("data.test_share: leaves no train row")
    assert data(train="r.csv", test_share=1e-9) == ["data.test_share: is 1e-09: it must be above 0 and below 1"]
    assert data(train="r.csv", split_seed=1)[0].startswith("data.split_seed: only makes sense with")
    assert data(train="r.csv", columns={"input": "a", "label": "a"})[0].startswith("data.columns.label: is column `a`")
    assert data(test="t.csv")[0].startswith("data: has no train rows")


def test_files_of_rows_are_read_as_the_command_line_reads_them(tmp_path: Path) -> None:
    lines = '{"input": "a", "label": 1.10}\n\n{"input": "b", "label": NaN, "id": 7}\n{"input": "c", "label": true}\n'
    path = tmp_path / "rows.jsonl"
    path.write_text("\ufeff" + lines)
    a, b, c = examples(path, "train")
    assert (a.label, b.HasField("label"), b.key, c.label) == ("1.10", False, "7", "true")
    path.write_text(lines.replace("true", 'true, "label2": 1'))
    with pytest.raises(DistilleryError, match=r"rows.jsonl:4: label2: is not a field of a row: did you mean `label`\?"):
        list(examples(path, "train"))
    array = tmp_path / "rows.json"
    array.write_text(json.dumps([{"input": "a", "choices": ["x", "y"]}, {"input": "b"}], indent=1))
    assert [(row.input, list(row.choices)) for row in examples(array, None)] == [("a", ["x", "y"]), ("b", [])]
    table = tmp_path / "rows.tsv"
    table.write_text('\tinput\tchoices\tlabel\n0\ta "b" c\t"[""x"", ""y""]"\t\n'.replace('a "b" c', '"a\nb"'))
    (row,) = examples(table, None)
    assert (row.input, list(row.choices), row.HasField("label")) == ("a\nb", ["x", "y"], False)
    table.write_text("input\tlabel\na\n")
    with pytest.raises(DistilleryError, match="rows.tsv:2: has 1 cells"):
        list(examples(table, None))
    for name, words in [("r.parquet", "names no format"), ("none.csv", "cannot be read")]:
        with pytest.raises(DistilleryError, match=words):
            list(examples(tmp_path / name, None))


def test_rows_of_python_and_pandas_are_read() -> None:
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"input": ["a", "b", "c"], "label": [1.5, None, 2], "id": [1, 2, 3]})
    rows = list(examples(table.to_dict("records"), "test"))
    assert [(row.input, row.label, row.key, row.split) for row in rows] == [
        ("a", "1.5", "1", types_pb2.SPLIT_TEST),
        ("b", "", "2", types_pb2.SPLIT_TEST),
        ("c", "2.0", "3", types_pb2.SPLIT_TEST),
    ]
    (row,) = examples([{"input": "half \ud83d", "rationale": "because", "split": "dev", "label": pandas.NA}], None)
    assert (row.input, row.split, row.HasField("label")) == ("half \ufffd", types_pb2.SPLIT_VALIDATION, False)
    assert [(answer.teacher, answer.rationale) for answer in row.answers] == [("import", "because")]
    with pytest.raises(DistilleryError) as caught:
        list(examples([{"split": "test", "input": None, "choices": "xy"}, {"split": "none"}], "train"))
    assert [violation.field for violation in caught.value.violations] == [
        "train[0].split",
        "train[0].choices",
        "train[1].split",
    ]


def test_mistakes_that_are_collected_are_bounded() -> None:
    seen = 0

    def endless() -> object:
        nonlocal seen
        while True:
            seen += 1
            yield {"inptu": "x"}

    with pytest.raises(DistilleryError, match="and 12 more") as caught:
        list(examples(endless(), "train"))  # type: ignore[arg-type]
    assert (len(caught.value.violations), seen) == (20, 20)


def test_the_rows_that_are_held_out_are_the_command_lines() -> None:
    rows = [types_pb2.Example(input=f"row {place}", label="ab"[place % 2] + "."[: place % 3 % 2]) for place in range(40)]
    holdout = Holdout(0.1, 0.2, 7)
    holdout.divide(rows, is_closed=True)
    splits = [holdout.split_of(row) for row in rows]
    for label in "ab":
        of_label = [split for row, split in zip(rows, splits) if normalised(row.label) == label]
        assert [sum(split == side for split in of_label) for side in (1, 2, 3)] == [14, 2, 4]
    other = Holdout(0.3, 0.2, 7)
    other.divide(reversed(rows), is_closed=True)
    # Another validation share leaves the test rows as they are.
    assert [split == 3 for split in splits] == [other.split_of(row) == 3 for row in rows]
    assert (normalised(" Ｙｅｓ\u00a0 it  IS. "), normalised("no。")) == ("yes it is", "no")
