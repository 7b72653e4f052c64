"""Writes GGUF files (version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), among them those that llama.cpp's converter
(convert_hf_to_gguf.py) would make of a Hugging Face folder of the architectures that are tested here."""
import json
import math
import pathlib
import re
import struct

U32, I32, F32, BOOL, STRING, ARRAY, U64 = 4, 5, 6, 7, 8, 9, 10
TYPES = {"F32": 0, "F16": 1, "BF16": 30}


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def typed(value):
    """A value with the type in front that the converter gives it."""
    if isinstance(value, bool):
        return struct.pack("<IB", BOOL, value)
    if isinstance(value, int):
        return struct.pack("<II", U32, value)
    if isinstance(value, float):
        return struct.pack("<If", F32, value)
    if isinstance(value, str):
        return struct.pack("<I", STRING) + text(value)
    head = struct.pack("<I", ARRAY)
    if not value or isinstance(value[0], str):
        return head + struct.pack("<IQ", STRING, len(value)) + b"".join(map(text, value))
    kind, code = (F32, "f") if isinstance(value[0], float) else (I32, "i")
    return head + struct.pack(f"<IQ{len(value)}{code}", kind, len(value), *value)


def aligned(size, to=32):
    return (size + to - 1) // to * to


def gguf(metadata, tensors=()):
    """tensors: (name, shape with rows first, type's number, bytes)."""
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    for key, value in metadata.items():
        head += text(key) + typed(value)
    data = b""
    for name, shape, kind, content in tensors:
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *reversed(shape), kind, len(data))
        data += content + bytes(aligned(len(content)) - len(content))
    return head + bytes(aligned(len(head)) - len(head)) + data


# ---- tokenizers ----


def token_type(token):
    return 3 if token["special"] else 4


