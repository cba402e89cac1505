"""Client of Distillery, which distils a large teacher language model into a small T5 student.

    from distillery_client import Client

    with Client("https://host:7070", token="...") as client:
        job = client.submit("spec.toml")
        for event in client.watch(job):
            print(event)
        for prediction in client.predict(job.name, ["The kettle broke after a week.", "A lovely room."]):
            print(prediction.label, prediction.probabilities)

Every method raises `DistilleryError` where a call fails, or where a specification or a row cannot be sent. Other arguments
of a wrong type or out of range are a `TypeError` or a `ValueError`, as Python has them.
"""

from distillery_client._client import Client, Input, Ledger
from distillery_client._errors import DistilleryError, Violation
from distillery_client._records import Accuracy, Dataset, Entry, Event, Harvest, Job, Model, Prediction
from distillery_client._rows import Row, Rows

__all__ = [
    "Accuracy",
    "Client",
    "Dataset",
    "DistilleryError",
    "Entry",
    "Event",
    "Harvest",
    "Input",
    "Job",
    "Ledger",
    "Model",
    "Prediction",
    "Row",
    "Rows",
    "Violation",
]
__version__ = "0.1.0"
