#include "config/model_files.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>

#include "base/digest.h"

namespace chorus {
namespace {

namespace fs = std::filesystem;

class ModelFiles : public testing::Test {
 protected:
  ModelFiles() { fs::create_directories(root_ / "additional_chat_templates"); }
  ~ModelFiles() override { fs::remove_all(root_); }
  void write(const std::string& name, const std::string& text) const { std::ofstream(root_ / name) << text; }
  std::string digest() const { return model_files_digest(root_.string()); }

  const fs::path root_ = fs::path(testing::TempDir()) / fmt::format("model_files_{}", ::getpid());
};

TEST_F(ModelFiles, EveryFileOfAModelCounts) {
  std::string before = digest();
  for (const char* name :
       {"config.json", "model.safetensors", "chat_template.jinja", "additional_chat_templates/tool_use.jinja"}) {
    write(name, "a");
    const std::string made = digest();
    EXPECT_NE(made, before) << name;
    write(name, "ab");
    const std::string grown = digest();
    EXPECT_NE(grown, made) << name;
    fs::last_write_time(root_ / name, fs::last_write_time(root_ / name) + std::chrono::seconds(1));
    before = digest();
    EXPECT_NE(before, grown) << name;
  }
}

// An output in the model's own folder grows while it is written.
TEST_F(ModelFiles, OtherFilesDoNotCount) {
  write("config.json", "a");
  const std::string before = digest();
  write("out.jsonl.partial", "a");
  write("README.md", "a");
  EXPECT_EQ(digest(), before);
}

TEST_F(ModelFiles, ThePlaceDoesNotCount) {
  write("config.json", "a");
  const std::string before = digest();
  const fs::path moved = root_.string() + "_moved";
  fs::rename(root_, moved);
  EXPECT_EQ(model_files_digest(moved.string()), before);
  fs::rename(moved, root_);
}

}  // namespace
}  // namespace chorus
