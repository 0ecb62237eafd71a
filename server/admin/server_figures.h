// Makes metrics of the figures that a server keeps anyway.

#ifndef BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_
#define BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_

#include <prometheus/metric_family.h>

#include <cstddef>
#include <vector>

#include "server/rpc/rpc_server.h"

namespace backboned::admin {

// The most principals with metrics of their own. The others together are
// `(other)`, which no principal can be called.
inline constexpr size_t kMostPrincipals = 64;

// Reads the figures of a server. Takes short locks only: no work on a device,
// and no transfer, holds it up.
std::vector<prometheus::MetricFamily> FiguresOf(const rpc::RpcServer& rpc);

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_SERVER_FIGURES_H_
