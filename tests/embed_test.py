"""examples/embed: a program with the engine inside gives the tokens that `chorus generate` gives."""
import pathlib
import re
import subprocess

from chorus_process import CHORUS, STORIES, generate

EXAMPLE = pathlib.Path(CHORUS).resolve().parent / "examples" / "embed" / "example_embed"


def run(*arguments):
    return subprocess.run([EXAMPLE, *arguments], capture_output=True, text=True, timeout=100, check=False)


def test_the_same_tokens_as_generate():
    done = run(STORIES)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "47 named parameters" in done.stdout
    ranks = dict(re.findall(r"request (\d+) ended on rank (\d+)", done.stdout))
    assert ranks == {str(i): str(i % 2) for i in range(6)}
    found = [(list(map(int, prompt.split())), list(map(int, tokens.split())))
             for prompt, tokens in re.findall(r"^request \d+: ([\d ]+) -> ([\d ]+)$", done.stdout, re.M)]
    lines = generate(STORIES, "--max-tokens", 12, "--temperature", 0, rows=[{"prompt_token_ids": prompt} for prompt, _ in found])
    assert found == [(line["prompt_token_ids"], line["outputs"][0]["token_ids"]) for line in lines]
    assert len(found) == 6 and len({tuple(tokens) for _, tokens in found}) > 1


def test_wrong_usage():
    assert run().returncode == 2
    done = run("nowhere")
    assert done.returncode == 1 and "nowhere" in done.stderr
