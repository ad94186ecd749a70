#!/bin/sh
# Makes src/haina/wire/v1/haina_pb2.py from haina.proto. The result is committed; tests/wire/test_proto.py fails when it is not what the .proto gives.
#   proto/generate.sh [OUT]     OUT is src unless told; needs grpcio-tools (PYTHON names the interpreter that has it)
set -eu
cd "$(dirname "$0")/.."
# The .proto is compiled as haina/wire/v1/haina.proto, so that the module lands, and registers itself, where the package keeps it.
"${PYTHON:-python3}" -m grpc_tools.protoc -I haina/wire/v1=proto/haina/v1 --python_out="${1:-src}" haina/wire/v1/haina.proto
