// An allocator for tables of megabytes that are read at random: it asks for huge pages, which are filled in with a
// five-hundredth of the page faults and found with far fewer misses of the address cache. Smaller ones are plain
// memory.
#pragma once

#include <sys/mman.h>

#include <cstddef>
#include <new>

namespace chorus {

template <typename T>
struct HugePages {
  using value_type = T;
  static constexpr std::size_t page_bytes = std::size_t{2} << 20;

  HugePages() = default;
  template <typename U>
  HugePages(const HugePages<U>&) {}  // NOLINT(google-explicit-constructor): the standard's rebinding

  T* allocate(std::size_t count) {
    const std::size_t bytes = count * sizeof(T);
    void* const memory = ::operator new(bytes, alignment(bytes));
    if (bytes >= page_bytes) ::madvise(memory, bytes / page_bytes * page_bytes, MADV_HUGEPAGE);  // a wish: may fail
    return static_cast<T*>(memory);
  }
  void deallocate(T* memory, std::size_t count) { ::operator delete(memory, alignment(count * sizeof(T))); }

  bool operator==(const HugePages&) const = default;

 private:
  static std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{bytes >= page_bytes ? page_bytes : __STDCPP_DEFAULT_NEW_ALIGNMENT__};
  }
};

}  // namespace chorus
