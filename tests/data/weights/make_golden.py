"""Writes mixed/model.safetensors (a small file of several dtypes) and golden.json: what the Python package `safetensors` reads
from it and from models/stories260k. Run in this folder: pip install safetensors==0.8.0 numpy ml_dtypes; python make_golden.py
"""
import json
import zlib

import ml_dtypes
import numpy as np
from safetensors.numpy import load_file, save_file

random = np.random.default_rng(1)
mixed = {
    "float32": random.standard_normal((3, 5)).astype(np.float32),
    "bfloat16": random.standard_normal((4, 2, 3)).astype(ml_dtypes.bfloat16),
    "float16": np.array([0, -0.0, 1, -2.5, 65504, 6e-8, 1e-5, np.inf], np.float16),
    "int64": np.arange(3),
    "scalar": np.array(7.25, np.float32),
    "empty": np.zeros((0, 4), np.float32),
}
save_file(mixed, "mixed/model.safetensors", metadata={"format": "np"})

golden = {}
for label, path in (("mixed", "mixed"), ("stories260k", "../../../models/stories260k")):
    golden[label] = {
        name: {
            "dtype": str(tensor.dtype),
            "shape": list(tensor.shape),
            "crc32": zlib.crc32(np.ascontiguousarray(tensor).tobytes()),
            "first": [float(value) for value in tensor.astype(np.float32).ravel()[:4] if np.isfinite(value)],
        }
        for name, tensor in sorted(load_file(f"{path}/model.safetensors").items())
    }
with open("golden.json", "w", encoding="utf-8") as file:
    json.dump(golden, file, indent=1)
