#include "server/device/cuda_graphs.h"

#include <ATen/cuda/CUDAGraph.h>
#include <ATen/cuda/MemPool.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>

#include <memory>

namespace {

class Graph {
 public:
  Graph(c10::DeviceIndex device, void (*launch)(void*), void* context) {
    const c10::cuda::CUDAStream stream = c10::cuda::getStreamFromPool(
        /*isHighPriority=*/false, device);
    c10::cuda::getCurrentCUDAStream(device).synchronize();
    const c10::cuda::CUDAStreamGuard scope(stream);
    launch(context);
    stream.synchronize();
    // Other threads may go on with what a recording forbids this one.
    graph_.capture_begin(pool_.id(), cudaStreamCaptureModeThreadLocal);
    try {
      launch(context);
    } catch (...) {
      graph_.capture_end();
      throw;
    }
    graph_.capture_end();
  }

  void Replay() { graph_.replay(); }

 private:
  at::cuda::MemPool pool_{/*allocator=*/nullptr, /*is_user_created=*/false};
  at::cuda::CUDAGraph graph_;
};

}  // namespace

void* BackbonedRecordGraph(int device, void (*launch)(void*), void* context) {
  return std::make_unique<Graph>(static_cast<c10::DeviceIndex>(device), launch,
                                 context)
      .release();
}

void BackbonedReplayGraph(void* graph) { static_cast<Graph*>(graph)->Replay(); }

void BackbonedDeleteGraph(void* graph) { delete static_cast<Graph*>(graph); }
