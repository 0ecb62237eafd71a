// The server's command line.

#ifndef BACKBONED_SERVER_PROCESS_OPTIONS_H_
#define BACKBONED_SERVER_PROCESS_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "server/device/platform.h"
#include "server/limits/quotas.h"
#include "server/scheduler/scheduler.h"

namespace backboned {

// What the server is told. Each option is also an environment variable:
// `--max-tapes` is `BACKBONED_MAX_TAPES`; the command line wins.
struct Options {
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  std::vector<std::string> devices = {"cpu"};
  std::vector<std::string> instances;  // BENCHMARK[=NAME][@WEIGHTS].
  std::string weights_dir;             // Empty: none.
  std::string state_dir;               // Empty: none.
  int threads = 0;                     // 0: LibTorch's own choice.
  std::string omp_wait = "auto";       // auto, active, passive.
  bool insecure_remote = false;
  bool reflection = true;
  std::string log_level = "info";
  // Not to serve, but to ask this server whether it serves; empty: the one that
  // listens on the first of `listen`.
  std::optional<std::string> check;

  int64_t max_calls = 256;
  int64_t max_instances = 1024;
  int64_t max_tapes = 1024;
  int64_t max_tape_bytes = int64_t{4} << 30;
  int64_t max_in_flight_bytes = int64_t{2} << 30;
  int64_t max_memory_bytes = MachineMemoryBytes() / 10 * 9;  // 0: no limit.
  int64_t max_cache_bytes = int64_t{1} << 30;  // 0: no feature caches.
  // Below the calls, of all and of a session, which a full queue leaves for
  // what needs no device.
  int64_t max_queued = 192;
  int64_t max_queued_by_run = 96;
  std::vector<std::string> shares;  // PRINCIPAL=WEIGHT.
  std::vector<std::string> quotas;  // PRINCIPAL=FRACTION.
  double session_quota = 0.5;       // A fraction.
  int64_t max_batch = 64;
  int64_t max_delay_us = 0;
  int64_t max_sessions = 4096;
  absl::Duration tape_ttl = absl::Minutes(10);
  absl::Duration session_ttl = absl::Minutes(10);
  absl::Duration stall_timeout = absl::Seconds(60);
  absl::Duration drain_timeout = absl::Seconds(30);
};

// How the devices' time is shared.
SchedulerOptions SchedulingOf(const Options& options);

// How much of each limit principals and sessions may use.
Quotas QuotasOf(const Options& options);

// Reads command line and environment, in which each variable `BACKBONED_...`
// must be known. Otherwise what the process is to exit
// with, after it has printed the help, the version, or what is wrong.
std::variant<Options, int> ParseOptions(int argc, char** argv);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_OPTIONS_H_
