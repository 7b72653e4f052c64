"""chorus bench serve: vLLM's fields and lines, and counts that a count by hand of the same load gives too."""
import http.server
import json
import re
import shutil
import signal
import subprocess
import threading
import time

import pytest

from chorus_process import CHORUS, STORIES, chorus, descendants, gone_within
from serving import serving

FAST = ["--threads", "1", "--kv-cache-memory", "32MiB"]
# vLLM 0.33.0, vllm/benchmarks/serve.py: main_async(), benchmark() and calculate_metrics(), for a generative backend.
SETUP = ["date", "endpoint_type", "backend", "label", "model_id", "tokenizer_id", "num_prompts", "request_rate", "burstiness", "max_concurrency"]
TOTALS = ["duration", "completed", "failed", "total_input_tokens", "total_output_tokens", "request_throughput", "request_goodput", "output_throughput",
          "total_token_throughput"]
DETAILS = ["input_lens", "output_lens", "ttfts", "itls", "start_times", "generated_texts", "errors"]  # with --save-detailed alone
LISTS = ["latencies", "queue_times"]
PEAKS = ["max_output_tokens_per_s", "max_concurrent_requests", "rtfx"]


def statistics(*metrics, percentiles=("99",)):
    return [f"{which}_{metric}_ms" for metric in metrics for which in ["mean", "median", "std", *(f"p{percentile}" for percentile in percentiles)]]


USUAL = statistics("ttft", "tpot", "itl")
# The lines of the same source's block, with the format that they are printed with.
WHOLE, REAL = r"\d+ *", r"\d+\.\d\d *"
BLOCK = [("Successful requests:", WHOLE), ("Failed requests:", WHOLE), ("Benchmark duration (s):", REAL), ("Total input tokens:", WHOLE), ("Total generated tokens:", WHOLE),
         ("Request throughput (req/s):", REAL), ("Output token throughput (tok/s):", REAL), ("Peak output token throughput (tok/s):", REAL),
         ("Peak concurrent requests:", REAL), ("Total token throughput (tok/s):", REAL)]
HEADERS = {"TTFT": "Time to First Token", "TPOT": "Time per Output Token (excl. 1st token)", "ITL": "Inter-token Latency", "E2EL": "End-to-end Latency"}


@pytest.fixture(scope="module")
def server():
    with serving(STORIES, *FAST) as served:
        yield served


def bench(tmp_path, server, *arguments, status=0):
    """The JSON object and the block."""
    path = tmp_path / "bench.json"
    done = chorus("bench", "serve", server if isinstance(server, str) else server.url(), *arguments, "--output-json", path)
    assert done.returncode == status, done
    return json.loads(path.read_text()), done.stdout.decode()


def block(lines, metrics=("TTFT", "TPOT", "ITL"), percentiles=("99",)):
    """A pattern of the whole of it."""
    pattern = ["=" * 12 + " Serving Benchmark Result " + "=" * 12] + [f"{re.escape(name.ljust(40))} {form}" for name, form in lines]
    for metric in metrics:
        pattern.append(f"-*{re.escape(HEADERS[metric])}-*")
        pattern += [re.escape(f"{which} {metric} (ms):".ljust(40)) + " " + REAL for which in ["Mean", "Median", *(f"P{percentile}" for percentile in percentiles)]]
    return "\n".join([*pattern, "=" * 50, ""])


