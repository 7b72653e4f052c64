"""What users get wrong, on the real program: the exit status, one line on stderr that says what and where, nothing half-written."""
import json
import os
import pathlib
import resource
import shutil
import signal
import subprocess

import pytest

from chorus_process import CHORUS, STORIES, TINY, chorus, gone_within, log_lines, other_lines, wait_for_engines, wait_for_weights

LLAMA = TINY / "llama"
SMALL = ["--threads", "1", "--kv-cache-memory", "4MiB"]


def lines(rows):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def refused(done, *words, status=2):
    """One line besides the log, with every word in it; nothing on stdout."""
    errors = other_lines(done.stderr)
    assert done.returncode == status, (done.returncode, done.stderr)
    assert len(errors) == 1 and errors[0].startswith("chorus: "), done.stderr.decode()
    for word in words:
        assert str(word) in errors[0], (word, errors[0])
    assert done.stdout == b""


def started(done):
    return any("Starting" in line for line in log_lines(done.stderr))


def model_with(directory, **changes):
    """The tiny Llama with another config.json; a value of None takes the key out."""
    shutil.copytree(LLAMA, directory)
    config = json.loads((LLAMA / "config.json").read_text())
    config.update(changes)
    (directory / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return directory


# ---- the command line ----

@pytest.mark.parametrize("arguments, words", [
    (["genrate"], ["unknown command genrate", "generate"]),
    (["--promt"], ["unknown option --promt", "generate"]),
    ([], []),
    (["generate"], ["MODEL is required"]),
    (["generate", STORIES, "--max-token", "4"], ["unknown option --max-token", "did you mean --max-tokens?"]),
    (["generate", STORIES, "--max-token=4"], ["unknown option --max-token", "did you mean --max-tokens?"]),
    (["generate", STORIES, "--data-paralel-size", "2"], ["did you mean --data-parallel-size?"]),
    (["generate", STORIES, "--xyzzy"], ["unknown option --xyzzy"]),
    (["generate", STORIES, "prompt"], ["unexpected argument prompt"]),
    (["generate", STORIES, "--prompt"], ["--prompt"]),
    (["generate", STORIES, "--prompt", "a", "--log-level", "loud"], ["--log-level", "loud", "warning"]),
    (["run"], ["WORKFLOW is required"]),
])
def test_wrong_usage(arguments, words):
    refused(chorus(*arguments), *words)


@pytest.mark.parametrize("option, words", [
    (["--dtype", "float13"], ["--dtype", "float13", "bfloat16"]),
    (["--device", "tpu"], ["--device", "tpu", "cpu"]),
    (["--cpu-isa", "avx1024"], ["--cpu-isa", "avx1024", "scalar"]),
    (["--load-format", "pt"], ["--load-format", "pt", "safetensors"]),
    (["--load-format", "gguf"], ["--load-format gguf takes a file NAME.gguf"]),
    (["--block-size", "7"], ["--block-size", "7", "16"]),
    (["--max-num-seqs", "0"], ["--max-num-seqs", "0", "1"]),
    (["--max-model-len", "1000000"], ["--max-model-len", "1000000", "512"]),
    (["--kv-cache-memory", "12potatoes"], ["--kv-cache-memory", "12potatoes", "4GiB"]),
    (["-dp", "0"], ["--data-parallel-size", "0", "1 to"]),
    (["-dp", "100000"], ["--data-parallel-size", "100000"]),
    (["-dp", "two"], ["--data-parallel-size", "two"]),
    (["--load-balancer", "magic"], ["--load-balancer", "magic", "round_robin"]),
    (["--temperature", "-1"], ["--temperature", "-1", "0 to"]),
    (["--temperature", "hot"], ["--temperature", "hot"]),
    (["--temperature", "nan"], ["--temperature", "nan"]),
    (["--max-tokens", "0"], ["--max-tokens", "0", "1 to"]),
    (["--logit-bias", "{bad"], ["--logit-bias", "{bad"]),
    (["--input", "nowhere.jsonl"], ["nowhere.jsonl"]),
    (["--input", "/"], ["/"]),
])
def test_bad_option_values(option, words):
    done = chorus("generate", STORIES, "--prompt", "a", *option)
    refused(done, *words)
    assert not started(done)


@pytest.mark.parametrize("option, words", [
    (["-tp", "16"], ["--tensor-parallel-size 16", "these do: 1, 2, 4"]),
    (["-pp", "9"], ["--pipeline-parallel-size 9", "5 layers"]),
    (["-pp", "2", "--pp-layer-partition", "5"], ["--pp-layer-partition", "2 numbers", "5 in all"]),
    (["-dcp", "2", "--block-size", "48"], ["--block-size is 48", "--decode-context-parallel-size 2", "16, 32, 64, 128, 256"]),
    (["--fault-point", "dp=0@nowhere"], ["--fault-point", "step-done"]),
    (["--enable-eplb"], ["--enable-eplb", "--enable-expert-parallel"]),
    (["-ep", "--eplb-config", '{"window": 3}'], ["--eplb-config", "window_size"]),
])
def test_parallel_options_that_do_not_fit(option, words):
    done = chorus("generate", STORIES, "--prompt", "a", *option)
    refused(done, *words)
    assert not started(done)


def test_an_instruction_set_that_is_not_there():
    flags = pathlib.Path("/proc/cpuinfo").read_text(encoding="utf-8")
    if "amx_bf16" in flags:
        pytest.skip("this machine has AMX")
    refused(chorus("generate", STORIES, "--prompt", "a", "--cpu-isa", "amx-bf16"), "--cpu-isa", "amx-bf16", "scalar")


def test_too_small_a_cache():
    refused(chorus("generate", STORIES, "--prompt", "a", "--kv-cache-memory", "1KiB"), "--kv-cache-memory", "1024 bytes", "give at least")


def test_a_length_that_the_cache_cannot_hold():
    done = chorus("generate", STORIES, "--prompt", "a", "--max-model-len", "512", "--kv-cache-memory", "100KiB")
    refused(done, "--max-model-len 512", "160 tokens", "--kv-cache-memory")
    assert not started(done)


def test_a_length_that_was_not_given_is_what_the_cache_holds():
    rows = [{"prompt_token_ids": [5] * 10, "max_tokens": 500, "ignore_eos": True}, {"prompt_token_ids": [5] * 160, "max_tokens": 1}]
    done = chorus("generate", STORIES, "-dp", "2", "--threads", "1", "--kv-cache-memory", "100KiB", stdin=lines(rows))
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [line.endswith("--kv-cache-memory raises it") for line in log_lines(done.stderr)].count(True) == 1
    assert len(found[0]["outputs"][0]["token_ids"]) == 150 and found[0]["outputs"][0]["finish_reason"] == "length"
    assert done.returncode == 3 and "max_model_len 160" in found[1]["error"]


# ---- the model directory ----

def test_no_such_model():
    refused(chorus("generate", "/nowhere/model", "--prompt", "a"), "/nowhere/model", "config.json")


def test_a_directory_without_a_config(tmp_path):
    refused(chorus("generate", tmp_path, "--prompt", "a"), tmp_path, "config.json")


def test_a_config_that_is_no_json(tmp_path):
    (tmp_path / "config.json").write_text('{"architectures": [')
    refused(chorus("generate", tmp_path, "--prompt", "a"), tmp_path / "config.json", "JSON")


def test_no_architectures(tmp_path):
    model = model_with(tmp_path / "model", architectures=None)
    refused(chorus("generate", model, "--prompt", "a"), model / "config.json", "architectures", "LlamaForCausalLM")


def test_an_unknown_architecture(tmp_path):
    model = model_with(tmp_path / "model", architectures=["LamaForCausalLM"])
    refused(chorus("generate", model, "--prompt", "a"), model / "config.json", "LamaForCausalLM", "known", "LlamaForCausalLM", "Qwen3MoeForCausalLM")


def test_a_model_of_another_kind_without_a_number_of_layers(tmp_path):
    """Its architecture is what is wrong with it, not its pipeline stages."""
    model = model_with(tmp_path / "model", architectures=["BertModel"], num_hidden_layers=None)
    refused(chorus("generate", model, "--prompt", "a"), model / "config.json", "BertModel", "known", "LlamaForCausalLM")


@pytest.mark.parametrize("changes, words", [
    ({"hidden_size": None}, ["hidden_size"]),
    ({"num_hidden_layers": -1}, ["num_hidden_layers", "-1"]),
    ({"hidden_size": "64"}, ["hidden_size"]),
    ({"hidden_act": "swish2"}, ["hidden_act", "swish2"]),
])
def test_a_wrong_config(tmp_path, changes, words):
    model = model_with(tmp_path / "model", **changes)
    refused(chorus("generate", model, stdin=lines([{"prompt_token_ids": [1]}])), model / "config.json", *words)


def read_safetensors(path):
    blob = path.read_bytes()
    size = int.from_bytes(blob[:8], "little")
    return json.loads(blob[8:8 + size]), blob[8 + size:]


def write_safetensors(path, header, data):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data)


