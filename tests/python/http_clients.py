"""Clients that others wrote, against a server: OpenAI's, Triton's over HTTP and gRPC, and a checker of OpenAPI documents.

    python http_clients.py HOST:PORT MODEL OPENAPI_FILE        (the token in DISTILLERY_TOKEN)

It prints one JSON object with what they got.
"""

import json
import os
import pathlib
import sys
import urllib.request

import numpy
import openai
import tritonclient.grpc
import tritonclient.http
from openapi_spec_validator import OpenAPIV31SpecValidator

TEXTS = ["3 + 4 pens?", "9 - 2 pens?"]


def main() -> None:
    address, model, document = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
    token = os.environ["DISTILLERY_TOKEN"]
    headers = {"authorization": f"Bearer {token}"}
    request = urllib.request.Request(f"http://{address}/openapi.json", headers=dict(headers))
    with urllib.request.urlopen(request, timeout=60) as answer:
        served = json.load(answer)
    for api in (served, json.loads(document.read_text())):
        OpenAPIV31SpecValidator(api).validate()
    found = {
        "paths": len(served["paths"]),
        "openai": completions(openai.OpenAI(base_url=f"http://{address}/v1", api_key=token, timeout=60), model),
        "http": inferred(tritonclient.http, tritonclient.http.InferenceServerClient(address), model, headers),
        "grpc": inferred(tritonclient.grpc, tritonclient.grpc.InferenceServerClient(address), model, headers),
    }
    print(json.dumps(found))


def completions(client: openai.OpenAI, model: str) -> dict[str, object]:
    prompt = f"predict: {TEXTS[0]}"
    whole = client.completions.create(model=model, prompt=prompt, max_tokens=8, temperature=0)
    pieces = client.completions.create(model=model, prompt=prompt, max_tokens=8, temperature=0, stream=True)
    many = client.completions.create(model=model, prompt=[prompt, prompt], max_tokens=8)
    try:
        client.completions.create(model="nobody", prompt=prompt)
        refused = ""
    except openai.NotFoundError as error:
        refused = str(error)
    return {
        "models": [entry.id for entry in client.models.list()],
        "whole": whole.choices[0].text,
        "streamed": "".join(piece.choices[0].text for piece in pieces),
        "many": [choice.text for choice in many.choices],
        "refused": refused,
    }


def inferred(module: object, client: object, model: str, headers: dict[str, str]) -> dict[str, object]:
    """Labels as a client of Triton's gets them: over HTTP as bytes behind the JSON and in it."""
    texts = numpy.array([text.encode() for text in TEXTS], dtype=object)
    given = module.InferInput("input", [len(TEXTS)], "BYTES")
    given.set_data_from_numpy(texts)
    answers = {"binary": client.infer(model, [given], headers=dict(headers))}
    if module is tritonclient.http:
        given.set_data_from_numpy(texts, binary_data=False)
        wanted = [module.InferRequestedOutput("label", binary_data=False)]
        answers["json"] = client.infer(model, [given], outputs=wanted, headers=dict(headers))
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready() and client.is_model_ready(model, headers=dict(headers)),
        **{
            how: [bytes(label).decode() if isinstance(label, bytes) else str(label) for label in answer.as_numpy("label")]
            for how, answer in answers.items()
        },
    }


if __name__ == "__main__":
    main()
