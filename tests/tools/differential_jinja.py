#!/usr/bin/env python3
"""differential_jinja.py build/fuzz/fuzz_render [SEED [COUNT]] -- random templates, rendered by Chorus and by jinja2.

Run with PyPI jinja2 3.1.6. Equal is the same output, or an error from both. What Chorus refuses by its bounds or says it
does not support is counted apart. Ends with 1 when a pair differs, and prints the shortest ones.
"""
import json
import multiprocessing
import resource
import subprocess
import sys
import warnings

from make_jinja_cases import environment

SHOWN = 20
BOUNDS = ("is over the limit", "not supported", "at most", "too deep", "too large", "too long", "overflow", "limit: ")


def limit_memory():
    resource.setrlimit(resource.RLIMIT_AS, (2 << 30, 2 << 30))
    warnings.simplefilter("ignore")  # "perhaps you missed a comma": random expressions


def render(source, variables):
    """(output, error)"""
    try:
        return environment().from_string(source).render(**json.loads(variables)), None
    except BaseException as error:  # RecursionError, MemoryError: an answer, too
        return None, f"{type(error).__name__}: {error}"


class Jinja2:
    """In a process of its own: what takes longer than 2 s (a power of large numbers, which no signal interrupts) is killed."""

    def __init__(self, variables):
        self.variables, self.pool = variables, None

    def says(self, source):
        self.pool = self.pool or multiprocessing.Pool(1, limit_memory)
        try:
            return self.pool.apply_async(render, (source, self.variables)).get(timeout=2)
        except multiprocessing.TimeoutError:
            self.pool.terminate()
            self.pool = None
            return None, "TooSlow"


def verdict(ours, output, error):
    if ours.get("error") and any(word in ours["error"] for word in BOUNDS):
        return "bounded"
    if error is not None:
        return "skipped" if error.startswith("TooSlow") else "equal" if "error" in ours else "differs"
    if " at 0x" in output or "<generator" in output:
        return "skipped"  # an address, or an object that Python prints by its type
    return "equal" if ours.get("output") == output else "differs"


def main():
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    seed, count = (sys.argv[2:] + ["1", "20000"][len(sys.argv) - 2:])[:2]
    printed = subprocess.run([sys.argv[1], seed, count], capture_output=True, check=True).stdout.decode().split("\n")
    jinja, counts, different = Jinja2(printed[0]), {}, []
    for line in filter(None, printed[1:]):
        ours = json.loads(line)
        output, error = jinja.says(ours["template"])
        found = verdict(ours, output, error)
        counts[found] = counts.get(found, 0) + 1
        if found == "differs":
            different.append((ours, output if error is None else error))
    print(counts)
    for ours, theirs in sorted(different, key=lambda pair: len(pair[0]["template"]))[:SHOWN]:
        print(f"\n{ours['template']}\n  chorus {ours.get('output', ours.get('error'))!r:.300}\n  jinja2 {theirs!r:.300}")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
