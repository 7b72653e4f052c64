// Goal: quantised folders are read as the packages read them that made them. tests/tools/make_quantized_models.py
// packed and de-quantised tests/data/quantized with those packages.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>

#include "config/quantization_config.h"
#include "json/json.h"
#include "testing/crc32.h"
#include "weights/checkpoint.h"
#include "weights/safetensors_checkpoint.h"

namespace chorus {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

const std::string data_folder = std::string(CHORUS_TEST_DATA) + "/quantized/";

struct Case {
  const char* folder;
  LinearFormat::Kind kind;  // of most of its matrices
};
constexpr Case cases[] = {{"gptq_sym4", LinearFormat::int4},       {"gptq_asym4_v2", LinearFormat::int4_zero},
                          {"gptq_act_order", LinearFormat::plain}, {"gptq_sym8", LinearFormat::int8},
                          {"gptq_moe", LinearFormat::int4},        {"awq", LinearFormat::int4_zero},
                          {"packed_sym4", LinearFormat::int4},     {"packed_asym4", LinearFormat::int4_zero},
                          {"packed_int8", LinearFormat::int8},     {"w8a8_int8", LinearFormat::int8},
                          {"fp8_channel", LinearFormat::plain},    {"fp8_tensor", LinearFormat::plain},
                          {"fp8_block", LinearFormat::plain},      {"mxfp4", LinearFormat::int8}};

Result<WeightQuantization> quantization_of(const std::string& folder) {
  const Json document = read_json_file(folder + "/config.json").value();
  ModelConfig model;
  model.directory = folder;
  CHORUS_TRY_VOID(read_quantization(folder + "/config.json", ConfigFields(document, folder), &model));
  return model.quantization;
}

Result<std::unique_ptr<Checkpoint>> open_quantized(const std::string& folder) {
  CHORUS_TRY(const WeightQuantization quantization, quantization_of(folder));
  return open_checkpoint(folder, false, quantization);
}

class QuantizedFolder : public ::testing::TestWithParam<Case> {
 protected:
  std::string folder() const { return data_folder + GetParam().folder; }
  Json reference() const { return read_json_file(folder() + "/reference.json").value(); }
};

TEST_P(QuantizedFolder, HasTheValuesOfTheReferenceBitForBit) {
  const auto checkpoint = open_quantized(folder());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.error().message;
  std::size_t quantized = 0;
  for (const std::string& name : (*checkpoint)->names()) {
    const auto matrix = (*checkpoint)->quantized(name);
    ASSERT_TRUE(matrix.ok()) << matrix.error().message;
    quantized += *matrix != nullptr ? 1 : 0;
  }
  const Json weights = reference()["weights"];
  EXPECT_EQ(quantized, weights.size());
  for (const auto& [name, expected] : weights.items()) {
    const auto shape = expected["shape"].get<std::vector<std::int64_t>>();
    const auto view = (*checkpoint)->tensor(name, shape);
    ASSERT_TRUE(view.ok()) << view.error().message;
    ASSERT_EQ(view->dtype, DType::float32);
    for (std::size_t i = 0; i < expected["first"].size(); ++i) {
      EXPECT_EQ(load_as_float(view->data, view->dtype, i), expected["first"][i].get<float>()) << name << " " << i;
    }
    std::size_t bytes = 4;
    for (const std::int64_t size : shape) bytes *= static_cast<std::size_t>(size);
    EXPECT_EQ(crc32(view->data, bytes), expected["crc32"].get<std::uint32_t>()) << name;
  }
}

float value_of(LinearFormat::Kind kind, const LinearGroup& group, int k) {
  const float scale = half_to_float(group.scale), minimum = half_to_float(group.minimum);
  const auto code = static_cast<float>(group.codes[k]);
  return kind == LinearFormat::int4_zero ? scale * (code + minimum)
                                         : scale * (kind == LinearFormat::int4 ? code - 8 : code);
}

void expect_groups_are_the_floats(const QuantizedMatrix& matrix, LinearFormat::Kind kind) {
  for (std::int64_t row = 0; row < matrix.rows(); ++row) {
    for (std::int64_t first = 0; first < matrix.columns(); first += group_columns) {
      float floats[group_columns];
      matrix.read_floats(row, first, group_columns, floats);
      const LinearGroup group = matrix.read(row, first, kind);
      for (int k = 0; k < group_columns; ++k) ASSERT_EQ(value_of(kind, group, k), floats[k]) << row << " " << first + k;
    }
  }
}

// Goal: every format in groups that is said to hold a matrix gives its numbers, exactly.
TEST_P(QuantizedFolder, ItsGroupsAreItsValues) {
  const auto checkpoint = open_quantized(folder()).value();
  int matrices = 0;
  for (const std::string& name : checkpoint->names()) {
    const SharedQuantizedMatrix matrix = checkpoint->quantized(name).value();
    if (matrix == nullptr) continue;
    ++matrices;
    EXPECT_EQ(matrix->kind(), GetParam().kind) << name;
    for (const LinearFormat::Kind kind : {LinearFormat::int8, LinearFormat::int4, LinearFormat::int4_zero}) {
      if (holds_groups_of(kind, matrix->kind())) expect_groups_are_the_floats(*matrix, kind);
    }
  }
  EXPECT_GT(matrices, 1);
}

// Goal: a part of a row is that part of the whole row, wherever it begins.
TEST_P(QuantizedFolder, PartsOfARowAreThoseOfTheWhole) {
  const auto checkpoint = open_quantized(folder()).value();
  for (const auto& [name, expected] : reference()["weights"].items()) {
    const SharedQuantizedMatrix matrix = checkpoint->quantized(name).value();
    ASSERT_NE(matrix, nullptr);
    std::vector<float> whole(static_cast<std::size_t>(matrix->columns())), part(whole.size());
    const std::int64_t row = matrix->rows() - 1;
    matrix->read_floats(row, 0, matrix->columns(), whole.data());
    for (const std::int64_t first : {std::int64_t{1}, std::int64_t{31}, matrix->columns() / 2}) {
      const std::int64_t count = matrix->columns() - first;
      matrix->read_floats(row, first, count, part.data());
      EXPECT_EQ(std::memcmp(part.data(), whole.data() + first, static_cast<std::size_t>(count) * 4), 0)
          << name << " " << first;
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Formats, QuantizedFolder, ::testing::ValuesIn(cases),
                         [](const auto& info) { return std::string(info.param.folder); });

TEST(StoredFormats, NameTheExpertsOfALayerOnce) {
  const std::string folder = data_folder + "gptq_moe";
  const auto formats = read_stored_formats(folder, quantization_of(folder).value());
  ASSERT_TRUE(formats.ok()) << formats.error().message;
  const StoredFormat expected{"model.layers.0.mlp.experts.*.up_proj.weight", LinearFormat::int4};
  EXPECT_EQ(std::ranges::count(*formats, expected), 1);
  EXPECT_EQ(formats->size(), 7U);
}

TEST(StoredFormats, AFolderWithoutWeightsHasNone) {
  EXPECT_TRUE(read_stored_formats(::testing::TempDir(), quantization_of(data_folder + "awq").value())->empty());
}

// ---- folders that are wrong ----

// A copy of a folder's tensors with some changed, in a folder of the test's own.
class ChangedFolder {
 public:
  explicit ChangedFolder(const char* original) {
    std::string pattern = ::testing::TempDir() + "chorus-quantized-XXXXXX";
    path_ = ::mkdtemp(pattern.data());
    files_ = open_safetensors(data_folder + original, false).value();
    quantization_ = quantization_of(data_folder + original).value();
    for (const std::string& name : files_->names()) {
      const StoredTensor tensor = *files_->stored(name);
      tensors_[name] = {std::string(tensor.type), tensor.shape, std::string(bytes_of(tensor))};
    }
  }
  ~ChangedFolder() { std::filesystem::remove_all(path_); }
  ChangedFolder(const ChangedFolder&) = delete;
  ChangedFolder& operator=(const ChangedFolder&) = delete;

  struct Tensor {
    std::string type;
    std::vector<std::int64_t> shape;
    std::string bytes;
  };
  Tensor& operator[](const std::string& name) { return tensors_[name]; }
  void erase(const std::string& name) { tensors_.erase(name); }
  WeightQuantization& quantization() { return quantization_; }

  // What reading all of its matrices says.
  std::string error() {
    write();
    const auto formats = read_stored_formats(path_, quantization_);
    return formats.ok() ? "no error" : formats.error().message;
  }

 private:
  std::string_view bytes_of(const StoredTensor& tensor) const {
    std::size_t bytes = tensor.type == "I64" ? 8 : tensor.type == "I32" || tensor.type == "F32" ? 4 : 1;
    if (tensor.type == "F16" || tensor.type == "BF16") bytes = 2;
    for (const std::int64_t size : tensor.shape) bytes *= static_cast<std::size_t>(size);
    return {reinterpret_cast<const char*>(tensor.data), bytes};
  }
  void write() const {
    Json header = Json::object();
    std::string data;
    for (const auto& [name, tensor] : tensors_) {
      header[name] = {{"dtype", tensor.type},
                      {"shape", tensor.shape},
                      {"data_offsets", {data.size(), data.size() + tensor.bytes.size()}}};
      data += tensor.bytes;
    }
    const std::string text = header.dump();
    const std::uint64_t length = text.size();
    std::ofstream file(path_ + "/model.safetensors", std::ios::binary);
    file.write(reinterpret_cast<const char*>(&length), 8) << text << data;
  }

  std::string path_;
  std::unique_ptr<SafetensorsCheckpoint> files_;
  WeightQuantization quantization_;
  std::map<std::string, Tensor> tensors_;
};

const std::string up = "model.layers.0.mlp.up_proj", down = "model.layers.0.mlp.down_proj";

TEST(WrongQuantizedFolder, PartsThatAreMissingAreNamed) {
  for (const auto& [folder, part] :
       std::initializer_list<std::pair<const char*, const char*>>{{"gptq_sym4", ".scales"},
                                                                  {"gptq_asym4_v2", ".qzeros"},
                                                                  {"awq", ".qzeros"},
                                                                  {"packed_sym4", ".weight_scale"},
                                                                  {"packed_asym4", ".weight_zero_point"},
                                                                  {"packed_int8", ".weight_shape"},
                                                                  {"w8a8_int8", ".weight_scale"},
                                                                  {"fp8_channel", ".weight_scale"},
                                                                  {"fp8_block", ".weight_scale_inv"}}) {
    ChangedFolder changed(folder);
    ASSERT_EQ(changed.error(), "no error") << folder;
    changed.erase(up + part);
    EXPECT_THAT(changed.error(), AllOf(HasSubstr("model.safetensors: " + up), HasSubstr(up + part + " is missing")))
        << folder;
  }
  ChangedFolder experts("mxfp4");
  experts.erase("model.layers.0.mlp.experts.down_proj_scales");
  EXPECT_THAT(experts.error(), HasSubstr("down_proj_scales is missing"));
}

TEST(WrongQuantizedFolder, ShapesAndTypesThatDoNotFitAreTold) {
  ChangedFolder scales("gptq_sym4");
  scales[up + ".scales"].shape = {1, 512};
  EXPECT_THAT(scales.error(), AllOf(HasSubstr(up + ".scales is F16 [1, 512]"), HasSubstr("F32 [2, 256] there")));
  ChangedFolder zeros("awq");
  zeros[up + ".qzeros"].shape = {32, 2};
  EXPECT_THAT(zeros.error(), AllOf(HasSubstr(up + ".qzeros is I32 [32, 2]"), HasSubstr("AWQ has I32 [2, 32] there")));
  ChangedFolder codes("gptq_sym4");
  codes[up + ".qweight"].type = "F32";
  EXPECT_THAT(codes.error(), AllOf(HasSubstr(".qweight is F32 [8, 256]"), HasSubstr("I32 with 2 dimensions there")));
  ChangedFolder packed("packed_sym4");
  packed[up + ".weight_packed"].shape = {128, 16};
  EXPECT_THAT(packed.error(), AllOf(HasSubstr("is I32 [128, 16]"), HasSubstr("4 or 8 bits for [256, 64]")));
  ChangedFolder shape("packed_sym4");
  shape[up + ".weight_shape"].bytes = std::string(8, '\xff') + std::string(8, '\0');
  EXPECT_THAT(shape.error(), HasSubstr(".weight_shape has the size -1"));
  ChangedFolder blocks("fp8_block");
  blocks[up + ".weight_scale_inv"].shape = {1, 2};
  EXPECT_THAT(blocks.error(), AllOf(HasSubstr("weight_scale_inv is F32 [1, 2]"), HasSubstr("[2, 1] there")));
  ChangedFolder experts("mxfp4");
  experts["model.layers.0.mlp.experts.down_proj_blocks"].shape = {4, 64, 16, 8};
  EXPECT_THAT(experts.error(), HasSubstr("16 bytes a block"));
}

TEST(WrongQuantizedFolder, GroupsThatDoNotDivideOrDoNotExistAreTold) {
  ChangedFolder size("gptq_sym4");
  size.quantization().schemes.front().group_size = 48;
  EXPECT_THAT(size.error(), HasSubstr("groups of 48 columns do not divide its"));
  ChangedFolder packed("packed_sym4");
  packed.quantization().schemes.front().group_size = 64;
  EXPECT_THAT(packed.error(), HasSubstr("are in no weights of config_groups"));
  for (const std::int32_t group : {2, -1, 1 << 30}) {
    ChangedFolder order("gptq_act_order");
    std::memcpy(order[up + ".g_idx"].bytes.data() + 4 * 5, &group, 4);
    EXPECT_THAT(order.error(), HasSubstr(fmt::format(".g_idx puts column 5 into group {} of 2", group)));
  }
}

TEST(WrongQuantizedFolder, ScaledActivationsOfAwqAreRefused) {
  ChangedFolder changed("awq");
  changed["model.layers.0.mlp.act.scales"] = {"F16", {1}, std::string(2, '\0')};
  EXPECT_THAT(changed.error(), HasSubstr("model.layers.0.mlp.act.scales scales activations"));
}

}  // namespace
}  // namespace chorus
