#include "frontend/tokenizer_eos.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "testing/test_tokenizers.h"

namespace chorus {
namespace {

using ::testing::ElementsAre;

ModelConfig with_tokenizer_config(const std::string& text) {
  std::string folder = ::testing::TempDir() + "chorus-eos-XXXXXX";
  folder = ::mkdtemp(folder.data());
  if (!text.empty()) std::ofstream(folder + "/tokenizer_config.json") << text;
  ModelConfig model;
  model.directory = folder;
  model.eos_token_ids = {1, 300};
  const auto added = add_tokenizer_eos(test_tokenizer("llama-2"), &model);
  EXPECT_TRUE(added.ok()) << added.error().message;
  std::filesystem::remove_all(folder);
  return model;
}

// </s> is token 2 of Llama 2.
TEST(TokenizerEos, JoinsTheIdsOfTheModelAndIsKnownAsItsOwn) {
  for (const char* text : {R"({"eos_token": "</s>"})", R"({"eos_token": {"content": "</s>", "lstrip": false}})"}) {
    const ModelConfig model = with_tokenizer_config(text);
    EXPECT_THAT(model.eos_token_ids, ElementsAre(1, 2, 300));
    EXPECT_EQ(model.eos_token_id, 2);
  }
  const ModelConfig listed = with_tokenizer_config(R"({"eos_token": "<s>"})");
  EXPECT_THAT(listed.eos_token_ids, ElementsAre(1, 300));
  EXPECT_EQ(listed.eos_token_id, 1);
}

TEST(TokenizerEos, WithoutOneTheModelStaysAsItIs) {
  for (const char* text : {"", "{}", R"({"eos_token": null})", R"({"eos_token": "no such token"})"}) {
    const ModelConfig model = with_tokenizer_config(text);
    EXPECT_THAT(model.eos_token_ids, ElementsAre(1, 300));
    EXPECT_EQ(model.eos_token_id, std::nullopt);
  }
}

}  // namespace
}  // namespace chorus
