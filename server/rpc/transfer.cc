#include "server/rpc/transfer.h"

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/errors.h"
#include "backbones/state.h"
#include "proto/wire/spec.h"
#include "server/host_view.h"
#include "server/rpc/convert.h"

namespace backboned::rpc {

absl::Status Download(Call& call, MessageStream& stream,
                      const Instance& instance,
                      const google::protobuf::MessageLite& header,
                      std::vector<at::Tensor> tensors) {
  absl::StatusOr<std::vector<at::Tensor>> host =
      instance.HostView(call.WorkerRequest(/*lane=*/0), std::move(tensors));
  if (!host.ok()) return host.status();
  std::vector<wire::Payload> payloads;
  payloads.reserve(host->size());
  for (const at::Tensor& tensor : *host) payloads.push_back(ToPayload(tensor));
  return stream.WriteTensors(header, std::move(payloads));
}

absl::StatusOr<std::vector<at::Tensor>> Upload(
    Host& host, MessageStream& stream, std::span<const at::Tensor> tensors,
    std::span<const Slice> slices) {
  int64_t bytes = 0;
  for (const Slice& slice : slices) {
    bytes += slice.elements() *
             static_cast<int64_t>(tensors[slice.index].element_size());
  }
  absl::StatusOr<ByteBudget::Reservation> reservation =
      host.in_flight().Reserve(bytes);
  if (!reservation.ok()) return reservation.status();
  std::vector<at::Tensor> values = FreshTensors(tensors, slices);
  std::vector<std::span<std::byte>> destinations;
  destinations.reserve(values.size());
  for (at::Tensor& value : values) destinations.push_back(MutableBytes(value));
  absl::Status received = stream.ReadTensors(std::move(destinations));
  if (!received.ok()) return received;
  return values;
}

absl::Status CheckFlatSpec(const v1::TensorSpec& spec, int64_t elements) {
  if (spec.dtype() != v1::DATA_TYPE_FLOAT32) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kDtypeMismatch,
                 absl::StrCat("the flat tensor is ",
                              std::string(wire::DataTypeName(spec.dtype())),
                              ", expected float32"));
  }
  if (spec.shape_size() != 1 || spec.shape(0) != elements) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("the flat tensor has shape ", wire::ShapeString(spec),
                     ", expected [", elements, "]"));
  }
  return absl::OkStatus();
}

}  // namespace backboned::rpc
