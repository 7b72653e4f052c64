"""LLM.generate from an installed wheel: the command's tokens, vLLM's surface, errors as exceptions.

    make test-python
"""
import json
import math
import pathlib
import struct
import subprocess
import sys
import sysconfig

import pytest

import chorus
from chorus import LLM, RequestOutput, SamplingParams
from chorus.inputs import TokensPrompt

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import workload  # noqa: E402
from chorus_process import STORIES, TINY  # noqa: E402

PROGRAM = pathlib.Path(sysconfig.get_path("scripts")) / "chorus"
SMALL = {"max_model_len": 256, "kv_cache_memory": "16MiB", "threads": 1}


@pytest.fixture(scope="module")
def llm():
    with LLM(STORIES, **SMALL) as made:
        yield made


def as_line(output, row):
    """What `chorus generate` prints for the row."""
    def positions(token_ids, entries):
        top = [[[id_, entry.logprob] for id_, entry in sorted(at.items(), key=lambda one: one[1].rank or math.inf) if entry.rank] for at in entries]
        return [{"token_id": token, "logprob": at[token].logprob, "top": best} for token, at, best in zip(token_ids, entries, top)]

    choices = []
    for choice in output.outputs:
        choices.append({"index": choice.index, "text": choice.text, "token_ids": choice.token_ids, "finish_reason": choice.finish_reason,
                        "stop_reason": choice.stop_reason})
        if "logprobs" in row or "logprob_token_ids" in row:
            choices[-1]["logprobs"] = positions(choice.token_ids, choice.logprobs)
    line = {"id": row["id"], "prompt": output.prompt, "prompt_token_ids": output.prompt_token_ids, "outputs": choices}
    if "prompt_logprobs" in row:
        line["prompt_logprobs"] = positions(output.prompt_token_ids[1:], output.prompt_logprobs[1:])
    return {**line, "error": None}


def as_float32(value):
    """The command prints the shortest digits that read back as the float that Python has whole."""
    if isinstance(value, float):
        return struct.unpack("f", struct.pack("f", value))[0]
    if isinstance(value, dict):
        return {key: as_float32(member) for key, member in value.items()}
    return [as_float32(member) for member in value] if isinstance(value, list) else value


def rows_and_lines():
    """500 rows of the exactness workload that can run, and what the wheel's program answers."""
    rows = [row for row in workload.rows()]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    arguments = [PROGRAM, "generate", STORIES, "--max-model-len", "256", "--kv-cache-memory", "16MiB", "--threads", "1"]
    done = subprocess.run(arguments, input=text.encode(), capture_output=True, timeout=300, check=False)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(lines) == len(rows), done.stderr.decode()
    good = [(row, line) for row, line in zip(rows, lines) if line["error"] is None][:500]
    assert len(good) == 500
    return [row for row, _ in good], [line for _, line in good]


@pytest.fixture(scope="module")
def mixed():
    return rows_and_lines()


@pytest.mark.parametrize("replicas", [1, 2, 4])
def test_the_commands_tokens(mixed, replicas):
    rows, lines = mixed
    params = [SamplingParams(**{name: value for name, value in row.items() if name not in ("id", "prompt")}) for row in rows]
    with LLM(STORIES, data_parallel_size=replicas, **SMALL) as llm:
        outputs = llm.generate([row["prompt"] for row in rows], params, use_tqdm=False)
        ranks = {output.dp_rank for output in outputs}
    assert ranks == set(range(replicas))
    for row, line, output in zip(rows, lines, outputs):
        assert as_line(output, row) == as_float32(line)


def test_kinds_of_prompts(llm):
    params = SamplingParams(temperature=0, max_tokens=8)
    ids = llm.get_tokenizer().encode("Once upon a time")
    expected = llm.generate("Once upon a time", params)[0].outputs[0].token_ids
    assert len(expected) == 8
    for prompt in (ids, tuple(ids), [ids], ["Once upon a time"], {"prompt": "Once upon a time"}, {"prompt_token_ids": ids},
                   [TokensPrompt(prompt_token_ids=ids)]):
        outputs = llm.generate(prompt, params, use_tqdm=False)
        assert [one.outputs[0].token_ids for one in outputs] == [expected], prompt
        assert outputs[0].prompt_token_ids == ids
    assert llm.generate([], params) == []