def load(model):
    return chorus("generate", model, *SMALL, stdin=lines([{"prompt_token_ids": [1, 2], "max_tokens": 1}]))


TENSOR = "model.layers.1.self_attn.k_proj.weight"


def break_truncate(path):
    path.write_bytes(path.read_bytes()[:-1000])


def break_cut_in_header(path):
    path.write_bytes(path.read_bytes()[:100])


def break_empty(path):
    path.write_bytes(b"")


def break_long_header(path):
    path.write_bytes((1 << 60).to_bytes(8, "little") + path.read_bytes()[8:])


def break_header_json(path):
    blob = bytearray(path.read_bytes())
    blob[8] = ord("[")
    path.write_bytes(blob)


def break_missing_tensor(path):
    header, data = read_safetensors(path)
    begin, end = header.pop(TENSOR)["data_offsets"]
    for entry in (value for name, value in header.items() if name != "__metadata__" and value["data_offsets"][0] >= end):
        entry["data_offsets"] = [offset - (end - begin) for offset in entry["data_offsets"]]
    write_safetensors(path, header, data[:begin] + data[end:])


def break_shape(path):
    header, data = read_safetensors(path)
    header[TENSOR]["shape"] = header[TENSOR]["shape"][::-1]
    write_safetensors(path, header, data)


