#!/usr/bin/env python3
"""gpu_trace.py TRACE [STEP]: what a GPU did in one step of an engine, from a file of libgpu_trace.so (bench/cuda/gpu_trace.cc; may be gzipped).
Steps begin with the copy of their input; the default is one in the last fifth. A kernel may begin while the one before ends, and then waits: what a
kernel adds is the time from the end of the one before to its own."""
import gzip
import re
import statistics
import subprocess
import sys

INPUT_COPY, INPUT_BYTES_MAX = "copy1", 4 << 20  # host to device; weights are larger


def read(path):
    with (gzip.open if path.endswith(".gz") else open)(path, "rt") as lines:
        fields = [line.split() for line in lines]
    return sorted((int(f[0]), int(f[1]), f[2], tuple(map(int, f[3:7]))) for f in fields if len(f) == 7)


def steps_of(records):
    steps = [[]]
    for record in records:
        if record[2] == INPUT_COPY and record[3][0] < INPUT_BYTES_MAX:
            steps.append([])
        steps[-1].append(record)
    return [step for step in steps if any("gather" in record[2] for record in step)]


def plain_names(records):
    names = sorted({record[2] for record in records})
    demangled = subprocess.run(["c++filt", *names], capture_output=True, text=True, check=True).stdout.splitlines()
    return {name: re.sub(r"chorus::cuda::(\w+::)?|^void |\(.*", "", plain) for name, plain in zip(names, demangled)}


def main(path, chosen=None):
    steps = steps_of(read(path))
    index = int(chosen) if chosen is not None else len(steps) * 4 // 5
    if index >= len(steps):
        sys.exit(f"gpu_trace.py: {path} has {len(steps)} steps, none of number {index}; is it a trace of libgpu_trace.so, and did the engine compute?")
    step, names = steps[index], plain_names(steps[index])
    print(f"{len(steps)} steps, of {statistics.median(s[-1][1] - s[0][0] for s in steps) / 1e6:.3f} ms in the median; step {index}: "
          f"{(step[-1][1] - step[0][0]) / 1e6:.3f} ms", end="")
    if index + 1 < len(steps):
        next_begin = steps[index + 1][0][0]
        print(f", idle until the next {100 * (next_begin - step[-1][1]) / (next_begin - step[0][0]):.1f} %", end="")
    totals, end = {}, step[0][0]
    for record in step:
        total = totals.setdefault((names[record[2]], record[3]), [0, 0])
        total[0] += 1
        total[1] += max(0, record[1] - end)
        end = max(end, record[1])
    print("\n\n  us in all   times   us each")
    for (name, shape), (times, ns) in sorted(totals.items(), key=lambda item: -item[1][1]):
        print(f"{ns / 1e3:11.1f} {times:7} {ns / 1e3 / times:9.1f}  {name[:100]} {shape}")


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
