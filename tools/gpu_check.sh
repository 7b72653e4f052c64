#!/bin/bash
# gpu_check.sh [FOLDER [OUT]] -- checks and measures the device kernels on this machine's GPU, in under 8 minutes. FOLDER (default
# build-cuda/bench/cuda) has gpu_test and gpu_bench: cmake --preset release -B build-cuda -DCHORUS_CUDA=ON; ninja -C build-cuda gpu_test
# gpu_bench. They need the driver and libfmt.so.9, for a bare machine to be brought along in FOLDER/lib, and compare themselves with
# libcublas.so.13 where there is one. Logs go to OUT (default: here). Exit status 1 if a test fails.
set -u
folder=${1:-$(dirname "$0")/../build-cuda/bench/cuda}
out=${2:-.}
status=0
export LD_LIBRARY_PATH="$folder/lib:${LD_LIBRARY_PATH:-}"

nvidia-smi --query-gpu=name,driver_version,clocks.sm,clocks.mem,power.draw,temperature.gpu --format=csv 2>&1 | tee "$out/card.txt"
cublas=$(find / -name libcublas.so.13 -not -path '/proc/*' 2>/dev/null | head -1)
[ -n "$cublas" ] && export LD_LIBRARY_PATH="$LD_LIBRARY_PATH:$(dirname "$cublas")"

timeout 120 "$folder/gpu_test" --gtest_brief=1 2>&1 | tee "$out/test.txt"
[ "${PIPESTATUS[0]}" = 0 ] || status=1
timeout 150 "$folder/gpu_bench" "$out" 2>&1 | tee "$out/bench.txt"
[ "${PIPESTATUS[0]}" = 0 ] || status=1

# The tools that watch every access are slow: a subset of the tests.
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck synccheck; do
    echo "compute-sanitizer $tool"
    timeout 60 compute-sanitizer --tool $tool --error-exitcode 1 "$folder/gpu_test" --gtest_brief=1 \
      --gtest_filter='LinearCudaOutput.*:*.BitsAreHoppers:RmsNormCuda.*:RotaryWriteCuda.*:ArgmaxCuda.*:AttentionCuda.AgreesWithTheCpu' 2>&1 | tail -5 |
      tee "$out/$tool.txt"
    [ "${PIPESTATUS[0]}" = 0 ] || status=1
  done
fi
exit $status
