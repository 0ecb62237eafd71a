// A libbackboned_cuda.so for fake devices. A graph calls the function that it
// was recorded of, with what that keeps, and counts as one operation.

#include <c10/core/impl/VirtualGuardImpl.h>

#include "server/device/cuda_graphs.h"
#include "tests/testing/fake_cuda/streams.h"

namespace {

using fake_cuda::Streams;

struct Graph {
  void Launch(Streams::Mode mode) const {
    Streams::SetMode(mode);
    try {
      launch(context);
    } catch (...) {
      Streams::SetMode(Streams::Mode::kSingle);
      throw;
    }
    Streams::SetMode(Streams::Mode::kSingle);
  }

  const int device;
  void (*const launch)(void*);
  void* const context;
};

}  // namespace

void* BackbonedRecordGraph(int device, void (*launch)(void*), void* context) {
  launch(context);
  const Graph graph = {device, launch, context};
  graph.Launch(Streams::Mode::kRecorded);
  return new Graph(graph);
}

void BackbonedReplayGraph(void* graph) {
  const Graph& replayed = *static_cast<Graph*>(graph);
  const c10::Device device(c10::DeviceType::CUDA,
                           static_cast<c10::DeviceIndex>(replayed.device));
  const c10::impl::VirtualGuardImpl backend(c10::DeviceType::CUDA);
  Streams::Get().Launch(backend.getStream(device), {.name = "graph"});
  replayed.Launch(Streams::Mode::kReplayed);
}

void BackbonedDeleteGraph(void* graph) { delete static_cast<Graph*>(graph); }
