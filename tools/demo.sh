#!/bin/sh
# Runs examples/stories on two replicas and shows what came out.
set -eu
cd "$(dirname "$0")/.."
rm -rf examples/stories/out
build/chorus run examples/stories/workflow.json
echo
echo "Some of the stories (examples/stories/out/tell_story.jsonl):"
/usr/bin/python3 - <<'PY'
import json
for line in list(open("examples/stories/out/tell_story.jsonl", encoding="utf-8"))[:3]:
    row = json.loads(line)
    print(f"\n[{row['id']}] {row['tell_story'].strip()}")
PY
