#include "server/rpc/convert/timings.h"

#include <google/protobuf/util/time_util.h>

namespace backboned::rpc {

using google::protobuf::util::TimeUtil;

google::protobuf::Duration ToProto(absl::Duration duration) {
  return TimeUtil::NanosecondsToDuration(absl::ToInt64Nanoseconds(duration));
}

v1::Timings TimingsOf(const DeviceWorker::Times& times, absl::Duration total) {
  v1::Timings timings;
  *timings.mutable_queue() = ToProto(times.queue);
  *timings.mutable_compute() = ToProto(times.compute);
  *timings.mutable_total() = ToProto(total);
  return timings;
}

}  // namespace backboned::rpc
