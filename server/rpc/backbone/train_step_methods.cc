// Serves TrainStep.

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/strings/str_cat.h"
#include "backbones/losses.h"
#include "backbones/optimizer.h"
#include "base/errors.h"
#include "proto/wire/spec.h"
#include "server/compute/train.h"
#include "server/device/host_view.h"
#include "server/rpc/backbone/backbone_service.h"
#include "server/rpc/convert/instance_convert.h"
#include "server/rpc/convert/optimizer_convert.h"
#include "server/rpc/convert/tensor_convert.h"
#include "server/rpc/convert/timings.h"
#include "server/rpc/transport/once.h"

namespace backboned::rpc {
namespace {

// Returns the forward of a training step as Forward's header.
v1::ForwardHeader ForwardOf(const v1::TrainStepHeader& header) {
  v1::ForwardHeader forward;
  forward.set_instance(header.instance());
  forward.set_training(true);
  forward.set_rng_state(header.rng_state());
  *forward.mutable_batch_norm() = header.batch_norm();
  *forward.add_inputs() = header.input();
  if (header.has_if_version()) {
    *forward.mutable_if_version() = header.if_version();
  }
  return forward;
}

// Returns the spec of a term's tensor; null if the term has no loss.
const v1::TensorSpec* SpecOf(const v1::LossTerm& term) {
  switch (term.loss_case()) {
    case v1::LossTerm::kCrossEntropy:
      return &term.cross_entropy().labels();
    case v1::LossTerm::kMeanSquaredError:
      return &term.mean_squared_error().target();
    case v1::LossTerm::kKlDivergence:
      return &term.kl_divergence().target();
    default:
      return nullptr;
  }
}

// Returns a term whose labels or targets are `tensor`.
LossTerm TermOf(const v1::LossTerm& term, int64_t rows, at::Tensor tensor) {
  LossTerm result = {.row_begin = term.row_begin(),
                     .row_end = term.row_end() == 0 ? rows : term.row_end(),
                     .weight = term.has_weight() ? term.weight() : 1};
  if (term.has_cross_entropy()) {
    const v1::CrossEntropy& loss = term.cross_entropy();
    result.loss = CrossEntropy{
        .labels = std::move(tensor),
        .class_mask = {loss.class_mask().begin(), loss.class_mask().end()},
        .label_smoothing = loss.label_smoothing()};
  } else if (term.has_mean_squared_error()) {
    result.loss = MeanSquaredError{.target = std::move(tensor)};
  } else {
    const double temperature = term.kl_divergence().temperature();
    result.loss =
        KlDivergence{.target = std::move(tensor),
                     .temperature = temperature == 0 ? 1 : temperature};
  }
  return result;
}

// Returns the bytes of labels and targets, if their specs are valid.
absl::StatusOr<int64_t> TermBytes(const v1::TrainStepHeader& header) {
  std::vector<int64_t> sizes;
  for (int i = 0; i < header.terms_size(); ++i) {
    const v1::TensorSpec* spec = SpecOf(header.terms(i));
    if (spec == nullptr) {
      return InvalidOption(absl::StrCat("term ", i, ": no loss is set"));
    }
    absl::StatusOr<int64_t> size = wire::ByteSize(*spec);
    if (!size.ok()) {
      return Error(
          absl::StatusCode::kInvalidArgument, Reason::kShapeMismatch,
          absl::StrCat("term ", i, ": ", std::string(size.status().message())));
    }
    sizes.push_back(*size);
  }
  return TotalBytes(sizes);
}

// Returns the terms, with host memory for their labels and targets.
absl::StatusOr<std::vector<LossTerm>> TermsOf(
    const v1::TrainStepHeader& header) {
  const int64_t rows =
      header.input().shape().empty() ? 0 : header.input().shape(0);
  std::vector<LossTerm> terms;
  for (const v1::LossTerm& term : header.terms()) {
    terms.push_back(TermOf(term, rows, EmptyTensor(*SpecOf(term))));
  }
  absl::Status valid = CheckTerms(terms, rows);
  if (!valid.ok()) return valid;
  return terms;
}

at::Tensor& TensorOf(LossTerm& term) {
  if (auto* loss = std::get_if<CrossEntropy>(&term.loss)) return loss->labels;
  if (auto* loss = std::get_if<MeanSquaredError>(&term.loss)) {
    return loss->target;
  }
  return std::get<KlDivergence>(term.loss).target;
}

// Returns the header of an answer whose tensors go into `tensors`.
v1::TrainStepResult ResultOf(const Instance& instance, const TrainDone& done,
                             const Call& call, AnswerTensors& tensors) {
  v1::TrainStepResult result;
  *result.mutable_version() = VersionOf(instance, *done.step.state);
  for (const double loss : done.loss.losses) result.add_losses(loss);
  result.set_loss(done.loss.loss);
  *result.mutable_step() = ToProto(done.step);
  if (done.logits.defined()) {
    *result.mutable_logits() = tensors.Add("out", done.logits);
  }
  *result.mutable_timings() = TimingsOf(done.times, call.Elapsed());
  result.set_rng_state(done.rng_state);
  return result;
}

}  // namespace

Task<absl::StatusOr<TrainWork>> BackboneService::Prepare(
    Call& call, const v1::TrainStepHeader& header) {
  const v1::ForwardHeader of_forward = ForwardOf(header);
  absl::StatusOr<ForwardWork> forward = co_await Prepare(call, of_forward);
  if (!forward.ok()) co_return forward.status();
  TrainWork work = {.forward = *std::move(forward),
                    .step = FromProto(header.step()),
                    .return_logits = header.return_logits()};
  absl::StatusOr<int64_t> bytes = TermBytes(header);
  if (!bytes.ok()) co_return bytes.status();
  absl::StatusOr<Budget::Reservation> reservation =
      server().in_flight().Reserve(call.payer(), *bytes);
  if (!reservation.ok()) co_return reservation.status();
  work.reservation = *std::move(reservation);
  absl::StatusOr<std::vector<LossTerm>> terms = TermsOf(header);
  if (!terms.ok()) co_return terms.status();
  work.terms = *std::move(terms);
  co_return work;
}

Task<absl::Status> BackboneService::TrainStep(Call& call, MessageStream& stream,
                                              const v1::TrainStepHeader& header,
                                              AnswerTicket ticket) {
  absl::StatusOr<TrainWork> work = co_await Prepare(call, header);
  if (!work.ok()) co_return work.status();
  std::vector<std::span<std::byte>> destinations;
  for (Input& input : work->forward.inputs.all) {
    destinations.push_back(MutableBytes(input.tensor));
  }
  for (LossTerm& term : work->terms) {
    destinations.push_back(MutableBytes(TensorOf(term)));
  }
  absl::Status received = co_await stream.ReadTensors(std::move(destinations));
  if (!received.ok()) co_return received;
  const std::shared_ptr<Instance> instance = work->forward.instance;
  absl::StatusOr<TrainDone> done =
      co_await RunTrainStep(call.WorkerRequest(/*lane=*/0), *std::move(work));
  if (!done.ok()) co_return done.status();
  call.record().times = done->times;
  call.record().flops = done->flops;
  AnswerTensors tensors;
  const v1::TrainStepResult result = ResultOf(*instance, *done, call, tensors);
  co_return co_await SendAnswer(call, ticket, stream, result,
                                std::move(tensors).Payloads());
}

}  // namespace backboned::rpc
