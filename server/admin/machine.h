// Looks at the machine that the server runs on.

#ifndef BACKBONED_SERVER_ADMIN_MACHINE_H_
#define BACKBONED_SERVER_ADMIN_MACHINE_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

namespace backboned::admin {

// Figures of the machine now. Those that the system does not tell are 0.
struct MachineFigures {
  int cores = 0;  // Processors that the system has, threads of a core too.
  std::array<double, 3> load = {};   // Of the last 1, 5 and 15 minutes.
  int64_t memory_bytes = 0;          // Of the machine, whoever may use it.
  int64_t available_bytes = 0;       // That programs could still take.
  int64_t process_memory_bytes = 0;  // Of this process, in memory now.
};
MachineFigures MachineNow();

// The disk that has `folder`. Absent: the system does not tell.
struct DiskFigures {
  int64_t bytes = 0;
  int64_t available_bytes = 0;
};
std::optional<DiskFigures> DiskOf(const std::string& folder);

}  // namespace backboned::admin

#endif  // BACKBONED_SERVER_ADMIN_MACHINE_H_
