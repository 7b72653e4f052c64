// Goal: tensors read as the reference implementation reads them. tests/data/weights/make_golden.py made the expected
// values with the Python package `safetensors`.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "json/json.h"
#include "testing/crc32.h"
#include "weights/checkpoint.h"

namespace chorus {
namespace {

void compare(const Checkpoint& checkpoint, const Json& golden) {
  ASSERT_EQ(checkpoint.names().size(), golden.size());
  for (const auto& [name, expected] : golden.items()) {
    const auto shape = expected["shape"].get<std::vector<std::int64_t>>();
    const auto view = checkpoint.tensor(name, shape);
    if (expected["dtype"] == "int64") {
      EXPECT_FALSE(view.ok()) << name;
      continue;
    }
    ASSERT_TRUE(view.ok()) << view.error().message;
    EXPECT_EQ(name_of(view->dtype), expected["dtype"].get<std::string>()) << name;
    std::size_t bytes = bytes_of(view->dtype);
    for (const auto dimension : shape) bytes *= static_cast<std::size_t>(dimension);
    EXPECT_EQ(crc32(view->data, bytes), expected["crc32"].get<std::uint32_t>()) << name;
    for (std::size_t i = 0; i < expected["first"].size(); ++i) {
      EXPECT_EQ(load_as_float(view->data, view->dtype, i), expected["first"][i].get<float>())
          << name << "[" << i << "]";
    }
  }
}

TEST(CheckpointGolden, ReadsWhatTheReferenceImplementationReads) {
  const std::string folder = std::string(CHORUS_TEST_DATA) + "/weights";
  const Json golden = read_json_file(folder + "/golden.json").value();
  compare(*open_checkpoint(folder + "/mixed").value(), golden["mixed"]);
  compare(*open_checkpoint(std::string(CHORUS_MODELS) + "/stories260k").value(), golden["stories260k"]);
}

}  // namespace
}  // namespace chorus
