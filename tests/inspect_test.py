"""`chorus inspect`: every parameter of a model and the slice of it that each rank has."""
import json
import re
import shutil
import struct

import pytest

from chorus_process import STORIES, TINY, chorus, other_lines

FAMILIES = ["exaone4", "granite", "hunyuan_dense", "llama", "mistral", "mixtral", "phi3", "phimoe", "qwen2", "qwen3", "qwen3_moe", "seed_oss", "smollm3", "stablelm"]
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


def inspect(model, *arguments):
    done = chorus("inspect", model, "--json", *arguments)
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


def header_of(model):
    """{name: (shape, dtype)} of model.safetensors, read by hand."""
    with open(f"{model}/model.safetensors", "rb") as file:
        header = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    header.pop("__metadata__", None)
    return {name: (entry["shape"], DTYPES[entry["dtype"]]) for name, entry in header.items()}


def cells(parameter, piece):
    """The elements of a slice."""
    columns = piece.get("columns", [0, 1])
    ranges = piece["rows"] if isinstance(piece["rows"][0], list) else [piece["rows"]]
    return {(row, column) for rows in ranges for row in range(*rows) for column in range(*columns)}


def whole(parameter):
    shape = parameter["shape"]
    return {(row, column) for row in range(shape[0]) for column in range(shape[1] if len(shape) > 1 else 1)}


def by_name(inspected):
    return {parameter["name"]: parameter for parameter in inspected["parameters"]}


@pytest.mark.parametrize("model", [STORIES, *(TINY / family for family in FAMILIES)], ids=str)
@pytest.mark.parametrize("sizes", [[], ["-tp", 2, "-pp", 2], ["-dp", 2, "-ep"]], ids=str)
def test_every_tensor_of_the_checkpoint(model, sizes):
    inspected = inspect(model, *sizes)
    found = {parameter["name"]: (parameter["shape"], parameter["dtype"]) for parameter in inspected["parameters"]}
    assert found == header_of(model)
    assert inspected["checkpoint"] and inspected["unused"] == []
    for parameter in inspected["parameters"]:
        assert len(parameter["slices"]) == len(inspected["shards"])
        held = [cells(parameter, piece) for piece in parameter["slices"] if piece]
        assert set.union(*held) == whole(parameter), parameter["name"]
        assert parameter["replicated"] == (sum(map(len, held)) > len(whole(parameter)))
    for index, shard in enumerate(inspected["shards"]):
        pieces = [(parameter, parameter["slices"][index]) for parameter in inspected["parameters"] if parameter["slices"][index]]
        assert shard["parameters"] == len(pieces)
        assert shard["elements"] == sum(len(cells(*piece)) for piece in pieces)
        assert shard["bytes"] >= 2 * shard["elements"]
    assert inspected["weight_bytes"] == sum(shard["bytes"] for shard in inspected["shards"])


def test_a_matrix_is_tiled_by_two_ranks():
    inspected = by_name(inspect(STORIES, "-tp", 2))
    for name, parameter in inspected.items():
        if len(parameter["shape"]) == 1:
            assert parameter["replicated"] and all(cells(parameter, piece) == whole(parameter) for piece in parameter["slices"]), name
            continue
        first, second = (cells(parameter, piece) for piece in parameter["slices"])
        assert not first & second and len(first) == len(second), name
        assert first | second == whole(parameter), name
    layer = "model.layers.0."
    assert [piece["rows"] for piece in inspected[layer + "self_attn.q_proj.weight"]["slices"]] == [[0, 32], [32, 64]]
    assert [piece["columns"] for piece in inspected[layer + "mlp.down_proj.weight"]["slices"]] == [[0, 86], [86, 172]]


def test_a_matrix_for_several_is_cut_in_each_of_them():
    phi3 = by_name(inspect(TINY / "phi3", "-tp", 2))  # 4 heads of 16, 2 kv heads; 128 columns
    assert [piece["rows"] for piece in phi3["model.layers.0.self_attn.qkv_proj.weight"]["slices"]] == [
        [[0, 32], [64, 80], [96, 112]], [[32, 64], [80, 96], [112, 128]]]
    assert [piece["rows"] for piece in phi3["model.layers.0.mlp.gate_up_proj.weight"]["slices"]] == [[[0, 64], [128, 192]], [[64, 128], [192, 256]]]
    text = chorus("inspect", TINY / "phi3", "-tp", 2).stdout.decode()
    assert re.search(r"layers.1.mlp.gate_up_proj.weight .* tp=0: \[0:64\+128:192, :\]  tp=1: \[64:128\+192:256, :\]\n", text)


