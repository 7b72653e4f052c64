#!/usr/bin/env python3
"""What `chorus serve` does under loads that take minutes, one a subcommand; prints a line of figures each (docs/performance.md).

  azure TRACE.csv   512 clients over four replicas, lengths of the Azure trace: how evenly the tokens are spread
  hostile           2,000 slow or hostile connections beside 100 good streams: what the good ones notice
  page              256 streams, and beside them the page's look at /metrics, often: what one look costs the server's own processes
  doors             two replicas behind one door against two servers alone
"""
import argparse
import asyncio
import csv
import json
import multiprocessing
import os
import pathlib
import random
import shutil
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from chorus_process import STORIES, descendants  # noqa: E402  pylint: disable=wrong-import-position
from serving import serving  # noqa: E402  pylint: disable=wrong-import-position


def request(path, body):
    data = json.dumps(body).encode()
    return f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(data)}\r\n\r\n".encode() + data


class Client:
    """One connection, kept."""

    def __init__(self, port):
        self.port, self.reader, self.writer = port, None, None

    async def ask(self, data):
        """The answer's body; for a stream the times of its events too."""
        if self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port, limit=1 << 24)
        self.writer.write(data)
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        assert " 200 " in head.splitlines()[0], head
        if "transfer-encoding: chunked" not in head:
            length = int(head.split("content-length: ")[1].split("\r\n")[0])
            return await self.reader.readexactly(length), []
        times = []
        while (size := int(await self.reader.readline(), 16)):
            await self.reader.readexactly(size + 2)
            times.append(time.monotonic())
        await self.reader.readline()
        return b"", times


def percentile(values, part):
    return sorted(values)[min(len(values) - 1, int(part * len(values)))]


def long_model(folder):
    """Of the stories' vocabulary, one small layer, and positions for real prompts: the balancing is measured, not the arithmetic."""
    made = pathlib.Path(folder) / "model"
    shutil.copytree(STORIES, made)
    config = json.loads((made / "config.json").read_text())
    config.update(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=16, max_position_embeddings=16384)
    (made / "config.json").write_text(json.dumps(config))
    return str(made)


def tokens_of(server):
    """Prompt and output tokens of each replica."""
    found = {}
    for line in server.request("GET", "/metrics")[2].decode().splitlines():
        if line.startswith(("vllm:prompt_tokens_total{", "vllm:generation_tokens_total{")):
            engine = line.split('engine="')[1].split('"')[0]
            found[engine] = found.get(engine, 0) + float(line.rsplit(" ", 1)[1])
    return found


async def closed_loop(port, bodies, clients):
    left = iter(bodies)

    async def one():
        client = Client(port)
        for body in left:
            await client.ask(request("/v1/completions", body))
    await asyncio.gather(*(one() for _ in range(clients)))


def azure(options):
    with open(options.trace, encoding="utf-8") as trace:
        rows = [(int(row["ContextTokens"]), int(row["GeneratedTokens"])) for row in csv.DictReader(trace)][:options.requests]
    chance = random.Random(1)
    bodies = [{"prompt": [chance.randrange(3, 500) for _ in range(max(1, prompt))], "max_tokens": max(1, output), "ignore_eos": True, "seed": 1} for prompt, output in rows]
    with tempfile.TemporaryDirectory() as folder, serving(long_model(folder), "--load-format", "dummy", "-dp", "4", "--threads", "1", "--kv-cache-memory", "512MiB", "--max-num-seqs",
                                                          "64", "--load-balancer", options.load_balancer) as server:
        begin = time.monotonic()
        asyncio.run(closed_loop(server.port, bodies, 512))
        elapsed, tokens = time.monotonic() - begin, tokens_of(server)
    mean = sum(tokens.values()) / len(tokens)
    print(f"azure {options.load_balancer}: {len(bodies)} requests, 512 clients, {sum(tokens.values()):.0f} tokens in {elapsed:.0f} s; busiest replica {max(tokens.values()) / mean:.3f}, "
          f"idlest {min(tokens.values()) / mean:.3f} of the mean")


