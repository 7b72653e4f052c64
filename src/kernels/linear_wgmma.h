// The product of linear_cuda.h by wgmma and TMA, for many rows on Hopper (sm_90a). Not emulated: it is used only where
// its bits were found equal to those of mma_bf16, on that card and in that process.
#pragma once

#include "kernels/linear_cuda.h"

namespace chorus {

// Whether this kernel can compute it: a Hopper GPU, segments of whole tiles of 64 columns, rows that TMA can address.
bool wgmma_can(const CudaQueue& queue, const CudaLinear& call);

// Queues it.
void linear_wgmma(CudaQueue& queue, const CudaLinear& call);

// Computes random products of several shapes by both kernels and compares their bits; waits for the device. Call it
// once a process: CudaQueue::wgmma.
bool wgmma_agrees(CudaQueue& queue);

}  // namespace chorus
