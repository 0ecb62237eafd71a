// Computes what a server does, from two looks at it.

#ifndef BACKBONED_CLIENT_CLI_TOP_FIGURES_H_
#define BACKBONED_CLIENT_CLI_TOP_FIGURES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/time/time.h"
#include "backboned/v1/instance_service.pb.h"

namespace backboned::cli {

// One look.
struct Look {
  absl::Time time;
  v1::GetServerResponse server;
  v1::ListInstancesResponse list;
};

// Rates are a second's, on average since the first look. Memory and counts are
// of the second one.
struct DeviceFigures {
  std::string name;
  double busy = 0;  // A part of the time, from 0 to 1.
  int64_t queued = 0;
  absl::Duration backlog;
  int64_t allocated_bytes = 0;
  int64_t total_bytes = 0;  // 0: it does not tell.
  double samples = 0;       // In batches of forwards that may run together.
  double merged = 0;        // Forwards that ran together with others.
  std::string caller;       // The instance with the most calls; empty: none.
};

struct InstanceFigures {
  std::string owner;
  std::string name;
  std::string network;
  std::string device;
  double forwards = 0;
  double backwards = 0;
  double steps = 0;
  double writes = 0;
  int64_t memory_bytes = 0;
  int64_t tapes = 0;
  int64_t tape_bytes = 0;

  // A training step on the server is a forward, a backward and a step.
  double calls() const { return forwards + backwards + steps + writes; }
};

struct PrincipalFigures {
  std::string name;
  int64_t instances = 0;
  double calls = 0;
  int64_t memory_bytes = 0;
  int64_t shared_bytes = 0;  // Those that another instance has, too.
  int64_t tape_bytes = 0;
};

struct Figures {
  absl::Duration interval;
  std::vector<DeviceFigures> devices;
  std::vector<InstanceFigures> instances;    // Those with most calls first.
  std::vector<PrincipalFigures> principals;  // By name.
};

// Returns what happened between the looks. Rates are 0 for what was not there
// at the first one, or was made anew, and if the server was started anew.
Figures Between(const Look& before, const Look& after);

}  // namespace backboned::cli

#endif  // BACKBONED_CLIENT_CLI_TOP_FIGURES_H_