async def good_streams(port, seconds):
    """Of 100 clients that stream one answer after the other: how long each answer took, and each pause within one."""
    answers, pauses, end = [], [], time.monotonic() + seconds

    async def one(index):
        client, body = Client(port), {"prompt": "Once upon a time", "max_tokens": 64, "ignore_eos": True, "seed": index, "stream": True}
        while time.monotonic() < end:
            begin = time.monotonic()
            _, times = await client.ask(request("/v1/completions", body))
            answers.append(times[-1] - begin)
            pauses.extend(late - early for early, late in zip(times, times[1:]))
    await asyncio.gather(*(one(i) for i in range(100)))
    return answers, pauses


async def slow_head(reader, writer):
    del reader
    for byte in b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nX-Slow: " + b"a" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def slow_body(reader, writer):
    del reader
    writer.write(b"POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 100000\r\n\r\n{")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(1)


async def reads_nothing(reader, writer):
    del reader
    writer.write(request("/v1/completions", {"prompt": "a", "max_tokens": 64, "ignore_eos": True, "stream": True}))
    await asyncio.sleep(30)


async def garbage(reader, writer):
    writer.write(random.choice([b"\x16\x03\x01" + b"\xff" * 200, b"GET / HTTP/9.9\r\n\r\n", b"POST /v1/completions HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                                b"A" * 20000, request("/v1/completions", {"prompt": 5}), request("/v1/chat/completions", {"messages": [[[]]]})]))
    await reader.read(65536)
    await asyncio.sleep(1)


async def idle(reader, writer):
    del writer
    await reader.read(1)


async def hostile_connections(port):
    kinds = [slow_head, slow_body, garbage, idle, reads_nothing]

    async def one(index):
        await asyncio.sleep(random.random())
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                try:
                    await kinds[index % len(kinds)](reader, writer)
                finally:
                    writer.close()
            except OSError:
                await asyncio.sleep(0.1)
    await asyncio.gather(*(one(i) for i in range(2000)))


def connections_of(server):
    return float(server.request("GET", "/metrics")[2].decode().split("\nchorus:http_connections{")[1].split("} ")[1].split("\n")[0])


def attack_from_afar(port):
    os.nice(10)  # they are other machines' work
    asyncio.run(hostile_connections(port))


def beside_an_attack(server, attacked, seconds):
    """What good streams of `server` see while `attacked` is under attack, and how many connections that one has."""
    attackers = multiprocessing.Process(target=attack_from_afar, args=(attacked.port,))
    attackers.start()
    deadline = time.monotonic() + 60
    while connections_of(attacked) < 1900 and time.monotonic() < deadline:
        time.sleep(0.5)
    seen = asyncio.run(good_streams(server.port, seconds))
    opened = connections_of(attacked)
    attackers.kill()
    attackers.join()
    assert attacked.request("GET", "/health")[0] == 200
    return seen, opened


def hostile(options):
    """Against the calm server, and against one beside which another server is attacked: the attackers' own work is in both then."""
    flags = ["--threads", "1", "--kv-cache-memory", "256MiB", "--max-num-seqs", "256"]
    with serving(STORIES, *flags) as server, serving(STORIES, *flags) as other:
        asyncio.run(good_streams(server.port, 2))
        calm = asyncio.run(good_streams(server.port, options.seconds))
        elsewhere, _ = beside_an_attack(server, other, options.seconds)
        here, opened = beside_an_attack(server, server, options.seconds)
    for kind, name in enumerate(("answer", "pause")):
        p50, p99 = ([1e3 * percentile(phase[kind], part) for phase in (calm, elsewhere, here)] for part in (0.5, 0.99))
        print(f"hostile: {name} of a good stream, calm / another server attacked / attacked: p50 {p50[0]:.1f} / {p50[1]:.1f} / {p50[2]:.1f} ms, p99 {p99[0]:.1f} / {p99[1]:.1f} / "
              f"{p99[2]:.1f} ms ({p99[2] / p99[0]:.2f} and {p99[2] / p99[1]:.2f} times)")
    print(f"hostile: {opened:.0f} connections were open")


def doors(options):
    """Whole answers, so that the client costs little. One after the other, several times, since a machine has its moods."""
    body = {"prompt": "Once upon a time there was", "max_tokens": 200, "ignore_eos": True, "seed": 3}
    flags = ["--threads", "1", "--kv-cache-memory", "128MiB", "--max-num-seqs", "32"]

    async def rate(ports, clients):
        begin, count = time.monotonic(), options.answers
        await asyncio.gather(*(closed_loop(port, [body] * (count // len(ports)), clients // len(ports)) for port in ports))
        return count * body["max_tokens"] / (time.monotonic() - begin)
    alone, together = [], []
    with serving(STORIES, "-dp", "2", *flags) as door, serving(STORIES, *flags) as one, serving(STORIES, *flags) as two:
        for round_number in range(options.rounds + 1):
            pair = asyncio.run(rate([one.port, two.port], 64)), asyncio.run(rate([door.port], 64))
            if round_number > 0:  # the first is a warm-up
                alone.append(pair[0])
                together.append(pair[1])
    ratios = [behind / apart for behind, apart in zip(together, alone)]
    print(f"doors: two servers alone {statistics.median(alone):.0f} tokens/s, one door before two replicas {statistics.median(together):.0f}: median ratio {statistics.median(ratios):.3f} "
          f"of {', '.join(f'{ratio:.3f}' for ratio in ratios)}")


def cpu_s(pids):
    """Processor time of all threads of these processes, in seconds."""
    ticks = [sum(map(int, pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13])) for pid in pids]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


async def streams_and_looks(port, pids, options):
    """[(processor time a second without looks, with them)] of each round, and the bytes of a look."""
    rounds, stop, size = [], False, 0

    async def one(index):
        client, body = Client(port), {"prompt": "Once upon a time", "max_tokens": 400, "ignore_eos": True, "seed": index, "stream": True}
        while not stop:
            await client.ask(request("/v1/completions", body))

    async def spent(looks_per_s):
        nonlocal size
        client, begin, before, looks = Client(port), time.monotonic(), cpu_s(pids), 0
        while (now := time.monotonic() - begin) < options.seconds:
            if looks < now * looks_per_s:
                size, looks = len((await client.ask(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n"))[0]), looks + 1
            else:
                await asyncio.sleep(0.005)
        return (cpu_s(pids) - before) / (time.monotonic() - begin), looks / (time.monotonic() - begin)

    streams = [asyncio.create_task(one(i)) for i in range(256)]
    await asyncio.sleep(3)
    for _ in range(options.rounds):
        calm, (busy, looks_per_s) = (await spent(0))[0], await spent(options.looks)
        rounds.append((busy - calm) / looks_per_s)
    stop = True
    await asyncio.gather(*streams)
    return rounds, size


def page(options):
    with serving(STORIES, "-dp", "2", "--threads", "1", "--kv-cache-memory", "512MiB", "--max-num-seqs", "128") as server:
        pids = [server.process.pid, *(pid for pid in descendants(server.process.pid) if b"front-end" in pathlib.Path(f"/proc/{pid}/cmdline").read_bytes())]
        rounds, size = asyncio.run(streams_and_looks(server.port, pids, options))
    print(f"page: 256 streams over two replicas; a look at /metrics ({size} bytes) costs parent and front end {statistics.median(rounds) * 1000:.2f} ms (of {len(rounds)} rounds "
          f"{min(rounds) * 1000:.2f} to {max(rounds) * 1000:.2f}); the page looks once a second, so that is {statistics.median(rounds) * 100:.2f} % of a core")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    trace = commands.add_parser("azure")
    trace.add_argument("trace")
    trace.add_argument("--requests", type=int, default=4000)
    trace.add_argument("--load-balancer", default="least_loaded")
    trace.set_defaults(run=azure)
    attack = commands.add_parser("hostile")
    attack.add_argument("--seconds", type=int, default=15)
    attack.set_defaults(run=hostile)
    look = commands.add_parser("page")
    look.add_argument("--seconds", type=int, default=10)
    look.add_argument("--rounds", type=int, default=5)
    look.add_argument("--looks", type=int, default=50, help="a second")
    look.set_defaults(run=page)
    pair = commands.add_parser("doors")
    pair.add_argument("--answers", type=int, default=600)
    pair.add_argument("--rounds", type=int, default=5)
    pair.set_defaults(run=doors)
    options = parser.parse_args()
    options.run(options)


if __name__ == "__main__":
    main()
