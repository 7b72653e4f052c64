// The families against logits and greedy tokens of the reference implementation, on every instruction set of this
// machine, and the promise at the level of the model: chunking and the tensor-parallel size change no bit.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <list>
#include <nlohmann/json.hpp>
#include <random>
#include <thread>

#include "json/json.h"
#include "models/registry.h"

namespace chorus {
namespace {

constexpr float tolerance = 2e-4F;

std::string model_directory(const std::string& name) {
  return std::string(CHORUS_TEST_DATA) + "/models/" + name;
}

// Multiplies every matrix element by 1 + d, |d| <= 2^-9, or leaves all as it is (draw 0).
class PerturbedCheckpoint final : public Checkpoint {
 public:
  PerturbedCheckpoint(const Checkpoint& inner, unsigned draw) : inner_(inner), draw_(draw) {}
  bool has(const std::string& name) const override { return inner_.has(name); }
  std::vector<std::string> names() const override { return inner_.names(); }
  std::size_t files() const override { return inner_.files(); }
  std::string digest() const override { return inner_.digest(); }
  void release(const std::string& name) const override { inner_.release(name); }
  Result<SharedQuantizedMatrix> quantized(const std::string& name) const override {
    return draw_ == 0 ? inner_.quantized(name) : SharedQuantizedMatrix();
  }
  Result<TensorView> tensor(const std::string& name, const std::vector<std::int64_t>& shape) const override {
    CHORUS_TRY(TensorView view, inner_.tensor(name, shape));
    if (draw_ == 0 || shape.size() < 2) return view;
    std::size_t count = 1;
    for (const std::int64_t size : shape) count *= static_cast<std::size_t>(size);
    auto& values = kept_.emplace_back(count);
    std::mt19937 random(draw_ * 7919U + static_cast<unsigned>(name.size()) * 31U + static_cast<unsigned>(count));
    std::uniform_real_distribution<float> relative(-0x1p-9F, 0x1p-9F);
    for (std::size_t i = 0; i < count; ++i)
      values[i] = load_as_float(view.data, view.dtype, i) * (1 + relative(random));
    view.data = reinterpret_cast<const std::byte*>(values.data());
    view.dtype = DType::float32;
    return view;
  }

 private:
  const Checkpoint& inner_;
  unsigned draw_;
  mutable std::list<std::vector<float>> kept_;
};

// A model on its device and a KV cache for one sequence.
class RunningModel {
 public:
  RunningModel(const std::string& directory, Isa isa, DType dtype, unsigned perturbation = 0,
               Group group = Group::of_one(), int threads = 2, Quantization quantization = Quantization::none)
      : group_(std::move(group)), isa_(isa), pool_(threads) {
    const auto config = read_model_config(directory);
    EXPECT_TRUE(config.ok()) << config.error().message;
    config_ = *config;
    const auto family = find_family(config_);
    EXPECT_TRUE(family.ok());
    parameters_.emplace(isa, dtype, LinearFormats(quantization, config_));
    decoder_.emplace((*family)->make({*parameters_, whole_model(config_, {group_.rank(), group_.size()}), config_}));
    const auto checkpoint = open_checkpoint(directory, false, config_.quantization);
    EXPECT_TRUE(checkpoint.ok()) << checkpoint.error().message;
    const PerturbedCheckpoint perturbed(**checkpoint, perturbation);
    arena_.resize(parameters_->arena_bytes() + 64);
    std::byte* arena = arena_.data() + (64 - reinterpret_cast<std::uintptr_t>(arena_.data()) % 64) % 64;
    const auto packed = parameters_->pack(perturbed, pool_, arena);
    EXPECT_TRUE(packed.ok()) << packed.error().message;
    EXPECT_TRUE(parameters_->bind(arena, parameters_->arena_bytes()).ok());
    EXPECT_TRUE(parameters_->move_to(*device_).ok());
    rotary_ = make_rotary_tables(config_, config_.max_position_embeddings);
    for (RotaryTable& table : rotary_) EXPECT_TRUE(table.move_to(*device_).ok());
    const auto blocks = static_cast<std::size_t>((config_.max_position_embeddings + 15) / 16);
    for (const KvCacheSpec& spec : decoder_->kv()) {
      const KvLayout layout = spec.layout(16, kv_dtype_of(dtype));
      caches_.push_back({layout, device_->allocate(spec.block_bytes(16, kv_dtype_of(dtype)) * blocks).value()});
    }
    for (std::size_t block = 0; block < blocks; ++block)
      block_table_.push_back(static_cast<std::int32_t>(blocks - 1 - block));
  }

