"""How `chorus generate` reads its rows: as they are needed, in bounded memory, from files and from pipes."""
import json
import os
import subprocess
import time

import pytest

from chorus_process import CHORUS, SANITIZE, STORIES, generate

SMALL = ["--threads", "1", "--kv-cache-memory", "4MiB"]


def peak_rss_bytes(process):
    """Of the parent alone: its engines are other processes."""
    peak = 0
    while process.poll() is None:
        try:
            status = open(f"/proc/{process.pid}/status", encoding="ascii").read()
        except OSError:
            break
        for line in status.splitlines():
            if line.startswith("VmHWM:"):
                peak = int(line.split()[1]) * 1024
        time.sleep(0.01)
    return peak


def peak_over(tmp_path, rows):
    source, output = tmp_path / f"{rows}.jsonl", tmp_path / f"{rows}.out"
    with open(source, "w", encoding="ascii") as file:
        for row in range(rows):
            file.write('{"prompt_token_ids": [%d], "max_tokens": 1}\n' % (row % 500 + 3))
    process = subprocess.Popen([CHORUS, "generate", STORIES, *SMALL, "--input", source, "--output", output, "--disable-progress-bars"],
                               stderr=subprocess.DEVNULL)
    peak = peak_rss_bytes(process)
    assert process.wait() == 0
    with open(output, encoding="utf-8") as lines:
        assert sum(1 for _ in lines) == rows
    return peak


@pytest.mark.skipif(SANITIZE != "", reason="a sanitizer keeps freed memory")
def test_memory_does_not_grow_with_the_rows(tmp_path):
    # Rows in memory took 0.5 KB each: 50 MB between these two.
    assert peak_over(tmp_path, 102_000) < peak_over(tmp_path, 2_000) + 16 * 2**20


def test_a_bad_line_far_down_a_pipe_is_named_and_leaves_what_was_there(tmp_path):
    output = tmp_path / "out.jsonl"
    output.write_bytes(b"precious")
    rows = b'{"prompt": "a", "max_tokens": 1}\n' * 5000 + b'{"prompt": "a", "max_tokens": 0}\n'
    done = subprocess.run([CHORUS, "generate", STORIES, *SMALL, "--output", output], input=rows, capture_output=True, timeout=120, check=False)
    assert done.returncode == 2 and b"stdin line 5001" in done.stderr and b"max_tokens is 0" in done.stderr
    assert output.read_bytes() == b"precious"


def test_rows_run_while_the_pipe_is_open(tmp_path):
    output = tmp_path / "out.jsonl"
    process = subprocess.Popen([CHORUS, "generate", STORIES, *SMALL, "--output", output, "--log-level", "debug"], stdin=subprocess.PIPE,
                               stderr=subprocess.PIPE)
    process.stdin.write(b'{"prompt": "Once", "max_tokens": 4}\n' * 400)
    process.stdin.flush()
    partial = tmp_path / "out.jsonl.partial"
    deadline = time.monotonic() + 60
    while (not partial.exists() or partial.stat().st_size == 0) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert partial.stat().st_size > 0, "nothing was written before the input's end"
    process.stdin.write(b'{"prompt": "upon", "max_tokens": 4}\n')
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors.decode()
    assert len(output.read_bytes().splitlines()) == 401


@pytest.mark.parametrize("assignment", ["dynamic", "modulo", "contiguous", "priority"])
def test_the_assignment_changes_nothing_in_the_output(tmp_path, assignment):
    rows = [{"prompt": f"Number {row}", "max_tokens": 5, "priority": row % 3} for row in range(60)]
    expected = generate(STORIES, *SMALL, rows=rows)
    assert generate(STORIES, *SMALL, "-dp", "2", "--assignment", assignment, rows=rows) == expected


def chat_model(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    for name in os.listdir(STORIES):
        os.symlink(os.path.join(STORIES, name), model / name)
    (model / "chat_template.jinja").write_text(
        "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
        "{% for tool in tools or [] %}tool {{ tool.name }}\n{% endfor %}"
        "{% for document in documents or [] %}document {{ document.title }}\n{% endfor %}"
        "{% if mood %}mood {{ mood }}\n{% endif %}{% if add_generation_prompt %}assistant:{% endif %}")
    return model


def test_a_chat_row_takes_what_a_chat_request_takes(tmp_path):
    ask = [{"role": "user", "content": "Hello"}]
    begun = ask + [{"role": "assistant", "content": "Well, "}]
    rows = [{"messages": ask}, {"messages": ask, "tools": [{"name": "clock"}], "documents": [{"title": "Map"}]},
            {"messages": ask, "chat_template_kwargs": {"mood": "good"}}, {"messages": ask, "add_generation_prompt": False},
            {"messages": begun, "continue_final_message": True}, {"messages": ask, "chat_template": "{{ messages[0].content }}!"},
            {"messages": ask, "max_tokens": 9, "max_completion_tokens": 3}, {"messages": ask, "tools": None},
            {"messages": begun, "continue_final_message": True, "add_generation_prompt": True}]
    found = generate(chat_model(tmp_path), *SMALL, "--max-tokens", "2", rows=rows)
    assert [row["prompt"] for row in found[:8]] == [
        "user: Hello\nassistant:", "user: Hello\ntool clock\ndocument Map\nassistant:", "user: Hello\nmood good\nassistant:", "user: Hello\n",
        "user: Hello\nassistant: Well, ", "Hello!", "user: Hello\nassistant:", "user: Hello\nassistant:"]
    assert [len(row["outputs"][0]["token_ids"]) for row in found[:8]] == [2, 2, 2, 2, 2, 2, 3, 2]
    assert "continue_final_message and add_generation_prompt" in found[8]["error"]


@pytest.mark.parametrize("rows, said", [
    ([{"prompt": "Once", "temperature": 1}, {"prompt": "Once", "temperature": 1}, {"prompt": "Once", "temperature": 1}], 1),
    ([{"prompt": "Once", "temperature": 0}, {"prompt": "Once", "temperature": 0}], 0),
    ([{"prompt": "Once", "temperature": 1, "seed": 1}, {"prompt": "Once", "temperature": 1, "seed": 2}], 0),
    ([{"prompt": "Once", "temperature": 1}, {"prompt": "upon", "temperature": 1}], 0)])
def test_equal_prompts_without_a_seed_are_told_once(rows, said):
    done = subprocess.run([CHORUS, "generate", STORIES, *SMALL, "--max-tokens", "2"], input="".join(json.dumps(row) + "\n" for row in rows).encode(),
                          capture_output=True, timeout=60, check=False)
    assert done.returncode == 0 and done.stderr.count(b"equal prompts get equal answers") == said, done.stderr.decode()