def break_shape_and_size(path):
    header, data = read_safetensors(path)
    header[TENSOR]["shape"] = [2, *header[TENSOR]["shape"]]
    write_safetensors(path, header, data)


def break_dtype(path):
    header, data = read_safetensors(path)
    header[TENSOR]["dtype"] = "Q4"
    write_safetensors(path, header, data)


def break_offsets(path):
    header, data = read_safetensors(path)
    header[TENSOR]["data_offsets"] = [len(data), len(data) + 8192]
    write_safetensors(path, header, data)


@pytest.mark.parametrize("damage, words", [
    (break_truncate, ["model.safetensors"]),
    (break_cut_in_header, ["model.safetensors"]),
    (break_empty, ["model.safetensors"]),
    (break_long_header, ["model.safetensors", "header"]),
    (break_header_json, ["model.safetensors", "JSON"]),
    (break_missing_tensor, [TENSOR]),
    (break_shape, [TENSOR, "[64, 32]", "[32, 64]"]),
    (break_shape_and_size, ["model.safetensors", TENSOR]),
    (break_dtype, ["model.safetensors", TENSOR, "Q4"]),
    (break_offsets, ["model.safetensors", TENSOR]),
    (lambda path: path.unlink(), ["safetensors"]),
], ids=lambda value: getattr(value, "__name__", None))
def test_broken_weights(tmp_path, damage, words):
    model = model_with(tmp_path / "model")
    assert load(model).returncode == 0
    damage(model / "model.safetensors")
    refused(load(model), model, *words)


def test_a_tokenizer_that_is_no_json(tmp_path):
    shutil.copytree(STORIES, tmp_path / "model")
    (tmp_path / "model" / "tokenizer.json").write_text("{")
    refused(chorus("generate", tmp_path / "model", "--prompt", "a"), "tokenizer.json")


# ---- rows ----

