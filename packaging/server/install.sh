#!/bin/sh
# Install the server into a virtual environment of its own: install.sh FOLDER. The Dockerfile runs it too.
# TORCH_INDEX names another package index for PyTorch, such as its own with the build without CUDA, ten times smaller.
set -eu
cd "$(dirname "$0")/../.."
target=$1
${PYTHON:-python3} -m venv "$target"
export PIP_CONSTRAINT="$PWD/constraints.txt" PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
index=${TORCH_INDEX-}
"$target/bin/pip" install --quiet ${index:+--index-url "$index"} torch torchvision
"$target/bin/pip" install --quiet ".[server]"
"$target/bin/pip" install --quiet --no-deps monailabel pydicom-seg