def tokenizer_metadata(tokenizer, pre):
    """Of a tokenizer.json as an object; `pre`: None for SentencePiece, whose pieces of these files stand in the order of their scores."""
    by_id = {number: token for token, number in tokenizer["model"]["vocab"].items()}
    added = {token["id"]: token for token in tokenizer["added_tokens"]}
    by_id.update({number: token["content"] for number, token in added.items()})
    count = max(by_id) + 1
    tokens = [by_id.get(number, f"[PAD{number}]") for number in range(count)]
    types = [token_type(added[n]) if n in added else 1 if n in by_id else 5 for n in range(count)]
    metadata = {"tokenizer.ggml.tokens": tokens, "tokenizer.ggml.token_type": types}
    if pre is None:
        # SentencePiece gives pieces of blanks alone the lowest score.
        scores = [-1e9 if set(token) == {"\u2581"} else float(-n) for n, token in enumerate(tokens)]
        metadata.update({"tokenizer.ggml.model": "llama", "tokenizer.ggml.scores": scores,
                         "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1, "tokenizer.ggml.eos_token_id": 2})
        metadata["tokenizer.ggml.token_type"] = [6 if re.fullmatch("<0x[0-9A-F]{2}>", token) else kind for token, kind in zip(tokens, types)]
        return metadata
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    metadata.update({"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": pre, "tokenizer.ggml.merges": merges})
    return metadata


# ---- models ----

# model_type: the architecture's name; names that differ from those of Llama.
NAMES = {"llama": ("llama", {}), "mistral": ("llama", {}), "mixtral": ("llama", {}), "qwen2": ("qwen2", {}), "qwen3": ("qwen3", {}), "qwen3_moe": ("qwen3moe", {}),
         "phi3": ("phi3", {"mlp.gate_up_proj": "ffn_up"}), "phimoe": ("phimoe", {}), "smollm3": ("smollm3", {}), "granite": ("granite", {}),
         "seed_oss": ("seed_oss", {"post_attention_layernorm": "post_attention_norm"}),
         "exaone4": ("exaone4", {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}),
         "hunyuan_v1_dense": ("hunyuan-dense", {}), "stablelm": ("stablelm", {}),
         "cohere2": ("cohere2", {}), "ernie4_5": ("ernie4_5", {}), "starcoder2": ("starcoder2", {"mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}),
         "glm4": ("glm4", {"post_self_attn_layernorm": "post_attention_norm", "post_mlp_layernorm": "post_ffw_norm", "mlp.gate_up_proj": "ffn_up"}),
         "olmo2": ("olmo2", {"post_attention_layernorm": "post_attention_norm", "post_feedforward_layernorm": "post_ffw_norm"}), "olmoe": ("olmoe", {}),
         "qwen2_moe": ("qwen2moe", {}), "gpt_oss": ("gpt-oss", {"post_attention_layernorm": "post_attention_norm", "mlp.router": "ffn_gate_inp"}),
         "gpt2": ("gpt2", {"ln_1": "attn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output", "ln_2": "ffn_norm", "mlp.c_fc": "ffn_up",
                           "mlp.c_proj": "ffn_down"}),
         "phi": ("phi2", {"self_attn.dense": "attn_output", "mlp.fc1": "ffn_up", "mlp.fc2": "ffn_down"}),
         "glm4_moe": ("glm4moe", {"post_attention_layernorm": "post_attention_norm"}), "deepseek_v2": ("deepseek2", {}), "deepseek_v3": ("deepseek2", {}),
         "qwen3_next": ("qwen3next", {"post_attention_layernorm": "post_attention_norm", "linear_attn.in_proj_ba": "ssm_ba", "linear_attn.norm": "ssm_norm",
                                      "linear_attn.out_proj": "ssm_out"})}
SANDWICH = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
NAMES.update({"gemma2": ("gemma2", SANDWICH), "gemma3_text": ("gemma3", SANDWICH)})
REORDERED = {"llama", "smollm3", "granite"}
PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
         "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp",
         "mlp.shared_experts.gate_proj": "ffn_gate_shexp", "mlp.shared_experts.up_proj": "ffn_up_shexp", "mlp.shared_experts.down_proj": "ffn_down_shexp",
         "self_attn.q_a_proj": "attn_q_a", "self_attn.q_a_layernorm": "attn_q_a_norm", "self_attn.q_b_proj": "attn_q_b",
         "self_attn.kv_a_proj_with_mqa": "attn_kv_a_mqa", "self_attn.kv_a_layernorm": "attn_kv_a_norm"}
EXPERTS = {"gate_proj": "ffn_gate_exps", "w1": "ffn_gate_exps", "up_proj": "ffn_up_exps", "w3": "ffn_up_exps", "down_proj": "ffn_down_exps",
           "w2": "ffn_down_exps"}


def safetensors(path):
    """name -> (dtype, shape, bytes)."""
    raw = pathlib.Path(path).read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8:8 + length])
    header.pop("__metadata__", None)
    return {name: (entry["dtype"], entry["shape"], raw[8 + length + entry["data_offsets"][0]:8 + length + entry["data_offsets"][1]])
            for name, entry in header.items()}


def reorder(content, rows, heads):
    """Row i of a head's first half to 2 i, of its second to 2 i + 1: LlamaModel.permute of the converter."""
    row = len(content) // rows
    half = rows // heads // 2
    order = [head * 2 * half + within % 2 * half + within // 2 for head in range(heads) for within in range(2 * half)]
    return b"".join(content[i * row:(i + 1) * row] for i in order)


def rows_of(content, count):
    """The bytes of each of so many rows."""
    size = len(content) // count
    return [content[i * size:(i + 1) * size] for i in range(count)]


def turned(content, rows, columns):
    """[rows, columns] to [columns, rows]."""
    size = len(content) // (rows * columns)
    elements = rows_of(content, rows * columns)
    assert size * rows * columns == len(content)
    return b"".join(elements[row * columns + column] for column in range(columns) for row in range(rows))


def mxfp4(blocks, scales):
    """Neighbours share a byte in a folder; element i and i + 16 in a file: GptOssModel.repack_mxfp4."""
    made = b""
    for i, scale in enumerate(scales):
        codes = [code for byte in blocks[16 * i:16 * i + 16] for code in (byte & 15, byte >> 4)]
        made += bytes([scale]) + bytes(codes[k] | codes[k + 16] << 4 for k in range(16))
    return made


# What the converter makes of a part of a layer, where that is not the same tensor under another name: (part with its kind, shape, type, content) for each
# of its tensors. `others`: the layer's tensors.


def convert_gpt_oss(part, dtype, shape, content, config, others):
    if part == "self_attn.sinks":
        return [("attn_sinks.weight", shape, TYPES[dtype], content)]
    if not part.startswith("mlp.experts."):
        return None
    name = part.removeprefix("mlp.experts.")
    names = ["ffn_down_exps"] if name.startswith("down") else ["ffn_gate_exps", "ffn_up_exps"]
    step, experts = len(names), shape[0]
    if name.endswith("_scales"):
        return []
    if name.endswith("_blocks"):
        scales = others[part.replace("_blocks", "_scales")][2]
        rows = rows_of(content, experts * shape[1])
        scale_rows = rows_of(scales, experts * shape[1])
        return [(f"{new}.weight", [experts, shape[1] // step, shape[2] * 32], 39,
                 b"".join(mxfp4(rows[i], scale_rows[i]) for i in range(first, len(rows), step))) for first, new in enumerate(names)]
    if name.endswith("_bias"):
        elements = rows_of(content, experts * shape[1])
        return [(f"{new}.bias", [experts, shape[1] // step], TYPES[dtype], b"".join(elements[first::step])) for first, new in enumerate(names)]
    rows = [row for expert in rows_of(content, experts) for row in rows_of(turned(expert, shape[1], shape[2]), shape[2])]
    return [(f"{new}.weight", [experts, shape[2] // step, shape[1]], TYPES[dtype], b"".join(rows[first::step])) for first, new in enumerate(names)]


def convert_gpt2(part, dtype, shape, content, config, others):
    if len(shape) == 2:  # Conv1D
        new, _ = part.rsplit(".", 1)
        return [(f"{NAMES['gpt2'][1][new]}.weight", shape[::-1], TYPES[dtype], turned(content, *shape))]
    return None


def convert_correction(part, dtype, shape, content, config, others):
    return [("exp_probs_b.bias", shape, TYPES[dtype], content)] if part == "mlp.gate.e_score_correction_bias" else None


def convert_deepseek(part, dtype, shape, content, config, others):
    if part != "self_attn.kv_b_proj.weight":
        return convert_correction(part, dtype, shape, content, config, others)
    heads, keys, values, rank = config["num_attention_heads"], config["qk_nope_head_dim"], config["v_head_dim"], config["kv_lora_rank"]
    cut = len(content) // heads * keys // (keys + values)
    of_heads = rows_of(content, heads)
    return [("attn_k_b.weight", [heads, rank, keys], TYPES[dtype], b"".join(turned(head[:cut], keys, rank) for head in of_heads)),
            ("attn_v_b.weight", [heads, values, rank], TYPES[dtype], b"".join(head[cut:] for head in of_heads))]


def each_float(content, change):
    return b"".join(struct.pack("<f", change(value)) for (value,) in struct.iter_unpack("<f", content))


def convert_qwen3_next(part, dtype, shape, content, config, others):
    name = part.removeprefix("linear_attn.")
    if part.endswith("norm.weight") and name != "norm.weight":
        new = {**PARTS, **NAMES["qwen3_next"][1]}[part.removesuffix(".weight")]
        return [(f"{new}.weight", shape, TYPES[dtype], each_float(content, lambda value: value + 1))]
    if name == "A_log":
        return [("ssm_a", shape, TYPES[dtype], each_float(content, lambda value: -math.exp(value)))]
    if name == "dt_bias":
        return [("ssm_dt.bias", shape, TYPES[dtype], content)]
    if name == "conv1d.weight":
        return [("ssm_conv1d.weight", [shape[0], shape[2]], TYPES[dtype], content)]
    if name != "in_proj_qkvz.weight":
        return None
    keys, key = config["linear_num_key_heads"], config["linear_key_head_dim"]
    values = config["linear_num_value_heads"] // keys * config["linear_value_head_dim"]
    sizes, kinds = (key, key, values, values), ([], [], [], [])
    for head in rows_of(content, keys):
        rows = rows_of(head, shape[0] // keys)
        for size, kind in zip(sizes, kinds):
            kind += rows[:size]
            rows = rows[size:]
    qkv = [row for kind in kinds[:3] for row in kind]
    return [("attn_qkv.weight", [len(qkv), shape[1]], TYPES[dtype], b"".join(qkv)),
            ("attn_gate.weight", [len(kinds[3]), shape[1]], TYPES[dtype], b"".join(kinds[3]))]


CONVERT = {"gpt_oss": convert_gpt_oss, "gpt2": convert_gpt2, "glm4_moe": convert_correction, "deepseek_v2": convert_deepseek, "deepseek_v3": convert_deepseek,
           "qwen3_next": convert_qwen3_next}
WHOLE = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "model.norm.bias": "output_norm.bias",
         "lm_head.weight": "output.weight", "lm_head.bias": "output.bias", "transformer.wte.weight": "token_embd.weight",
         "transformer.wpe.weight": "position_embd.weight", "transformer.ln_f.weight": "output_norm.weight", "transformer.ln_f.bias": "output_norm.bias",
         "model.final_layernorm.weight": "output_norm.weight", "model.final_layernorm.bias": "output_norm.bias"}
LAYER = r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)"


def gguf_name(name, names):
    if name in WHOLE:
        return WHOLE[name]
    layer, part, kind = re.fullmatch(LAYER + r"\.(weight|bias)", name).groups()
    return f"blk.{layer}.{names.get(part) or PARTS[part]}.{kind}"


def converted(name, entry, stored, config):
    """What the model's own rules make of a tensor; None: there are none for it."""
    layer = re.fullmatch(LAYER, name)
    if layer is None or config["model_type"] not in CONVERT:
        return None
    start = name[:name.index(layer[2])]
    others = {other.removeprefix(start): value for other, value in stored.items() if other.startswith(start)}
    made = CONVERT[config["model_type"]](layer[2], *entry, config, others)
    return made and [(f"blk.{layer[1]}.{part}", *rest) for part, *rest in made]


def tensors_of(folder, config):
    arch, names = NAMES[config["model_type"]]
    heads = {"attn_q": config.get("num_attention_heads"), "attn_k": config.get("num_key_value_heads")}
    tensors, experts = [], {}
    stored = safetensors(folder / "model.safetensors")
    for name, (dtype, shape, content) in sorted(stored.items()):
        expert = re.fullmatch(r"model\.layers\.(\d+)\.[a-z_]+\.experts\.(\d+)\.(\w+)\.weight", name)
        if expert:
            layer, number, part = expert.groups()
            experts.setdefault((int(layer), EXPERTS[part], dtype, tuple(shape)), {})[int(number)] = content
            continue
        own = converted(name, (dtype, shape, content), stored, config)
        if own is not None:
            tensors += own
            continue
        if name == "model.norm.weight" and arch == "qwen3next":
            content = each_float(content, lambda value: value + 1)
        new = gguf_name(name, names)
        part = new.split(".")[2] if new.startswith("blk.") else ""
        if arch in REORDERED and part in heads:
            content = reorder(content, shape[0], heads[part])
        if arch.startswith("gemma") and new.endswith("norm.weight"):  # Gemma2Model.modify_tensors: + 1
            content = each_float(content, lambda value: value + 1)
        tensors.append((new, [size for size in shape if size != 1] if part == "ffn_gate_inp_shexp" else shape, TYPES[dtype], content))
    if config.get("num_nextn_predict_layers") and arch == "glm4moe":  # what predicts a further token is a layer of the file
        layer, width = config["num_hidden_layers"], config["hidden_size"]
        tensors += [(f"blk.{layer}.attn_norm.weight", [width], 0, bytes(4 * width)),
                    (f"blk.{layer}.nextn.eh_proj.weight", [width, 2 * width], 0, bytes(8 * width * width))]
    for (layer, part, dtype, shape), contents in experts.items():
        stacked = b"".join(contents[i] for i in range(len(contents)))
        tensors.append((f"blk.{layer}.{part}.weight", [len(contents), *shape], TYPES[dtype], stacked))
    return tensors


def head_dim_of(config):
    return config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]


def rope_metadata(config):
    rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
    rope = rope.get("full_attention", rope)
    part = rope.get("partial_rotary_factor", config.get("partial_rotary_factor", 1.0))
    values = {"rope.freq_base": float(rope.get("rope_theta", config.get("rope_theta", 10000.0))),
              "rope.dimension_count": int(head_dim_of(config) * part)}
    if rope.get("rope_type", "default") in ("linear", "yarn"):
        values.update({"rope.scaling.type": rope["rope_type"], "rope.scaling.factor": float(rope["factor"])})
        if "original_max_position_embeddings" in rope:
            values["rope.scaling.original_context_length"] = rope["original_max_position_embeddings"]
        values.update({f"rope.scaling.yarn_{name}": float(rope[name]) for name in ("beta_fast", "beta_slow") if name in rope})
    return values


SOFTMAX, SIGMOID = 1, 2  # expert_gating_func

# Sizes, where the converter writes them otherwise than for the others.


def gpt2_sizes(config):
    return {"block_count": config["n_layer"], "context_length": config["n_positions"], "embedding_length": config["n_embd"],
            "feed_forward_length": 4 * config["n_embd"], "attention.head_count": config["n_head"],
            "attention.layer_norm_epsilon": config["layer_norm_epsilon"]}


def phi2_sizes(config):
    width, heads = config["hidden_size"], config["num_attention_heads"]
    return {"block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"], "embedding_length": width,
            "feed_forward_length": 4 * width, "attention.head_count": heads, "attention.head_count_kv": heads,
            "rope.dimension_count": int(config["partial_rotary_factor"] * width) // heads}


def usual_sizes(config):
    return {"block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"], "embedding_length": config["hidden_size"],
            "feed_forward_length": config["intermediate_size"], "attention.head_count": config["num_attention_heads"],
            "attention.head_count_kv": config["num_key_value_heads"], "attention.key_length": head_dim_of(config), **rope_metadata(config)}


def gpt_oss_sizes(config):
    return {**usual_sizes(config), "expert_feed_forward_length": config["intermediate_size"]}


def glm4_moe_sizes(config):
    """With the layers that predict further tokens."""
    predicting = config["num_nextn_predict_layers"]
    return {**usual_sizes(config), "block_count": config["num_hidden_layers"] + predicting, "nextn_predict_layers": predicting, "expert_gating_func": SIGMOID,
            "expert_weights_norm": config["norm_topk_prob"]}


def deepseek_sizes(config):
    """What llama.cpp computes is one key head, as wide as the narrow row; the sizes of the model are those called mla."""
    turned, rank = config["qk_rope_head_dim"], config["kv_lora_rank"]
    values = {**usual_sizes(config), "attention.head_count_kv": 1, "attention.kv_lora_rank": rank, "attention.key_length": rank + turned,
              "attention.value_length": rank, "attention.key_length_mla": config["qk_nope_head_dim"] + turned,
              "attention.value_length_mla": config["v_head_dim"], "rope.dimension_count": turned,
              "expert_gating_func": SIGMOID if config["model_type"] == "deepseek_v3" else SOFTMAX}
    if config["q_lora_rank"] is not None:
        values["attention.q_lora_rank"] = config["q_lora_rank"]
    if config["norm_topk_prob"]:
        values["expert_weights_norm"] = True
    if "mscale_all_dim" in config["rope_parameters"]:
        values["rope.scaling.yarn_log_multiplier"] = 0.1 * config["rope_parameters"]["mscale_all_dim"]
    return values


def qwen3_next_sizes(config):
    heads = config["linear_num_value_heads"]
    return {**usual_sizes(config), "ssm.conv_kernel": config["linear_conv_kernel_dim"], "ssm.state_size": config["linear_key_head_dim"],
            "ssm.group_count": config["linear_num_key_heads"], "ssm.time_step_rank": heads, "ssm.inner_size": config["linear_value_head_dim"] * heads,
            "full_attention_interval": config.get("full_attention_interval", 4)}


SIZES = {"gpt2": gpt2_sizes, "phi": phi2_sizes, "gpt_oss": gpt_oss_sizes, "glm4_moe": glm4_moe_sizes, "deepseek_v2": deepseek_sizes,
         "deepseek_v3": deepseek_sizes, "qwen3_next": qwen3_next_sizes}


def model_metadata(config):
    arch = NAMES[config["model_type"]][0]
    values = SIZES.get(config["model_type"], usual_sizes)(config)
    for name, key in (("rms_norm_eps", "attention.layer_norm_rms_epsilon"), ("layer_norm_eps", "attention.layer_norm_epsilon"),
                      ("norm_epsilon", "attention.layer_norm_epsilon"), ("logit_scale", "logit_scale"),
                      ("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping"),
                      ("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale"),
                      ("attention_multiplier", "attention.scale"), ("logits_scaling", "logit_scale"), ("routed_scaling_factor", "expert_weights_scale")):
        if config.get(name) is not None:
            values[key] = float(config[name])
    for name, key in (("num_experts", "expert_count"), ("num_local_experts", "expert_count"), ("num_experts_per_tok", "expert_used_count"),
                      ("moe_intermediate_size", "expert_feed_forward_length"),
                      ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"), ("sliding_window", "attention.sliding_window"),
                      ("n_routed_experts", "expert_count"), ("n_shared_experts", "expert_shared_count"), ("n_group", "expert_group_count"),
                      ("topk_group", "expert_group_used_count"), ("first_k_dense_replace", "leading_dense_block_count")):
        if config.get(name) is not None:
            values[key] = config[name]
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in values.items()}}
    for key in ("bos", "eos"):
        if isinstance(config.get(f"{key}_token_id"), int):
            metadata[f"tokenizer.ggml.{key}_token_id"] = config[f"{key}_token_id"]
    return metadata


def write_model(folder, path):
    config = json.loads((folder / "config.json").read_text())
    pathlib.Path(path).write_bytes(gguf(model_metadata(config), tensors_of(folder, config)))