def test_wrong_rows_fail_by_name_and_the_others_do_not():
    rows = [{"id": "first", "prompt": "Once", "max_tokens": 3}, {"id": "long", "prompt_token_ids": [5] * 600},
            {"id": "no room", "prompt_token_ids": [5] * 512}, {"id": "empty", "prompt_token_ids": []},
            {"id": "high", "prompt_token_ids": [1, 512]}, {"id": "low", "prompt_token_ids": [-1]},
            {"id": "huge", "prompt_token_ids": [2**40]}, {"id": "last", "prompt": "Once", "max_tokens": 3}]
    done = chorus("generate", STORIES, stdin=lines(rows))
    assert done.returncode == 3
    assert "6 of 8 rows failed" in log_lines(done.stderr)[-1] and not other_lines(done.stderr)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert found[0]["error"] is None and found[-1]["outputs"] == found[0]["outputs"] and len(found[0]["outputs"][0]["token_ids"]) == 3
    for row, words in zip(found[1:-1], [["600", "max_model_len 512"], ["512"], ["empty"], ["512", "0 to 511"], ["-1", "0 to 511"], ["0 to 511"]]):
        assert row["outputs"] == [] and all(word in row["error"] for word in words), row


def test_sampling_parameters_that_contradict_each_other_fail_their_row():
    rows = [{"prompt": "a", "max_tokens": 4, "min_tokens": 5}, {"prompt": "a", "max_tokens": 4, "logit_bias": {"512": 1}},
            {"prompt": "a", "max_tokens": 4, "min_tokens": 4, "logit_bias": {"511": 1}}]
    done = chorus("generate", STORIES, stdin=lines(rows))
    found = [json.loads(line)["error"] for line in done.stdout.splitlines()]
    assert done.returncode == 3 and found[2] is None
    assert "min_tokens 5" in found[0] and "max_tokens 4" in found[0]
    assert "logit_bias" in found[1] and "512" in found[1] and "0 to 511" in found[1]


def test_a_byte_order_mark_and_carriage_returns_are_no_mistake():
    rows = [{"prompt": "a", "max_tokens": 4}, {"prompt": "b", "max_tokens": 4}]
    plain = chorus("generate", STORIES, stdin=lines(rows))
    windows = chorus("generate", STORIES, stdin=b"\xef\xbb\xbf" + lines(rows).replace(b"\n", b"\r\n"))
    assert plain.returncode == windows.returncode == 0 and windows.stdout == plain.stdout


def test_no_rows_are_no_mistake(tmp_path):
    done = chorus("generate", STORIES, "--output", tmp_path / "out.jsonl")
    assert done.returncode == 0 and (tmp_path / "out.jsonl").read_bytes() == b""


def test_a_line_without_an_end():
    """It is not read to the end first."""
    refused(chorus("generate", LLAMA, "--input", "/dev/zero", timeout_s=60), "/dev/zero line 1: longer than 67108864 bytes")


def test_input_that_cannot_be_read(tmp_path):
    directory = os.open(tmp_path, os.O_RDONLY)
    try:
        done = subprocess.run([CHORUS, "tokenize", STORIES, "--jsonl"], stdin=directory, capture_output=True, timeout=60, check=False)
    finally:
        os.close(directory)
    refused(done, "stdin line 1: cannot be read")


def test_a_prompt_that_is_not_utf8():
    done = chorus("generate", STORIES, "--prompt", "a", "--prompt", os.fsdecode(b"b\xff"), "--max-tokens", "2")
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3 and not other_lines(done.stderr)
    assert found[0]["error"] is None and "UTF-8" in found[1]["error"] and "byte 1" in found[1]["error"]


def test_a_text_for_a_model_without_a_tokenizer():
    done = chorus("generate", LLAMA, *SMALL, "--prompt", "a")
    assert done.returncode == 3
    assert "tokenizer.json" in json.loads(done.stdout)["error"] and "prompt_token_ids" in json.loads(done.stdout)["error"]


