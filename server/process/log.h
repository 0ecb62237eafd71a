// Opens the log.

#ifndef BACKBONED_SERVER_PROCESS_LOG_H_
#define BACKBONED_SERVER_PROCESS_LOG_H_

#include <string>

namespace backboned {

// Makes standard error spdlog's default logger, from `level` on. Nobody waits
// for a reader: while standard error takes no more, lines are lost, and the
// next one that it takes says how many.
void OpenLog(const std::string& level);

}  // namespace backboned

#endif  // BACKBONED_SERVER_PROCESS_LOG_H_
