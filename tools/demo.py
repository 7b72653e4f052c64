#!/usr/bin/python3
"""The first minute: serves a model on two replicas, asks by curl for an answer, asks again and kills the replica that answers, and compares.

SmolLM2-135M-Instruct where it can be fetched (98 MB, kept in ~/.cache/chorus/models), else the tiny model in models/. Ends by itself."""
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CHORUS = ROOT / "build" / "chorus"
START_WITHIN_S = 60
TTY = sys.stdout.isatty()


def say(text):
    print(f"\033[1m{text}\033[0m" if TTY else text, flush=True)


def choose_model():
    """The model, and the path and body of a request to it."""
    fetched = subprocess.run([ROOT / "tools" / "fetch_smollm2.sh"], capture_output=True, text=True, check=False)
    if fetched.returncode == 0:
        question = "Why is the sky blue? Explain it to a child in a few sentences."
        return fetched.stdout.strip(), question, "/v1/chat/completions", {"messages": [{"role": "user", "content": question}]}
    print(f"SmolLM2 cannot be fetched here ({fetched.stderr.strip().splitlines()[-1]}): the tiny story teller in models/ instead.")
    start = "Once upon a time"
    return str(ROOT / "models" / "stories260k"), start, "/v1/completions", {"prompt": start}


def serve(model):
    """The server's process and address."""
    log = open(ROOT / "build" / "demo.log", "w", encoding="utf-8")
    command = [CHORUS, "serve", model, "-dp", "2", "--port", "0", "--served-model-name", "demo", "--max-model-len", "512"]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True)
    line = server.stdout.readline()
    address = re.search(r"http://\S+", line)
    if not address:
        sys.exit(f"The server did not start; its log is {log.name}")
    return server, address.group()


def engine_of(server, rank):
    children = subprocess.run(["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True).stdout
    for line in children.splitlines():
        pid, parent, arguments = line.split(None, 2)
        if int(parent) == server.pid and f"chorus engine dp={rank}" in arguments:
            return int(pid)
    return None


def text_of(event):
    choice = event["choices"][0] if event.get("choices") else {}
    return choice.get("text") or choice.get("delta", {}).get("content") or ""


def ask(address, path, body, during=None):
    """The streamed answer, printed as it comes. `during`: called once, after some of it."""
    body = {"model": "demo", "temperature": 0, "max_tokens": 120, "stream": True, **body}
    curl = ["curl", "--silent", "--no-buffer", "--max-time", "120", "-H", "Content-Type: application/json", "-H", "X-data-parallel-rank: 0",
            "--data", json.dumps(body), address + path]
    answer, pieces = "", 0
    with subprocess.Popen(curl, stdout=subprocess.PIPE, text=True) as stream:
        for line in stream.stdout:
            if not line.startswith("data: {"):
                continue
            event = json.loads(line[len("data: "):])
            if "error" in event:
                sys.exit(f"\nThe server says: {event['error']['message']}")
            text = text_of(event)
            answer += text
            print(text, end="", flush=True)
            pieces += 1
            if during and pieces == 25:
                during()
    print("\n")
    return answer


def main():
    model, question, path, body = choose_model()
    began = time.monotonic()
    server, address = serve(model)
    try:
        say(f"Two replicas of {pathlib.Path(model).name} are ready after {time.monotonic() - began:.2f} s at {address}\n")
        say(f"> {question}")
        calm = ask(address, path, body)

        def kill():
            engine = engine_of(server, 0)
            os.kill(engine, signal.SIGKILL)
            mark = f"[kill -9 {engine}: replica 0]"
            print(f"\033[31m{mark}\033[0m" if TTY else mark, end="", flush=True)

        say("> The same, and in the middle of it the replica that answers is killed:")
        killed = ask(address, path, body, kill)
        say("The answer came whole, and equal to the byte." if killed == calm else "THE ANSWERS DIFFER.")
        print(f"""
To go on:
  build/chorus serve {model} -dp 2            # then ask it as above, or with any OpenAI client
  build/chorus generate {model} --prompt "..." # without a server
  docs/server.md, docs/model-folder.md              # what it takes; your own models""")
        return 0 if killed == calm else 1
    finally:
        server.terminate()
        server.wait(timeout=60)


sys.exit(main())
