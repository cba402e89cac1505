#!/usr/bin/env bash
# Clients of the API over HTTP that others wrote, and a checker of OpenAPI documents, from PyPI. Prints the interpreter that has them.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

home=$(scripts/pypi.sh http-clients openai==3.57.0 'tritonclient[http,grpc]==2.73.0' openapi-spec-validator==0.9.0)
printf '%s\n' "$home/bin/python"