def test_outputs_are_vllms(llm):
    output = llm.generate(["Once upon a time"], SamplingParams(temperature=0, max_tokens=4, logprobs=2, prompt_logprobs=1))[0]
    assert isinstance(output, RequestOutput) and output.finished and output.request_id.isdigit()
    assert output.prompt == "Once upon a time" and output.prompt_logprobs[0] is None
    assert len(output.prompt_logprobs) == len(output.prompt_token_ids)
    choice = output.outputs[0]
    assert choice.finished() and choice.finish_reason == "length" and choice.stop_reason is None
    assert [set(at) >= {token} for token, at in zip(choice.token_ids, choice.logprobs)] == [True] * 4
    first = choice.logprobs[0][choice.token_ids[0]]
    assert first.rank == 1 and first.decoded_token and first.logprob < 0
    assert choice.cumulative_logprob == pytest.approx(sum(at[token].logprob for token, at in zip(choice.token_ids, choice.logprobs)))
    assert output.metrics.first_token_latency <= output.metrics.latency


def test_defaults_fill_the_context_and_priority(llm):
    default = llm.get_default_sampling_params()
    assert (default.temperature, default.max_tokens) == (1.0, 16)
    assert len(llm.generate("Once")[0].outputs[0].token_ids) <= 16
    whole = llm.generate("Once", SamplingParams(max_tokens=None, ignore_eos=True, temperature=0))[0]
    assert len(whole.prompt_token_ids) + len(whole.outputs[0].token_ids) == 256
    outputs = llm.generate(["a", "b"], SamplingParams(max_tokens=2), priority=[3, -1], data_parallel_rank=[0, None])
    assert [one.dp_rank for one in outputs] == [0, 0]


def test_the_tokenizer(llm):
    tokenizer = llm.get_tokenizer()
    ids = tokenizer.encode("Once upon a time")
    assert ids[0] == tokenizer.bos_token_id == 1 and tokenizer.encode("Once upon a time", add_special_tokens=False) == ids[1:]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "Once upon a time"
    assert len(tokenizer) == tokenizer.vocab_size == 512
    assert tokenizer.convert_tokens_to_ids(tokenizer.convert_ids_to_tokens(ids)) == ids
    template = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}{% if add_generation_prompt %}:{% endif %}"
    messages = [{"role": "user", "content": "Hello"}]
    text = tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False)
    assert text == "[user] Hello"
    assert tokenizer.apply_chat_template(messages, chat_template=template, add_generation_prompt=True) == tokenizer.encode(text + ":", add_special_tokens=False)
    answer = llm.chat(messages, SamplingParams(temperature=0, max_tokens=4), chat_template=template, use_tqdm=False)[0]
    assert answer.prompt == "[user] Hello:" and len(answer.outputs[0].token_ids) == 4
    with pytest.raises(ValueError, match="chat_template"):
        llm.chat(messages)


WRONG = [
    (lambda: SamplingParams(temperature=-1), ValueError, "temperature"),
    (lambda: SamplingParams(top_p=0), ValueError, "top_p"),
    (lambda: SamplingParams(max_tokens=0), ValueError, "max_tokens"),
    (lambda: SamplingParams(n=1000), ValueError, "n is 1000"),
    (lambda: SamplingParams(temperature=math.nan), ValueError, "nan"),
    (lambda: SamplingParams(stop=[""]), ValueError, "stop"),
    (lambda: SamplingParams(flat_logprobs=True), ValueError, "flat_logprobs"),
    (lambda: SamplingParams(temperatur=1), TypeError, "did you mean temperature"),
    (lambda: LLM(STORIES, max_model_length=5), TypeError, "did you mean max-model-len"),
    (lambda: LLM(STORIES, max_model_len="many"), ValueError, "max-model-len"),
    (lambda: LLM(STORIES, dtype="float8"), ValueError, "dtype"),
    (lambda: LLM(STORIES, api_server_count=2), ValueError, "chorus serve"),
    (lambda: LLM(STORIES + "-not-there"), FileNotFoundError, "not-there"),
    (lambda: LLM(STORIES, tensor_parallel_size=3), ValueError, "tensor"),
    (lambda: LLM(STORIES, distributed_executor_backend="external_launcher"), ValueError, "torchrun"),
]


