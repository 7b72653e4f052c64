"""Writes tests/data/quantized: folders of tiny models with quantised weights, each packed and de-quantised by the package whose format it is.

    pip install torch transformers==5.24.0 compressed-tensors==0.20.0 && pip install --no-deps auto-gptq==0.7.1 autoawq==0.2.5
    python3 tests/tools/make_quantized_models.py tests/data/quantized [NAME ..]

reference.json: as that of tests/data/models, by transformers in float32 over the de-quantised weights; "weights": of each quantised matrix the
CRC-32 of those float32 values and the first of them. AutoGPTQ and AutoAWQ are of the format alone: their modules are loaded without the package."""
import importlib.util
import json
import pathlib
import sys
import tempfile
import types
import zlib

import numpy
import torch
import transformers
from compressed_tensors.compressors.naive_quantized.base import FloatQuantizationCompressor, IntQuantizationCompressor
from compressed_tensors.compressors.pack_quantized.base import PackedQuantizationCompressor
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
from compressed_tensors.quantization.utils import calculate_qparams
from safetensors.torch import load_file, save_file
from transformers.integrations.finegrained_fp8 import _dequantize_fp8_weight
from transformers.integrations.mxfp4 import convert_moe_packed_tensors

SIZES = {"vocab_size": 128, "hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 1, "num_attention_heads": 2, "num_key_value_heads": 1,
         "head_dim": 32, "max_position_embeddings": 256, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0, "tie_word_embeddings": False}
GREEDY = 24


def module_of(package, path):
    """One file of an installed package, without what the package itself asks for."""
    folder = next(pathlib.Path(entry, package) for entry in sys.path if pathlib.Path(entry, package).is_dir())
    spec = importlib.util.spec_from_file_location(path.replace("/", "_"), folder / f"{path}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def auto_gptq():
    return module_of("auto_gptq", "nn_modules/qlinear/qlinear_cuda")


def auto_awq():
    packing = module_of("awq", "utils/packing_utils")
    for name, module in (("awq", types.ModuleType("awq")), ("awq.utils", types.ModuleType("awq.utils")), ("awq.utils.packing_utils", packing)):
        sys.modules[name] = module
    sys.modules["awq.utils.utils"] = types.SimpleNamespace(get_best_device=lambda: "cpu")
    return module_of("awq", "modules/linear/gemm"), packing


# ---- quantisers: weight [rows, columns] -> (tensors by what follows the module's name, float32 values) ----


def ranges(weight, bits, group, symmetric):
    """Scales (binary16, as float32) and zero points by row and group, by the least and the greatest of each; and the weight cut to what they reach."""
    parts = weight.unflatten(1, (-1, group))
    low, high, levels = parts.amin(2).clamp(max=0), parts.amax(2).clamp(min=0), 2**bits - 1
    if symmetric:
        scales = (torch.maximum(-low, high) / (2 ** (bits - 1) - 1)).half().float()
        zeros = torch.full_like(scales, 2 ** (bits - 1))
    else:
        scales = ((high - low) / levels).half().float()
        zeros = torch.round(-low / scales).clamp(1, levels - 1)
    least, most = -zeros * scales, (levels - zeros) * scales
    return scales, zeros, torch.minimum(torch.maximum(parts, least[..., None]), most[..., None]).flatten(1)


def gptq(bits, group, symmetric, version=1, act_order=False):
    qlinear = auto_gptq()

    def quantise(weight, rng):
        rows, columns = weight.shape
        size = columns if group == -1 else group
        order = torch.from_numpy(rng.permutation(columns)) if act_order else torch.arange(columns)
        scales, zeros, cut = ranges(weight[:, order], bits, size, symmetric)
        g_idx = torch.empty(columns, dtype=torch.int32)
        g_idx[order] = torch.arange(columns, dtype=torch.int32) // size
        linear = torch.nn.Linear(columns, rows, bias=False)
        linear.weight.data[:, order] = cut
        layer = qlinear.QuantLinear(bits, size, columns, rows, False, weight_dtype=torch.float32)
        layer.pack(linear, scales, zeros.clone(), g_idx)
        values = layer(torch.eye(columns)).T.contiguous()
        if version == 2:
            other = qlinear.QuantLinear(bits, size, columns, rows, False, weight_dtype=torch.float32)
            other.pack(linear, scales, zeros + 1, g_idx)
            layer.qzeros = other.qzeros
        return {".qweight": layer.qweight, ".qzeros": layer.qzeros, ".scales": layer.scales.half(), ".g_idx": layer.g_idx}, values

    return quantise


def awq(group):
    gemm, packing = auto_awq()

    def quantise(weight, _):
        scales, zeros, cut = ranges(weight, 4, group, False)
        linear = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=False)
        linear.weight.data = cut
        layer = gemm.WQLinear_GEMM.from_linear(linear, 4, group, scales=scales.T.contiguous(), zeros=zeros.T.contiguous())
        values = packing.dequantize_gemm(layer.qweight, layer.qzeros, layer.scales.float(), 4, group)
        return {".qweight": layer.qweight, ".qzeros": layer.qzeros, ".scales": layer.scales}, values.T.contiguous()

    return quantise


