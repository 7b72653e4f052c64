// The product of linear_cuda.h by wgmma and TMA, for more than some tens of rows on Hopper (sm_90a). Not emulated: it
// is used only where its bits were found equal to those of mma_bf16, on that card and in that process.
#pragma once

#include <span>

#include "kernels/linear_cuda.h"

namespace chorus {

// One cut of the product into tiles of tile_m x tile_n outputs: one block a processor walks through them.
struct WgmmaWay {
  const char* name;
  std::int32_t tile_m, tile_n, segments_min, segments_max;
  void (*queue)(CudaQueue&, const CudaLinear&);

  bool can(std::int32_t segments) const { return segments >= segments_min && segments <= segments_max; }
};
std::span<const WgmmaWay> wgmma_ways();

// Whether these kernels can compute it: a Hopper GPU, segments of whole tiles of 64 columns, rows that TMA can address.
bool wgmma_can(const CudaQueue& queue, const CudaLinear& call);

// The way that should take the least time.
const WgmmaWay& wgmma_way(const CudaQueue& queue, const CudaLinear& call);

// Queues it so.
void linear_wgmma(CudaQueue& queue, const CudaLinear& call);

// Computes random products in all ways, with all outputs, and compares their bits with linear_tiled's; waits for the
// device. Call it once a process: CudaQueue::wgmma.
bool wgmma_agrees(CudaQueue& queue);

}  // namespace chorus
