#!/bin/sh
# Four ranks under torchrun: two replicas, each cut over two tensor-parallel ranks.
# Usage: examples/torchrun/run.sh [MODEL]
set -eu
root=$(cd "$(dirname "$0")/../.." && pwd)
model=$(realpath "${1:-$root/models/stories260k}")
cd "$root/examples/torchrun"
mkdir -p out
torchrun --nproc-per-node=4 --no-python "$root/build/chorus" generate "$model" \
  --distributed-executor-backend external_launcher --dp-size 2 --tp-size 2 \
  --input prompts.jsonl --output out/results.jsonl
cat out/results.jsonl