def test_fields_and_lines_are_vllms(tmp_path, server):
    few = ["--num-prompts", "6", "--random-input-len", "20", "--random-output-len", "8"]
    result, shown = bench(tmp_path, server, *few)
    assert list(result) == [*SETUP, *TOTALS, *LISTS, *PEAKS, *USUAL]
    assert re.fullmatch(block(BLOCK), shown), shown
    assert (result["backend"], result["label"], result["model_id"], result["request_rate"], result["burstiness"], result["max_concurrency"], result["request_goodput"]) == (
        "openai", None, server.name, "inf", 1.0, None, None)
    assert re.fullmatch(r"\d{8}-\d{6}", result["date"]) and (result["completed"], result["failed"], result["num_prompts"]) == (6, 0, 6)
    assert (result["total_input_tokens"], result["total_output_tokens"]) == (120, 48)

    result, shown = bench(tmp_path, server, *few, "--save-detailed", "--request-rate", "50", "--max-concurrency", "2", "--goodput", "ttft:10000", "e2el:0",
                          "--percentile-metrics", "ttft,e2el,client_queue_time,e2el_including_client_queue", "--metric-percentiles", "50,99.5", "--label", "mine", "--metadata", "a=b", "c=d")
    whole = [*SETUP[:7], "a", "c", *SETUP[7:], *TOTALS, "input_lens", "output_lens", "ttfts", "itls", "latencies", "start_times", "queue_times", "generated_texts", "errors", *PEAKS]
    assert list(result) == whole + statistics("ttft", "e2el", "client_queue_time", "e2el_including_client_queue", percentiles=("50", "99.5"))
    assert result["request_goodput"] == 0 and result["request_rate"] == 50 and result["max_concurrency"] == 2 and result["a"] == "b" and result["label"] == "mine"
    lines = BLOCK[:2] + [("Maximum request concurrency:", WHOLE), ("Request rate configured (RPS):", REAL)] + BLOCK[2:6] + [("Request goodput (req/s):", REAL)] + BLOCK[6:]
    beginning = block(lines, ("TTFT", "E2EL"), ("50", "99.5"))[:-52]
    assert re.match(beginning, shown) and "Client-side Queueing" in shown and "Queue-inclusive End-to-end Latency" in shown, shown


