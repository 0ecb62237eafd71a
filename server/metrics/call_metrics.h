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

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace backboned {

// The metrics that are written as calls end (docs/metrics.md). Their labels are
// methods of ours and codes, and nothing that a client says.
//
// Thread-safe, but for AddMethod and AddStream.
class CallMetrics : public prometheus::Collectable {
 public:
  // The figures of a call that has ended.
  struct Ended {
    absl::StatusCode code = absl::StatusCode::kOk;
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

  // Counts a call that was refused before it began.
  void CountRefused(std::string_view method, absl::StatusCode code);

  std::vector<prometheus::MetricFamily> Collect() const override {
    return registry_.Collect();
  }

 private:
  using Counters = prometheus::Family<prometheus::Counter>;
  using Histograms = prometheus::Family<prometheus::Histogram>;

  struct Method {
    bool is_stream = false;
    // By code, made at the first call that has it; null until then.
    std::array<std::atomic<prometheus::Counter*>, 17> by_code = {};
    std::once_flag made;  // Of the following, at the method's first call.
    prometheus::Counter* bytes_in = nullptr;
    prometheus::Counter* bytes_out = nullptr;
    prometheus::Histogram* total = nullptr;
    prometheus::Histogram* queue = nullptr;
    prometheus::Histogram* compute = nullptr;
  };
  using Methods = std::map<std::string, Method, std::less<>>;

  Methods::value_type& Find(std::string_view method);
  void Make(Methods::value_type& method);
  void CountCode(Methods::value_type& method, absl::StatusCode code);

  prometheus::Registry registry_;
  Counters& calls_;
  Counters& streams_;
  Counters& bytes_in_;
  Counters& bytes_out_;
  Histograms& total_;
  Histograms& queue_;
  Histograms& compute_;
  Methods methods_ = Methods();
  Methods::value_type& unknown_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_METRICS_CALL_METRICS_H_
