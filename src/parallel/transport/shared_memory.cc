#include "parallel/transport/shared_memory.h"

#include <fcntl.h>
#include <linux/futex.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <climits>
#include <cstring>
#include <new>
#include <thread>

namespace chorus {
namespace {

constexpr std::uint64_t world_magic = 0x31'6465'7261'6843;  // "Chared1", and the version of this layout
constexpr std::size_t page_bytes = 4096;
constexpr int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

constexpr std::size_t whole_pages(std::size_t bytes) {
  return (bytes + page_bytes - 1) / page_bytes * page_bytes;
}

struct Layout {
  explicit Layout(int ranks) {
    const auto size = static_cast<std::size_t>(ranks), pairs = size * size;
    constexpr std::size_t ring_bytes_max = std::size_t{256} << 10, all_rings_bytes = std::size_t{64} << 20;
    while (ring_bytes < ring_bytes_max && pairs * ring_bytes * 2 <= all_rings_bytes) ring_bytes *= 2;
    slots = whole_pages(sizeof(WorldHeader));
    controls = slots + whole_pages(size * sizeof(RankSlot));
    rings = controls + whole_pages(pairs * sizeof(RingControl));
    bytes = rings + pairs * ring_bytes;
  }
  std::size_t ring_bytes = page_bytes;
  std::size_t slots, controls, rings, bytes;  // offsets, and the size of the file
};

Error system_error(const char* call, std::size_t bytes) {
  const int error = errno;
  return fail(error == ENOMEM || error == ENOSPC ? ErrorCode::resource_exhausted : ErrorCode::internal,
              "shared world of {} bytes: {}: {}", bytes, call, std::strerror(error));
}

}  // namespace

Result<void> SharedMemory::map(int fd, int size, std::size_t bytes) {
  // Address space alone is taken here, and no swap is set aside for it.
  void* data = ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE, fd, 0);
  if (data == MAP_FAILED) return system_error("mmap", bytes);
  const Layout layout(size);
  data_ = static_cast<std::byte*>(data);
  bytes_ = bytes;
  size_ = size;
  ring_bytes_ = layout.ring_bytes;
  slots_ = reinterpret_cast<RankSlot*>(data_ + layout.slots);
  controls_ = reinterpret_cast<RingControl*>(data_ + layout.controls);
  rings_ = data_ + layout.rings;
  return {};
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::create(int fd, int size) {
  const Layout layout(size);
  if (::ftruncate(fd, static_cast<off_t>(layout.bytes)) != 0) return system_error("ftruncate", layout.bytes);
  if (::fcntl(fd, F_ADD_SEALS, seals) != 0) return system_error("fcntl F_ADD_SEALS", layout.bytes);
  auto memory = std::shared_ptr<SharedMemory>(new SharedMemory);
  CHORUS_TRY_VOID(memory->map(fd, size, layout.bytes));
  memory->header().size = static_cast<std::uint32_t>(size);
  memory->header().magic = world_magic;
  return memory;
}

Result<std::shared_ptr<SharedMemory>> SharedMemory::open(int fd) {
  struct stat status {};
  std::uint64_t magic = 0;
  std::uint32_t size = 0;
  // Unsealed, it could shrink under us later, and a read would be a SIGBUS.
  const int sealed = ::fcntl(fd, F_GET_SEALS);
  if (sealed < 0 || (sealed & seals) != seals || ::fstat(fd, &status) != 0 ||
      ::pread(fd, &magic, sizeof(magic), offsetof(WorldHeader, magic)) != sizeof(magic) || magic != world_magic ||
      ::pread(fd, &size, sizeof(size), offsetof(WorldHeader, size)) != sizeof(size)) {
    return fail(ErrorCode::invalid_argument, "descriptor {} is no shared world of this version of Chorus", fd);
  }
  const auto bytes = static_cast<std::size_t>(status.st_size);
  if (size < 1 || size > shared_world_ranks_max || Layout(static_cast<int>(size)).bytes != bytes) {
    return fail(ErrorCode::invalid_argument, "descriptor {} is no shared world: {} bytes do not fit {} ranks", fd,
                bytes, size);
  }
  auto memory = std::shared_ptr<SharedMemory>(new SharedMemory);
  CHORUS_TRY_VOID(memory->map(fd, static_cast<int>(size), bytes));
  return memory;
}

SharedMemory::~SharedMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

void SharedMemory::ring_doorbell(int rank) const {
  std::atomic<std::uint32_t>& doorbell = slot(rank).doorbell;
  doorbell.fetch_add(1);
  ::syscall(SYS_futex, &doorbell, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

bool SharedMemory::break_world(const std::string& reason) const {
  Broken expected = Broken::no;
  if (!header().broken.compare_exchange_strong(expected, Broken::being_written)) return false;
  const std::size_t bytes = std::min(reason.size(), header().reason.size());
  std::memcpy(header().reason.data(), reason.data(), bytes);
  header().reason_bytes = static_cast<std::uint32_t>(bytes);
  header().broken.store(Broken::yes);
  for (int rank = 0; rank < size_; ++rank) ring_doorbell(rank);
  return true;
}

std::string SharedMemory::reason() const {
  // The one who writes the reason may die over it.
  for (int attempt = 0; attempt < 1000 && broken() == Broken::being_written; ++attempt) std::this_thread::yield();
  if (broken() != Broken::yes) return "a rank died while it said why";
  return {header().reason.data(), std::min<std::size_t>(header().reason_bytes, header().reason.size())};
}

}  // namespace chorus
