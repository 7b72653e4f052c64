#include "weights/made_tensors.h"

#include <sys/mman.h>

#include "config/node.h"

namespace chorus {
namespace {

// Anonymous memory straight from the kernel: weights are large and live long.
class Block {
 public:
  Block() = default;
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;
  ~Block() {
    if (data_ != nullptr) ::munmap(data_, bytes_);
  }
  bool allocate(std::size_t bytes) {
    void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return false;
    ::madvise(data, bytes, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(data);
    bytes_ = bytes;
    return true;
  }
  std::byte* data() const { return data_; }

 private:
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
};

Result<void> allocate(const std::string& name, const std::vector<std::int64_t>& shape, std::size_t element_bytes,
                      Block* block) {
  std::uint64_t bytes = element_bytes;
  bool fits = true;
  for (const std::int64_t dimension : shape) {
    fits = fits && dimension > 0 && !__builtin_mul_overflow(bytes, static_cast<std::uint64_t>(dimension), &bytes);
  }
  if (!fits)
    return fail(ErrorCode::invalid_argument, "tensor {}: a dimension below 1, or more bytes than 64 bits count", name);
  const std::uint64_t available = memory_available_bytes();
  if (bytes > available || !block->allocate(bytes)) {
    return fail(ErrorCode::resource_exhausted, "tensor {} needs {} bytes of memory and {} are available", name, bytes,
                available);
  }
  return {};
}

}  // namespace

// The mutex is held while the bytes are made.
struct MadeTensors::Kept {
  std::mutex mutex;
  std::vector<std::int64_t> shape;
  Block block;
};

std::shared_ptr<MadeTensors::Kept> MadeTensors::entry(const std::string& name) {
  const std::lock_guard lock(mutex_);
  auto& kept = kept_[name];
  if (!kept) kept = std::make_shared<Kept>();
  return kept;
}

Result<const std::byte*> MadeTensors::get(const std::string& name, const std::vector<std::int64_t>& shape,
                                          std::size_t element_bytes,
                                          const std::function<void(std::byte* bytes)>& fill) {
  const auto kept = entry(name);
  const std::lock_guard lock(kept->mutex);
  if (kept->block.data() == nullptr) {
    CHORUS_TRY_VOID(allocate(name, shape, element_bytes, &kept->block));
    fill(kept->block.data());
    kept->shape = shape;
  }
  if (kept->shape != shape) return fail(ErrorCode::invalid_argument, "tensor {} was made with another shape", name);
  return static_cast<const std::byte*>(kept->block.data());
}

void MadeTensors::release(const std::string& name) {
  const std::lock_guard lock(mutex_);
  kept_.erase(name);
}

}  // namespace chorus