def test_kv_heads_are_replicated_when_ranks_are_more():
    inspected = inspect(TINY / "llama", "-tp", 4)  # 4 heads, 2 kv heads
    parameters = by_name(inspected)
    size = parameters["model.layers.0.self_attn.k_proj.weight"]["shape"][0] // 2
    for name in ("k_proj", "v_proj"):
        parameter = parameters[f"model.layers.0.self_attn.{name}.weight"]
        assert parameter["replicated"]
        assert [piece["rows"] for piece in parameter["slices"]] == [[0, size], [0, size], [size, 2 * size], [size, 2 * size]]
    assert not parameters["model.layers.0.self_attn.q_proj.weight"]["replicated"]
    text = chorus("inspect", TINY / "llama", "-tp", 4).stdout.decode()
    assert re.search(rf"layers.0.self_attn.k_proj.weight .* tp=0,1: \[0:{size}, :\] replicated  tp=2,3: \[{size}:{2 * size}, :\] replicated\n", text)
    assert re.search(r"model.norm.weight .* \[:\] replicated\n", text)


def test_stages_share_the_layers():
    inspected = inspect(TINY / "llama", "-pp", 2)
    assert [shard["layers"] for shard in inspected["shards"]] == [[0, 1], [1, 2]]
    for name, parameter in by_name(inspected).items():
        here = [piece is not None for piece in parameter["slices"]]
        first = name == "model.embed_tokens.weight" or ".layers.0." in name
        assert here == [first, not first], name
    text = chorus("inspect", TINY / "llama", "-pp", 2).stdout.decode()
    assert re.search(r"lm_head.weight .* pp=0: none  pp=1: \[:, :\]\n", text)
    given = inspect(STORIES, "-pp", 2, "--pp-layer-partition", "1,4")
    assert [shard["layers"] for shard in given["shards"]] == [[0, 1], [1, 5]]


def test_a_tied_matrix_is_once_on_a_stage():
    name = "model.embed_tokens.weight"
    alone = inspect(STORIES)
    assert "lm_head.weight" not in by_name(alone)
    assert by_name(alone)[name]["slices"] == [{"rows": [0, 512], "columns": [0, 64], "packed_as": "linear", "packed_dtype": "bfloat16"}]
    two_stages = by_name(inspect(STORIES, "-pp", 2))[name]
    assert [piece["packed_as"] for piece in two_stages["slices"]] == ["linear", "linear"] and two_stages["replicated"]


def test_ranks_with_the_same_slices():
    """Replicas of a dense model do not differ; those that share experts do."""
    dense = inspect(STORIES, "-dp", 3, "-tp", 2)
    assert [shard["ranks"] for shard in dense["shards"]] == [[0, 2, 4], [1, 3, 5]]
    spread = inspect(TINY / "mixtral", "-dp", 2, "-tp", 2, "-ep")
    assert [shard["ranks"] for shard in spread["shards"]] == [[0], [1], [2], [3]]
    for name, parameter in by_name(spread).items():
        expert = re.search(r"experts\.(\d+)\.", name)
        if expert:
            here = [piece is not None for piece in parameter["slices"]]
            assert here == [rank == int(expert[1]) // 2 for rank in range(4)], name
    text = chorus("inspect", TINY / "mixtral", "-dp", 2, "-tp", 2, "-ep").stdout.decode()
    assert re.search(r"layers.1.block_sparse_moe.experts.2.w1.weight .* others: none  dp=0 tp=1: \[:, :\]\n", text)
    cut = by_name(inspect(TINY / "mixtral", "-tp", 2))["model.layers.0.block_sparse_moe.experts.3.w2.weight"]
    assert all(cut["slices"]) and not cut["replicated"]


def test_layers_come_in_their_order(tmp_path):
    config = json.loads((TINY / "llama" / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 12}))
    layers = [int(layer) for layer in re.findall(r"layers\.(\d+)\.", " ".join(by_name(inspect(tmp_path))))]
    assert layers == sorted(layers) and layers[-1] == 11


