#!/bin/bash
# gpu_check.sh [FOLDER [OUT]] -- checks and measures Chorus on this machine's GPU, in under 8 minutes. FOLDER: what tools/gpu_kit.sh packed,
# unpacked (default: where this script is). Needs the driver; compares itself with libcublas.so.13 where there is one. Logs go to OUT
# (default: here). Exit status 1 if a check fails.
set -u
folder=$(cd "${1:-$(dirname "$0")}" && pwd)
out=${2:-.}
status=0
export LD_LIBRARY_PATH="$folder/lib:${LD_LIBRARY_PATH:-}"

check() { # NAME COMMAND...: its output goes to NAME.txt
  local name=$1
  shift
  echo "== $name"
  "$@" 2>&1 | tee "$out/$name.txt" | tail -30
  [ "${PIPESTATUS[0]}" = 0 ] || { status=1; echo "FAILED: $name"; }
}
story() { timeout 60 "$folder/chorus" generate "$folder/models/stories260k" --device cuda --input "$folder/prompts.jsonl" "$@"; }
# The bytes of the emulation, whatever the batch, the chunks, the cache and the replicas.
same() {
  story >"$out/story.jsonl" 2>"$out/story.err" || tail -3 "$out/story.err"
  cmp "$out/story.jsonl" "$folder/expected.jsonl" || return 1
  for options in "--max-num-batched-tokens 16" "--max-num-seqs 1" "--no-enable-prefix-caching" "--kv-cache-memory 64KiB" "-dp 2"; do
    # shellcheck disable=SC2086
    story $options 2>"$out/story.err" | cmp - "$out/story.jsonl" && echo "equal: $options" || return 1
  done
}
killed() {
  story -dp 2 --output "$out/killed.jsonl" 2>"$out/killed.err" &
  local process=$! engines=""
  until [ "$(grep -c 'is ready' "$out/killed.err" 2>/dev/null)" = 2 ] || ! kill -0 $process 2>/dev/null; do sleep 0.05; done
  engines=$(pgrep -f 'chorus engine dp=' | tail -1)
  [ -n "$engines" ] && kill -9 "$engines"
  wait $process
  grep -q SIGKILL "$out/killed.err" || echo "the requests ended before an engine was killed: only their bytes are checked"
  cmp "$out/killed.jsonl" "$folder/expected.jsonl"
}
latency() { timeout 170 "$folder/chorus" bench latency "$folder/models/llama8b" --load-format dummy --device cuda --max-model-len 4096 --temperature 0 --disable-progress-bars "$@"; }

check card nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv
cublas=$(find / -name libcublas.so.13 -not -path '/proc/*' 2>/dev/null | head -1)
[ -n "$cublas" ] && export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$(dirname "$cublas")"

if [ -x "$folder/chorus" ]; then
  check env "$folder/chorus" env
  check same_bytes same
  check killed killed
  check decode_of_one latency --batch-size 1 --input-len 1024 --output-len 200 --num-iters 3 --warmup 1
  check prefill_8x2048 latency --batch-size 8 --input-len 2048 --output-len 2 --num-iters 5 --warmup 1 --max-num-batched-tokens 16384
  # p50 of decode_s_per_token: sixteen steps of prefill come first, beside which the early ones decode.
  check decode_of_256 latency --batch-size 256 --input-len 1024 --output-len 100 --num-iters 1 --warmup 0 --max-num-seqs 256 --max-num-batched-tokens 16384
fi
[ -x "$folder/gpu_test" ] && check test timeout 120 "$folder/gpu_test" --gtest_brief=1
[ -x "$folder/gpu_bench" ] && check bench timeout 150 "$folder/gpu_bench" "$out"

# The tools that watch every access are slow: a subset of the tests.
if command -v compute-sanitizer >/dev/null && [ -x "$folder/gpu_test" ]; then
  for tool in memcheck racecheck synccheck; do
    check $tool timeout 60 compute-sanitizer --tool $tool --error-exitcode 1 "$folder/gpu_test" --gtest_brief=1 \
      --gtest_filter='LinearCudaOutput.*:LinearWgmma.Agrees*:*.BitsAreHoppers:RmsNormCuda.*:RotaryWriteCuda.*:ArgmaxCuda.*:AttentionCuda.*:Ops.*'
  done
fi
exit $status
