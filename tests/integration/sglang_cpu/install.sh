#!/usr/bin/env bash
# The unmodified SGLang 0.5.23 wheel on a CPU without CUDA, AMX or AVX512, for the integration tests.
# usage: install.sh VENV     (Python 3.11 or later; PYTHON names another than python3; about 3.4 GB)
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
venv=${1:?usage: install.sh VENV}
done_mark="$venv/.selfplay-installed"
stamp=$(cat "$0" "$here/requirements.txt" "$here"/platform/selfplay_sglang_cpu/*.py | cksum)
if [ -f "$done_mark" ] && [ "$(cat "$done_mark")" = "$stamp" ] && "$venv/bin/python" -c ""; then
  exit 0
fi
"${PYTHON:-python3}" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or later" >&2; exit 1; }
"${PYTHON:-python3}" -m venv "$venv"
# TORCH_INDEX may name an index with CPU builds (https://download.pytorch.org/whl/cpu), which spare gigabytes of CUDA.
"$venv/bin/pip" install -q --disable-pip-version-check uv
"$venv/bin/pip" install -q --disable-pip-version-check torch==2.13.0 ${TORCH_INDEX:+--index-url "$TORCH_INDEX"}
pip=("$venv/bin/uv" pip install -q --python "$venv/bin/python")
echo 'torch==2.13.0' >"$venv/override.txt"
"${pip[@]}" -r "$here/requirements.txt" --override "$venv/override.txt" --prerelease=allow
# SGLang's own pins name CUDA builds, so it and its binary neighbours go in without their requirements;
# this torchvision is the newest that imports beside a CPU torch from the same index.
"${pip[@]}" --no-deps sglang==0.5.23 xgrammar==0.2.7 torchvision==0.15.2 setuptools
# Built from a copy, so that no build folder is left in the repository.
platform=$(mktemp -d)
trap 'rm -rf "$platform"' EXIT
cp -r "$here/platform/." "$platform"
"${pip[@]}" --no-deps --no-build-isolation "$platform"
# What selfplay itself needs when it runs in this environment (`--in-process`) and SGLang did not bring.
"${pip[@]}" "httpx>=0.27" "polars>=1.20" "rapidfuzz>=3.9" "rich>=13.7" "tenacity>=9"
echo "$stamp" >"$done_mark"
