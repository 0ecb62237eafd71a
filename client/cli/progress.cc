#include "client/cli/progress.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <iostream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "client/cli/output.h"

namespace backboned::cli {
namespace {

constexpr absl::Duration kBetweenDrawings = absl::Milliseconds(100);
constexpr int64_t kBarWidth = 30;

}  // namespace

Progress::Progress(std::string what)
    : what_(std::move(what)), is_shown_(isatty(STDERR_FILENO) != 0) {}

Progress::~Progress() { End(); }

void Progress::End() {
  absl::MutexLock lock(&mutex_);
  if (drawn_ != absl::InfinitePast()) std::cerr << "\r\x1b[K" << std::flush;
  drawn_ = absl::InfinitePast();
  total_bytes_ = 0;
}

void Progress::Expect(int64_t total_bytes) {
  absl::MutexLock lock(&mutex_);
  total_bytes_ = total_bytes;
  done_bytes_ = 0;
}

void Progress::Add(int64_t bytes) {
  if (!is_shown_) return;
  absl::MutexLock lock(&mutex_);
  done_bytes_ = std::min(done_bytes_ + bytes, total_bytes_);
  const absl::Time now = absl::Now();
  if (total_bytes_ == 0 || now - drawn_ < kBetweenDrawings) return;
  drawn_ = now;
  std::cerr << "\r" << FormatProgress(what_, done_bytes_, total_bytes_)
            << "\x1b[K" << std::flush;
}

std::string FormatProgress(const std::string& what, int64_t done_bytes,
                           int64_t total_bytes) {
  const double part =
      static_cast<double>(done_bytes) / static_cast<double>(total_bytes);
  const auto filled = static_cast<int64_t>(part * kBarWidth);
  std::string bar(static_cast<size_t>(filled), '=');
  if (filled < kBarWidth) bar += '>';
  bar.resize(kBarWidth, ' ');
  return absl::StrFormat("%s  [%s] %3.0f%%  %s of %s", what, bar,
                         std::floor(100 * part), FormatBytes(done_bytes),
                         FormatBytes(total_bytes));
}

}  // namespace backboned::cli