  const ModelConfig& config() const { return config_; }

  // Appends the tokens to the sequence; logits of all of them, [tokens, vocab].
  std::vector<float> extend(const std::vector<std::int32_t>& tokens) {
    std::vector<std::int32_t> positions, rows;
    for (std::size_t i = 0; i < tokens.size(); ++i) positions.push_back(length_ + static_cast<std::int32_t>(i));
    // All rows once for each rank: then the share of each is all of them.
    for (int rank = 0; rank < group_.size(); ++rank) {
      for (std::size_t i = 0; i < tokens.size(); ++i) rows.push_back(static_cast<std::int32_t>(i));
    }
    const std::vector<AttentionSequence> sequences = {
        {0, length_, static_cast<std::int32_t>(tokens.size()), block_table_}};
    StepInput step{tokens, positions, sequences, rows};
    const LayerContext context{*device_, group_};
    const Scratch::Scope scope(device_->scratch());
    upload(*device_, &step, 16);
    const View hidden = device_->take(DType::float32, step.rows(), config_.hidden_size);
    EXPECT_TRUE(decoder_->forward(context, *parameters_, rotary_, caches_, step, hidden).ok());
    const auto wanted = static_cast<std::int64_t>(rows.size());
    const View out = decoder_->logits(context, *parameters_, hidden, step, 0, wanted).value();
    EXPECT_EQ(out.stride, config_.vocab_size);
    const auto size = static_cast<std::size_t>(out.rows * out.stride);
    const auto* values = reinterpret_cast<const float*>(device_->read(out.data, size * sizeof(float)));
    std::vector<float> logits(values, values + size);
    const auto finished = device_->finish();
    EXPECT_TRUE(finished.ok()) << finished.error().message;
    length_ += static_cast<std::int32_t>(tokens.size());
    return logits;
  }

 private:
  ModelConfig config_;
  Group group_;
  Isa isa_;
  ThreadPool pool_;
  std::unique_ptr<Device> device_ = make_device(isa_, pool_).value();
  std::optional<Parameters> parameters_;
  std::optional<Decoder> decoder_;
  std::vector<RotaryTable> rotary_;
  std::vector<std::byte> arena_;
  std::vector<KvCacheLayer> caches_;
  std::vector<std::int32_t> block_table_;
  std::int32_t length_ = 0;
};

std::vector<float> last_row(const std::vector<float>& logits, int vocab_size) {
  return {logits.end() - vocab_size, logits.end()};
}

std::int32_t argmax(const std::vector<float>& row) {
  return static_cast<std::int32_t>(std::max_element(row.begin(), row.end()) - row.begin());
}

// Infinity when the sizes differ or a value is not finite: std::max() would pass over a NaN.
float largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  constexpr float beyond_any_bound = std::numeric_limits<float>::infinity();
  if (a.size() != b.size()) return beyond_any_bound;
  float largest = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    const float difference = std::abs(a[i] - b[i]);
    if (!std::isfinite(difference)) return beyond_any_bound;
    largest = std::max(largest, difference);
  }
  return largest;
}

TEST(LargestDifference, IsBeyondAnyBoundForWhatIsNoNumber) {
  const float nan = std::numeric_limits<float>::quiet_NaN(), infinity = std::numeric_limits<float>::infinity();
  EXPECT_EQ(largest_difference({1, nan, 1}, {1, 1, 1}), infinity);
  EXPECT_EQ(largest_difference({1, infinity}, {1, infinity}), infinity);
  EXPECT_EQ(largest_difference({1}, {1, 2}), infinity);
  EXPECT_EQ(largest_difference({1, 4}, {1, 2}), 2);
}

Json read_reference(const std::string& directory) {
  const auto json = read_json_file(directory + "/reference.json");
  EXPECT_TRUE(json.ok()) << json.error().message;
  return *json;
}

struct Case {
  std::string model;
  Isa isa;
};

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const char* model :
       {"llama",     "cohere2",    "deepseek_v2", "deepseek_v3", "ernie4_5", "exaone4",       "gemma2",    "gemma3",
        "glm4",      "glm4_moe",   "gpt2",        "gpt_oss",     "granite",  "hunyuan_dense", "mistral",   "mixtral",
        "olmo2",     "olmoe",      "phi",         "phi3",        "phimoe",   "qwen2",         "qwen2_moe", "qwen3",
        "qwen3_moe", "qwen3_next", "seed_oss",    "smollm3",     "stablelm", "starcoder2"}) {
    for (const Isa isa : available_isas()) all.push_back({model, isa});
  }
  return all;
}

