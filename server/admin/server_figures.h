// Makes metrics of the figures that a server keeps anyway.

#ifndef BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_
#define BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_

#include <prometheus/metric_family.h>

#include <array>
#include <string_view>
#include <vector>

#include "server/rpc/rpc_server.h"

namespace backboned::admin {

// Names of the reasons for which a batch leaves the queue, by BatchReason.
inline constexpr std::array<std::string_view, 5> kBatchReasons = {
    "alone", "full", "delay", "incompatible", "device_idle"};

// Reads the figures of a server. Takes short locks only: no work on a device,
// and no transfer, holds it up.
std::vector<prometheus::MetricFamily> FiguresOf(const rpc::RpcServer& rpc);

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_
