#!/usr/bin/env python3
"""tidy.py BUILD_DIR [--since BASE] [--only FOLDER] [--jobs N] -- clang-tidy over our sources, N at a time; exit status 1 on any finding.

All sources that BUILD_DIR compiles, or with --since those that changed since BASE and HEAD parted: changed .cc files, and for a changed header
the .cc of its name, else one that includes it. An empty BASE is the last tag, else main, else (on main itself) the commit before.
"""
import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
OURS = ("src", "sim", "bench", "examples", "tests", "python")


def git(*arguments):
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else ""


def compiled(build):
    """Our sources that the build has a command for; tests are left out: GoogleTest's macros cost seconds a file."""
    paths = {pathlib.Path(entry["file"]).resolve() for entry in json.loads((build / "compile_commands.json").read_text(encoding="utf-8"))}
    ours = {path.relative_to(ROOT) for path in paths if path.is_relative_to(ROOT)}
    return sorted(path for path in ours if path.parts[0] in OURS and not path.name.endswith("_test.cc"))


def base_commit(base):
    for candidate in [base] if base else [git("describe", "--tags", "--abbrev=0"), "origin/main", "main", "HEAD~1"]:
        parted = git("merge-base", candidate, "HEAD") if candidate else ""
        if parted and (base or parted != git("rev-parse", "HEAD")):
            return parted
    sys.exit(f"tidy.py: {base or 'HEAD~1'}: no such commit, or it has no common one with HEAD: give another base")


def changed(sources, base):
    """Of `sources`, those to look at because of what changed, uncommitted changes too."""
    names = {pathlib.Path(name) for name in (git("diff", "--name-only", base) + "\n" + git("ls-files", "--others", "--exclude-standard")).split()}
    chosen = {path for path in sources if path in names}
    for header in sorted(path for path in names if path.suffix == ".h" and (ROOT / path).exists()):
        own = header.with_suffix(".cc")
        pattern = re.compile(rf'#include "([\w/]*/)?{re.escape(header.name)}"')
        chosen |= {own} if own in sources else set([path for path in sources if pattern.search((ROOT / path).read_text(encoding="utf-8"))][:1])
    return sorted(chosen)


def look_at(source, build):
    # The build's own options are GCC's, some of which clang does not know.
    done = subprocess.run(["clang-tidy", "-p", str(build), "--quiet", "--extra-arg=-Wno-unknown-warning-option", str(source)], cwd=ROOT, capture_output=True, text=True, check=False)
    return source, done.returncode, done.stdout + ("" if done.stdout else done.stderr)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("build", type=pathlib.Path)
    parser.add_argument("--since", metavar="BASE")
    parser.add_argument("--only", metavar="FOLDER", default="", help="of the repository; sources elsewhere are left out")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    options = parser.parse_args()
    build = options.build.resolve()
    sources = [path for path in compiled(build) if path.is_relative_to(options.only or ".")]
    if options.since is not None:
        base = base_commit(options.since)
        sources = changed(sources, base)
        print(f"{len(sources)} files for what changed since {base[:10]}")
    failed = 0
    with concurrent.futures.ThreadPoolExecutor(options.jobs) as pool:
        for source, status, text in pool.map(lambda source: look_at(source, build), sources):
            if status != 0:
                failed += 1
                print(f"{source}:\n{text}", flush=True)
    print(f"{len(sources)} files, {failed} with findings")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