std::string case_name(const testing::TestParamInfo<Case>& info) {
  std::string name = info.param.model + "_" + name_of(info.param.isa);
  std::replace(name.begin(), name.end(), '-', '_');
  return name;
}

class TinyModel : public testing::TestWithParam<Case> {
 protected:
  std::string directory() const { return model_directory(GetParam().model); }
};

void expect_the_reference(const std::string& directory, Isa isa) {
  const Json reference = read_reference(directory);
  ASSERT_FALSE(reference["prompts"].empty());
  for (const Json& prompt : reference["prompts"]) {
    RunningModel model(directory, isa, DType::float32);
    std::vector<float> row =
        last_row(model.extend(prompt["ids"].get<std::vector<std::int32_t>>()), model.config().vocab_size);
    EXPECT_LE(largest_difference(row, prompt["logits_last"].get<std::vector<float>>()), tolerance) << prompt["name"];
    const auto greedy = prompt["greedy"].get<std::vector<std::int32_t>>();
    const auto margins = prompt["margins"].get<std::vector<float>>();
    for (std::size_t step = 0; step < greedy.size() && margins[step] >= tolerance; ++step) {
      ASSERT_EQ(argmax(row), greedy[step]) << prompt["name"] << " step " << step;
      row = last_row(model.extend({greedy[step]}), model.config().vocab_size);
    }
  }
}

TEST_P(TinyModel, LogitsAndGreedyTokensMatchTheReference) {
  expect_the_reference(directory(), GetParam().isa);
}

void expect_chunks_change_no_bit(const std::string& directory, Isa isa, DType dtype,
                                 const std::vector<std::int32_t>& ids) {
  RunningModel whole(directory, isa, dtype);
  const std::vector<float> expected = whole.extend(ids);
  for (const std::size_t chunk : {1, 7, 33}) {
    RunningModel chunked(directory, isa, dtype, 0, Group::of_one(), 1);
    std::vector<float> got;
    for (std::size_t first = 0; first < ids.size(); first += chunk) {
      const auto part =
          chunked.extend({ids.begin() + static_cast<std::ptrdiff_t>(first),
                          ids.begin() + static_cast<std::ptrdiff_t>(std::min(ids.size(), first + chunk))});
      got.insert(got.end(), part.begin(), part.end());
    }
    ASSERT_EQ(got, expected) << "chunk " << chunk << " " << name_of(dtype);
  }
}

TEST_P(TinyModel, ChunksAndThreadsChangeNoBit) {
  const auto ids = read_reference(directory())["prompts"][2]["ids"].get<std::vector<std::int32_t>>();
  for (const DType dtype : {DType::float32, DType::bfloat16})
    expect_chunks_change_no_bit(directory(), GetParam().isa, dtype, ids);
}

// Goal: the reduction tree is defined on the model, so tensor parallelism changes no bit. Method: ranks as threads.
TEST_P(TinyModel, TheTensorParallelSizeChangesNoBit) {
  const auto ids = read_reference(directory())["prompts"][1]["ids"].get<std::vector<std::int32_t>>();
  RunningModel whole(directory(), GetParam().isa, DType::bfloat16);
  const std::vector<float> expected = whole.extend(ids);
  for (const int size : {2, 4}) {
    auto groups = make_thread_groups(size, 60000);
    std::vector<std::vector<float>> got(static_cast<std::size_t>(size));
    std::vector<std::thread> ranks;
    for (std::size_t r = 0; r < got.size(); ++r) {
      ranks.emplace_back([&, r] {
        RunningModel rank(directory(), GetParam().isa, DType::bfloat16, 0, std::move(groups[r]), 1);
        got[r] = rank.extend(ids);
      });
    }
    for (auto& rank : ranks) rank.join();
    for (const auto& logits : got) ASSERT_EQ(logits, expected) << "tp " << size;
  }
}

// Goal: bfloat16 logits are as near to float32 ones as the roundings allow. Derivation (backward error): rounding an
// activation, key or value to bfloat16 inside a dot product equals a relative change of at most 2^-9 of the factor it
// meets, so the run is an exact run of a model whose weights moved by at most that. How far such a model's logits move
// is measured on draws of it (Parker, "Monte Carlo arithmetic", 1997); three times the largest draw, plus the rounding
// of the weights themselves (one more such move), bounds the deviation.
void expect_bfloat16_within_bound(const std::string& directory, Isa exact_isa, Isa isa,
                                  const std::vector<std::int32_t>& ids) {
  RunningModel exact(directory, exact_isa, DType::float32);
  const std::vector<float> expected = exact.extend(ids);
  float moved = 0;
  for (unsigned draw = 1; draw <= 6; ++draw) {
    RunningModel perturbed(directory, exact_isa, DType::float32, draw);
    moved = std::max(moved, largest_difference(perturbed.extend(ids), expected));
  }
  RunningModel rounded(directory, isa, DType::bfloat16);
  const float deviation = largest_difference(rounded.extend(ids), expected);
  ASSERT_TRUE(std::isfinite(moved));
  EXPECT_LE(deviation, 6 * moved);
  EXPECT_GT(deviation, 0) << "bfloat16 was not used";
}

