#include "worker/cluster_fingerprint.h"

#include <algorithm>
#include <map>
#include <set>

#include "net/archive.h"
#include "net/authentication.h"
#include "worker/engine_process.h"

namespace chorus {
namespace {

// Of what concerns an engine.
std::string hash_of(const ModelConfig& model) {
  archive::Encoder encoder;
  for_each_listed(model, [&](auto& field) {
    if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(note_of(field))>, OfFrontEnd>) visit(encoder, field);
  });
  return sha256_hex({encoder.wire.bytes()}).substr(0, 16);
}

}  // namespace

Fingerprint cluster_fingerprint(const EngineConfig& config, const ModelConfig& model, const LoadedWeights& weights) {
  EngineConfig resolved = config;
  if (resolved.max_model_len == 0) resolved.max_model_len = model.max_position_embeddings;
  Fingerprint fingerprint = {
      {"version", fmt::format("{} (protocol {})", CHORUS_VERSION, protocol_version)},
      {"model config", fmt::format("{} {}", model.architecture, hash_of(model))},
      {"numerics profile", numerics_profile(weights, config)},
      {"weights", weights.digest},
  };
  for (auto& option : options_with(resolved, Agreement::agreed)) fingerprint.push_back(std::move(option));
  return fingerprint;
}

std::string differences(const Fingerprint& head, const Fingerprint& node, const std::string& node_name) {
  const std::map<std::string, std::string> ours(head.begin(), head.end());
  const std::map<std::string, std::string> theirs(node.begin(), node.end());
  std::set<std::string> names;
  for (const auto& [name, value] : ours) names.insert(name);
  for (const auto& [name, value] : theirs) names.insert(name);
  std::string text;
  for (const std::string& name : names) {
    const auto value = [&name](const auto& of) { return of.contains(name) ? of.at(name) : std::string("not known"); };
    if (value(ours) == value(theirs)) continue;
    text += fmt::format("{}{} is {} on the head and {} on node {}", text.empty() ? "" : "; ", name, value(ours),
                        value(theirs), node_name);
  }
  return text;
}

}  // namespace chorus