@pytest.mark.parametrize("line, words", [
    (b"not json", ["JSON"]),
    (b'{"prompt": "a"', ["JSON"]),
    (b'{"prompt": "\xff"}', ["UTF-8"]),
    (b'"a"', ["object"]),
    (b"{}", ["prompt", "messages"]),
    (b'{"prompt": "a", "messages": []}', ["prompt", "messages"]),
    (b'{"prompt": 4}', ["prompt"]),
    (b'{"prompt_token_ids": "1 2"}', ["prompt_token_ids"]),
    (b'{"prompt_token_ids": [1.5]}', ["prompt_token_ids", "1.5"]),
    (b'{"prompt": "a", "temprature": 1}', ["temprature", "did you mean temperature?"]),
    (b'{"prompt": "a", "max-token": 1}', ["max-token", "did you mean max_tokens?"]),
    (b'{"prompt": "a", "priority": "high"}', ["priority"]),
    (b'{"prompt": "a", "temperature": -0.1}', ["temperature is -0.1", "0 to"]),
    (b'{"prompt": "a", "temperature": "hot"}', ["temperature", "hot"]),
    (b'{"prompt": "a", "temperature": 1e999}', ["number"]),
    (b'{"prompt": "a", "top_p": 0}', ["top_p is 0"]),
    (b'{"prompt": "a", "top_p": 1.01}', ["top_p is 1.01"]),
    (b'{"prompt": "a", "top_k": -2}', ["top_k is -2"]),
    (b'{"prompt": "a", "top_k": 1.5}', ["top_k is 1.5"]),
    (b'{"prompt": "a", "min_p": 2}', ["min_p is 2"]),
    (b'{"prompt": "a", "n": 0}', ["n is 0"]),
    (b'{"prompt": "a", "n": 1000000000}', ["n is 1000000000"]),
    (b'{"prompt": "a", "max_tokens": 0}', ["max_tokens is 0"]),
    (b'{"prompt": "a", "max_tokens": 18446744073709551615}', ["max_tokens is 18446744073709551615"]),
    (b'{"prompt": "a", "presence_penalty": 3}', ["presence_penalty is 3"]),
    (b'{"prompt": "a", "repetition_penalty": 0}', ["repetition_penalty is 0"]),
    (b'{"prompt": "a", "logprobs": -1}', ["logprobs is -1"]),
    (b'{"prompt": "a", "stop": [""]}', ["stop is"]),
    (b'{"prompt": "a", "seed": "x"}', ["seed is"]),
    (b'{"prompt": "a", "logit_bias": {"1": 1000}}', ["logit_bias is 1000"]),
    (b'{"prompt": "a", "ignore_eos": 1}', ["ignore_eos is 1"]),
])
def test_a_wrong_line_is_named_and_nothing_runs(tmp_path, line, words):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(b'{"prompt": "a"}\n\n' + line + b'\n{"prompt": "b"}\n')
    output.write_bytes(b"precious")
    done = chorus("generate", STORIES, "--input", source, "--output", output)
    refused(done, f"{source} line 3", *words)
    assert not started(done)
    assert output.read_bytes() == b"precious" and sorted(os.listdir(tmp_path)) == ["in.jsonl", "out.jsonl"]


# ---- interrupts ----

@pytest.mark.parametrize("name, whole_group", [("SIGINT", False), ("SIGINT", True), ("SIGTERM", False), ("SIGHUP", False), ("SIGHUP", True)])
def test_an_interrupt(tmp_path, name, whole_group):
    source, output = tmp_path / "in.jsonl", tmp_path / "out.jsonl"
    source.write_bytes(lines([{"prompt": "Once", "max_tokens": 500, "ignore_eos": True, "seed": seed, "temperature": 1} for seed in range(3000)]))
    process = subprocess.Popen([CHORUS, "generate", STORIES, "-dp", "2", "--threads", "1", "--input", source, "--output", output],
                               stderr=subprocess.PIPE, start_new_session=True)
    engines = wait_for_engines(process, 2)
    seen = b""
    while seen.count(b"is ready") < 2:
        seen += process.stderr.readline()
    (os.killpg if whole_group else os.kill)(process.pid, getattr(signal, name))
    errors = seen + process.communicate(timeout=30)[1]
    assert process.returncode == 130, errors.decode()
    assert [line for line in other_lines(errors) if not line.startswith("generate:")] == ["chorus: interrupted"], errors.decode()
    assert gone_within(engines, 1.0)
    assert os.listdir(tmp_path) == ["in.jsonl"], "a half-written output"