def test_config_json_is_enough(tmp_path):
    shutil.copy(TINY / "llama" / "config.json", tmp_path)
    inspected = inspect(tmp_path, "-tp", 2, "--dtype", "bfloat16")
    assert not inspected["checkpoint"]
    assert {parameter["dtype"] for parameter in inspected["parameters"]} == {"bfloat16"}
    assert set(by_name(inspected)) == set(header_of(TINY / "llama"))
    assert b"no checkpoint: no model.safetensors" in chorus("inspect", tmp_path).stdout


def test_unused_tensors_are_named(tmp_path):
    shutil.copytree(TINY / "llama", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    layers = config["num_hidden_layers"]
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"num_hidden_layers": layers - 1}))
    unused = inspect(tmp_path / "model")["unused"]
    assert "model.norm.weight" not in unused and f"model.layers.{layers - 1}.input_layernorm.weight" in unused
    assert all(name.startswith(f"model.layers.{layers - 1}.") for name in unused)
    assert b"not used: model.layers." in chorus("inspect", tmp_path / "model").stdout


def test_a_tied_model_with_a_head_of_other_values_uses_it(tmp_path):
    shutil.copytree(TINY / "llama", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    (tmp_path / "model" / "config.json").write_text(json.dumps(config | {"tie_word_embeddings": True}))
    assert inspect(tmp_path / "model")["unused"] == []


def test_to_a_file(tmp_path):
    done = chorus("inspect", STORIES, "-tp", 2, "--output-json", tmp_path / "out.json")
    assert done.returncode == 0 and done.stdout.startswith(STORIES.encode() + b": LlamaForCausalLM, 47 parameters")
    assert json.loads((tmp_path / "out.json").read_text()) == inspect(STORIES, "-tp", 2)


def test_the_bytes_are_those_that_are_loaded(tmp_path):
    path = tmp_path / "bench.json"
    done = chorus("bench", "throughput", STORIES, "-tp", 2, "--num-prompts", 2, "--input-len", 4, "--output-len", 2, "--max-model-len", 64,
                  "--kv-cache-memory", "4MiB", "--threads", 1, "--output-json", path)
    assert done.returncode == 0, done.stderr.decode()
    assert inspect(STORIES, "-tp", 2)["weight_bytes"] == json.loads(path.read_text())["weight_bytes"]


def wrong_shape(directory):
    shutil.copytree(TINY / "llama", directory)
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps(config | {"vocab_size": 500}))
    return directory


@pytest.mark.parametrize("arguments, words", [
    (["nowhere"], "nowhere"),
    ([STORIES, "-tp", 3], "--tensor-parallel-size 3"),
    ([STORIES, "-tp", 16], "--tensor-parallel-size 16"),
    ([STORIES, "-tp", 0], "--tensor-parallel-size is 0"),
    ([STORIES, "-pp", 6], "at most 5"),
    ([STORIES, "-dp", 0], "--data-parallel-size is 0"),
    ([STORIES, "-pp", 2, "--pp-layer-partition", "1,1"], "1,1"),
    ([STORIES, "--cpu-isa", "mmx"], "mmx"),
    ([STORIES, "--output-json", "/nowhere/out.json"], "/nowhere/out.json"),
])
def test_wrong_sizes(arguments, words):
    done = chorus("inspect", *arguments)
    assert done.returncode == 2 and done.stdout == b"", done
    assert len(other_lines(done.stderr)) == 1 and words in done.stderr.decode()


def test_models_that_are_refused(tmp_path):
    done = chorus("inspect", wrong_shape(tmp_path / "shape"))
    assert done.returncode == 2 and done.stdout == b"" and "[500, 64]" in done.stderr.decode()
    (tmp_path / "config.json").write_text('{"architectures": ["GoldfishForCausalLM"], "model_type": "goldfish"}')
    done = chorus("inspect", tmp_path)
    assert done.returncode == 2 and "GoldfishForCausalLM" in done.stderr.decode()
