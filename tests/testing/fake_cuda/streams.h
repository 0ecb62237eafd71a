// The order of what a fake device does, as a program may rely on it.
//
// Kernels run at once, in the thread that launches them. But what the device
// would do later, the host sees late: a copy to pinned memory leaves rubbish
// there until the host has waited for it, an event has not happened when it is
// asked for the first time, and a fault appears with the first wait behind it.
// Vector clocks find a kernel that uses what another stream has made, or memory
// that is freed, without a wait in between: the program ends with a line that
// says so.

#ifndef BACKBONED_TESTS_TESTING_FAKE_CUDA_STREAMS_H_
#define BACKBONED_TESTS_TESTING_FAKE_CUDA_STREAMS_H_

#include <c10/core/Stream.h>

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

namespace fake_cuda {

// The error of this thread's last call that failed, until somebody asks for it:
// LibTorch does behind each launch.
extern thread_local int last_error;

// Keeps an error, if it is one, and returns it.
int LastError(int error);

// Returns the integer in an environment variable, else `fallback`.
int64_t Setting(const char* name, int64_t fallback);

// For each stream, by device and id, the number of its last operation.
using StreamKey = std::pair<int, int64_t>;
using VectorClock = std::map<StreamKey, int64_t>;

using Time = std::chrono::steady_clock::time_point;

// A point in a stream.
struct Event {
  VectorClock before;
  Time time;  // When the device gets there.
  bool was_asked = false;
};

// The streams of all devices. Thread-safe.
class Streams {
 public:
  // Reads FAKE_CUDA_KERNEL_US and FAKE_CUDA_FAULT, which operators.cc explains.
  Streams();

  // Those of the process.
  static Streams& Get();

  // An operation of a stream uses blocks of memory, by their beginnings.
  struct Use {
    std::string name;  // Of the operator.
    std::vector<const void*> reads;
    std::vector<const void*> writes;
  };

  // This thread's operations count each for itself, or are parts of a graph
  // that is recorded, which may not wait, or launched.
  enum class Mode { kSingle, kRecorded, kReplayed };
  static void SetMode(Mode mode);

  // Throws c10::Error if a graph is being recorded by this thread.
  static void CheckNotRecorded();

  // Notes an operation. Throws c10::AcceleratorError if the device is lost.
  void Launch(const c10::Stream& stream, const Use& use);

  // Notes that the stream's last operation makes a block.
  void Made(const c10::Stream& stream, const Use& use, const void* block);

  // Lets `effect` happen on the host when it has waited for the stream's last
  // operation. It concerns memory at `host`, until Forget.
  void Later(const c10::Stream& stream, const void* host,
             std::function<void()> effect);
  void Forget(const void* host);

  // Notes memory that a stream has, and that it is free: its users must have
  // ended, or be in that stream, or be recorded.
  void Allocated(const c10::Stream& stream, const void* block);
  void Freed(const void* block);
  void Recorded(const c10::Stream& stream, const void* block);

  void Record(const c10::Stream& stream, Event& event);
  void Block(const c10::Stream& stream, const Event& event);

  // Waits, in this thread. Throws c10::AcceleratorError if something has failed
  // by then.
  void Wait(const c10::Stream& stream);
  void Wait(const Event& event);
  void WaitForDevice(int device);

  // Returns whether an event, or all operations of a stream, have happened.
  bool Query(Event& event);
  bool Query(const c10::Stream& stream);

  // Counts since the start.
  int64_t launches() const { return launches_; }
  int64_t threads() const { return std::ssize(threads_); }  // That launched.
  int64_t waits() const { return waits_; }
  int64_t longest() const { return longest_; }  // Launches without a wait.

 private:
  struct Line {
    int64_t last = 0;
    VectorClock before;  // The last operation, and it.
    Time free = {};      // When the device has done all.
  };
  struct MemoryBlock {
    StreamKey home;
    std::pair<StreamKey, int64_t> written;
    VectorClock read;
    std::vector<StreamKey> recorded;
    std::string writer;
  };
  struct Effect {
    StreamKey stream;
    int64_t number;
    const void* host;
    std::function<void()> run;
  };

  void Complete(const VectorClock& until);
  void CheckOrder(const Line& line, const Use& use, const void* block,
                  bool writes);
  void Fault();

  const std::chrono::microseconds kernel_;  // Of an operation.
  std::string faulty_;                      // The operator that fails.
  int64_t until_fault_ = 0;

  std::recursive_mutex mutex_;
  std::map<StreamKey, Line> lines_;
  std::map<const void*, MemoryBlock> blocks_;
  std::deque<Effect> effects_;
  VectorClock host_;  // The host has waited for it.
  std::pair<StreamKey, int64_t> fault_;
  bool is_lost_ = false;
  int64_t launches_ = 0;
  std::set<std::thread::id> threads_;
  int64_t waits_ = 0;
  int64_t since_wait_ = 0;
  int64_t longest_ = 0;
};

}  // namespace fake_cuda

#endif  // BACKBONED_TESTS_TESTING_FAKE_CUDA_STREAMS_H_