def test_an_interrupt_while_weights_load(tmp_path):
    # A billion dummy weights take seconds to load; the interrupt leaves it the tensor in hand.
    model = model_with(tmp_path / "model", hidden_size=2048, intermediate_size=8192, num_attention_heads=16, num_key_value_heads=16,
                       head_dim=128, num_hidden_layers=16)
    process = subprocess.Popen([CHORUS, "generate", model, "--load-format", "dummy", "--prompt", "a", "--threads", "1"],
                               stderr=subprocess.PIPE)
    wait_for_weights(process)
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=30)[1]
    assert process.returncode == 130, errors.decode()
    assert other_lines(errors) == ["chorus: interrupted"] and b"Starting" not in errors, errors.decode()


# ---- workflows ----

@pytest.fixture
def flow(tmp_path):
    return Flow(tmp_path)


class Flow:
    """A small workflow in its own directory, to be broken."""

    def __init__(self, root):
        self.root = root
        for name in ("data", "prompts"):
            (root / name).mkdir()
        (root / "prompts" / "tell.jinja").write_text("Tell of {{ hero }}")
        self.data(b'{"id": 1, "hero": "Ann"}\n{"id": 2, "hero": "Bob"}\n{"id": 3, "hero": "Cy"}\n')
        self.load = {"id": "load", "type": "load", "params": {"input_data_path": "in.jsonl", "primary_key": "id"}, "dependencies": []}
        self.tell = {"id": "tell", "type": "text_prompt", "dependencies": ["load"],
                     "params": {"name": "tell", "model_name": STORIES, "inference_engine": "vllm_dp",
                                "engine_options": {"data_parallel_size": 1, "threads": 1}, "generation_options": {"max_tokens": 4}}}
        self.whole = {"name": "w", "data_dir": "data", "output_dir": "out", "prompts_dir": "prompts", "nodes": [self.load, self.tell]}

    def data(self, content):
        (self.root / "data" / "in.jsonl").write_bytes(content)

    def run(self, **options):
        (self.root / "w.json").write_text(json.dumps(self.whole))
        return chorus("run", self.root / "w.json", **options)

    def refused(self, *words):
        done = self.run()
        refused(done, *words)
        assert not started(done)
        assert not (self.root / "out" / "tell.jsonl").exists() and not (self.root / "out" / "report.json").exists()


def test_the_workflow_that_is_broken_below(flow):
    assert flow.run().returncode == 0


def test_no_workflow_file():
    refused(chorus("run", "/nowhere/w.json"), "/nowhere/w.json")


def test_a_workflow_that_is_no_json(tmp_path):
    (tmp_path / "w.json").write_text('{"name": "w",\n "nodes": [}\n')
    refused(chorus("run", tmp_path / "w.json"), tmp_path / "w.json", "line 2")


