// Where the launchers of op_cuda.cu put their work: a GPU's stream, or the emulation where Chorus is built without
// CUDA. Host code that includes this needs no CUDA header.
#pragma once

struct CUstream_st;
namespace simt {
class Emulator;
}

namespace chorus {

// One stream of one device. A launch that fails leaves its reason in `error` if there is none yet, and what was queued
// later does nothing useful: look at it once a step. Used by one thread at a time.
struct CudaQueue {
  CUstream_st* stream = nullptr;
  simt::Emulator* emulator = nullptr;  // in a build without CUDA: runs a kernel at once
  int processors = 1;                  // multiprocessors of the device
  int shared_bytes_max = 99 * 1024;    // that a block may ask for
  int capability = 80;                 // 10 * major + minor
  bool wgmma = false;                  // use linear_wgmma.h's kernel: set from wgmma_agrees()
  const char* error = nullptr;
};

}  // namespace chorus
