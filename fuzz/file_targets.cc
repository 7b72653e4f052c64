// What is read from a model's folder, a workflow and prompts.
#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "frontend/chat_format.h"
#include "frontend/prompt_line.h"
#include "gguf/architecture.h"
#include "json/json.h"
#include "models/registry.h"
#include "targets.h"
#include "tokenizer/tokenizer.h"
#include "weights/checkpoint.h"
#include "weights/safetensors_header.h"
#include "workflow/records.h"
#include "workflow/workflow.h"

namespace chorus::fuzz {

void run_json(std::string_view input) {
  const auto json = parse_json(input);
  if (!json) return;
  std::string text;
  JsonWriter(&text).raw(*json);
  const auto again = parse_json(text);
  if (!again.ok() || *again != *json) std::abort();  // what was read is written and read the same
}

void run_safetensors(std::string_view input) {
  // The first bytes are the size of the data.
  std::uint64_t data_bytes = 0;
  for (std::size_t i = 0; i < std::min<std::size_t>(input.size(), 4); ++i) {
    data_bytes = data_bytes << 8 | static_cast<unsigned char>(input[i]);
  }
  (void)parse_safetensors_header(input.substr(std::min<std::size_t>(input.size(), 4)), data_bytes);
}

// A matrix in every form.
void read_matrix(const QuantizedMatrix& matrix) {
  std::vector<float> row(static_cast<std::size_t>(matrix.columns()));
  for (std::int64_t i = 0; i < matrix.rows(); ++i) {
    matrix.read_floats(i, 0, matrix.columns(), row.data());
    if (matrix.kind() == LinearFormat::plain) continue;
    for (std::int64_t first = 0; first + group_columns <= matrix.columns(); first += group_columns) {
      (void)matrix.read(i, first, matrix.kind());
    }
  }
}

// A whole file: its metadata as Hugging Face's texts, its tokenizer loaded, its tensors read.
void run_gguf(std::string_view input) {
  static const Folder folder;
  folder.write("m.gguf", input);
  const std::string path = folder.path() + "/m.gguf";
  (void)read_model_config(path);
  (void)load_tokenizer(path);
  (void)ChatFormat::load(path);
  const auto file = GgufFile::open(path);
  const auto tensors = file.ok() ? hf_tensors(*file) : Result<std::vector<HfTensor>>(std::vector<HfTensor>());
  const auto checkpoint = open_checkpoint(path);
  if (!checkpoint.ok() || !tensors.ok()) return;
  for (const HfTensor& tensor : *tensors) {
    (void)(*checkpoint)->tensor(tensor.name, tensor.shape);
    const auto matrix = (*checkpoint)->quantized(tensor.name);
    if (matrix.ok() && *matrix != nullptr) read_matrix(**matrix);
  }
}

void run_config(std::string_view input) {
  static const Folder folder;
  // config.json, and behind a 0 byte generation_config.json.
  const std::size_t cut = std::min(input.find('\0'), input.size());
  folder.write("config.json", input.substr(0, cut));
  folder.write("generation_config.json", cut < input.size() ? input.substr(cut + 1) : "{}");
  (void)read_model_config(folder.path());
}

// A quantization_config, and behind a 0 byte model.safetensors: every matrix read in every form.
void run_quantized(std::string_view input) {
  static const Folder folder;
  const std::size_t cut = std::min(input.find('\0'), input.size());
  const std::string config =
      R"({"architectures": ["unknown"], "quantization_config": )" + std::string(input.substr(0, cut)) + "}";
  folder.write("config.json", config);
  folder.write("model.safetensors", cut < input.size() ? input.substr(cut + 1) : "");
  const auto model = read_model_config(folder.path());
  if (!model) return;
  const auto checkpoint = open_checkpoint(folder.path(), false, model->quantization);
  if (!checkpoint) return;
  for (const std::string& name : (*checkpoint)->names()) {
    const auto matrix = (*checkpoint)->quantized(name);
    if (!matrix.ok() || *matrix == nullptr) continue;
    read_matrix(**matrix);
    (void)(*checkpoint)->tensor(name, {(*matrix)->rows(), (*matrix)->columns()});
  }
}

void run_chat(std::string_view input) {
  static const Folder folder;
  folder.write("tokenizer_config.json", input);
  const auto chat = ChatFormat::load(folder.path());
  if (!chat) return;
  static const Json request = Json::parse(
      R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "t"}]},
                       {"role": "assistant", "content": "a", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]}],
          "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]})");
  (void)chat->render(request);
}

void run_prompt_line(std::string_view input) {
  static const Folder folder;
  static const auto chat = [] {
    folder.write("tokenizer_config.json",
                 R"({"chat_template": "{% for m in messages %}{{ m.role }}: {{ m.content }}{% endfor %}"})");
    return ChatFormat::load(folder.path());
  }();
  if (!chat.ok()) std::abort();
  static PromptLineParser parser(&*chat, GenerationOptions());
  if (parser.check(input).ok() != parser.parse(input).ok()) std::abort();
}

void run_workflow(std::string_view input) {
  static const Folder folder;
  folder.write("workflow.json", input);
  (void)parse_workflow(folder.path() + "/workflow.json");
}

void run_csv(std::string_view input) {
  (void)parse_csv(input, "fuzz.csv");
}

}  // namespace chorus::fuzz