def write_trace(path):
    """A trace of 40 requests over a second, and its lengths."""
    lengths = [(5 + 7 * i % 90, 1 + 5 * i % 23) for i in range(40)]
    path.write_text("".join(json.dumps({"timestamp": 25 * i, "input_length": given, "output_length": asked, "hash_ids": [i // 4, *range(100 * i, 100 * i + given // 16)]}) + "\n"
                            for i, (given, asked) in enumerate(lengths)))
    return lengths


TRACE = ["--dataset-name", "timed_trace", "--timed-trace-sec-multiplier", "0.001"]


def test_counts_of_a_trace_are_those_by_hand(tmp_path, server):
    """The trace's lengths, the server's own counters and the lists of each request must say the same."""
    path = tmp_path / "trace.jsonl"
    lengths = write_trace(path)
    counters = lambda: {name: sum(float(line.split()[-1]) for line in server.request("GET", "/metrics")[2].decode().splitlines() if line.startswith(f"vllm:{name}_total{{"))
                        for name in ("prompt_tokens", "generation_tokens", "request_success")}
    before = counters()
    result, shown = bench(tmp_path, server, *TRACE, "--dataset-path", path, "--save-detailed", "--num-prompts", "1000")
    after = counters()
    by_hand = {"prompt_tokens": sum(given for given, _ in lengths), "generation_tokens": sum(asked for _, asked in lengths), "request_success": len(lengths)}
    assert {name: after[name] - before[name] for name in before} == by_hand
    assert (result["total_input_tokens"], result["total_output_tokens"], result["completed"]) == tuple(by_hand.values()) and result["failed"] == 0
    assert (result["input_lens"], result["output_lens"]) == ([given for given, _ in lengths], [asked for _, asked in lengths])
    assert f"{'Total generated tokens:':<40} {by_hand['generation_tokens']} " in shown
    for i, (_, asked) in enumerate(lengths):
        assert len(result["itls"][i]) <= asked - 1 and result["errors"][i] == ""  # an event may have several tokens
        assert result["latencies"][i] == pytest.approx(result["ttfts"][i] + sum(result["itls"][i]))
    for name, count in (("request_throughput", result["completed"]), ("output_throughput", by_hand["generation_tokens"]),
                        ("total_token_throughput", by_hand["prompt_tokens"] + by_hand["generation_tokens"])):
        assert result[name] == pytest.approx(count / result["duration"])
    assert result["mean_ttft_ms"] == pytest.approx(sum(result["ttfts"]) / len(lengths) * 1000)
    # At its own times: 25 ms between two, 39 of them.
    starts = result["start_times"]
    assert 0.975 <= starts[-1] - starts[0] < 3 and result["duration"] > 0.975 and starts == sorted(starts)
    at_once, _ = bench(tmp_path, server, *TRACE, "--dataset-path", path, "--save-detailed", "--no-self-timed")
    assert at_once["start_times"][-1] - at_once["start_times"][0] < 0.9 and at_once["output_lens"] == result["output_lens"]


def test_the_azure_trace(tmp_path, server):
    path = tmp_path / "azure.csv"
    path.write_text("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.9805900,39,9\n2023-11-16 18:15:46.6805900,37,4\n2023-11-16 18:15:47.0000000,8,5\n")
    result, _ = bench(tmp_path, server, "--dataset-name", "timed_trace", "--dataset-path", path, "--save-detailed")
    assert (result["input_lens"], result["output_lens"]) == ([37, 39, 8], [4, 9, 5])
    assert 0.29 <= result["start_times"][1] - result["start_times"][0] < 1


def test_random_lengths_and_a_common_prefix(tmp_path, server):
    arguments = ["--num-prompts", "40", "--random-input-len", "20", "--random-output-len", "10", "--random-prefix-len", "32", "--random-range-ratio", "0.5", "--save-detailed"]
    first, _ = bench(tmp_path, server, *arguments, "--seed", "3")
    again, _ = bench(tmp_path, server, *arguments, "--seed", "3")
    other, _ = bench(tmp_path, server, *arguments, "--seed", "4")
    assert first["input_lens"] == again["input_lens"] != other["input_lens"] and first["output_lens"] == again["output_lens"]
    assert set(first["input_lens"]) <= set(range(42, 63)) and len(set(first["input_lens"])) > 8
    assert set(first["output_lens"]) <= set(range(5, 16)) and len(set(first["output_lens"])) > 5


def test_texts_and_chats(tmp_path, server):
    path = tmp_path / "custom.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"Once upon a time {i}", "output_tokens": 3 + i}) + "\n" for i in range(5)))
    custom = ["--dataset-name", "custom", "--dataset-path", path, "--custom-output-len", "-1", "--disable-shuffle", "--ignore-eos", "--save-detailed", "--temperature", "0"]
    result, _ = bench(tmp_path, server, *custom, "--num-prompts", "5")
    assert result["output_lens"] == [3, 4, 5, 6, 7]
    answer = server.post("/v1/completions", {"prompt": "Once upon a time 2", "max_tokens": 5, "temperature": 0, "ignore_eos": True})
    assert result["generated_texts"][2] == answer["choices"][0]["text"] and result["input_lens"][2] == answer["usage"]["prompt_tokens"]
    result, _ = bench(tmp_path, server, *custom, "--num-prompts", "12")
    assert result["completed"] == 12 and result["output_lens"][:5] == [3, 4, 5, 6, 7]
    result, _ = bench(tmp_path, server, *custom, "--num-prompts", "12", "--no-oversample")
    assert result["completed"] == 5 and result["num_prompts"] == 12
    assert f"{server.name}, 5 requests, custom" in (tmp_path / "bench.svg").read_text()

    path = tmp_path / "sharegpt.json"
    turns = lambda *texts: {"conversations": [{"from": "human", "value": text} for text in texts]}
    path.write_text(json.dumps([turns("Once upon a time there was a girl", "She was called Lily and"), turns("one"), turns("no", "it is too short a prompt"), {}]))
    result, _ = bench(tmp_path, server, "--dataset-name", "sharegpt", "--dataset-path", path, "--num-prompts", "2", "--ignore-eos", "--save-detailed")
    count = lambda text: server.post("/tokenize", {"prompt": text})["count"]
    assert result["input_lens"] == [count("Once upon a time there was a girl")] * 2 and result["output_lens"] == [count("She was called Lily and")] * 2


def test_a_model_of_its_own_chats_and_leaves_nothing(tmp_path):
    model = shutil.copytree(STORIES, tmp_path / "model")
    tokenizer = model / "tokenizer_config.json"
    tokenizer.write_text(json.dumps({**json.loads(tokenizer.read_text()), "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}"}))
    with serving(model, *FAST) as server:
        result, _ = bench(tmp_path, server, "--backend", "openai-chat", "--num-prompts", "5", "--random-input-len", "12", "--random-output-len", "6")
        assert result["completed"] == 5 and result["total_output_tokens"] == 30
    result, _ = bench(tmp_path, STORIES, *FAST, "-dp", "2", "--num-prompts", "8", "--random-input-len", "10", "--random-output-len", "6", "--num-warmups", "2", "--seed", "7")
    assert result["completed"] == 8 and result["total_output_tokens"] == 48
    with subprocess.Popen([CHORUS, "bench", "serve", STORIES, *FAST, "--num-prompts", "500", "--random-input-len", "10", "--random-output-len", "300"],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + 30
        while len(below := descendants(process.pid)) < 3:
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 130
        assert gone_within(below, 10)


def test_requests_that_fail_are_counted(tmp_path, server):
    path = tmp_path / "trace.jsonl"
    path.write_text("".join(json.dumps({"timestamp": 0, "input_length": given, "output_length": 4}) + "\n" for given in (9, 5000, 11)))
    result, shown = bench(tmp_path, server, *TRACE, "--dataset-path", path, "--save-detailed", status=3)
    assert (result["completed"], result["failed"], result["total_input_tokens"], result["total_output_tokens"]) == (2, 1, 20, 8)
    assert (result["input_lens"], result["output_lens"]) == ([9, 5000, 11], [4, 0, 4])
    assert "400" in result["errors"][1] and result["errors"][0] == result["errors"][2] == "" and re.search(r"Failed requests: +1 ", shown)


class Breaking(http.server.BaseHTTPRequestHandler):
    """A server of which every second answer breaks off, and every third is refused."""
    asked = 0

    def log_message(self, *_):
        pass

    def reply(self, body, status=200):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(b'{"data": [{"id": "m"}]}')

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/tokenize":
            return self.reply(b'{"tokens": [1, 2, 3]}')
        with threading.Lock():
            Breaking.asked += 1
            number = Breaking.asked
        token = b'data: {"choices": [{"text": "a"}]}\n\n'
        if number % 3 == 0:
            return self.reply(b'{"error": {"message": "too much"}}', 503)
        return self.reply(token if number % 2 == 0 else token * 2 + b"data: [DONE]\n\n")


def test_a_server_that_breaks_off_and_tells_no_usage(tmp_path):
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Breaking) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        result, _ = bench(tmp_path, f"http://127.0.0.1:{server.server_port}", "--num-prompts", "12", "--random-input-len", "7", "--max-concurrency", "1", "--save-detailed", status=3)
        server.shutdown()
    kinds = ["broke off" if i % 2 == 0 and i % 3 else "503" if i % 3 == 0 else "" for i in range(1, 13)]
    assert [next(kind for kind in ("broke off", "503", "") if kind in error) for error in result["errors"]] == kinds
    assert result["completed"] == kinds.count("") and result["failed"] == 12 - kinds.count("")
    assert result["total_output_tokens"] == 2 * result["completed"] and result["total_input_tokens"] == 7 * result["completed"]


class Recording(http.server.BaseHTTPRequestHandler):
    """A server that keeps what it is asked."""
    bodies = []
    on_request = staticmethod(lambda: None)

    def log_message(self, *_):
        pass

    def reply(self, body):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        self.reply(b'{"data": [{"id": "m"}]}')

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/tokenize":
            return self.reply(b'{"tokens": [1, 2, 3]}')
        self.on_request()
        self.bodies.append(body)
        return self.reply(b'data: {"choices": [{"text": "a"}]}\n\ndata: [DONE]\n\n')


@pytest.fixture
def recording():
    Recording.bodies, Recording.on_request = [], staticmethod(lambda: None)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Recording) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_each_of_several_rates_has_a_salt_of_its_own(tmp_path, recording):
    def salts(*arguments):
        Recording.bodies.clear()
        bench(tmp_path, recording, "--num-prompts", "3", "--random-input-len", "4", *arguments)
        return [body.get("cache_salt") for body in Recording.bodies]
    assert salts() == [None] * 3 and salts("--request-rate", "90") == [None] * 3
    first, again = salts("--request-rate", "90,inf"), salts("--request-rate", "90,inf")
    assert [first.count(salt) for salt in first] == [3] * 6 and all(first) and not set(first) & set(again)
    assert salts("--request-rate", "90,inf", "--extra-body", '{"cache_salt": "mine"}') == ["mine"] * 6


def test_a_name_that_is_no_utf8_is_sent_with_replacements(tmp_path, recording):
    bench(tmp_path, recording, "--num-prompts", "1", "--random-input-len", "4", "--model", "\udcffm")  # the byte 0xff
    assert Recording.bodies[0]["model"] == "\ufffdm"


def test_a_result_that_cannot_be_saved_is_still_told(tmp_path, recording):
    results = tmp_path / "results"
    Recording.on_request = staticmethod(lambda: shutil.rmtree(results, ignore_errors=True))
    few = ["--num-prompts", "1", "--random-input-len", "4", "--result-dir", results]
    result, shown = bench(tmp_path, recording, *few, "--save-result", status=2)
    assert result["completed"] == 1 and "Serving Benchmark Result" in shown
    # Where that is known beforehand nothing is measured.
    Recording.bodies.clear()
    results.write_text("a file")
    (tmp_path / "folder").mkdir()
    for arguments, words in [(few, "results: mkdir: "), ([*few[:-1], tmp_path, "--result-filename", "folder"], "there is a folder of that name")]:
        done = chorus("bench", "serve", recording, *arguments, "--save-result")
        assert done.returncode == 2 and words in done.stderr.decode() and not done.stdout and not Recording.bodies, done


def test_files_as_vllm_names_them(tmp_path, server):
    few = ["--num-prompts", "2", "--random-input-len", "8", "--random-output-len", "4"]
    done = chorus("bench", "serve", "--base-url", server.url(), *few, "--save-result", "--result-dir", tmp_path / "results", "--request-rate", "40", "--max-concurrency", "1")
    assert done.returncode == 0, done.stderr
    (path,) = (tmp_path / "results").iterdir()
    assert re.fullmatch(rf"openai-40\.0qps-concurrency1-{server.name.split('/')[-1]}-\d{{8}}-\d{{6}}\.json", path.name)
    assert "\n" not in path.read_text() and json.loads(path.read_text())["completed"] == 2
    named = ["--result-dir", tmp_path, "--result-filename", "all.json", "--append-result"]
    for _ in range(2):
        assert chorus("bench", "serve", "--host", server.host, "--port", server.port, *few, *named).returncode == 0
    assert [json.loads(line)["completed"] for line in (tmp_path / "all.json").read_text().split("\n")] == [2, 2]
    assert chorus("bench", "serve", server.url(), *few, *named, "--request-rate", "50,inf").returncode == 0
    assert [json.loads(line)["request_rate"] for line in (tmp_path / "all.json").read_text().split("\n")] == ["inf", "inf", 50, "inf"]


def test_several_rates(tmp_path, server):
    result, shown = bench(tmp_path, server, "--num-prompts", "10", "--random-input-len", "30", "--random-output-len", "5", "--request-rate", "20,40,inf")
    assert [one["request_rate"] for one in result["results"]] == [20, 40, "inf"] and shown.count("Serving Benchmark Result") == 3
    assert result["results"][0]["duration"] >= 0.5 and result["results"][1]["duration"] >= 0.25  # the last request comes then
    assert "latency over load" in (tmp_path / "bench.svg").read_text()
    assert all(one["completed"] == 10 for one in result["results"])


@pytest.mark.parametrize("arguments, words", [
    (["http://127.0.0.1:1"], "no server at"), (["--request-rate", "0"], "--request-rate"), (["--request-rate", "1,x"], "--request-rate"), (["--backend", "tgi"], "--backend"),
    (["--dataset-name", "sonnet"], "known are random"), (["--dataset-name", "custom"], "--dataset-path"), (["--dataset-path", "x"], "--dataset-name"),
    (["--random-range-ratio", "1"], "--random-range-ratio"), (["--num-prompts", "0"], "--num-prompts"), (["--goodput", "itl:3"], "--goodput"),
    (["--percentile-metrics", "tttf"], "--percentile-metrics"), (["--metric-percentiles", "x"], "--metric-percentiles"), (["--metadata", "x"], "NAME=VALUE"),
    (["--header", "x"], "NAME=VALUE"), (["--extra-body", "[]"], "--extra-body"), (["--self-timed"], "timed_trace"), (["--burstiness", "0"], "--burstiness"),
    (["--ramp-up-strategy", "linear"], "--ramp-up-start-rps"), (["--max-concurrency", "-1"], "--max-concurrency"), (["-dp", "2"], "chorus serve"),
    (["--metadata", "num_prompts=5"], "--metadata num_prompts=5"), (["--metadata", "p99_ttft_ms=1"], "--metadata p99_ttft_ms=1"), (["--metadata", "errors=0"], "--metadata errors=0"),
    (["--save-result", "--result-filename", "r.json", "--request-rate", "1,2"], "--append-result"), (["--save-result", "--result-dir", "/dev/null/x"], "/dev/null/x"),
    (["--request-rate", "1e-12"], "more than a year"), (["--ramp-up-start-rps", "1"], "--ramp-up-strategy"),
    (["--ramp-up-strategy", "linear", "--ramp-up-start-rps", "1", "--ramp-up-end-rps", "inf"], "--ramp-up-end-rps"), (["--num-prompts", "-1"], "--num-prompts"),
    (["--random-input-len", "2000000000", "--random-range-ratio", "0.9"], "--random-input-len is 2000000000: give 0 to 16777216"),
    (["--random-output-len", "16777217"], "give 1 to 16777216"), (["--random-prefix-len", "2000000000"], "--random-prefix-len"),
    (["--dataset-name", "sharegpt", "--dataset-path", "x", "--sharegpt-output-len", "-5"], "--sharegpt-output-len is -5"),
    (["--dataset-name", "custom", "--dataset-path", "x", "--custom-output-len", "0"], "--custom-output-len is 0"),
    (["--dataset-name", "timed_trace", "--dataset-path", "x", "--request-rate", "2"], "--no-self-timed"),
    (["--dataset-name", "timed_trace", "--dataset-path", "x", "--ramp-up-strategy", "linear"], "--no-self-timed"),
    (["--dataset-name", "timed_trace", "--dataset-path", "x", "--timed-trace-sec-multiplier", "0"], "--timed-trace-sec-multiplier is 0"),
    (["--dataset-name", "timed_trace", "--dataset-path", "x", "--timed-trace-sec-multiplier", "inf"], "--timed-trace-sec-multiplier is inf"),
    (["--output-json", "/nowhere/x"], "/nowhere/x")])
def test_what_is_wrong_is_said(server, arguments, words):
    target = [] if arguments[0].startswith("http") else ["--base-url", server.url()]
    done = chorus("bench", "serve", *target, *arguments)
    assert done.returncode == (1 if words == "no server at" else 2) and words in done.stderr.decode() and not done.stdout, done


@pytest.mark.parametrize("text, words", [('{"timestamp": 0, "input_length": 3}', "output_length"), ('{"input_length": 3, "output_length": 3}', "timestamp"), ("[]", "line 1"),
                                         ('{"timestamp": 0, "input_length": 99, "output_length": 3, "hash_ids": [1]}', "--timed-trace-chunk-hash-size"), ("", "no request"),
                                         ('{"timestamp": 1700000000000000, "input_length": 1, "output_length": 3}', "more than a year"),
                                         ('{"timestamp": 0, "input_length": 1000000000, "output_length": 3}', "from 1 to 16777216"),
                                         ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,1000000000,4\n", "line 2"),
                                         ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6,1,4\n2025-11-16 18:15:46.6,1,4\n", "line 3"),
                                         ("TIMESTAMP,ContextTokens,GeneratedTokens\nyesterday,1,2\n", "line 2")])
def test_a_wrong_trace_is_refused(tmp_path, server, text, words):
    (tmp_path / "trace").write_text(text)
    done = chorus("bench", "serve", server.url(), *TRACE, "--dataset-path", tmp_path / "trace")
    assert done.returncode == 2 and words in done.stderr.decode() and not done.stdout, done


@pytest.mark.parametrize("turns", [["a", "b"], [{"from": "human"}, {"value": "b"}], [{"value": "a"}, {"value": 1}]])
def test_a_turn_without_a_text_is_refused(tmp_path, server, turns):
    (tmp_path / "chats.json").write_text(json.dumps([{}, {"conversations": turns}]))
    done = chorus("bench", "serve", server.url(), "--dataset-name", "sharegpt", "--dataset-path", tmp_path / "chats.json")
    assert done.returncode == 2 and "chats.json entry 2" in done.stderr.decode() and not done.stdout, done


def test_a_row_with_too_long_an_answer_is_refused(tmp_path, server):
    (tmp_path / "rows.jsonl").write_text('{"prompt": "a", "output_tokens": 4294967297}')
    done = chorus("bench", "serve", server.url(), "--dataset-name", "custom", "--dataset-path", tmp_path / "rows.jsonl", "--custom-output-len", "-1")
    assert done.returncode == 2 and "line 1" in done.stderr.decode() and "output_tokens" in done.stderr.decode() and not done.stdout, done
