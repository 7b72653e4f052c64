"""Writes GGUF files (version 3: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md), among them those that llama.cpp's converter
(convert_hf_to_gguf.py) would make of a Hugging Face folder of the architectures that are tested here."""
import json
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
         "qwen2_moe": ("qwen2moe", {})}
SANDWICH = {"post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm"}
NAMES.update({"gemma2": ("gemma2", SANDWICH), "gemma3_text": ("gemma3", SANDWICH)})
REORDERED = {"llama", "smollm3", "granite"}
PARTS = {"input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
         "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.qkv_proj": "attn_qkv", "self_attn.q_norm": "attn_q_norm",
         "self_attn.k_norm": "attn_k_norm", "self_attn.query_layernorm": "attn_q_norm", "self_attn.key_layernorm": "attn_k_norm",
         "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down", "mlp.gate": "ffn_gate_inp",
         "block_sparse_moe.gate": "ffn_gate_inp", "mlp.shared_expert.gate_proj": "ffn_gate_shexp", "mlp.shared_expert.up_proj": "ffn_up_shexp",
         "mlp.shared_expert.down_proj": "ffn_down_shexp", "mlp.shared_expert_gate": "ffn_gate_inp_shexp"}
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


def gguf_name(name, names):
    whole = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight", "model.norm.bias": "output_norm.bias",
             "lm_head.weight": "output.weight", "lm_head.bias": "output.bias"}
    if name in whole:
        return whole[name]
    layer, part, kind = re.fullmatch(r"model\.layers\.(\d+)\.(.+)\.(weight|bias)", name).groups()
    return f"blk.{layer}.{names.get(part) or PARTS[part]}.{kind}"


def tensors_of(folder, config):
    arch, names = NAMES[config["model_type"]]
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    tensors, experts = [], {}
    for name, (dtype, shape, content) in sorted(safetensors(folder / "model.safetensors").items()):
        expert = re.fullmatch(r"model\.layers\.(\d+)\.[a-z_]+\.experts\.(\d+)\.(\w+)\.weight", name)
        if expert:
            layer, number, part = expert.groups()
            experts.setdefault((int(layer), EXPERTS[part], dtype, tuple(shape)), {})[int(number)] = content
            continue
        new = gguf_name(name, names)
        part = new.split(".")[2] if new.startswith("blk.") else ""
        if arch in REORDERED and part in heads:
            content = reorder(content, shape[0], heads[part])
        if arch.startswith("gemma") and new.endswith("norm.weight"):  # Gemma2Model.modify_tensors: + 1
            content = b"".join(struct.pack("<f", 1.0 + value) for (value,) in struct.iter_unpack("<f", content))
        tensors.append((new, [size for size in shape if size != 1] if part == "ffn_gate_inp_shexp" else shape, TYPES[dtype], content))
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
    return values


def model_metadata(config):
    arch = NAMES[config["model_type"]][0]
    values = {"block_count": config["num_hidden_layers"], "context_length": config["max_position_embeddings"],
              "embedding_length": config["hidden_size"], "feed_forward_length": config["intermediate_size"],
              "attention.head_count": config["num_attention_heads"], "attention.head_count_kv": config["num_key_value_heads"],
              "attention.key_length": head_dim_of(config), **rope_metadata(config)}
    for name, key in (("rms_norm_eps", "attention.layer_norm_rms_epsilon"), ("layer_norm_eps", "attention.layer_norm_epsilon"),
                      ("norm_epsilon", "attention.layer_norm_epsilon"), ("logit_scale", "logit_scale"),
                      ("attn_logit_softcapping", "attn_logit_softcapping"), ("final_logit_softcapping", "final_logit_softcapping"),
                      ("embedding_multiplier", "embedding_scale"), ("residual_multiplier", "residual_scale"),
                      ("attention_multiplier", "attention.scale"), ("logits_scaling", "logit_scale")):
        if config.get(name) is not None:
            values[key] = float(config[name])
    for name, key in (("num_experts", "expert_count"), ("num_local_experts", "expert_count"), ("num_experts_per_tok", "expert_used_count"),
                      ("moe_intermediate_size", "expert_feed_forward_length"),
                      ("shared_expert_intermediate_size", "expert_shared_feed_forward_length"), ("sliding_window", "attention.sliding_window")):
        if config.get(name):
            values[key] = config[name]
    metadata = {"general.architecture": arch, **{f"{arch}.{key}": value for key, value in values.items()}}
    for key in ("bos", "eos"):
        if isinstance(config.get(f"{key}_token_id"), int):
            metadata[f"tokenizer.ggml.{key}_token_id"] = config[f"{key}_token_id"]
    return metadata


def write_model(folder, path):
    config = json.loads((folder / "config.json").read_text())
    pathlib.Path(path).write_bytes(gguf(model_metadata(config), tensors_of(folder, config)))
