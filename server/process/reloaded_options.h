// Reads the options again while the server runs.

#ifndef BACKBONED_SERVER_PROCESS_RELOADED_OPTIONS_H_
#define BACKBONED_SERVER_PROCESS_RELOADED_OPTIONS_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "server/process/options.h"

namespace backboned {

// The options of a process, of which some may change while it runs. Not
// thread-safe.
class ReloadedOptions {
 public:
  // `argv` must outlive this object; `options` are what it says at first.
  ReloadedOptions(int argc, char** argv, const Options& options)
      : argc_(argc), argv_(argv), texts_(options.texts) {}

  // Returns the options as they are now, of which these may count at once:
  // log_level, save_interval, save_versions, idle_ttl and checkpoint_ttl. The
  // log says what changed, and what changes with the next start only; or what
  // is wrong: then there are none.
  std::optional<Options> Reload();

 private:
  const int argc_;
  char** const argv_;
  std::map<std::string, std::vector<std::string>> texts_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_RELOADED_OPTIONS_H_
