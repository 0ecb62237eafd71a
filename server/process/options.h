// The server's command line.

#ifndef BACKBONED_SERVER_PROCESS_OPTIONS_H_
#define BACKBONED_SERVER_PROCESS_OPTIONS_H_

#include <cstdint>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "server/limits/limits.h"
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

  Limits limits;
  std::vector<std::string> shares;  // PRINCIPAL=WEIGHT.
  int64_t max_batch = 64;
  int64_t max_delay_us = 0;
};

// Returns how a device's time is shared, without the limits of its queue.
SchedulerOptions SchedulingOf(const Options& options);

// Reads command line and environment, in which each variable `BACKBONED_...`
// must be known. Otherwise what the process is to exit
// with, after it has printed the help, the version, or what is wrong.
std::variant<Options, int> ParseOptions(int argc, char** argv);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_OPTIONS_H_
