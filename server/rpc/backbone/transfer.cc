#include "server/rpc/backbone/transfer.h"

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <utility>

#include "backbones/state.h"
#include "server/device/host_view.h"
#include "server/rpc/convert/tensor_convert.h"

namespace backboned::rpc {

Task<absl::Status> Download(Call& call, MessageStream& stream,
                            const Instance& instance,
                            const google::protobuf::MessageLite& header,
                            std::vector<at::Tensor> tensors,
                            std::optional<c10::ScalarType> dtype) {
  absl::StatusOr<std::vector<at::Tensor>> host = co_await instance.HostView(
      call.WorkerRequest(/*lane=*/0), std::move(tensors), dtype);
  if (!host.ok()) co_return host.status();
  std::vector<wire::Payload> payloads;
  payloads.reserve(host->size());
  for (const at::Tensor& tensor : *host) payloads.push_back(ToPayload(tensor));
  co_return co_await stream.WriteTensors(header, std::move(payloads));
}

Task<absl::StatusOr<std::vector<at::Tensor>>> Upload(
    Server& server, const Call& call, MessageStream& stream,
    std::span<const at::Tensor> tensors, std::span<const Slice> slices,
    std::optional<c10::ScalarType> dtype) {
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
  co_return values;
}

}  // namespace backboned::rpc