TEST_P(TinyModel, Bfloat16StaysWithinTheDerivedBound) {
  const auto ids = read_reference(directory())["prompts"][1]["ids"].get<std::vector<std::int32_t>>();
  expect_bfloat16_within_bound(directory(), GetParam().isa, GetParam().isa, ids);
}

// tests/data/quantized, and whether its matrices are computed in their own integers.
struct QuantizedCase {
  const char* folder;
  bool is_native;
};
constexpr QuantizedCase quantized_cases[] = {{"gptq_sym4", true},   {"gptq_asym4_v2", true}, {"gptq_act_order", false},
                                             {"gptq_sym8", true},   {"gptq_moe", true},      {"awq", true},
                                             {"packed_sym4", true}, {"packed_asym4", true},  {"packed_int8", true},
                                             {"w8a8_int8", true},   {"fp8_channel", false},  {"fp8_tensor", false},
                                             {"fp8_block", false},  {"mxfp4", true}};

class QuantizedFolderModel : public testing::TestWithParam<QuantizedCase> {
 protected:
  std::string directory() const { return std::string(CHORUS_TEST_DATA) + "/quantized/" + GetParam().folder; }
  std::vector<std::int32_t> ids() const {
    return read_reference(directory())["prompts"][1]["ids"].get<std::vector<std::int32_t>>();
  }
  RunningModel native(Group group = Group::of_one(), int threads = 2) const {
    return RunningModel(directory(), available_isas().front(), DType::float32, 0, std::move(group), threads,
                        Quantization::automatic);
  }
};

// Goal: de-quantised it gives what transformers gives over the weights that the format's own package de-quantised.
TEST_P(QuantizedFolderModel, LogitsAndGreedyTokensMatchTheReference) {
  expect_the_reference(directory(), available_isas().front());
}

// Goal: in its own integers only the rounding of x is left, to 8 bits in groups of 32; else it is de-quantised. A
// router near a tie may choose another expert for a row, which then is another one.
TEST_P(QuantizedFolderModel, ItsOwnIntegersStayNearItsFloats) {
  RunningModel exact(directory(), available_isas().front(), DType::float32), stored = native();
  const std::vector<float> floats = exact.extend(ids()), integers = stored.extend(ids());
  const int vocab = exact.config().vocab_size;
  int rows_beyond = 0;
  for (std::size_t row = 0; row < ids().size(); ++row) {
    const auto begin = static_cast<std::ptrdiff_t>(row) * vocab;
    const std::vector<float> a(floats.begin() + begin, floats.begin() + begin + vocab);
    const std::vector<float> b(integers.begin() + begin, integers.begin() + begin + vocab);
    rows_beyond += largest_difference(a, b) > 0.15F ? 1 : 0;
  }
  EXPECT_LE(rows_beyond, exact.config().num_experts > 0 ? 2 : 0);
  EXPECT_EQ(largest_difference(integers, floats) > 0, GetParam().is_native);
}

TEST_P(QuantizedFolderModel, ChunksAndTheTensorParallelSizeChangeNoBit) {
  RunningModel whole = native(), chunked = native(Group::of_one(), 1);
  const std::vector<std::int32_t> all = ids();
  const std::vector<float> expected = whole.extend(all);
  std::vector<float> got = chunked.extend({all.begin(), all.begin() + 7});
  const std::vector<float> rest = chunked.extend({all.begin() + 7, all.end()});
  got.insert(got.end(), rest.begin(), rest.end());
  EXPECT_EQ(got, expected);
  auto groups = make_thread_groups(2, 60000);
  std::vector<float> ranks[2];
  std::thread other([&] { ranks[1] = native(std::move(groups[1]), 1).extend(all); });
  ranks[0] = native(std::move(groups[0]), 1).extend(all);
  other.join();
  for (const std::vector<float>& logits : ranks) EXPECT_EQ(logits, expected);
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedFolderModel, testing::ValuesIn(quantized_cases),
                         [](const auto& info) { return std::string(info.param.folder); });