def test_equal_primary_keys(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n{"id": 2, "hero": "b"}\n{"id": 1, "hero": "c"}\n')
    flow.refused("in.jsonl", "rows 1 and 3", "id = 1")


def test_no_primary_key(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n{"hero": "b"}\n')
    flow.refused("in.jsonl", "row 2", '"id"')


def test_a_missing_field_fails_its_row(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n{"id": 2, "her": "b"}\n{"id": 3, "hero": "c"}\n')
    done = flow.run()
    assert done.returncode == 3 and not other_lines(done.stderr), done.stderr
    found = [json.loads(line) for line in (flow.root / "out" / "tell.jsonl").read_text().splitlines()]
    assert [row["id"] for row in found] == [1, 2, 3]
    assert found[1]["tell"] is None and "hero" in found[1]["error"]
    assert found[0]["error"] is None and found[0]["tell"] and found[2]["error"] is None
    assert json.loads((flow.root / "out" / "report.json").read_text())["failed"] == 1


def test_a_cycle(flow):
    flow.load["dependencies"] = ["tell"]
    flow.refused("w.json", "load, tell", "cycle")


def test_a_dependency_that_is_not_there(flow):
    flow.tell["dependencies"] = ["laod"]
    flow.refused("tell", "laod", 'did you mean "load"?')


@pytest.mark.parametrize("path", ["../w.json", "a/../../w.json", "/etc/passwd"])
def test_input_outside_of_data_dir(flow, path):
    flow.load["params"]["input_data_path"] = path
    flow.refused("input_data_path", path)


@pytest.mark.parametrize("name", ["../tell", "a/b", "/tmp/tell", ".."])
def test_names_that_are_paths(flow, name):
    flow.tell["params"]["name"] = name
    flow.refused("name", name)


def test_an_input_that_is_not_there(flow):
    flow.load["params"]["input_data_path"] = "nowhere.jsonl"
    flow.refused("nowhere.jsonl")


def test_a_prompt_that_is_not_there(flow):
    (flow.root / "prompts" / "tell.jinja").unlink()
    flow.refused("prompts", "tell.jinja")


def test_a_template_that_does_not_parse(flow):
    (flow.root / "prompts" / "tell.jinja").write_text("a\n{% if %}")
    flow.refused("tell.jinja", "2")


@pytest.mark.parametrize("place, key, words", [
    ("engine_options", "max_model_length", ["engine_options", "max_model_length", "max-model-len"]),
    ("engine_options", "gpus_per_dp_rnak", ["gpus_per_dp_rnak", "gpus_per_dp_rank"]),
    ("generation_options", "temprature", ["generation_options", "temprature", "temperature"]),
])
def test_unknown_options_name_the_nearest(flow, place, key, words):
    flow.tell["params"][place][key] = 1
    flow.refused(*words)


def test_unknown_keys_name_the_nearest(flow):
    flow.tell["params"]["batch_sise"] = 3
    flow.refused("batch_sise", 'did you mean "batch_size"?')


def test_an_unknown_type(flow):
    flow.tell["type"] = "text_promt"
    flow.refused("tell", "text_promt", 'did you mean "text_prompt"?')


def test_an_unknown_engine(flow):
    flow.tell["params"]["inference_engine"] = "vlm_dp"
    flow.refused("tell", "vlm_dp", 'did you mean "vllm_dp"?')


def test_a_model_that_is_not_there(flow):
    flow.tell["params"]["model_name"] = "nowhere"
    flow.refused(flow.root / "nowhere")


def test_a_line_that_is_no_json(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n\n{"id": 2,\n')
    flow.refused("in.jsonl", "line 3")


def test_a_line_that_is_not_utf8(flow):
    flow.data(b'{"id": 1, "hero": "a"}\n{"id": 2, "hero": "\xff"}\n')
    flow.refused("in.jsonl", "line 2", "UTF-8")


def test_an_output_directory_that_cannot_be(flow):
    flow.whole["output_dir"] = "/proc/out"
    flow.refused("output_dir", "/proc/out")


def test_an_output_directory_that_is_a_file(flow):
    (flow.root / "out").write_text("precious")
    done = flow.run()
    refused(done, "output_dir", flow.root / "out")
    assert (flow.root / "out").read_text() == "precious"


def limit_files():
    """Every file the program writes may have 2 MiB: its weights fit, its output does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))


def test_a_full_disk_under_a_workflow(flow):
    flow.data(lines([{"id": f"{number}" + "x" * 50000, "hero": "Ann"} for number in range(60)]))
    (flow.root / "out").mkdir()
    (flow.root / "out" / "tell.jsonl").write_bytes(b"precious")
    (flow.root / "w.json").write_text(json.dumps(flow.whole))
    done = subprocess.run([CHORUS, "run", str(flow.root / "w.json")], capture_output=True, timeout=60, preexec_fn=limit_files, check=False)
    refused(done, "File too large", "run again", status=1)
    assert (flow.root / "out" / "tell.jsonl").read_bytes() == b"precious"
    assert not (flow.root / "out" / "report.json").exists()
    assert flow.run().returncode == 0
    assert len((flow.root / "out" / "tell.jsonl").read_bytes().splitlines()) == 60
