// Brings a GPU's tensors to the host, a part at a time.

#ifndef BACKBONED_SERVER_DEVICE_HOST_COPIES_H_
#define BACKBONED_SERVER_DEVICE_HOST_COPIES_H_

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "base/task.h"
#include "server/device/device_worker.h"

namespace backboned {

// Copies tensors by a worker's copies(), some MiB in a turn: while the caller
// uses the bytes of one, the next one runs. So no more than three turns' bytes
// are on the host, and other copies have turns in between.
//
// Not thread-safe. A turn that runs outlives this object.
class HostCopies {
 public:
  // Copies `tensors`, whose values are there, in `dtype` (absent: their own);
  // undefined ones have no bytes. The account of `request` pays for the bytes
  // on the host.
  HostCopies(DeviceWorker& worker, DeviceWorker::Request request,
             std::vector<at::Tensor> tensors,
             std::optional<at::ScalarType> dtype);

  // The bytes of all turns.
  int64_t bytes() const { return bytes_; }

  // Gives the values of the next turn in their order, as contiguous CPU
  // tensors; nothing after the last one. Gives the errors of DeviceWorker::Run.
  Task<absl::StatusOr<std::vector<at::Tensor>>> Next();

 private:
  struct Turn;

  std::vector<at::Tensor> Take();
  void Begin();

  DeviceWorker& worker_;
  // Of the first turn, and then of the others.
  std::shared_ptr<const DeviceWorker::Request> request_;
  std::vector<at::Tensor> tensors_;
  const std::optional<at::ScalarType> dtype_;
  int64_t bytes_ = 0;
  size_t next_ = 0;       // The first tensor that is in no turn,
  int64_t elements_ = 0;  // but so many elements of it.
  std::shared_ptr<Turn> turn_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_DEVICE_HOST_COPIES_H_