// The same families on a GPU: its emulation, or, in a build with CUDA, the card. Experts are not computed there.
class TinyModelOnGpu : public testing::TestWithParam<std::string> {};

TEST_P(TinyModelOnGpu, StaysWithinTheDerivedBound) {
  const std::string directory = model_directory(GetParam());
  const auto ids = read_reference(directory)["prompts"][1]["ids"].get<std::vector<std::int32_t>>();
  expect_bfloat16_within_bound(directory, available_isas().front(), Isa::cuda_sm90, ids);
}

TEST_P(TinyModelOnGpu, ChunksChangeNoBit) {
  const std::string directory = model_directory(GetParam());
  auto ids = read_reference(directory)["prompts"][2]["ids"].get<std::vector<std::int32_t>>();
  ids.resize(std::min<std::size_t>(ids.size(), 40));  // the emulation is slow
  expect_chunks_change_no_bit(directory, Isa::cuda_sm90, DType::bfloat16, ids);
}

// Widths that are no multiples of 8, heads of dimension 8: what packing fills up.
TEST(StoriesOnGpu, StaysWithinTheDerivedBound) {
  const std::string directory = model_directory("stories260k-f32");
  const auto ids = read_reference(directory)["results"][0]["prompt_ids"].get<std::vector<std::int32_t>>();
  expect_bfloat16_within_bound(directory, available_isas().front(), Isa::cuda_sm90, ids);
}

INSTANTIATE_TEST_SUITE_P(DenseFamilies, TinyModelOnGpu,
                         testing::Values("llama", "cohere2", "ernie4_5", "exaone4", "gemma3", "glm4", "gpt2", "granite",
                                         "hunyuan_dense", "mistral", "olmo2", "phi", "phi3", "qwen2", "qwen3",
                                         "seed_oss", "smollm3", "stablelm", "starcoder2"),
                         [](const auto& info) { return info.param; });

INSTANTIATE_TEST_SUITE_P(Families, TinyModel, testing::ValuesIn(cases()), case_name);

class Stories : public testing::TestWithParam<Case> {};

TEST_P(Stories, GreedyTokensLogprobsAndPromptLogprobsMatchTheReference) {
  const std::string directory = model_directory("stories260k-f32");
  const Json reference = read_reference(directory);
  ASSERT_FALSE(reference["results"].empty());
  for (const Json& result : reference["results"]) {
    RunningModel model(directory, GetParam().isa, DType::float32);
    const int vocab = model.config().vocab_size;
    const auto ids = result["prompt_ids"].get<std::vector<std::int32_t>>();
    const std::vector<float> prompt_logits = model.extend(ids);
    const auto logprob = [vocab](const float* row, std::int32_t token) {
      double sum = 0;
      for (int i = 0; i < vocab; ++i) sum += std::exp(static_cast<double>(row[i] - row[token]));
      return static_cast<float>(-std::log(sum));
    };
    for (std::size_t i = 1; i < ids.size(); ++i) {
      const float expected = result["prompt_logprobs"][i].get<float>();
      ASSERT_NEAR(logprob(prompt_logits.data() + (i - 1) * static_cast<std::size_t>(vocab), ids[i]), expected,
                  tolerance);
    }
    std::vector<float> row = last_row(prompt_logits, vocab);
    const auto greedy = result["greedy_ids"].get<std::vector<std::int32_t>>();
    const auto margins = result["margins"].get<std::vector<float>>();
    for (std::size_t step = 0; step < greedy.size() && margins[step] >= tolerance; ++step) {
      ASSERT_EQ(argmax(row), greedy[step]) << result["prompt"] << " step " << step;
      for (const Json& top : result["top5_logprobs"][step]) {
        ASSERT_NEAR(logprob(row.data(), top[0].get<std::int32_t>()), top[1].get<float>(), tolerance);
      }
      row = last_row(model.extend({greedy[step]}), vocab);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Trained, Stories, testing::ValuesIn([] {
                           std::vector<Case> all;
                           for (const Isa isa : available_isas()) all.push_back({"stories260k", isa});
                           return all;
                         }()),
                         case_name);

TEST(Registry, ListsTheKnownArchitecturesWhenOneIsUnknown) {
  ModelConfig config;
  config.directory = "somewhere";
  config.architecture = "GPT9ForCausalLM";
  const auto family = find_family(config);
  ASSERT_FALSE(family.ok());
  EXPECT_EQ(family.error().message.rfind(
                "somewhere/config.json: architecture GPT9ForCausalLM is not supported; known: LlamaForCausalLM", 0),
            0U)
      << family.error().message;
}

}  // namespace
}  // namespace chorus
