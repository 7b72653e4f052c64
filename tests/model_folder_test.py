"""What real models' folders and real people's rows hold, on the real program. Expected values: transformers 5.24 (AutoTokenizer, AutoModelForCausalLM),
jinja2 3.1 and vLLM 0.32 on the same files."""
import json
import shutil
import struct

import pytest

from chorus_process import STORIES, chorus

QUIET = ["--disable-progress-bars", "--threads", "1", "--kv-cache-memory", "4MiB"]
GREEDY = [*QUIET, "--temperature", "0"]


@pytest.fixture
def model(tmp_path):
    shutil.copytree(STORIES, tmp_path / "model")
    return tmp_path / "model"


def change(model, name, **changes):
    """Keys of a JSON file; a value of None takes the key out."""
    path = model / name
    content = json.loads(path.read_text()) if path.exists() else {}
    content.update(changes)
    path.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def rows_of(done, status=0):
    assert done.returncode == status, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.splitlines()]


def generate(model, *arguments, rows=None, status=0):
    stdin = b"" if rows is None else "".join(json.dumps(row) + "\n" for row in rows).encode()
    return rows_of(chorus("generate", model, *QUIET, *arguments, stdin=stdin), status)


def tokens(model, prompt="Once upon a time", count=3):
    return generate(model, "--prompt", prompt, "--max-tokens", count, "--temperature", 0)[0]["outputs"][0]["token_ids"]


def render(model, *rows, status=0):
    done = chorus("tokenize", model, "--render-chat", "-", stdin="".join(json.dumps(row) + "\n" for row in rows).encode())
    return [row.get("text", row.get("error")) for row in rows_of(done, status)]


HELLO = {"messages": [{"role": "user", "content": "hi"}]}


# ---- what nobody reads ----

@pytest.mark.parametrize("value", ["1000000000000000019884624838656", "1e400", "NaN", "-Infinity", '"\\ud800"', '1, "unread": 2', "[" * 200 + "]" * 200])
@pytest.mark.parametrize("name", ["config.json", "generation_config.json", "tokenizer_config.json", "tokenizer.json"])
def test_a_value_that_nobody_reads(model, name, value):
    text = (model / name).read_text()
    (model / name).write_text(text.replace("{", '{"unread": ' + value + ",", 1))
    assert tokens(model) == tokens(STORIES)


def test_a_number_that_is_read_is_refused_by_name(model):
    change(model, "config.json", num_hidden_layers=10**30)
    done = chorus("generate", model, "--prompt", "a")
    assert done.returncode == 2 and b"num_hidden_layers is 1e+30" in done.stderr


# ---- generation_config.json ----

@pytest.mark.parametrize("content", [{"do_sample": False, "temperature": 0.0}, {"temperature": 0.0}, {"top_k": 1}, {"top_k": 1.0}, {"do_sample": True, "top_k": 1}])
def test_sampling_defaults_count_whatever_do_sample_says(model, content):
    (model / "generation_config.json").write_text(json.dumps(content))
    greedy = generate(model, "--prompt", "Lily and Tom", "--temperature", 0)
    assert generate(model, "--prompt", "Lily and Tom")[0]["outputs"] == greedy[0]["outputs"]


def test_max_new_tokens_is_the_default_of_max_tokens(model):
    (model / "generation_config.json").write_text('{"max_new_tokens": 5}')
    assert len(generate(model, "--prompt", "Lily and Tom", "--ignore-eos")[0]["outputs"][0]["token_ids"]) == 5
    assert len(generate(model, "--prompt", "Lily and Tom", "--ignore-eos", "--max-tokens", 7)[0]["outputs"][0]["token_ids"]) == 7


def test_a_wrong_sampling_default_is_named(model):
    (model / "generation_config.json").write_text('{"temperature": "hot"}')
    done = chorus("generate", model, "--prompt", "a")
    assert done.returncode == 2 and b"generation_config.json: temperature is \"hot\"" in done.stderr


# ---- tokens ----

def token(content, **more):
    return {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True, **more}


IM_IDS = [1, 512, 270, 417, 513]