@pytest.mark.parametrize("make,exception,words", WRONG)
def test_bad_input_is_an_exception(make, exception, words):
    with pytest.raises(exception, match=words):
        make()


@pytest.mark.parametrize("prompts,exception,words", [
    (["fine", "x" * 5000], ValueError, "prompt 1: .*256"), ([[1, 2, 99999]], ValueError, "prompt 0: .*99999"), ([[1, 10**30]], ValueError, "prompt 0"),
    ([[]], ValueError, "prompt 0"), ([5.5], TypeError, "prompt 0"), ([["a"]], TypeError, "integer"), ([{"text": "a"}], ValueError, "'text'"),
    (["\ud800"], ValueError, "surrogate")])
def test_a_bad_prompt_ends_the_call_and_not_the_llm(llm, prompts, exception, words):
    with pytest.raises(exception, match=words):
        llm.generate(prompts, SamplingParams(max_tokens=2), use_tqdm=False)
    assert len(llm.generate("Once", SamplingParams(max_tokens=2))[0].outputs[0].token_ids) == 2


def test_params_for_each_and_their_number(llm):
    outputs = llm.generate(["a", "a"], [SamplingParams(max_tokens=2, temperature=0), SamplingParams(max_tokens=5, temperature=0, n=2)])
    assert [[len(choice.token_ids) for choice in one.outputs] for one in outputs] == [[2], [5, 5]]
    with pytest.raises(ValueError, match="1 and prompts 2"):
        llm.generate(["a", "b"], [SamplingParams()])
    params = SamplingParams(max_tokens=3)
    assert params == params.clone() and params != SamplingParams(max_tokens=4) and repr(params) == "SamplingParams(max_tokens=3)"
    params.max_tokens = 1
    assert len(llm.generate("a", params)[0].outputs[0].token_ids) == 1


def test_a_closed_llm_says_so():
    llm = LLM(STORIES, **SMALL)
    llm.close()
    llm.close()
    with pytest.raises(RuntimeError, match="closed"):
        llm.generate("a")


def test_the_parts_of_vllm_that_programs_reach_into():
    numpy = pytest.importorskip("numpy")
    with LLM(str(TINY / "llama"), data_parallel_size=2, tensor_parallel_size=2, max_model_len=64, kv_cache_memory="8MiB", threads=1) as llm:
        parallel = llm.llm_engine.vllm_config.parallel_config
        assert (parallel.data_parallel_rank, parallel.data_parallel_size, parallel.tensor_parallel_size) == (0, 2, 2)
        assert parallel.world_size_across_dp == 4
        model = llm.llm_engine.model_executor.driver_worker.worker.model_runner.model
        parameters = dict(model.named_parameters())
        config = json.loads((TINY / "llama" / "config.json").read_text())
        norm = parameters["model.norm.weight"]
        assert norm.shape == (config["hidden_size"],) and norm.dtype == numpy.float32
        down = parameters["model.layers.0.mlp.down_proj.weight"]
        assert down.shape == (config["hidden_size"], config["intermediate_size"] // 2), "rank 0's columns"
    header_bytes = (TINY / "llama" / "model.safetensors").read_bytes()
    size = int.from_bytes(header_bytes[:8], "little")
    entry = json.loads(header_bytes[8:8 + size])["model.layers.0.mlp.down_proj.weight"]
    begin, end = entry["data_offsets"]
    if entry["dtype"] == "F32":
        whole = numpy.frombuffer(header_bytes[8 + size + begin:8 + size + end], "<f4").reshape(entry["shape"])
        assert (down == whole[:, :down.shape[1]]).all()


def test_versions_agree():
    told = subprocess.run([PROGRAM, "--version"], capture_output=True, text=True, check=True).stdout
    assert told.startswith(f"chorus {chorus.__version__}\n")


def test_importing_is_quick():
    """Under 100 ms; the best of five, since other work may be in the way."""
    code = "import time; begin = time.perf_counter(); from chorus import LLM, SamplingParams; print(time.perf_counter() - begin)"
    times = [float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout) for _ in range(5)]
    assert min(times) < 0.1, times
