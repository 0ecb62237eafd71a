#include "server/process/log.h"

#include <poll.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>

#include "absl/strings/str_cat.h"

namespace backboned {
namespace {

// Of a line's text: with its date it is one write to a pipe.
constexpr size_t kMostBytes = 4000;

// Returns whether a write of up to PIPE_BUF bytes, 4096, would not wait. That
// of a file never does.
bool TakesMore(int descriptor) {
  pollfd state = {.fd = descriptor, .events = POLLOUT, .revents = 0};
  return poll(&state, 1, /*timeout=*/0) == 1;
}

class StandardError final : public spdlog::sinks::base_sink<std::mutex> {
 private:
  void sink_it_(const spdlog::details::log_msg& line) override {
    if (!TakesMore(STDERR_FILENO)) {
      ++lost_;
      return;
    }
    if (const int64_t lost = std::exchange(lost_, 0); lost > 0) {
      const std::string text = absl::StrCat(
          lost, " lines of the log were lost, since nobody read it");
      terminal_.log({line.logger_name, spdlog::level::warn, text});
    }
    if (!TakesMore(STDERR_FILENO)) {
      ++lost_;
      return;
    }
    spdlog::details::log_msg whole = line;
    whole.payload = line.payload.size() > kMostBytes
                        ? spdlog::string_view_t(line.payload.data(), kMostBytes)
                        : line.payload;
    terminal_.log(whole);
  }

  void flush_() override { terminal_.flush(); }
  void set_pattern_(const std::string& pattern) override {
    terminal_.set_pattern(pattern);
  }
  void set_formatter_(std::unique_ptr<spdlog::formatter> formatter) override {
    terminal_.set_formatter(std::move(formatter));
  }

  int64_t lost_ = 0;
  spdlog::sinks::stderr_color_sink_st terminal_;
};

}  // namespace

void OpenLog(const std::string& level) {
  auto logger = std::make_shared<spdlog::logger>(
      "backboned", std::make_shared<StandardError>());
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%e%z %l %v");
  logger->set_level(spdlog::level::from_str(level));
  spdlog::set_default_logger(std::move(logger));
}

}  // namespace backboned