@pytest.mark.parametrize("files, ids", [
    ({"tokenizer_config.json": {"added_tokens_decoder": {"512": token("<|im_start|>"), "513": token("<|im_end|>")}}}, IM_IDS),
    ({"tokenizer_config.json": {"added_tokens_decoder": {"600": token("<|im_start|>"), "5": token("<|im_end|>")}}}, [1, 513, 270, 417, 512]),
    ({"special_tokens_map.json": {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}}, IM_IDS),
    ({"tokenizer_config.json": {"extra_special_tokens": ["<|im_start|>", "<|im_end|>"]}}, IM_IDS),
    # Not special: looked for in normalized text, which begins with a space there.
    ({"added_tokens.json": {"<|im_start|>": 512, "<|im_end|>": 513}}, [1, 512, 415, 417, 504, 506, 288, 98, 367, 506, 505]),
])
def test_tokens_outside_of_tokenizer_json(model, files, ids):
    for name, content in files.items():
        change(model, name, **content)
    done = chorus("tokenize", model, "--jsonl", stdin=b'{"text": "<|im_start|>hi<|im_end|>"}\n')
    assert rows_of(done) == [{"ids": ids}]
    said = chorus("generate", model, *QUIET, "--prompt", "<|im_start|>", "--max-tokens", 1)
    assert said.returncode == 3 and b"<|im_start|> (51" in said.stderr


def test_a_special_token_of_the_vocabulary_is_cut_out(model):
    change(model, "tokenizer_config.json", eos_token=None)
    change(model, "special_tokens_map.json", eos_token=".")
    done = chorus("tokenize", model, stdin=b"Tim. Go")
    assert done.stdout.split() == b"1 326 426 410 410 463 414".split()


def test_special_tokens_of_the_map_alone(model):
    change(model, "tokenizer_config.json", bos_token=None, eos_token=None, chat_template="{{ bos_token }}[user] {{ messages[0].content }}")
    change(model, "special_tokens_map.json", bos_token={"content": "<s>"}, eos_token=".")
    row = generate(model, "--max-tokens", 60, "--temperature", 0, rows=[HELLO])[0]
    assert row["prompt"] == "<s>[user] hi" and row["prompt_token_ids"][0] == 1
    ended = generate(model, "--prompt", "Once upon a time", "--max-tokens", 60, "--temperature", 0)[0]["outputs"][0]
    on_and_on = tokens(STORIES, count=60)
    assert ended["finish_reason"] == "stop" and ended["token_ids"] == on_and_on[:on_and_on.index(426) + 1]


# ---- chats ----

PARTS = [{"type": "text", "text": "part a"}, {"type": "text", "text": "part b"}]


@pytest.mark.parametrize("template, expected", [
    ("{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}", "[user] part a\npart b"),
    ("{% for m in messages %}{% if m.content is string %}{{ m.content }}{% endif %}{% endfor %}", "part a\npart b"),
    ("{% for m in messages %}{% for part in m.content %}<{{ part.text }}>{% endfor %}{% endfor %}", "<part a><part b>"),
    ("{% macro show(x) %}{% for part in x %}<{{ part.text }}>{% endfor %}{% endmacro %}{% for m in messages %}{{ show(m['content']) }}{% endfor %}", "<part a><part b>"),
    ("{% set loop_messages = messages %}{% for m in loop_messages[:1] %}{% for part in m['content']|list %}<{{ part.text }}>{% endfor %}{% endfor %}", "<part a><part b>"),
    ("{% for m in messages %}{% set content = m.content %}{% for part in content %}<{{ part.text }}>{% endfor %}{% endfor %}", "<part a><part b>"),
    ("{% for tool in tools or [] %}{{ tool }}{% endfor %}{{ messages[0].content }}", "part a\npart b"),
])
@pytest.mark.parametrize("role", ["user", "system", "assistant", "tool"])
def test_content_parts(model, template, expected, role):
    change(model, "tokenizer_config.json", chat_template=template)
    assert render(model, {"messages": [{"role": role, "content": PARTS}]}) == [expected.replace("user", role)]


