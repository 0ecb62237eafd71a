#include "server/rpc/backbone/transfer.h"

#include <c10/core/ScalarType.h>

#include <cstddef>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/device/host_view.h"
#include "server/rpc/convert/convert.h"

namespace backboned::rpc {

absl::Status Download(Call& call, MessageStream& stream,
                      const Instance& instance,
                      const google::protobuf::MessageLite& header,
                      std::vector<at::Tensor> tensors,
                      std::optional<c10::ScalarType> dtype) {
  absl::StatusOr<std::vector<at::Tensor>> host = instance.HostView(
      call.WorkerRequest(/*lane=*/0), std::move(tensors), dtype);
  if (!host.ok()) return host.status();
  std::vector<wire::Payload> payloads;
  payloads.reserve(host->size());
  for (const at::Tensor& tensor : *host) payloads.push_back(ToPayload(tensor));
  return stream.WriteTensors(header, std::move(payloads));
}

absl::StatusOr<std::vector<at::Tensor>> Upload(
    Host& host, const Call& call, MessageStream& stream,
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
      host.in_flight().Reserve(call.payer(), bytes);
  if (!reservation.ok()) return reservation.status();
  std::vector<at::Tensor> values = FreshTensors(tensors, slices, dtype);
  std::vector<std::span<std::byte>> destinations;
  destinations.reserve(values.size());
  for (at::Tensor& value : values) destinations.push_back(MutableBytes(value));
  absl::Status received = stream.ReadTensors(std::move(destinations));
  if (!received.ok()) return received;
  return values;
}

absl::StatusOr<int64_t> TotalBytes(std::span<const int64_t> sizes) {
  int64_t total = 0;
  for (const int64_t size : sizes) {
    if (__builtin_add_overflow(total, size, &total)) {
      return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                   "the header's tensors have too many bytes");
    }
  }
  return total;
}

absl::StatusOr<std::optional<c10::ScalarType>> CheckBufferSpecs(
    const google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
    std::span<const Slice> slices, const Layout& layout, const State& state) {
  if (specs.size() != static_cast<int>(slices.size())) {
    return Error(absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
                 absl::StrCat("the header has ", specs.size(),
                              " buffers, expected ", slices.size()));
  }
  std::optional<c10::ScalarType> wire_dtype;
  for (int i = 0; i < specs.size(); ++i) {
    const v1::TensorSpec& spec = specs[i];
    const Buffer& buffer =
        layout.buffers()[slices[static_cast<size_t>(i)].index];
    const std::vector<int64_t> shape(spec.shape().begin(), spec.shape().end());
    c10::ScalarType expected =
        state.buffers[slices[static_cast<size_t>(i)].index].scalar_type();
    if (c10::isFloatingType(expected)) {
      absl::StatusOr<c10::ScalarType> given =
          FloatFromProto(spec.dtype(), spec.name());
      if (given.ok() && !wire_dtype) wire_dtype = *given;
      expected = wire_dtype.value_or(expected);
    }
    const v1::DataType dtype = ToProto(expected);
    if (spec.name() == buffer.name && spec.dtype() == dtype &&
        shape == buffer.shape) {
      continue;
    }
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("buffer ", i, " is ", Quote(spec.name()), " ",
                     std::string(wire::DataTypeName(spec.dtype())), " ",
                     wire::ShapeString(spec), ", expected ", Quote(buffer.name),
                     " ", std::string(wire::DataTypeName(dtype)), " ",
                     FormatShape(buffer.shape)));
  }
  return wire_dtype;
}

absl::StatusOr<c10::ScalarType> CheckFlatSpec(const v1::TensorSpec& spec,
                                              int64_t elements) {
  absl::StatusOr<c10::ScalarType> dtype =
      FloatFromProto(spec.dtype(), "the flat tensor");
  if (!dtype.ok()) return dtype;
  if (spec.shape_size() != 1 || spec.shape(0) != elements) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("the flat tensor has shape ", wire::ShapeString(spec),
                     ", expected [", elements, "]"));
  }
  return dtype;
}

}  // namespace backboned::rpc
