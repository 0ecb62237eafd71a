#include "server/admin/machine.h"

#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <string_view>
#include <system_error>
#include <thread>

namespace backboned::admin {
namespace {

// Returns a value of /proc/meminfo, whose unit is 1024 bytes.
int64_t MeminfoBytes(std::string_view wanted) {
  std::ifstream file("/proc/meminfo");
  std::string name;
  int64_t kibibytes = 0;
  while (file >> name >> kibibytes) {
    if (name == wanted) return kibibytes * 1024;
    file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
  }
  return 0;
}

// Returns what this process has in memory.
int64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  int64_t size = 0;
  int64_t resident = 0;
  return file >> size >> resident ? resident * sysconf(_SC_PAGESIZE) : 0;
}

}  // namespace

MachineFigures MachineNow() {
  MachineFigures now = {
      .cores = static_cast<int>(std::thread::hardware_concurrency()),
      .memory_bytes = MeminfoBytes("MemTotal:"),
      .available_bytes = MeminfoBytes("MemAvailable:"),
      .process_memory_bytes = ResidentBytes()};
  if (getloadavg(now.load.data(), 3) != 3) now.load = {};
  return now;
}

std::optional<DiskFigures> DiskOf(const std::string& folder) {
  std::error_code error;
  const std::filesystem::space_info space =
      std::filesystem::space(folder, error);
  if (error) return std::nullopt;
  return DiskFigures{.bytes = static_cast<int64_t>(space.capacity),
                     .available_bytes = static_cast<int64_t>(space.available)};
}

}  // namespace backboned::admin
