// Tells the contract how long a call waited, worked and took.

#ifndef BACKBONED_SERVER_RPC_CONVERT_TIMINGS_H_
#define BACKBONED_SERVER_RPC_CONVERT_TIMINGS_H_

#include "absl/time/time.h"
#include "backboned/v1/backbone_service.pb.h"
#include "google/protobuf/duration.pb.h"
#include "server/device/device_worker.h"

namespace backboned::rpc {

google::protobuf::Duration ToProto(absl::Duration duration);
v1::Timings TimingsOf(const DeviceWorker::Times& times, absl::Duration total);

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_CONVERT_TIMINGS_H_
