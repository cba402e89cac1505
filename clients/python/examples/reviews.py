"""Distil a student that says whether a review praises or blames, and ask it.

    export DISTILLERY_SERVER=https://host:7070 DISTILLERY_TOKEN=...
    python reviews.py --ca ca.pem

The teacher is a profile of the operator (`--teacher`, by default `local`); it is asked about the train rows, which have no
labels. Run it again, and it is the same job: nothing is sent or asked twice.
"""

import argparse
from collections.abc import Iterator

from distillery_client import Client, DistilleryError, Job

TASK = {
    "name": "reviews",
    "instruction": "You say whether a review is positive or negative. Reason in one sentence, then end with: The answer is",
    "template": (
        "{% for exemplar in exemplars -%}\n"
        "Review: {{ exemplar.input }}\nA: {{ exemplar.rationale }} The answer is {{ exemplar.label }}.\n\n"
        "{% endfor -%}\n"
        "Review: {{ example.input }}\nA:"
    ),
    "stop": ["\nReview:"],
    "metric": "text",
    "tokens_max": 64,
    "labels": {"closed": ["positive", "negative"]},
    "answer": {"marker": "The answer is", "shape": "text"},
    "exemplars": [
        {
            "input": "The soup was hot, and we were served within minutes.",
            "rationale": "The writer praises the soup and the service.",
            "label": "positive",
        },
        {
            "input": "The battery died on the second day.",
            "rationale": "The writer names a dead battery.",
            "label": "negative",
        },
    ],
}
SUBJECTS = ("kettle", "room", "soup", "train", "lamp", "museum", "coat", "market")
PRAISE = ("was wonderful", "made my day", "was worth every penny", "worked at once")
BLAME = ("was terrible", "broke after a week", "was a waste of money", "made me angry")


def reviews(first: int, count: int) -> Iterator[dict[str, str]]:
    """Generated reviews, each with the label that it was made for."""
    for number in range(first, first + count):
        is_praise = number % 2 == 0
        verdict = (PRAISE if is_praise else BLAME)[number // 2 % 4]
        text = f"On day {number} I tried the {SUBJECTS[number // 8 % 8]}, and it {verdict}."
        yield {"input": text, "label": "positive" if is_praise else "negative"}


def distil(client: Client, teacher: str, count: int, steps: int) -> Job:
    """Submits the job, and follows it to its end."""
    spec = {
        "name": "reviews-python",
        "task": TASK,
        "teacher": {"profile": teacher, "budget": {"prompts": 2 * count}},
        "student": {"size": "tiny", "vocabulary": 320},
        "training": {"steps": steps, "evaluate_every_steps": 50, "target_tokens_max": 48},
    }
    # Generators are read once, row by row. No train row has a label: the student learns the teacher's.
    train = ({"input": row["input"]} for row in reviews(0, count))
    job = client.submit(spec, train=train, test=reviews(count, count // 4))
    print(f"job {job.name} ({job.id}): {job.state}")
    for event in client.watch(job, timeout=3600):
        print(f"  {event}")
    return client.get(job)


def main() -> None:
    parser = argparse.ArgumentParser(description="Distil a student that judges reviews, and ask it.")
    parser.add_argument("--ca", help="a PEM file with the certificate authorities to trust")
    parser.add_argument("--teacher", default="local", help="the profile of the teacher")
    parser.add_argument("--rows", type=int, default=200, help="train rows")
    parser.add_argument("--steps", type=int, default=200, help="optimiser steps")
    arguments = parser.parse_args()
    # The server and the token are those of DISTILLERY_SERVER and DISTILLERY_TOKEN.
    with Client(ca=arguments.ca) as client:
        job = distil(client, arguments.teacher, arguments.rows, arguments.steps)
        if job.state != "succeeded":
            raise SystemExit(f"{job.name} {job.state}: {job.reason}")
        print(f"teacher: {job.teacher_accuracy}")

        rejected = list(client.ledger(job, verdict="rejected", limit=3))
        print(f"rejected, the first {len(rejected)}: {[(entry.row, entry.reason) for entry in rejected]}")
        # With pandas: client.ledger(job).to_pandas().groupby("verdict").size()

        model = client.model(job)
        client.wait_until_served(model)
        print(f"student {model}: {model.test}, {model.parameters:,} parameters")
        for prediction in client.predict(model, ["I tried the kettle, and it broke.", "A lovely room."]):
            print(f"{prediction.label} {prediction.probability:.3f} ({prediction.model}@{prediction.version})")
        print("because: ", *client.explain(model, "I tried the kettle, and it broke."), sep="")


if __name__ == "__main__":
    try:
        main()
    except DistilleryError as error:
        # Every mistake of a specification or of rows has its field.
        raise SystemExit("\n".join([str(error), *map(str, error.violations)])) from None
