#!/bin/bash
# gpu_kit.sh CUDA_BUILD CHORUS KIT.tar.gz -- what gpu_check.sh needs on a bare machine, in one file: the programs of CUDA_BUILD
# (ninja -C build-cuda chorus gpu_test gpu_bench) with the libraries that they load, models, and the bytes that CHORUS, a build without CUDA,
# gives by emulation for the same requests. There: tar xzf KIT.tar.gz; gpu_kit/gpu_check.sh gpu_kit OUT
set -eu
build=$1 emulation=$2 out=$3
root=$(cd "$(dirname "$0")/.." && pwd)
kit=$(mktemp -d)/gpu_kit
mkdir -p "$kit/lib" "$kit/models/llama8b"
for program in "$build/chorus" "$build/bench/cuda/gpu_test" "$build/bench/cuda/gpu_bench"; do
  [ -e "$program" ] || continue
  strip -o "$kit/$(basename "$program")" "$program"
  ldd "$program" | awk '$3 ~ /^\// && $1 !~ /^lib(c|m|pthread|dl|rt)\.so/ {print $3}' | xargs -r cp -Lt "$kit/lib"
done
cp -r "$root/models/stories260k" "$kit/models/"
cp "$root/tools/gpu_check.sh" "$kit/"
cat >"$kit/models/llama8b/config.json" <<'JSON'
{"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336,
 "num_hidden_layers": 32, "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 8192, "rms_norm_eps": 1e-5,
 "rope_theta": 500000.0, "tie_word_embeddings": false, "torch_dtype": "bfloat16", "bos_token_id": 1, "eos_token_id": 2}
JSON
cat >"$kit/prompts.jsonl" <<'JSON'
{"prompt": "Once upon a time", "max_tokens": 40, "temperature": 0}
{"prompt": "The dog", "max_tokens": 24, "temperature": 1, "seed": 7, "logprobs": 2}
{"prompt": "Lily and Tom went to the park because they wanted to play with the", "max_tokens": 24, "temperature": 0.8, "seed": 3}
{"prompt": "One day", "max_tokens": 16, "temperature": 0, "logprobs": 1}
JSON
"$emulation" generate "$kit/models/stories260k" --device cuda-emulation --input "$kit/prompts.jsonl" >"$kit/expected.jsonl"
tar czf "$out" -C "$(dirname "$kit")" gpu_kit
rm -r "$(dirname "$kit")"
