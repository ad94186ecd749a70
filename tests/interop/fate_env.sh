#!/bin/sh
# FATE in environments of its own, for the tests that run it; once, about 1.7 GB and three minutes.
#   tests/interop/fate_env.sh [FOLDER]      FOLDER: $HAINA_FATE, or .cache/fate
# It holds venv/ (FATE 2.2.0 and its server), home/ (what the server keeps) and venv1/ (the client of FATE 1.11.3). FATE's pins (pydantic 1, numpy 1,
# urllib3 1) exclude ours, so nothing of it is ever installed beside Haina.
set -eu

cd "$(dirname "$0")/../.."
folder=${1:-${HAINA_FATE:-.cache/fate}}
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)

# make NAME: an environment, with `pip` to fill it.
make() {
    venv=$folder/$1
    rm -rf "$venv"
    "${PYTHON:-python3.11}" -m venv "$venv"
    pip() { "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$@"; }
}

if [ ! -f "$folder/.complete" ]; then
    make venv
    # What FATE declares does not resolve on Python 3.11: its parts come alone, and what they import after them.
    pip wheel "setuptools>=77.0.3,<81"
    pip --no-deps pyfate==2.2.0 fate-flow==2.2.0 fate-utils==0.1.0 fate-client==2.2.0
    pip lmdb==1.4.1 pydantic==1.10.12 cloudpickle==2.1.0 click scikit-learn==1.4.1.post1 "numpy<2" pandas beautifultable \
        "requests<2.26" urllib3==1.26.18 grpcio==1.62.1 grpcio-tools==1.62.1 protobuf==4.24.4 rich omegaconf opentelemetry-api opentelemetry-sdk \
        safetensors==0.4.1 Flask==2.2.5 cachetools==3.0.0 filelock==3.3.1 webargs peewee==3.17.1 python-dotenv==0.13.0 pyyaml networkx psutil \
        casbin casbin-peewee-adapter pymysql kazoo shortuuid typing-extensions apsw mmh3==3.0.0 ruamel.yaml==0.16 cos-python-sdk-v5==1.9.27 \
        requests-toolbelt boto3
    pip --no-deps "torch==${HAINA_FATE_TORCH:-2.13.0}"
    pip sympy jinja2 fsspec mpmath transformers==4.37.2 accelerate==0.27.2
    # FATE finds components of others with pkg_resources, which setuptools has lost since.
    pip "setuptools>=77.0.3,<81"
    # FATE Flow writes where it lives into its own code, so an environment has one home.
    rm -rf "$folder/home"
    "$venv/bin/fate_flow" init --ip 127.0.0.1 --port 9380 --home "$folder/home" >/dev/null

    make venv1
    pip fate-client==1.11.3 "urllib3<2" "setuptools<70"
    "$venv/bin/pipeline" init --ip 127.0.0.1 --port 9380 >/dev/null 2>&1
    touch "$folder/.complete"
fi

# The Haina task, built from a copy, as it may have changed.
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
cp examples/fate/haina_r.py examples/fate/pyproject.toml "$copy"
"$folder/venv/bin/python" -m pip --disable-pip-version-check install --quiet --no-deps --force-reinstall "$copy"
echo "$folder"
