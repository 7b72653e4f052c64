// Tensors that do not lie in a file as they are wanted: made when they are asked for, and kept until they are released.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"

namespace chorus {

// Any number of threads: several tensors can be made at a time, and each is made once.
class MadeTensors {
 public:
  // The bytes of `name`, valid until release(). The first call makes them: `fill` gets zeroed memory, in huge pages
  // where there are some. Errors: a dimension below 1, more bytes than 64 bits count or than there is memory, another
  // shape than at the first call.
  Result<const std::byte*> get(const std::string& name, const std::vector<std::int64_t>& shape,
                               std::size_t element_bytes, const std::function<void(std::byte* bytes)>& fill);
  void release(const std::string& name);

 private:
  struct Kept;
  std::shared_ptr<Kept> entry(const std::string& name);

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<Kept>> kept_;  // guarded by mutex_
};

}  // namespace chorus
