#include "server/rpc/backbone/transfer.h"

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <utility>

#include "backbones/state.h"
#include "server/device/device_worker.h"
#include "server/device/host_copies.h"
#include "server/device/host_view.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {

namespace {

std::vector<wire::Payload> ToPayloads(const std::vector<at::Tensor>& tensors) {
  std::vector<wire::Payload> payloads;
  payloads.reserve(tensors.size());
  for (const at::Tensor& tensor : tensors) {
    payloads.push_back(ToPayload(tensor));
  }
  return payloads;
}

// A GPU's bytes.
class Copied : public LaterBytes {
 public:
  explicit Copied(HostCopies copies) : copies_(std::move(copies)) {}

  int64_t bytes() const override { return copies_.bytes(); }

  Task<absl::StatusOr<std::vector<wire::Payload>>> Next() override {
    absl::StatusOr<std::vector<at::Tensor>> values = co_await copies_.Next();
    if (!values.ok()) co_return values.status();
    co_return ToPayloads(*values);
  }

 private:
  HostCopies copies_;
};

}  // namespace

Task<absl::Status> Download(Call& call, MessageStream& stream,
                            const Instance& instance,
                            const google::protobuf::MessageLite& header,
                            std::vector<at::Tensor> tensors,
                            std::optional<c10::ScalarType> dtype) {
  DeviceWorker::Request request = call.WorkerRequest(/*lane=*/0);
  if (!instance.worker().device().is_cpu()) {
    Copied copied(HostCopies(instance.worker(), std::move(request),
                             std::move(tensors), dtype));
    co_return co_await stream.WriteTensors(header, {}, &copied);
  }
  absl::StatusOr<std::vector<at::Tensor>> host =
      co_await instance.HostView(request, std::move(tensors), dtype);
  if (!host.ok()) co_return host.status();
  co_return co_await stream.WriteTensors(header, ToPayloads(*host));
}

Task<absl::StatusOr<std::vector<at::Tensor>>> Upload(
    Server& server, const Call& call, MessageStream& stream,
    const Instance& instance, std::span<const at::Tensor> tensors,
    std::span<const Slice> slices, std::optional<c10::ScalarType> dtype) {
  int64_t bytes = 0;
  for (const Slice& slice : slices) {
    const c10::ScalarType stored = tensors[slice.index].scalar_type();
    bytes +=
        slice.elements() *
        static_cast<int64_t>(c10::elementSize(
            c10::isFloatingType(stored) ? dtype.value_or(stored) : stored));
  }
  absl::StatusOr<Budget::Reservation> reservation =
      server.in_flight().Reserve(call.payer(), bytes);
  if (!reservation.ok()) co_return reservation.status();
  std::vector<at::Tensor> values = FreshTensors(tensors, slices, dtype);
  std::vector<std::span<std::byte>> destinations;
  destinations.reserve(values.size());
  for (at::Tensor& value : values) destinations.push_back(MutableBytes(value));
  absl::Status received = co_await stream.ReadTensors(std::move(destinations));
  if (!received.ok()) co_return received;
  if (instance.worker().device().is_cpu()) co_return values;
  const DeviceWorker::Request request = call.WorkerRequest(/*lane=*/0);
  const DeviceWorker::Work move = [&] {
    for (size_t i = 0; i < slices.size(); ++i) {
      values[i] = OnDevice(values[i], tensors[slices[i].index].device());
    }
    return absl::OkStatus();
  };
  const absl::StatusOr<DeviceWorker::Times> moved =
      co_await instance.worker().copies().Run(request, move);
  if (!moved.ok()) co_return moved.status();
  co_return values;
}

}  // namespace backboned::rpc