def compressed(compressor, **arguments):
    """By compressed-tensors, with scales in bfloat16, which are widened before its own de-quantisation: that rounds to the scales' dtype."""
    args = QuantizationArgs(**arguments)
    scheme = QuantizationScheme(targets=["Linear"], weights=args)

    def quantise(weight, _):
        size = args.group_size if args.strategy == "group" else weight.shape[1]
        parts = weight.unflatten(1, (-1, size))
        low, high = (parts.min(), parts.max()) if args.strategy == "tensor" else (parts.amin(2), parts.amax(2))
        scales, zeros = calculate_qparams(low, high, args)
        state = {"weight": weight, "weight_scale": scales.bfloat16().float().reshape(1 if args.strategy == "tensor" else scales.shape),
                 "weight_zero_point": zeros.to(torch.int8)}
        packed = compressor.compress(state, scheme)
        values = compressor.decompress(packed, scheme)["weight"]
        packed["weight_scale"] = packed["weight_scale"].bfloat16()
        if args.symmetric:
            packed.pop("weight_zero_point", None)
        return {f".{name}": tensor for name, tensor in packed.items()}, values.float()

    return quantise


def fp8_blocks(size=128):
    def quantise(weight, _):
        rows, columns = weight.shape
        scales = torch.tensor([[weight[r:r + size, c:c + size].abs().max() / 448 for c in range(0, columns, size)] for r in range(0, rows, size)])
        spread = scales.repeat_interleave(size, 0)[:rows].repeat_interleave(size, 1)[:, :columns]
        codes = (weight / spread).clamp(-448, 448).to(torch.float8_e4m3fn)
        return {".weight": codes, ".weight_scale_inv": scales}, _dequantize_fp8_weight(codes, scales, [size, size], torch.float32)

    return quantise


