// Runs functions of tensors on a GPU as CUDA graphs.

#ifndef BACKBONED_SERVER_DEVICE_GRAPH_CACHE_H_
#define BACKBONED_SERVER_DEVICE_GRAPH_CACHE_H_

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace backboned {

// Records what a function launches once it was called a few times, and from
// then on launches all of it at once. That saves the host some microseconds for
// each operator, which is most of the time of a small network.
//
// Not thread-safe: belongs to the thread of a GPU's worker.
class GraphCache {
 public:
  using Tensors = std::vector<at::Tensor>;
  // The tensors that a function gives, and a number, the same each time.
  struct Result {
    Result() = default;
    Result(Tensors given, int64_t same = 0)  // NOLINT
        : tensors(std::move(given)), number(same) {}

    Tensors tensors;
    int64_t number = 0;
  };
  // A function of GPU tensors, some of which may be undefined, to tensors. It
  // launches the same each time, waits for nothing, copies nothing from or to
  // the host, and keeps by value what it needs besides its arguments.
  using Function = std::function<Result(const Tensors&)>;

  // A function is recorded when it is called for the third time.
  static constexpr int kEagerCalls = 2;

  // Opens the library of graphs. Returns kFailedPrecondition, whose message
  // says why, if it cannot.
  static absl::Status Load();

  // Makes an empty cache for `gpu`, whose graphs take at most about `max_bytes`
  // of its memory: those that were used longest ago give way. Load was called.
  GraphCache(c10::Device gpu, int64_t max_bytes);
  ~GraphCache();

  // Returns function(inputs), with the same bits, in memory of its own. Equal
  // `key`s stand for equal functions, of inputs of the same shapes and dtypes.
  Result Run(const std::string& key, const Tensors& inputs,
             const Function& function);

  // Forgets all graphs. Returns whether there was one.
  bool Clear();

  // The calls that were replayed.
  int64_t replays() const { return replays_; }

 private:
  struct Entry;
  using Entries = std::list<std::pair<std::string, Entry>>;

  Entry& Find(std::string key);
  void Record(Entry& entry, const Tensors& inputs, const Function& function);
  void MakeRoom();

  const c10::Device gpu_;
  const int64_t max_bytes_;
  Entries entries_;  // The last used ones first.
  std::map<std::string, Entries::iterator> by_key_;
  int64_t replays_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_GRAPH_CACHE_H_