def test_a_content_part_that_is_no_text_fails_its_row(model):
    change(model, "tokenizer_config.json", chat_template="{{ messages[0].content }}")
    rows = [{"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]}, {**HELLO, "max_tokens": 1}]
    found = generate(model, rows=rows, status=3)
    assert "image_url" in found[0]["error"] and found[1]["error"] is None


TEMPLATES = {"default": "D{{ messages[0].content }}", "tool_use": "U{{ tools|length }}{{ messages[0].content }}"}
TOOLS = {"tools": [{"type": "function", "function": {"name": "f"}}]}


@pytest.mark.parametrize("where", ["tokenizer_config.json", "files"])
def test_named_chat_templates(model, where):
    if where == "files":
        (model / "chat_template.jinja").write_text(TEMPLATES["default"])
        (model / "additional_chat_templates").mkdir()
        (model / "additional_chat_templates" / "tool_use.jinja").write_text(TEMPLATES["tool_use"])
    else:
        change(model, where, chat_template=[{"name": name, "template": text} for name, text in TEMPLATES.items()])
    rows = [HELLO, {**HELLO, **TOOLS}, {**HELLO, **TOOLS, "chat_template": "tool_use"}, {**HELLO, **TOOLS, "chat_template": "default"}, {**HELLO, "chat_template": "own"}]
    assert render(model, *rows) == ["Dhi", "U1hi", "U1hi", "Dhi", "own"]


def test_named_chat_templates_without_a_default(model):
    change(model, "tokenizer_config.json", chat_template=[{"name": "tool_use", "template": TEMPLATES["tool_use"]}])
    found = render(model, {**HELLO, **TOOLS}, HELLO, status=3)
    assert found[0] == "U1hi" and "tool_use" in found[1] and "default" in found[1]


@pytest.mark.parametrize("template, expected", [
    ("{{ messages[0].content }}", "13835058055282163712"), ("{{ messages[0].content|tojson }}", "13835058055282163712"),
    ("{{ messages[0].content + 1 }}", "13835058055282163713"), ("{{ messages[0].content % 10 }}", "2"), ("{{ messages[0].content|string|length }}", "20"),
    ("{{ '%d' % messages[0].content }}", "13835058055282163712"), ("{{ messages[0].content == 13835058055282163712 }}", "True"),
    ("{{ '13835058055282163712'|int == messages[0].content }}", "True"), ("{{ messages[0].content > 9223372036854775807 }}", "True"),
    ("{{ {'n': messages[0].content} }}", "{'n': 13835058055282163712}"), ("{{ -messages[0].content }}", "-13835058055282163712"),
])
def test_unsigned_integers_of_64_bits(model, template, expected):
    assert render(model, {"messages": [{"role": "user", "content": 13835058055282163712}], "chat_template": template}) == [expected]


# ---- weights ----

def read_tensors(model):
    blob = (model / "model.safetensors").read_bytes()
    size = struct.unpack("<Q", blob[:8])[0]
    return json.loads(blob[8:8 + size]), blob[8 + size:]


def write_tensors(path, header, data):
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def test_a_tied_model_with_a_head_of_other_values_uses_it(model):
    header, data = read_tensors(model)
    entry = header["model.embed_tokens.weight"]
    begin, end = entry["data_offsets"]
    row = (end - begin) // entry["shape"][0]
    embedding = data[begin:end]
    for head, moved, warned in ((embedding, 0, False), (embedding[-row:] + embedding[:-row], 1, True)):
        header["lm_head.weight"] = {**entry, "data_offsets": [len(data), len(data) + len(head)]}
        write_tensors(model / "model.safetensors", header, data + head)
        done = chorus("generate", model, *GREEDY, "--prompt", "Once upon a time", "--max-tokens", 1)
        assert rows_of(done)[0]["outputs"][0]["token_ids"] == [432 + moved]
        assert (b"lm_head.weight of other values" in done.stderr) == warned


@pytest.mark.parametrize("metadata", [{"format": "pt", "model.embed_tokens.weight": "lm_head.weight"}, {"format": "pt"}, None])
def test_a_tied_model_that_was_saved_under_the_heads_name(model, metadata):
    header, data = read_tensors(model)
    header["lm_head.weight"] = header.pop("model.embed_tokens.weight")
    header["__metadata__"] = metadata
    write_tensors(model / "model.safetensors", header, data)
    assert tokens(model) == tokens(STORIES)


def test_a_model_that_was_saved_without_its_head_has_shorter_names(model):
    header, data = read_tensors(model)
    write_tensors(model / "model.safetensors", {name.removeprefix("model."): entry for name, entry in header.items()}, data)
    done = chorus("generate", model, *GREEDY, "--prompt", "Once upon a time", "--max-tokens", 3)
    assert rows_of(done)[0]["outputs"][0]["token_ids"] == tokens(STORIES)
    assert b"not read" not in done.stderr


def test_an_index_that_names_what_is_not_needed_and_not_there(model):
    header, _ = read_tensors(model)
    shard = "model-00001-of-00001.safetensors"
    (model / "model.safetensors").rename(model / shard)
    names = {name: shard for name in header if name != "__metadata__"}
    index = model / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": {**names, "lm_head.weight": shard, "mtp.fc.weight": "model-00002.safetensors"}}))
    assert tokens(model) == tokens(STORIES)
    index.write_text(json.dumps({"weight_map": {**names, "model.norm.weight": "nowhere.safetensors"}}))
    done = chorus("generate", model, *QUIET, "--prompt", "a")
    assert done.returncode == 2 and b"model.norm.weight" in done.stderr and b"nowhere.safetensors, which is not there" in done.stderr


def test_tensors_that_nobody_reads_are_named(model):
    header, data = read_tensors(model)
    for name in ("model.layers.0.self_attn.q_proj.bias", "model.layers.0.self_attn.rotary_emb.inv_freq"):
        header[name] = {"dtype": "F32", "shape": [1], "data_offsets": [len(data), len(data) + 4]}
        data += b"\0" * 4
    write_tensors(model / "model.safetensors", header, data)
    done = chorus("generate", model, *QUIET, "--prompt", "a", "--max-tokens", 1)
    assert done.returncode == 0 and b"1 tensors of the checkpoint are not read by LlamaForCausalLM: model.layers.0.self_attn.q_proj.bias" in done.stderr


# ---- rows ----

@pytest.mark.parametrize("name", ["temperature", "top_p", "top_k", "min_p", "max_tokens", "min_tokens", "n", "presence_penalty", "frequency_penalty",
                                  "repetition_penalty", "ignore_eos", "skip_special_tokens", "include_stop_str_in_output", "seed", "stop",
                                  "stop_token_ids", "logprobs", "prompt_logprobs", "logit_bias", "priority"])
def test_null_is_as_if_it_were_not_given(name):
    row = {"prompt": "Once"}
    plain, null = generate(STORIES, "--max-tokens", 4, "--seed", 7, rows=[row, {**row, name: None}])
    assert null["error"] is None and {**null, "id": 0} == plain


def test_whole_numbers_may_be_written_as_floats():
    row = {"prompt": "Once", "temperature": 0}
    whole = {"max_tokens": 5, "min_tokens": 5, "top_k": 3, "n": 1, "seed": 4, "logprobs": 1, "stop_token_ids": [9]}
    floats = {name: [9.0] if name == "stop_token_ids" else float(value) for name, value in whole.items()}
    expected, found = generate(STORIES, rows=[{**row, **whole}, {**row, **floats}])
    assert {**found, "id": 0} == expected
    done = chorus("generate", STORIES, *QUIET, stdin=b'{"prompt": "a", "max_tokens": 5.5}\n')
    assert done.returncode == 2 and b"max_tokens is 5.5" in done.stderr


# ---- vLLM's engine options ----

@pytest.mark.parametrize("option, value", [("max_logprobs", 20), ("task", "generate"), ("limit_mm_per_prompt", {}), ("override_generation_config", {}),
                                           ("skip_tokenizer_init", False), ("enable_sleep_mode", False), ("speculative_config", None), ("log_level", "info"),
                                           ("optimization_level", 2), ("served_model_name", ["a", "b"]), ("guided_decoding_backend", "xgrammar")])
def test_engine_options_of_vllm(tmp_path, option, value):
    done = run_workflow(tmp_path, {option: value})
    assert done.returncode == 0, done.stderr.decode()
    assert (f"engine option {option.replace('_', '-')} has no effect" in done.stderr.decode()) == (value is not None)


@pytest.mark.parametrize("option, value, words", [("override_generation_config", {"temperature": 0}, "model's output"), ("runner", "pooling", "generate"),
                                                  ("max_logprob", 20, "max-logprobs"), ("max_logprob", None, "max-logprobs")])
def test_engine_options_that_are_refused(tmp_path, option, value, words):
    done = run_workflow(tmp_path, {option: value})
    assert done.returncode == 2 and words in done.stderr.decode(), done.stderr.decode()


def test_engine_options_of_vllm_on_the_command_line():
    done = chorus("generate", STORIES, *GREEDY, "--prompt", "a", "--max-tokens", 1, "--max-logprobs", "20", "--no-enable-sleep-mode", "--served-model-name", "x")
    assert done.returncode == 0 and b"engine option max-logprobs has no effect" in done.stderr


def run_workflow(tmp_path, options):
    for name, content in (("d.jsonl", '{"id": 1, "text": "a"}'), ("p.jinja", "{{ text }}")):
        (tmp_path / name).write_text(content)
    params = {"name": "p", "model_name": STORIES, "inference_engine": "vllm_dp", "engine_options": {"threads": 1, **options},
              "generation_options": {"temperature": 0, "max_tokens": 2}}
    nodes = [{"id": "l", "type": "load", "params": {"input_data_path": "d.jsonl", "primary_key": "id"}, "dependencies": []},
             {"id": "t", "type": "text_prompt", "dependencies": ["l"], "params": params}]
    (tmp_path / "w.json").write_text(json.dumps({"name": "w", "data_dir": ".", "output_dir": "out", "prompts_dir": ".", "nodes": nodes}))
    return chorus("run", tmp_path / "w.json", "--disable-progress-bars")
