// Counts the calls of a server, and how long they took.

#ifndef BACKBONED_SERVER_METRICS_CALL_METRICS_H_
#define BACKBONED_SERVER_METRICS_CALL_METRICS_H_

#include <prometheus/collectable.h>
#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/histogram.h>
#include <prometheus/metric_family.h>
#include <prometheus/registry.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace backboned {

// The most principals with metrics of their own. The others together are
// `(other)`, which no principal can be called.
inline constexpr size_t kMostPrincipals = 64;
inline constexpr char kOtherPrincipals[] = "(other)";

// The metrics that are written as calls end (docs/metrics.md). Their labels are
// methods of ours, codes and principals, and nothing that a client chooses.
//
// Thread-safe, but for AddMethod and AddStream.
class CallMetrics : public prometheus::Collectable {
 public:
  // The figures of a call that has ended.
  struct Ended {
    absl::StatusCode code = absl::StatusCode::kOk;
    std::string_view principal = {};
    // From its first message on.
    absl::Duration total;
    // Of its work on a device: how long it waited, and ran. Zero `compute`: it
    // had none, or that failed.
    absl::Duration queue;
    absl::Duration compute;
    int64_t bytes_in = 0;
    int64_t bytes_out = 0;
  };

  CallMetrics();

  // Adds a method, or a method that is a stream of calls of the others, before
  // calls of it are counted. A stream is counted as one, since its calls have
  // its bytes.
  void AddMethod(std::string_view name) { methods_[std::string(name)]; }
  void AddStream(std::string_view name) {
    methods_[std::string(name)].is_stream = true;
  }

  // Counts a call that has ended; of a method that was not added, as one of
  // `unknown`. Takes less than 2 us.
  void Count(std::string_view method, const Ended& call);

  // Counts a call that was refused before it began: it is no principal's.
  void CountRefused(std::string_view method, absl::StatusCode code);

  std::vector<prometheus::MetricFamily> Collect() const override {
    return registry_.Collect();
  }

 private:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  static constexpr size_t kCodes = 17;

  struct Method {
    bool is_stream = false;
    // By code, made at the first call that has it; null until then.
    std::array<std::atomic<prometheus::Counter*>, kCodes> by_code = {};
    std::once_flag made;  // Of the following, at the method's first call.
    prometheus::Counter* bytes_in = nullptr;
    prometheus::Counter* bytes_out = nullptr;
    prometheus::Histogram* total = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* compute = nullptr;
  };
  using Methods = std::map<std::string, Method, std::less<>>;
  using Principals =
      std::map<std::string, std::array<prometheus::Counter*, kCodes>,
               std::less<>>;

  Methods::value_type& Find(std::string_view method);
  void Make(Methods::value_type& method);
  void CountCode(Methods::value_type& method, absl::StatusCode code);
  void CountPrincipal(std::string_view principal, absl::StatusCode code);

  prometheus::Registry registry_;
  Counters& calls_;
  Counters& principal_calls_;
  Counters& streams_;
  Counters& bytes_in_;
  Counters& bytes_out_;
  Histograms& total_;
  Histograms& queue_;
  Histograms& compute_;
  Methods methods_ = Methods();
  Methods::value_type& unknown_;

  absl::Mutex mutex_;
  // The first ones that called, and kOtherPrincipals; by code as above.
  Principals principals_ ABSL_GUARDED_BY(mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_METRICS_CALL_METRICS_H_
