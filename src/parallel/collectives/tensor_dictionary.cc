#include "net/wire.h"
#include "parallel/group.h"

namespace chorus {
namespace {

std::string encode(const std::vector<NamedTensor>& tensors) {
  WireWriter writer;
  writer.count(tensors.size());
  for (const NamedTensor& tensor : tensors) {
    writer.text(tensor.name);
    writer.count(tensor.shape.size());
    for (const std::int64_t dimension : tensor.shape) writer.u64(static_cast<std::uint64_t>(dimension));
    writer.u64(tensor.data.size());
  }
  return writer.take();
}

// With data of the right sizes, still to be filled.
Result<std::vector<NamedTensor>> decode(const std::string& dictionary) {
  WireReader reader(dictionary);
  std::vector<NamedTensor> tensors(reader.count(16));
  std::vector<std::uint64_t> bytes;
  for (NamedTensor& tensor : tensors) {
    tensor.name = reader.text();
    tensor.shape.resize(reader.count(8));
    for (std::int64_t& dimension : tensor.shape) dimension = static_cast<std::int64_t>(reader.u64());
    bytes.push_back(reader.u64());
  }
  CHORUS_TRY_VOID(reader.finish());
  for (std::size_t i = 0; i < tensors.size(); ++i) tensors[i].data.resize(bytes[i]);
  return tensors;
}

}  // namespace

Result<void> Group::broadcast_tensors(std::vector<NamedTensor>* tensors, int root) {
  if (size() == 1) return {};
  std::string dictionary;
  if (rank_ == root) {
    dictionary = encode(*tensors);
    if (dictionary.size() > tensor_dictionary_bytes_max) {
      const Error error = fail(ErrorCode::invalid_argument,
                               "names and shapes of {} tensors take {} bytes, at most {} are sent: send fewer",
                               tensors->size(), dictionary.size(), tensor_dictionary_bytes_max);
      transport_->abort(error.message);
      return error;
    }
  }
  CHORUS_TRY_VOID(broadcast_message(&dictionary, root, tensor_dictionary_bytes_max));
  if (rank_ != root) {
    CHORUS_TRY(*tensors, decode(dictionary));
  }
  outgoing_.clear();
  incoming_.clear();
  for (NamedTensor& tensor : *tensors) {
    if (rank_ != root) incoming_.push_back({member(root), tensor.data});
    for (int r = 0; r < size() && rank_ == root; ++r) {
      if (r != root) outgoing_.push_back({member(r), tensor.data});
    }
  }
  return transport_->exchange(outgoing_, incoming_);
}

}  // namespace chorus
