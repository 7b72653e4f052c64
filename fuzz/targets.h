// What the fuzzers feed: one function a parser, which takes any bytes and must come back. Linked with libFuzzer each is
// a program (fuzz_main.cc); linked with gcc all are one program that replays fuzz/corpus (replay.cc).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "json/json.h"

namespace chorus::fuzz {

void run_json(std::string_view input);
void run_safetensors(std::string_view input);
void run_gguf(std::string_view input);
void run_config(std::string_view input);
void run_quantized(std::string_view input);
void run_tokenizer_load(std::string_view input);
void run_tokenize(std::string_view input);
void run_pattern(std::string_view input);
void run_template_text(std::string_view input);
void run_template_grammar(std::string_view input);
// A template made from the language's grammar, as the bytes choose; and what it and template_text are rendered with.
std::string template_of(std::string_view bytes);
const Json& template_variables();
inline constexpr std::int64_t template_now_unix_s = 1768478400;  // 2026-01-15 12:00
void run_chat(std::string_view input);
void run_prompt_line(std::string_view input);
void run_workflow(std::string_view input);
void run_csv(std::string_view input);
void run_frames(std::string_view input);
void run_messages(std::string_view input);
void run_plan(std::string_view input);
void run_handshake(std::string_view input);
void run_sealed_frame(std::string_view input);
void run_store(std::string_view input);
void run_store_file(std::string_view input);
void run_rendezvous(std::string_view input);
void run_http_request(std::string_view input);
void run_api_body(std::string_view input);
void run_model_output(std::string_view input);

// The folder in which a target writes the file that its parser reads; one a process.
class Folder {
 public:
  Folder();
  ~Folder();
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  const std::string& path() const { return path_; }
  void write(const char* name, std::string_view bytes) const;

 private:
  std::string path_;
};

}  // namespace chorus::fuzz
