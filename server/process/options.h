// Reads the server's command line.

#ifndef BACKBONED_SERVER_PROCESS_OPTIONS_H_
#define BACKBONED_SERVER_PROCESS_OPTIONS_H_

#include <cstdint>
#include <map>
#include <optional>
#include <ostream>
#include <string>
#include <variant>
#include <vector>

#include "base/principals.h"
#include "server/limits/limits.h"
#include "server/scheduler/scheduler.h"

namespace backboned {

// The server's options. Each is also an environment variable, and a key of the
// file that `--config` names: `--max-tapes` is `BACKBONED_MAX_TAPES` and
// `max-tapes`. The command line wins over the environment, that over the file.
struct Options {
  std::vector<std::string> listen = {"127.0.0.1:50051"};
  std::vector<std::string> devices = {"cpu"};
  std::vector<std::string> instances;  // BENCHMARK[=NAME][@WEIGHTS].
  std::string weights_dir;             // Empty: none.
  std::string state_dir;               // Empty: none.
  absl::Duration save_interval = absl::Minutes(1);
  int64_t save_versions = 0;  // 0: however many.
  int threads = 0;            // 0: LibTorch's own choice.
  int64_t pinned_bytes = 0;   // Of host memory, for GPUs' copies.
  int64_t graph_bytes = 0;    // Of a GPU's, for CUDA graphs.
  bool deterministic = false;
  std::string omp_wait = "auto";  // auto, active, passive.
  std::string users;              // Empty: whoever an address lets in.
  std::string ready_file;         // Empty: none.
  bool die_with_parent = false;
  std::string audit_log;  // Empty: the log has the records.
  bool insecure_remote = false;
  bool reflection = true;
  std::string log_level = "info";
  // Of variables BACKBONED_... that nothing reads: a sentence each.
  std::vector<std::string> unknown_variables;
  // If present, the program does not serve but asks the server at this address
  // whether it serves; empty: the first of `listen`.
  std::optional<std::string> check;
  bool check_config = false;  // Reads the configuration, and does not serve.

  Limits limits;
  NumberByPrincipal shares;  // Weights.
  int64_t max_batch = 64;
  int64_t max_delay_us = 0;

  // The texts of each option's value, by its key, as given or by default.
  std::map<std::string, std::vector<std::string>> texts;
};

// Returns how a device's time is shared, without the limits of its queue.
SchedulerOptions SchedulingOf(const Options& options);

// Reads command line, environment and file; or prints the help, the version or,
// to `errors`, what is wrong, and returns the process's exit status.
std::variant<Options, int> ParseOptions(int argc, char** argv,
                                        std::ostream& errors);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_OPTIONS_H_
