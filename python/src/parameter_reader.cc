#include "parameter_reader.h"

#include "config/node.h"

namespace chorus::python {

Result<ParameterReader> ParameterReader::open(const EngineFacts& facts) {
  const EngineConfig config = settled(facts.config, facts.model.config);
  const int shard = weight_shard_of(config.parallel, facts.at);
  CHORUS_TRY(LoadedWeights weights, load_weights(config, facts.model.config, {shard}, detect_node().cores()));
  CHORUS_TRY(DeclaredModel model, declare_model(facts.model.config, weights.isa, weights.dtype,
                                                model_shard(facts.model.config, config.parallel, shard, nullptr)));
  CHORUS_TRY_VOID(model.parameters.bind(weights.shard(shard), weights.shard_bytes(shard)));
  ParameterReader reader(std::move(weights), std::move(model));
  reader.named_ = reader.model_.parameters.named_parameters();
  return reader;
}

std::vector<float> ParameterReader::read(std::size_t index) const {
  const NamedParameter& parameter = named_[index];
  std::vector<float> elements(static_cast<std::size_t>(parameter.row_count * parameter.column_count));
  for (std::int64_t row = 0; row < parameter.row_count; ++row) {
    model_.parameters.read_row(parameter, row, elements.data() + row * parameter.column_count);
  }
  return elements;
}

}  // namespace chorus::python
