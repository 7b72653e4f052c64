#!/usr/bin/env python3
"""tokenizer_bench.py PROGRAM TEXT_FILE MODEL...: Chorus against the `tokenizers` package, one thread each.

PROGRAM is the built bench/tokenizer_bench. Prints both rates (MB of text a second) and their ratio, for the file as one
text and line by line, and fails if the two disagree about the number of tokens.
"""
import json
import os
import subprocess
import sys
import time

os.environ["RAYON_NUM_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
import tokenizers  # noqa: E402  (reads the environment when it is loaded)


def best(rounds, work):
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        result = work()
        times.append(time.perf_counter() - begin)
    return min(times), result


def main():
    program, path, models = sys.argv[1], sys.argv[2], sys.argv[3:]
    with open(path, encoding="utf-8", newline="") as file:
        text = file.read()
    megabytes = len(text.encode()) / 1e6
    lines = text.split("\n")
    for model in models:
        ours = json.loads(subprocess.run([program, model, path], check=True, capture_output=True).stdout)
        load_s, reference = best(3, lambda: tokenizers.Tokenizer.from_file(model + "/tokenizer.json"))
        whole_s, whole = best(2, lambda: len(reference.encode(text, add_special_tokens=False).ids))
        lines_s, by_line = best(
            2, lambda: sum(len(reference.encode(line, add_special_tokens=False).ids) for line in lines))
        name = os.path.basename(os.path.normpath(model))
        print(f"{name}: load {ours['load_ms']:.0f} ms (median {ours['load_median_ms']:.0f}) against {load_s * 1e3:.0f} ms")
        for kind, seconds in (("whole", whole_s), ("lines", lines_s)):
            rate, reference_rate = ours[f"{kind}_mb_per_s"], megabytes / seconds
            print(f"{name}: {kind} {rate:.1f} MB/s against {reference_rate:.2f} MB/s, ratio {rate / reference_rate:.1f}")
        if (whole, by_line) != (ours["whole_tokens"], ours["lines_tokens"]):
            sys.exit(f"{name}: token counts differ: {whole}, {by_line} against {ours}")


if __name__ == "__main__":
    main()
