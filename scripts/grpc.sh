#!/usr/bin/env bash
# Python's gRPC, from PyPI, for the test whose client is written in another language. Prints the interpreter that has it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

GRPC_VERSION=1.85.1

home=$(scripts/pypi.sh grpc "grpcio==$GRPC_VERSION" "grpcio-tools==$GRPC_VERSION" "grpcio-reflection==$GRPC_VERSION")
printf '%s\n' "$home/bin/python"
