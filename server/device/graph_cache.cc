#include "server/device/graph_cache.h"

#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_like.h>
#include <dlfcn.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/device/cuda_graphs.h"
#include "server/device/gpu_memory.h"
#include "server/limits/catching.h"

namespace backboned {
namespace {

// Of functions that are called once or twice, mostly.
constexpr size_t kMostEntries = 256;

struct Library {
  decltype(&BackbonedRecordGraph) record = nullptr;
  decltype(&BackbonedReplayGraph) replay = nullptr;
  decltype(&BackbonedDeleteGraph) remove = nullptr;
};

// Loaded once, for all caches.
Library& TheLibrary() {
  static Library library;
  return library;
}

void Launch(void* context) {
  (*static_cast<std::function<void()>*>(context))();
}

struct DeleteGraph {
  void operator()(void* graph) const { TheLibrary().remove(graph); }
};

// Copies tensors to others, by one launch for each dtype. Undefined ones are
// passed over.
void CopyTo(const GraphCache::Tensors& to, const GraphCache::Tensors& from) {
  std::map<at::ScalarType, std::pair<GraphCache::Tensors, GraphCache::Tensors>>
      by_dtype;
  for (size_t i = 0; i < to.size(); ++i) {
    if (!to[i].defined()) continue;
    auto& [targets, sources] = by_dtype[to[i].scalar_type()];
    targets.push_back(to[i]);
    sources.push_back(from[i]);
  }
  for (auto& [dtype, pair] : by_dtype) {
    at::_foreach_copy_(pair.first, pair.second);
  }
}

GraphCache::Tensors CopiesOf(const GraphCache::Tensors& tensors) {
  GraphCache::Tensors copies;
  for (const at::Tensor& tensor : tensors) {
    copies.push_back(tensor.defined() ? at::empty_like(tensor) : tensor);
  }
  CopyTo(copies, tensors);
  return copies;
}

int64_t BytesOf(const GraphCache::Tensors& tensors) {
  return std::accumulate(
      tensors.begin(), tensors.end(), int64_t{0},
      [](int64_t sum, const at::Tensor& tensor) {
        return sum +
               (tensor.defined() ? static_cast<int64_t>(tensor.nbytes()) : 0);
      });
}

int64_t ReservedBytes(c10::Device gpu) {
  const GpuMemory memory = GpuMemoryOf(gpu);
  return memory.allocated + memory.pooled;
}

std::string FullKey(const std::string& key, const GraphCache::Tensors& inputs) {
  std::string full = key;
  for (const at::Tensor& input : inputs) {
    if (!input.defined()) {
      absl::StrAppend(&full, ";-");
      continue;
    }
    absl::StrAppend(&full, ";", c10::toString(input.scalar_type()), " ",
                    absl::StrJoin(input.sizes(), ","), " ",
                    absl::StrJoin(input.strides(), ","));
  }
  return full;
}

}  // namespace

struct GraphCache::Entry {
  int calls = 0;
  bool stays_eager = false;           // It cannot be recorded.
  std::function<void()> launch = {};  // It was recorded; makes the outputs.
  Tensors inputs = {};
  Result outputs = {};
  int64_t bytes = 0;
  std::unique_ptr<void, DeleteGraph> graph = {};  // Last, so gone first.
};

absl::Status GraphCache::Load() {
  static void* const opened = dlopen("libbackboned_cuda.so", RTLD_NOW);
  if (opened == nullptr) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot load the library of CUDA graphs: ", dlerror()));
  }
  const auto find = [](const char* name) { return dlsym(opened, name); };
  TheLibrary() = {
      .record = reinterpret_cast<decltype(&BackbonedRecordGraph)>(
          find("BackbonedRecordGraph")),
      .replay = reinterpret_cast<decltype(&BackbonedReplayGraph)>(
          find("BackbonedReplayGraph")),
      .remove = reinterpret_cast<decltype(&BackbonedDeleteGraph)>(
          find("BackbonedDeleteGraph")),
  };
  return absl::OkStatus();
}

GraphCache::GraphCache(c10::Device gpu, int64_t max_bytes)
    : gpu_(gpu), max_bytes_(max_bytes) {}

GraphCache::~GraphCache() = default;

GraphCache::Result GraphCache::Run(const std::string& key,
                                   const Tensors& inputs,
                                   const Function& function) {
  Entry& entry = Find(FullKey(key, inputs));
  if (entry.graph == nullptr) {
    if (entry.stays_eager || entry.calls++ < kEagerCalls) {
      return function(inputs);
    }
    Record(entry, inputs, function);
    MakeRoom();
    if (entry.graph == nullptr) return function(inputs);
  }
  CopyTo(entry.inputs, inputs);
  TheLibrary().replay(entry.graph.get());
  ++replays_;
  return {CopiesOf(entry.outputs.tensors), entry.outputs.number};
}

bool GraphCache::Clear() {
  const bool had_one = std::ranges::any_of(entries_, [](const auto& entry) {
    return entry.second.graph != nullptr;
  });
  by_key_.clear();
  entries_.clear();
  return had_one;
}

// Returns the entry of a key, a new one if there is none, as the last used one.
GraphCache::Entry& GraphCache::Find(std::string key) {
  const auto [place, is_new] = by_key_.try_emplace(key, entries_.end());
  if (is_new) {
    entries_.emplace_front(std::move(key), Entry());
    place->second = entries_.begin();
  } else {
    entries_.splice(entries_.begin(), entries_, place->second);
  }
  if (entries_.size() > kMostEntries) {
    by_key_.erase(entries_.back().first);
    entries_.pop_back();
  }
  return entries_.front().second;
}

// Records a function. One that cannot be recorded stays as it is for ever.
void GraphCache::Record(Entry& entry, const Tensors& inputs,
                        const Function& function) {
  const int64_t before = ReservedBytes(gpu_);
  entry.inputs = CopiesOf(inputs);
  entry.launch = [&entry, function] { entry.outputs = function(entry.inputs); };
  const absl::Status recorded = RunCatching([&] {
    entry.graph.reset(
        TheLibrary().record(gpu_.index(), &Launch, &entry.launch));
    return absl::OkStatus();
  });
  if (!recorded.ok()) {  // And logged.
    entry = {.stays_eager = true};
    return;
  }
  entry.bytes = std::max(ReservedBytes(gpu_) - before, BytesOf(entry.inputs));
}

// Forgets the graphs that were used longest ago until the others fit. The last
// used one goes, too, if it alone is too large; it runs once more.
void GraphCache::MakeRoom() {
  int64_t bytes = 0;
  for (auto& [key, entry] : entries_) {
    bytes += entry.bytes;
    if (bytes <= max_bytes_ || entry.graph == nullptr) continue;
    bytes -= entry.bytes;
    entry = {.stays_eager = &entry == &entries_.front().second};
  }
}

}  // namespace backboned
