"""A Llama model that says what it is told to: after the token of a script's name come the script's pieces one by one, and the end.

Each token's embedding is a direction of its own, attention and MLP are zero, and the row of the output matrix of the token that follows is that direction. So the
most likely token depends on the newest one alone, with probability 1 but for 1e-7."""
import json
import pathlib
import struct

BYTES = [*range(33, 127), *range(161, 173), *range(174, 256)]


def byte_alphabet():
    """The 256 characters of byte-level BPE."""
    others = [byte for byte in range(256) if byte not in BYTES]
    return [chr(byte) for byte in BYTES] + [chr(256 + i) for i in range(len(others))]


def pieces_of(text, whole, used):
    """`text` in pieces that no script has yet; a text of `whole` is one."""
    pieces, piece = [], ""
    while text:
        one = next((word for word in whole if text.startswith(word)), None)
        if one and not piece:
            pieces.append(one)
            text = text[len(one):]
            continue
        piece, text = piece + text[0], text[1:]
        if len(piece) > 1 and piece not in used and piece not in pieces and piece.isascii():
            pieces.append(piece)
            piece = ""
    if piece:
        pieces[-1] += piece
        assert pieces[-1] not in used and pieces[-1] not in pieces[:-1], f"{pieces[-1]!r} is there already: change a script"
    return pieces


def bfloat16(value):
    return struct.unpack("<I", struct.pack("<f", value))[0] >> 16


def matrix(rows, columns, ones):
    cells = bytearray(2 * rows * columns)
    for row, column in ones:
        struct.pack_into("<H", cells, 2 * (row * columns + column), bfloat16(1.0))
    return ([rows, columns], bytes(cells))


def write_safetensors(path, tensors):
    header, offset = {}, 0
    for name, (shape, data) in tensors.items():
        header[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + b"".join(data for _, data in tensors.values()))


def script_model(folder, scripts, special=()):
    """Writes the model; scripts: name -> text. A chat's last message is "<NAME>". `special`: texts that are a special token each, at most once in all scripts."""
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    alphabet = byte_alphabet()
    end = len(alphabet)
    added = ["</s>", *(f"<{name}>" for name in scripts)]
    follows = {}
    for name, text in scripts.items():
        pieces = pieces_of(text, special, added)
        ids = range(end + len(added), end + len(added) + len(pieces))
        added += pieces
        chain = [end + added.index(f"<{name}>"), *ids, end]
        follows.update(zip(chain, chain[1:]))
    vocabulary, hidden = end + len(added), 1024
    assert vocabulary <= hidden, vocabulary
    tokens = [{"id": end + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False,
               "special": text == "</s>" or text in special} for i, text in enumerate(added)]
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": tokens, "normalizer": None, "pre_tokenizer": byte_level, "post_processor": None,
        "decoder": byte_level, "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                                         "fuse_unk": False, "byte_fallback": False, "vocab": {text: i for i, text in enumerate(alphabet)}, "merges": []}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "eos_token": "</s>", "chat_template": "{% if tools %}{{ tools | length }} tools {% endif %}{{ messages[-1].content }}"}))
    (folder / "config.json").write_text(json.dumps({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": vocabulary, "hidden_size": hidden, "intermediate_size": 16, "num_hidden_layers": 1,
        "num_attention_heads": 16, "num_key_value_heads": 1, "rms_norm_eps": 1e-6, "max_position_embeddings": 1024, "rope_theta": 10000.0, "hidden_act": "silu",
        "tie_word_embeddings": False, "eos_token_id": end, "torch_dtype": "bfloat16"}))
    heads, ones = hidden // 16, ([hidden], struct.pack("<H", bfloat16(1.0)) * hidden)
    layer = "model.layers.0."
    write_safetensors(folder / "model.safetensors", {
        "model.embed_tokens.weight": matrix(vocabulary, hidden, [(i, i) for i in range(vocabulary)]),
        "lm_head.weight": matrix(vocabulary, hidden, [(after, before) for before, after in follows.items()]),
        "model.norm.weight": ones, layer + "input_layernorm.weight": ones, layer + "post_attention_layernorm.weight": ones,
        layer + "self_attn.q_proj.weight": matrix(hidden, hidden, []), layer + "self_attn.k_proj.weight": matrix(heads, hidden, []),
        layer + "self_attn.v_proj.weight": matrix(heads, hidden, []), layer + "self_attn.o_proj.weight": matrix(hidden, hidden, []),
        layer + "mlp.gate_proj.weight": matrix(16, hidden, []), layer + "mlp.up_proj.weight": matrix(16, hidden, []), layer + "mlp.down_proj.weight": matrix(hidden, 16, [])})
    return folder
