"""Writes tests/data/gguf/blocks.json: blocks of each quantised type and what they stand for, by the gguf package (pip install gguf==0.19.0
numpy): python3 make_gguf_blocks.py > ../data/gguf/blocks.json. Bytes are random but for the scales, which are made finite float16."""
import json
import random

import numpy
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType
from gguf.quants import dequantize

# Where the float16 scales lie.
SCALES = {"Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2],
          "Q6_K": [208], "MXFP4": []}


def block_of(name, size, source):
    block = bytearray(source.randbytes(size))
    for at in SCALES[name]:
        block[at:at + 2] = numpy.float16(source.uniform(-2, 2)).tobytes()
    if name == "MXFP4":
        block[0] = source.randint(100, 140)
    return bytes(block)


def main():
    source = random.Random(1)
    cases = []
    for name in SCALES:
        kind = GGMLQuantizationType[name]
        elements, size = GGML_QUANT_SIZES[kind]
        for _ in range(1 if elements > 32 else 2):
            block = block_of(name, size, source)
            values = dequantize(numpy.frombuffer(block, numpy.uint8), kind).astype("<f4").reshape(-1)
            cases.append({"type": int(kind), "name": name, "block": block.hex(), "values": values.tobytes().hex()})
    print(json.dumps({"made_by": "tests/tools/make_gguf_blocks.py, gguf 0.19.0", "cases": cases}, indent=0))


main()
