#!/bin/sh
# Install the public nnU-Net v2 and what segwright itself needs into a new environment: install.sh VENV_DIR
# Pinned, and without dependencies of packages that would bring another torch or a few hundred megabytes more.
set -eu
venv=${1:?usage: install.sh VENV_DIR}
"${PYTHON:-python3}" -m venv "$venv"
pip() { "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "$@"; }
pip ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0
pip numpy==2.4.6 scipy==1.17.1 pandas==3.1.1 SimpleITK==2.5.7 scikit-image==0.26.0 scikit-learn==1.9.1 \
    nibabel==5.4.2 tifffile==2026.3.3 blosc2==4.14.1 threadpoolctl==3.8.0 future==1.0.0 tqdm==4.70.1 einops==0.8.2 matplotlib==3.11.2 seaborn==0.13.2 \
    requests==2.34.2 safetensors==0.8.0 psutil==7.2.2 PyYAML==6.0.3 rich==15.0.0 zlib-ng==1.1.0
pip --no-deps nnunetv2==2.8.1 batchgenerators==0.25.5 batchgeneratorsv2==0.3.6 \
    dynamic-network-architectures==0.4.4 acvl-utils==0.2.6 fft-conv-pytorch==1.2.0 connected-components-3d==4.1.1
