#include "tests/testing/fake_cuda/streams.h"

#include <c10/util/Exception.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <utility>

namespace fake_cuda {
namespace {

// CUDA's code of a kernel that used an illegal address. The context is lost.
constexpr int32_t kIllegalAddress = 700;

StreamKey KeyOf(const c10::Stream& stream) {
  return {stream.device_index(), stream.id()};
}

void Merge(VectorClock& clock, const VectorClock& other) {
  for (const auto& [stream, number] : other) {
    clock[stream] = std::max(clock[stream], number);
  }
}

bool Contains(const VectorClock& clock, const StreamKey& stream,
              int64_t number) {
  const auto found = clock.find(stream);
  return number == 0 || (found != clock.end() && found->second >= number);
}

thread_local Streams::Mode mode = Streams::Mode::kSingle;

[[noreturn]] void Violation(const std::string& what) {
  std::fprintf(stderr, "fake-cuda: %s\n", what.c_str());
  std::abort();
}

std::string Name(const StreamKey& stream) {
  return "stream " + std::to_string(stream.second) +
         " of cuda:" + std::to_string(stream.first);
}

}  // namespace

int64_t Setting(const char* name, int64_t fallback) {
  const char* const text = std::getenv(name);
  return text == nullptr ? fallback : std::atoll(text);
}

thread_local int last_error = 0;

int LastError(int error) {
  if (error != 0) last_error = error;
  return error;
}

Streams& Streams::Get() {
  static auto* const streams = new Streams;
  return *streams;
}

Streams::Streams() : kernel_(Setting("FAKE_CUDA_KERNEL_US", 0)) {
  const char* const fault = std::getenv("FAKE_CUDA_FAULT");
  if (fault == nullptr) return;
  faulty_ = fault;
  const size_t colon = faulty_.find_last_of(':');
  until_fault_ = 1;
  // Operators have names like aten::add.
  if (colon != std::string::npos && faulty_[colon - 1] != ':') {
    until_fault_ = std::atoll(faulty_.c_str() + colon + 1);
    faulty_.resize(colon);
  }
}

void Streams::SetMode(Mode now) { mode = now; }

void Streams::CheckNotRecorded() {
  TORCH_CHECK(mode != Mode::kRecorded,
              "CUDA error: operation not permitted when stream is capturing "
              "(fake)");
}

void Streams::Launch(const c10::Stream& stream, const Use& use) {
  const std::lock_guard lock(mutex_);
  if (is_lost_) Fault();
  TORCH_CHECK(std::exchange(last_error, 0) == 0,
              "CUDA error: an error that nobody took (fake)");
  const bool is_single = mode == Mode::kSingle;
  if (is_single) {
    ++launches_;
    longest_ = std::max(longest_, ++since_wait_);
  }
  threads_.insert(std::this_thread::get_id());
  const StreamKey key = KeyOf(stream);
  Line& line = lines_[key];
  Merge(line.before, host_);
  line.before[key] = ++line.last;
  if (is_single) {
    line.free = std::max(line.free, std::chrono::steady_clock::now()) + kernel_;
  }
  if (use.name == faulty_ && --until_fault_ == 0) fault_ = {key, line.last};
  for (const void* const block : use.reads) CheckOrder(line, use, block, false);
  for (const void* const block : use.writes) CheckOrder(line, use, block, true);
  for (const void* const block : use.reads) {
    const auto found = blocks_.find(block);
    if (found != blocks_.end()) found->second.read[key] = line.last;
  }
  for (const void* const block : use.writes) Made(stream, use, block);
}

void Streams::Made(const c10::Stream& stream, const Use& use,
                   const void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  const StreamKey key = KeyOf(stream);
  found->second.written = {key, lines_[key].last};
  found->second.writer = use.name;
}

// Ends the program if an operation uses a block that another one, which need
// not have ended, writes, or reads while this one writes.
void Streams::CheckOrder(const Line& line, const Use& use, const void* block,
                         bool writes) {
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  const auto& [stream, number] = found->second.written;
  if (!Contains(line.before, stream, number)) {
    Violation(use.name + " uses what " + found->second.writer + " writes on " +
              Name(stream) + ", without a wait in between");
  }
  if (!writes) return;
  for (const auto& [reader, last] : found->second.read) {
    if (!Contains(line.before, reader, last)) {
      Violation(use.name + " writes what " + Name(reader) +
                " reads, without a wait in between");
    }
  }
}

void Streams::Later(const c10::Stream& stream, const void* host,
                    std::function<void()> effect) {
  const std::lock_guard lock(mutex_);
  const StreamKey key = KeyOf(stream);
  effects_.push_back({key, lines_[key].last, host, std::move(effect)});
}

void Streams::Forget(const void* host) {
  const std::lock_guard lock(mutex_);
  std::erase_if(effects_,
                [&](const Effect& effect) { return effect.host == host; });
}

void Streams::Allocated(const c10::Stream& stream, const void* block) {
  const std::lock_guard lock(mutex_);
  blocks_[block] = {.home = KeyOf(stream)};
}

void Streams::Recorded(const c10::Stream& stream, const void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(block);
  if (found != blocks_.end()) found->second.recorded.push_back(KeyOf(stream));
}

// The real allocator gives a block that is freed to the next one who asks on
// the stream that it was made for.
void Streams::Freed(const void* block) {
  const std::lock_guard lock(mutex_);
  const auto found = blocks_.find(block);
  if (found == blocks_.end()) return;
  const MemoryBlock& made = found->second;
  VectorClock users = made.read;
  if (made.written.second != 0) {
    int64_t& last = users[made.written.first];
    last = std::max(last, made.written.second);
  }
  for (const auto& [stream, number] : users) {
    if (stream != made.home && !std::ranges::count(made.recorded, stream) &&
        !Contains(host_, stream, number)) {
      Violation("memory is freed that " + Name(stream) +
                " uses; nobody has waited for that");
    }
  }
  blocks_.erase(found);
}

void Streams::Record(const c10::Stream& stream, Event& event) {
  const std::lock_guard lock(mutex_);
  const Line& line = lines_[KeyOf(stream)];
  event = {.before = line.before,
           .time = std::max(line.free, std::chrono::steady_clock::now())};
}

void Streams::Block(const c10::Stream& stream, const Event& event) {
  const std::lock_guard lock(mutex_);
  Line& line = lines_[KeyOf(stream)];
  Merge(line.before, event.before);
  line.free = std::max(line.free, event.time);
}

void Streams::Wait(const c10::Stream& stream) {
  CheckNotRecorded();
  Event event;
  Record(stream, event);
  Wait(event);
}

void Streams::Wait(const Event& event) {
  std::this_thread::sleep_until(event.time);
  const std::lock_guard lock(mutex_);
  ++waits_;
  since_wait_ = 0;
  Complete(event.before);
}

void Streams::WaitForDevice(int device) {
  VectorClock all;
  Time end = {};
  {
    const std::lock_guard lock(mutex_);
    for (const auto& [key, line] : lines_) {
      if (key.first != device) continue;
      Merge(all, line.before);
      end = std::max(end, line.free);
    }
  }
  Wait(Event{.before = std::move(all), .time = end});
}

bool Streams::Query(Event& event) {
  if (std::chrono::steady_clock::now() < event.time) return false;
  const std::lock_guard lock(mutex_);
  const bool is_known =
      std::ranges::all_of(event.before, [this](const auto& last) {
        return Contains(host_, last.first, last.second);
      });
  if (is_known) return true;
  if (!std::exchange(event.was_asked, true)) return false;
  Complete(event.before);
  return true;
}

bool Streams::Query(const c10::Stream& stream) {
  const std::lock_guard lock(mutex_);
  const StreamKey key = KeyOf(stream);
  return Contains(host_, key, lines_[key].last);
}

// The host knows from now on that all before `until` has happened.
void Streams::Complete(const VectorClock& until) {
  Merge(host_, until);
  std::deque<Effect> later;
  for (Effect& effect : effects_) {
    if (Contains(host_, effect.stream, effect.number)) {
      effect.run();
    } else {
      later.push_back(std::move(effect));
    }
  }
  effects_ = std::move(later);
  if (fault_.second != 0 && Contains(host_, fault_.first, fault_.second)) {
    is_lost_ = true;
  }
  if (is_lost_) Fault();
}

void Streams::Fault() {
  throw c10::AcceleratorError(
      {__func__, __FILE__, __LINE__}, kIllegalAddress,
      "CUDA error: an illegal memory access was encountered (fake)");
}

}  // namespace fake_cuda
