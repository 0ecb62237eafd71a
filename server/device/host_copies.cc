#include "server/device/host_copies.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "absl/status/status.h"
#include "server/device/host_view.h"
#include "server/limits/continuation.h"

namespace backboned {
namespace {

// These bytes cross to the host in about 0.2 ms: long against a launch, short
// against a network's time on the wire.
constexpr int64_t kBytesInATurn = int64_t{4} << 20;

int64_t ElementBytes(const at::Tensor& tensor,
                     std::optional<at::ScalarType> dtype) {
  return static_cast<int64_t>(
      c10::elementSize(dtype.value_or(tensor.scalar_type())));
}

}  // namespace

struct HostCopies::Turn {
  std::vector<at::Tensor> values;  // On the host once it has ended.
  absl::Status status;
  Event ended;

  // Runs a turn. It needs its arguments until it ends, whoever awaits that.
  static Detached Run(DeviceWorker& copies,
                      std::shared_ptr<const DeviceWorker::Request> request,
                      std::shared_ptr<Turn> turn,
                      std::optional<at::ScalarType> dtype) {
    const DeviceWorker::Work work = [&] {
      turn->values = AllOnHost(turn->values, dtype);
      return absl::OkStatus();
    };
    const absl::StatusOr<DeviceWorker::Times> times =
        co_await copies.Run(*request, work);
    turn->status = times.status();
    turn->ended.Happen();
  }
};

HostCopies::HostCopies(DeviceWorker& worker, DeviceWorker::Request request,
                       std::vector<at::Tensor> tensors,
                       std::optional<at::ScalarType> dtype)
    : worker_(worker),
      request_(
          std::make_shared<const DeviceWorker::Request>(std::move(request))),
      tensors_(std::move(tensors)),
      dtype_(dtype) {
  std::erase_if(tensors_,
                [](const at::Tensor& each) { return !each.defined(); });
  for (const at::Tensor& tensor : tensors_) {
    bytes_ += tensor.numel() * ElementBytes(tensor, dtype_);
  }
}

// Returns views of the next turn's elements. Launches nothing.
std::vector<at::Tensor> HostCopies::Take() {
  std::vector<at::Tensor> views;
  int64_t left = kBytesInATurn;
  while (left > 0 && next_ < tensors_.size()) {
    const at::Tensor& tensor = tensors_[next_];
    const int64_t element_bytes = ElementBytes(tensor, dtype_);
    const int64_t count = std::min(tensor.numel() - elements_,
                                   std::max<int64_t>(left / element_bytes, 1));
    views.push_back(tensor.view({-1}).narrow(0, elements_, count));
    left -= count * element_bytes;
    elements_ += count;
    if (elements_ < tensor.numel()) continue;
    ++next_;
    elements_ = 0;
  }
  return views;
}

void HostCopies::Begin() {
  turn_ = nullptr;
  std::vector<at::Tensor> views = Take();
  if (views.empty()) return;
  turn_ = std::make_shared<Turn>();
  turn_->values = std::move(views);
  Turn::Run(worker_.copies(), request_, turn_, dtype_);
  if (request_->continues) return;
  DeviceWorker::Request next = *request_;
  next.continues = true;
  request_ = std::make_shared<const DeviceWorker::Request>(std::move(next));
}

Task<absl::StatusOr<std::vector<at::Tensor>>> HostCopies::Next() {
  if (turn_ == nullptr) Begin();
  const std::shared_ptr<Turn> turn = turn_;
  if (turn == nullptr) co_return std::vector<at::Tensor>();
  Event& ended = turn->ended;
  co_await ended;
  if (!turn->status.ok()) co_return turn->status;
  Begin();
  co_return std::move(turn->values);
}

}  // namespace backboned
