#include "server/limits/catching.h"

#include <c10/util/Exception.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <exception>
#include <new>
#include <string>
#include <string_view>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/random_id.h"
#include "server/limits/memory_account.h"

namespace backboned {
namespace {

// The longest logged cause; LibTorch's may contain its stack.
constexpr size_t kMaxCauseBytes = 2000;

constexpr const char* kOutOfMemory[] = {
    "CUDA error: out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED",
};

absl::Status OutOfMemory() {
  return Error(absl::StatusCode::kResourceExhausted, Reason::kOutOfMemory,
               "the server is out of memory");
}

// Returns whether a library of CUDA's says that the GPU has no more memory;
// LibTorch throws the general error then.
bool SaysOutOfMemory(std::string_view cause) {
  return std::ranges::any_of(kOutOfMemory, [cause](const char* text) {
    return cause.find(text) != cause.npos;
  });
}

// Logs `cause`, and returns the error that points to the log.
absl::Status Failure(std::string_view cause) {
  const std::string id = RandomId().substr(0, 8);
  cause = cause.substr(0, kMaxCauseBytes);
  spdlog::error("failure id={} cause=\"{}\"", id,
                absl::CEscape({cause.data(), cause.size()}));
  return Error(absl::StatusCode::kInternal, Reason::kComputeFailed,
               absl::StrCat("the server failed on this request; its log has "
                            "the cause as failure ",
                            id));
}

}  // namespace

absl::Status RunCatching(absl::FunctionRef<absl::Status()> work) {
  try {
    return work();
  } catch (const OutOfMemoryBudget& error) {
    return error.status();
  } catch (const c10::OutOfMemoryError&) {
    return OutOfMemory();
  } catch (const std::bad_alloc&) {
    return OutOfMemory();
  } catch (const c10::Error& error) {
    const std::string_view cause = error.what_without_backtrace();
    return SaysOutOfMemory(cause) ? OutOfMemory() : Failure(cause);
  } catch (const std::exception& error) {
    return Failure(error.what());
  } catch (...) {
    return Failure("an exception of no known type");
  }
}

}  // namespace backboned
