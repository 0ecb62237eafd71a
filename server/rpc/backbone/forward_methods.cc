// Serves Forward and Extract.

#include <array>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/state.h"
#include "base/errors.h"
#include "proto/wire/input_digest.h"
#include "server/callers/rights.h"
#include "server/compute/cached_forward.h"
#include "server/compute/forward.h"
#include "server/device/chores.h"
#include "server/device/host_view.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/convert/forward_options.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/tensor_convert.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/transport/once.h"

namespace backboned::rpc {
namespace {

// The most bytes of tensors in an answer of one message, so that it fits gRPC's
// default of 4 MiB.
constexpr int64_t kMaxExtractBytes = (int64_t{4} << 20) - (64 << 10);

constexpr size_t kDigestBytes = 32;  // SHA-256.

// The most bytes of inputs that are digested on the queue's thread, in less
// than a millisecond.
constexpr size_t kMostDigestedHere = size_t{256} << 10;

// Allocates host memory for the tensors of a forward's stream.
void MakeRoom(const v1::ForwardHeader& header, ForwardWork& work) {
  ScopedAccount scope(work.account);
  work.inputs = {EmptyTensor(header.inputs(0)), header.input_grad()};
  for (const v1::TensorSpec& spec : header.buffers()) {
    work.buffers.push_back(EmptyTensor(spec));
  }
}

// Returns the memory of the tensors of a forward's stream, in its order.
std::vector<std::span<std::byte>> PlacesOf(ForwardWork& work) {
  std::vector<std::span<std::byte>> places;
  for (Input& input : work.inputs.all) {
    places.push_back(MutableBytes(input.tensor));
  }
  for (at::Tensor& buffer : work.buffers) {
    places.push_back(MutableBytes(buffer));
  }
  return places;
}

// Returns the bytes of a forward's stream, if its specs are valid.
absl::StatusOr<int64_t> StreamBytes(const v1::ForwardHeader& header,
                                    const ForwardWork& work) {
  const Instance& instance = *work.instance;
  absl::StatusOr<int64_t> inputs =
      CheckInputs(header, instance, UsesBatchStatistics(work.options));
  if (!inputs.ok()) return inputs;
  absl::StatusOr<int64_t> buffers =
      CheckBuffers(header, instance.architecture().layout(), *instance.state());
  if (!buffers.ok()) return buffers;
  return TotalBytes(std::array{*inputs, *buffers});
}

// Returns the header of an answer whose tensors go into `tensors`.
v1::ForwardResult ResultOf(const Instance& instance,
                           const std::vector<std::string>& names,
                           const ForwardDone& done, const Call& call,
                           AnswerTensors& tensors) {
  v1::ForwardResult result;
  *result.mutable_version() =
      VersionOf(instance, done.used->params_version, done.buffers_version);
  result.set_tape_id(done.tape_id);
  result.set_tape_bytes(done.tape_bytes);
  result.set_rng_state(done.rng_state);
  for (size_t i = 0; i < done.outputs.size(); ++i) {
    *result.add_outputs() = tensors.Add(names[i], done.outputs[i]);
  }
  const std::vector<Buffer>& buffers =
      instance.architecture().layout().buffers();
  for (size_t i = 0; i < done.buffers.size(); ++i) {
    *result.add_buffers() = tensors.Add(buffers[i].name, done.buffers[i]);
  }
  *result.mutable_timings() = TimingsOf(done.times, call.Elapsed());
  result.set_cache_use(ToProto(done.cache_use));
  return result;
}

// Returns whether the instance has a feature cache for the caller.
bool HasCache(const Call& call, Instance& instance) {
  return instance.cache().limit_bytes() > 0 &&
         UsesCache(instance.ownership(), call.principal());
}

// Returns the name of inputs in a feature cache, where each principal has its
// own answers.
std::string NameOf(const Call& call, std::string_view digest) {
  return absl::StrCat(call.principal(), " ",
                      absl::string_view(digest.data(), digest.size()));
}

// Computes the digest of the complete inputs for the instance's feature cache,
// if the cache may keep the answer: of many bytes as a chore.
Task<absl::Status> NameInputs(Server& server, const Call& call,
                              const v1::ForwardHeader& header,
                              ForwardWork& work) {
  if (!HasCache(call, *work.instance) || !MayCache(work)) {
    co_return absl::OkStatus();
  }
  std::vector<std::span<const std::byte>> bytes;
  size_t total = 0;
  for (const Input& input : work.inputs.all) {
    bytes.push_back(Bytes(input.tensor));
    total += bytes.back().size();
  }
  const std::function<absl::StatusOr<bool>()> step =
      [&]() -> absl::StatusOr<bool> {
    work.input_digest = NameOf(call, wire::InputDigest(header.inputs(), bytes));
    return false;
  };
  if (total <= kMostDigestedHere) co_return step().status();
  const DeviceWorker::Request request = call.WorkerRequest(/*lane=*/0);
  const absl::StatusOr<DeviceWorker::Times> times =
      co_await RunChore(server.chores(), request, step);
  co_return times.status();
}

// Returns kInvalidArgument if answers to `header` are not kept by digest.
absl::Status CheckDigest(const v1::ForwardHeader& header,
                         const ForwardWork& work) {
  if (header.input_digest().size() != kDigestBytes) {
    return InvalidOption(absl::StrCat("input_digest has ",
                                      header.input_digest().size(),
                                      " bytes, expected ", kDigestBytes));
  }
  if (header.inputs_size() > 0) {
    return InvalidOption("give either inputs or input_digest, not both");
  }
  if (MayCache(work) && header.buffers().empty()) return absl::OkStatus();
  return InvalidOption(
      "input_digest needs a forward in evaluation, without tape, "
      "buffers, return_buffers and BatchNorm layers in training");
}

absl::Status CacheMiss(const Instance& instance, bool has_cache) {
  return Error(absl::StatusCode::kNotFound, Reason::kCacheMiss,
               absl::StrCat("the feature cache of instance ",
                            Quote(instance.identity().name),
                            has_cache ? " has no answer for this input_digest"
                                      : " is off: feature_cache_bytes is 0",
                            "; send the input"));
}

// Returns the forward of an Extract as Forward's header.
v1::ForwardHeader ForwardOf(const v1::ExtractRequest& request) {
  v1::ForwardHeader forward;
  forward.set_instance(request.instance());
  forward.add_outputs(request.output().empty() ? "features" : request.output());
  forward.set_allow_merge(!request.has_allow_merge() || request.allow_merge());
  *forward.add_inputs() = request.input();
  return forward;
}

// Copies the data of an Extract into the inputs of its forward, if they fit.
absl::Status TakeData(const std::string& data, const v1::ForwardHeader& forward,
                      ForwardWork& work) {
  absl::StatusOr<int64_t> bytes = StreamBytes(forward, work);
  if (!bytes.ok()) return bytes.status();
  if (static_cast<int64_t>(data.size()) != *bytes) {
    return Error(
        absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
        absl::StrCat("data has ", data.size(), " bytes, expected ", *bytes));
  }
  MakeRoom(forward, work);
  at::Tensor x = work.inputs.x();
  std::memcpy(MutableBytes(x).data(), data.data(), data.size());
  return absl::OkStatus();
}

// Gives kResourceExhausted if an Extract's result does not fit one message.
Task<absl::Status> CheckFits(DeviceWorker::Request request,
                             const ForwardWork& work) {
  const int64_t rows = work.inputs.rows();
  if (rows == 0) co_return absl::OkStatus();
  absl::StatusOr<int64_t> row_bytes =
      co_await RowBytes(std::move(request), work);
  if (!row_bytes.ok()) co_return row_bytes.status();
  if (*row_bytes == 0 || rows <= kMaxExtractBytes / *row_bytes) {
    co_return absl::OkStatus();
  }
  co_return LimitReached(
      {.name = "max-message-bytes",
       .value = kMaxExtractBytes,
       .requested = rows * *row_bytes},
      absl::StrCat("the result has ", rows, " rows of ", *row_bytes,
                   " bytes, at most ", kMaxExtractBytes,
                   " bytes fit one message; use Forward or a smaller batch"));
}

}  // namespace

Task<absl::StatusOr<ForwardWork>> BackboneService::Read(
    Call& call, const v1::ForwardHeader& header) {
  absl::StatusOr<std::shared_ptr<Instance>> instance =
      co_await Resolve(call, header.instance());
  if (!instance.ok()) co_return instance.status();
  absl::StatusOr<ForwardOptions> options = OptionsOf(header, **instance);
  if (!options.ok()) co_return options.status();
  absl::StatusOr<std::optional<c10::ScalarType>> output_dtype =
      OptionalFloat(header.output_dtype(), "output_dtype");
  if (!output_dtype.ok()) co_return output_dtype.status();
  const bool says_grads = !options->grad_mask.empty();
  co_return ForwardWork{.instance = *std::move(instance),
                        .options = *std::move(options),
                        .grads_of_trained = !says_grads,
                        .condition = FromProto(header.if_version()),
                        .return_buffers = header.return_buffers(),
                        .allow_merge = header.allow_merge(),
                        .output_dtype = *output_dtype,
                        .session = call.session(),
                        .account = call.account()};
}

Task<absl::StatusOr<ForwardWork>> BackboneService::Prepare(
    Call& call, const v1::ForwardHeader& header) {
  absl::StatusOr<ForwardWork> read = co_await Read(call, header);
  if (!read.ok()) co_return read;
  ForwardWork work = *std::move(read);
  Instance& instance = *work.instance;
  if (header.training() || header.tape()) {
    absl::Status trains = instance.CheckTrains();
    if (!trains.ok()) co_return trains;
  }
  absl::StatusOr<int64_t> bytes = StreamBytes(header, work);
  if (!bytes.ok()) co_return bytes.status();
  absl::StatusOr<Budget::Reservation> reservation =
      server().in_flight().Reserve(call.payer(), *bytes);
  if (!reservation.ok()) co_return reservation.status();
  work.reservation = *std::move(reservation);
  if (header.tape()) {
    absl::StatusOr<TapeSlot> slot =
        server().tapes().Reserve(call.payer(), server().clock().Now());
    if (!slot.ok()) co_return slot.status();
    work.slot = *std::move(slot);
    work.account = std::make_shared<MemoryAccount>(MemoryAccount::Options{
        .name = "max-tape-bytes",
        .limit_bytes = server().limits().max_tape_bytes,
        .parent = call.account(),
        .on_gpus = std::make_shared<MemoryAccount>(
            MemoryAccount::Options{.parent = call.account()->on_gpus()})});
  }
  MakeRoom(header, work);
  // The least bytes of a tape had to fit the limit of all tapes. The forward's
  // other memory is bounded by the room's limit alone, since the tape may be
  // demoted.
  if (header.tape()) work.account->SetLimit(kUnlimitedBytes);
  if (ChangesInstance(work)) {
    absl::Status writable = CheckAccess(call, instance, Access::kWrite);
    if (!writable.ok()) co_return writable;
  }
  co_return work;
}

Task<absl::Status> BackboneService::Forward(Call& call, MessageStream& stream,
                                            const v1::ForwardHeader& header,
                                            AnswerTicket ticket) {
  const std::vector<std::string> unneeded(header.release_tapes().begin(),
                                          header.release_tapes().end());
  server().tapes().Release(unneeded, call.principal());
  if (!header.input_digest().empty()) {
    co_return co_await AnswerFromCache(call, stream, header, std::move(ticket));
  }
  absl::StatusOr<ForwardWork> work = co_await Prepare(call, header);
  if (!work.ok()) co_return work.status();
  absl::Status received = co_await stream.ReadTensors(PlacesOf(*work));
  if (!received.ok()) co_return received;
  absl::Status named = co_await NameInputs(server(), call, header, *work);
  if (!named.ok()) co_return named;
  const std::shared_ptr<Instance> instance = work->instance;
  const std::vector<std::string> names = work->options.outputs;
  absl::StatusOr<ForwardDone> done =
      co_await RunForward(server().tapes(), server().accounts(),
                          call.WorkerRequest(/*lane=*/0), *std::move(work));
  if (!done.ok()) co_return done.status();
  call.record().times = done->times;
  call.record().flops = done->flops;
  AnswerTensors tensors;
  const v1::ForwardResult result =
      ResultOf(*instance, names, *done, call, tensors);
  const absl::Status written = co_await SendAnswer(
      call, ticket, stream, result, std::move(tensors).Payloads());
  // Without a request id no retry can ask for the tape's id.
  if (!written.ok() && header.request_id().empty()) {
    server().tapes().Release({done->tape_id}, call.principal());
  }
  co_return written;
}

Task<absl::Status> BackboneService::AnswerFromCache(
    Call& call, MessageStream& stream, const v1::ForwardHeader& header,
    AnswerTicket ticket) {
  absl::StatusOr<ForwardWork> work = co_await Read(call, header);
  if (!work.ok()) co_return work.status();
  absl::Status status = CheckDigest(header, *work);
  if (status.ok()) status = co_await stream.ReadTensors({});
  if (!status.ok()) co_return status;
  Instance& instance = *work->instance;
  const StatePtr used = instance.state();
  status = instance.CheckVersion(work->condition, *used);
  if (!status.ok()) co_return status;
  const bool has_cache = HasCache(call, instance);
  work->input_digest = NameOf(call, header.input_digest());
  std::optional<ForwardDone> done;
  if (has_cache) {
    done = FindCached(*work, PlaceOf(*work, *used), used, /*by_digest=*/true);
  }
  if (!done.has_value()) co_return CacheMiss(instance, has_cache);
  AnswerTensors tensors;
  const v1::ForwardResult result =
      ResultOf(instance, work->options.outputs, *done, call, tensors);
  co_return co_await SendAnswer(call, ticket, stream, result,
                                std::move(tensors).Payloads());
}

Task<absl::StatusOr<v1::ExtractResponse>> BackboneService::Extract(
    Call& call, const v1::ExtractRequest& request) {
  const v1::ForwardHeader forward = ForwardOf(request);
  absl::StatusOr<ForwardWork> work = co_await Read(call, forward);
  if (!work.ok()) co_return work.status();
  work->l2_normalize = request.l2_normalize();
  absl::Status fits = TakeData(request.data(), forward, *work);
  if (fits.ok()) fits = co_await NameInputs(server(), call, forward, *work);
  if (fits.ok())
    fits = co_await CheckFits(call.WorkerRequest(/*lane=*/0), *work);
  if (!fits.ok()) co_return fits;
  const std::shared_ptr<Instance> instance = work->instance;
  absl::StatusOr<ForwardDone> done =
      co_await RunForward(server().tapes(), server().accounts(),
                          call.WorkerRequest(/*lane=*/0), *std::move(work));
  if (!done.ok()) co_return done.status();
  call.record().times = done->times;
  call.record().flops = done->flops;
  const at::Tensor& output = done->outputs[0];
  absl::StatusOr<std::string> digest = co_await instance->Digest(
      server().chores(), call.WorkerRequest(/*lane=*/0), done->used);
  if (!digest.ok()) co_return digest.status();
  v1::ExtractResponse response;
  response.set_instance(instance->FullName());
  *response.mutable_version() = VersionOf(*instance, *done->used);
  response.set_digest(*std::move(digest));
  *response.mutable_output() = Spec(forward.outputs(0), output);
  response.set_data(output.const_data_ptr(), output.nbytes());
  response.set_cache_use(ToProto(done->cache_use));
  co_return response;
}

}  // namespace backboned::rpc