def mxfp4(weight, rng):
    """Of experts [count, columns, rows]: blocks of 32 columns at random, and scales that make them about as large as the weights were."""
    experts, columns, rows = weight.shape
    blocks = torch.from_numpy(rng.integers(0, 256, (experts, rows, columns // 32, 16), dtype=numpy.uint8))
    scales = torch.from_numpy(rng.integers(121, 124, (experts, rows, columns // 32), dtype=numpy.uint8))
    return {"_blocks": blocks, "_scales": scales}, convert_moe_packed_tensors(blocks, scales, dtype=torch.float32)


# ---- models ----


def llama(**more):
    return transformers.LlamaConfig(**SIZES, rms_norm_eps=1e-5, **more)


def qwen2():
    return transformers.Qwen2Config(**{key: value for key, value in SIZES.items() if key != "head_dim"})


def qwen3_moe():
    return transformers.Qwen3MoeConfig(**{**SIZES, "moe_intermediate_size": 256, "num_experts": 4, "num_experts_per_tok": 2, "norm_topk_prob": True})


def gpt_oss():
    return transformers.GptOssConfig(**SIZES, num_local_experts=4, num_experts_per_tok=2, sliding_window=16, layer_types=["sliding_attention"])


def group_of(num_bits=4, kind="int", symmetric=True, strategy="group", group_size=None, activations=None):
    return {"targets": ["Linear"], "weights": {"num_bits": num_bits, "type": kind, "symmetric": symmetric, "strategy": strategy, "group_size": group_size,
            "dynamic": False}, "input_activations": activations, "output_activations": None}


def compressed_config(form, group, ignore=("lm_head",)):
    return {"quant_method": "compressed-tensors", "format": form, "quantization_status": "compressed", "ignore": list(ignore), "config_groups": {"group_0": group}}


def gptq_config(bits, group, symmetric, act_order=False, form="gptq"):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": symmetric, "desc_act": act_order, "checkpoint_format": form}


TOKEN = {"num_bits": 8, "type": "int", "symmetric": True, "strategy": "token", "dynamic": True}
FLOAT_TOKEN = {**TOKEN, "type": "float"}
IGNORE = ("lm_head", "re:.*self_attn.k_proj$")
CASES = {
    "gptq_sym4": (llama, gptq(4, 32, True), gptq_config(4, 32, True), ()),
    "gptq_asym4_v2": (llama, gptq(4, 64, False, version=2), gptq_config(4, 64, False, form="gptq_v2"), ()),
    "gptq_act_order": (llama, gptq(4, 32, False, act_order=True), gptq_config(4, 32, False, True), ()),
    "gptq_sym8": (llama, gptq(8, -1, True), gptq_config(8, -1, True), ()),
    "gptq_moe": (qwen3_moe, gptq(4, 64, True), gptq_config(4, 64, True), ()),
    "awq": (qwen2, awq(32), {"quant_method": "awq", "bits": 4, "group_size": 32, "zero_point": True, "version": "gemm", "modules_to_not_convert": None}, ()),
    "packed_sym4": (llama, compressed(PackedQuantizationCompressor, num_bits=4, strategy="group", group_size=32),
                    compressed_config("pack-quantized", group_of(group_size=32), IGNORE), ("k_proj",)),
    "packed_asym4": (llama, compressed(PackedQuantizationCompressor, num_bits=4, symmetric=False, strategy="group", group_size=64),
                     compressed_config("pack-quantized", group_of(symmetric=False, group_size=64)), ()),
    "packed_int8": (llama, compressed(PackedQuantizationCompressor, num_bits=8, strategy="channel"),
                    compressed_config("pack-quantized", group_of(8, strategy="channel")), ()),
    "w8a8_int8": (llama, compressed(IntQuantizationCompressor, num_bits=8, strategy="channel"),
                  compressed_config("int-quantized", group_of(8, strategy="channel", activations=TOKEN)), ()),
    "fp8_channel": (llama, compressed(FloatQuantizationCompressor, num_bits=8, type="float", strategy="channel"),
                    compressed_config("float-quantized", group_of(8, "float", strategy="channel", activations=FLOAT_TOKEN)), ()),
    "fp8_tensor": (llama, compressed(FloatQuantizationCompressor, num_bits=8, type="float", strategy="tensor"),
                   compressed_config("float-quantized", group_of(8, "float", strategy="tensor")), ()),
    "fp8_block": (llama, fp8_blocks(), {"quant_method": "fp8", "fmt": "e4m3", "activation_scheme": "dynamic", "weight_block_size": [128, 128],
                                        "modules_to_not_convert": ["lm_head"]}, ()),
    "mxfp4": (gpt_oss, mxfp4, {"quant_method": "mxfp4", "modules_to_not_convert": ["model.layers.*.self_attn", "model.layers.*.mlp.router",
                                                                                  "model.embed_tokens", "lm_head"]}, ()),
}


def random_weights(config, rng):
    """All of a model's tensors under their names in a checkpoint, as 16 bits have them."""
    model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with tempfile.TemporaryDirectory() as folder:
        model.save_pretrained(folder)
        shapes = {name: tensor.shape for name, tensor in load_file(f"{folder}/model.safetensors").items()}
    weights = {}
    for name, shape in sorted(shapes.items()):
        values = torch.from_numpy(rng.standard_normal(tuple(shape), dtype=numpy.float32))
        fan_in = shape[-2] if len(shape) == 3 else shape[-1]
        scale = 1 / fan_in**0.5 if len(shape) > 1 else 0.1
        weights[name] = (values * scale + (1 if "norm" in name else 0)).bfloat16().float()
    return weights


def is_quantised(name, tensor, method, kept):
    if method == "mxfp4":
        return name.endswith(("experts.gate_up_proj", "experts.down_proj"))
    module = name.removesuffix(".weight")
    return name.endswith("_proj.weight") and tensor.dim() == 2 and not module.endswith(kept or "-")


def reference_of(config, weights, rng):
    with tempfile.TemporaryDirectory() as folder:
        config.save_pretrained(folder)
        save_file(weights, f"{folder}/model.safetensors", metadata={"format": "pt"})
        model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    prompts = []
    for name, length in (("short", 5), ("mid", 23), ("long", 70)):
        ids = [1, *(int(token) for token in rng.integers(3, SIZES["vocab_size"], length - 1))]
        greedy, margins, last, sequence = [], [], None, list(ids)
        for _ in range(GREEDY):
            with torch.no_grad():
                logits = model(torch.tensor([sequence])).logits[0, -1]
            last = logits if last is None else last
            best = torch.topk(logits, 2)
            greedy.append(int(best.indices[0]))
            margins.append(round(float(best.values[0] - best.values[1]), 5))
            sequence.append(greedy[-1])
        prompts.append({"name": name, "ids": ids, "logits_last": [round(float(x), 5) for x in last], "greedy": greedy, "margins": margins})
    return prompts


def write_case(folder, make, quantise, quantization, kept):
    rng = numpy.random.Generator(numpy.random.PCG64(7))
    config = make()
    weights = random_weights(config, rng)
    stored, summary = {}, {}
    half = quantization["quant_method"] in ("gptq", "awq")
    for name, tensor in weights.items():
        if not is_quantised(name, tensor, quantization["quant_method"], kept):
            weights[name] = tensor.half().float() if half else tensor
            stored[name] = tensor.half() if half else tensor.bfloat16()
            continue
        parts, values = quantise(tensor, rng)
        stored.update({name.removesuffix(".weight") + part: content.contiguous() for part, content in parts.items()})
        weights[name] = values
        summary[name] = {"shape": list(values.shape), "crc32": zlib.crc32(values.contiguous().numpy().tobytes()),
                         "first": [float(x) for x in values.flatten()[:4]]}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(stored, str(folder / "model.safetensors"), metadata={"format": "pt"})
    prompts = reference_of(config, weights, rng)
    described = {**json.loads(config.to_json_string(use_diff=False)), "architectures": [type(config).__name__.replace("Config", "ForCausalLM")],
                 "dtype": "float16" if half else "bfloat16", "quantization_config": quantization}
    (folder / "config.json").write_text(json.dumps(described, indent=1, sort_keys=True) + "\n")
    (folder / "reference.json").write_text(json.dumps({"torch": torch.__version__, "transformers": transformers.__version__, "prompts": prompts,
                                                       "weights": summary}) + "\n")
    print(folder.name, (folder / "model.safetensors").stat().st_size, "bytes", flush=True)


def main():
    out = pathlib.Path(sys.argv[1])
    for name in sys.argv[2:] or CASES:
        write_case(out / name, *CASES[name])


main()
