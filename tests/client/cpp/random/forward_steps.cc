// Steps of Forward, TrainStep and Extract.

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "client/cpp/error.h"
#include "tests/client/cpp/random/steps.h"

namespace backboned::client::random {
namespace {

// The most tapes at a time.
constexpr size_t kMaxTapes = 8;

// A forward to be made.
struct ForwardPlan {
  v1::ForwardHeader header;
  TapeModel forward;
  bool condition_holds = true;
};

// Asks for `out`, `features` or both.
void ChooseOutputs(Choice& choice, ForwardPlan& plan) {
  switch (choice.Below(4)) {
    case 0:
      plan.header.add_outputs("features");
      plan.forward.has_out = false;
      plan.forward.has_features = true;
      break;
    case 1:
      plan.header.set_return_type(v1::RETURN_TYPE_BOTH);
      plan.forward.has_features = true;
      break;
    default:
      break;  // `out` is the default.
  }
}

// Chooses the parameters that get gradients.
void ChooseMask(Choice& choice, const Subject& subject, ForwardPlan& plan) {
  if (subject.model) plan.forward.mask = subject.model->trained();
  if (choice.Chance(0.1)) {
    plan.header.set_no_param_grads(true);
    plan.forward.mask = {};
  } else if (choice.Chance(0.2)) {
    Mask mask;
    const v1::Selection selection = ChooseParameters(choice, mask);
    // An empty selection means all that are not frozen.
    if (selection.globs().empty()) return;
    *plan.header.mutable_grad_params() = selection;
    plan.forward.mask = mask;
  }
}

ForwardPlan ChooseForward(World& world, Choice& choice,
                          const Subject& subject) {
  ForwardPlan plan;
  v1::ForwardHeader& header = plan.header;
  header.set_request_id(world.ChooseRequestId(choice));
  header.set_training(choice.Chance(0.3));
  header.set_tape(choice.Chance(0.75) && world.LiveTapes().size() < kMaxTapes);
  header.set_input_grad(choice.Chance(header.tape() ? 0.4 : 0.05));
  header.set_return_buffers(choice.Chance(0.2));
  header.set_allow_merge(choice.Chance(0.3));
  plan.forward.x = choice.Some(kSize * (1 + choice.Below(3)));
  plan.forward.input_grad = header.input_grad();
  *header.add_inputs() = BatchSpec(plan.forward.x);
  ChooseOutputs(choice, plan);
  ChooseMask(choice, subject, plan);
  plan.condition_holds = World::ChooseCondition(choice, subject.model,
                                                *header.mutable_if_version());
  world.check.Log(absl::StrCat(subject.name, ": Forward ",
                               header.ShortDebugString(), " ",
                               Word(plan.forward.x)));
  return plan;
}

Ending EndingOf(const ForwardPlan& plan, const Subject& subject) {
  const v1::ForwardHeader& header = plan.header;
  if (subject.model == nullptr) return kNoInstance;
  if (header.input_grad() && !header.tape()) return kInvalid;
  if (header.training() && plan.forward.x.size() == kSize) return kWrongShape;
  if (header.training() && subject.model->read_only) return kReadOnly;
  return plan.condition_holds ? Ending() : kStale;
}

// Returns whether a tape was refused, as it may be. Nothing has changed then.
bool IsRefusedTape(const World& world, const absl::Status& status) {
  const std::optional<v1::ErrorDetail> detail = DetailOf(status);
  return world.tapes_are_scarce &&
         status.code() == absl::StatusCode::kResourceExhausted &&
         detail.has_value() && detail->limit() == "max-tape-bytes";
}

void ExpectAnswer(World& world, const ForwardPlan& plan,
                  const InstanceModel& model,
                  const Received<v1::ForwardResult>& answer) {
  Checker& check = world.check;
  const bool has_out = plan.forward.has_out;
  const bool has_both = has_out && plan.forward.has_features;
  const size_t outputs = has_both ? 2 : 1;
  const size_t buffers = plan.header.return_buffers() ? 3 : 0;
  check.ExpectVersion(answer.result.version(), model);
  check.Expect(answer.result.tape_id().empty() != plan.header.tape(),
               absl::StrCat("the tape is '", answer.result.tape_id(), "'"));
  if (answer.tensors.size() != outputs + buffers) {
    return check.Fail(
        absl::StrCat("the answer has ", answer.tensors.size(), " tensors"));
  }
  if (has_out) {
    check.ExpectValues(answer.tensors.As<float>(0), plan.forward.Out(), "out");
  }
  if (plan.forward.has_features) {
    check.ExpectValues(answer.tensors.As<float>(outputs - 1),
                       plan.forward.Features(), "features");
  }
  if (buffers > 0) world.ExpectBuffers(answer.tensors, outputs, model.buffers);
}

// A training step to be made, whose loss is a quarter of the mean squared
// error.
struct TrainPlan {
  v1::TrainStepHeader header;
  TapeModel forward;
  Values target;
  bool condition_holds = true;
};

TrainPlan ChooseTrainStep(World& world, Choice& choice,
                          const Subject& subject) {
  TrainPlan plan;
  plan.header.set_request_id(world.ChooseRequestId(choice));
  plan.header.set_return_logits(choice.Chance(0.5));
  plan.forward.x = choice.Some(kSize * (choice.Chance(0.05) ? 1 : 2));
  plan.target = choice.Some(plan.forward.x.size());
  *plan.header.mutable_input() = BatchSpec(plan.forward.x);
  v1::LossTerm& term = *plan.header.add_terms();
  term.set_weight(0.25);
  *term.mutable_mean_squared_error()->mutable_target() = BatchSpec(plan.target);
  plan.condition_holds = World::ChooseCondition(
      choice, subject.model, *plan.header.mutable_if_version());
  world.check.Log(absl::StrCat(subject.name, ": TrainStep ",
                               plan.header.ShortDebugString(), " ",
                               Word(plan.forward.x), " ", Word(plan.target)));
  return plan;
}

Ending EndingOf(const TrainPlan& plan, const Subject& subject) {
  if (const Ending writable = subject.Writable(); !writable.ok()) {
    return writable;
  }
  if (plan.forward.x.size() == kSize) return kWrongShape;
  if (!subject.model->optimizer) return kNoOptimizer;
  return plan.condition_holds ? Ending() : kStale;
}

// Makes the step on `model`, and returns the mean squared error; nullopt: no
// parameter can be stepped.
std::optional<double> Train(TrainPlan& plan, InstanceModel& model) {
  plan.forward.scale = model.params[kScale];
  plan.forward.head = model.params[kHead];
  plan.forward.mask = model.trained();
  const auto elements = static_cast<double>(plan.target.size());
  double loss = 0;
  Values logits_grad = plan.forward.Out();
  for (size_t i = 0; i < plan.target.size(); ++i) {
    const double error = logits_grad[i] - plan.target[i];
    loss += error * error / elements;
    logits_grad[i] = 0.25 * 2 * error / elements;
  }
  model.buffers.Move(plan.forward.x);
  ++model.buffers_version;
  model.grads = Differentiate(plan.forward, {.out = logits_grad}).params;
  if (model.Step({.zero_after = true}) == 0) return std::nullopt;
  return loss;
}

}  // namespace

void Forward(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  ForwardPlan plan = ChooseForward(world, choice, subject);
  const std::vector<float> x = Floats32(plan.forward.x);
  const auto answer = subject.net.Forward(plan.header, {BytesOf(x)});
  if (IsRefusedTape(world, answer.status())) return;
  if (!world.check.Ends(answer.status(), EndingOf(plan, subject))) return;
  InstanceModel& model = *subject.model;
  plan.forward.uid = model.uid;
  plan.forward.scale = model.params[kScale];
  plan.forward.head = model.params[kHead];
  if (plan.header.training()) {
    model.buffers.Move(plan.forward.x);
    ++model.buffers_version;
  }
  ExpectAnswer(world, plan, model, *answer);
  if (plan.header.tape()) {
    world.tape_ids.push_back(answer->result.tape_id());
    world.tapes[world.tape_ids.back()] = plan.forward;
  }
  world.Remember(plan.header.request_id(), answer->result.version(),
                 /*has_tensors=*/true,
                 [header = plan.header, x,
                  net = subject.net]() -> absl::StatusOr<v1::Version> {
                   const auto again = net.Forward(header, {BytesOf(x)});
                   if (!again.ok()) return again.status();
                   return again->result.version();
                 });
}

void TrainStep(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  TrainPlan plan = ChooseTrainStep(world, choice, subject);
  Ending ending = EndingOf(plan, subject);
  InstanceModel next;
  std::optional<double> loss;
  if (ending.ok()) {
    next = *subject.model;
    loss = Train(plan, next);
    if (!loss) ending = kNoGradients;
  }
  const std::vector<float> x = Floats32(plan.forward.x);
  const std::vector<float> y = Floats32(plan.target);
  const auto answer =
      subject.net.TrainStep(plan.header, {BytesOf(x), BytesOf(y)});
  if (!world.check.Ends(answer.status(), ending)) return;
  *subject.model = next;
  const v1::TrainStepResult& result = answer->result;
  world.check.ExpectVersion(result.version(), next);
  const std::vector<float> losses = {static_cast<float>(result.losses(0)),
                                     static_cast<float>(result.loss())};
  world.check.ExpectValues(losses, {*loss, 0.25 * *loss}, "the loss");
  const bool has_logits = plan.header.return_logits();
  world.check.Expect(answer->tensors.size() == (has_logits ? 1 : 0),
                     "the answer has other tensors");
  if (has_logits && answer->tensors.size() == 1) {
    world.check.ExpectValues(answer->tensors.As<float>(0), plan.forward.Out(),
                             "the logits");
  }
  world.Remember(
      plan.header.request_id(), result.version(), has_logits,
      [header = plan.header, x, y,
       net = subject.net]() -> absl::StatusOr<v1::Version> {
        const auto again = net.TrainStep(header, {BytesOf(x), BytesOf(y)});
        if (!again.ok()) return again.status();
        return again->result.version();
      });
}

void Extract(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  const Values input = choice.Some(kSize * (1 + choice.Below(3)));
  v1::ExtractRequest request;
  *request.mutable_input() = BatchSpec(input);
  request.set_data(Bytes(Floats32(input)));
  const bool wants_out = choice.Chance(0.5);
  if (wants_out) request.set_output("out");
  world.check.Log(absl::StrCat(subject.name, ": Extract ", request.output(),
                               " ", Word(input)));
  const auto answer = subject.net.Extract(request);
  if (!world.check.Ends(answer.status(), subject.Readable())) return;
  world.check.ExpectVersion(answer->version(), *subject.model);
  const TapeModel forward = {.scale = subject.model->params[kScale],
                             .head = subject.model->params[kHead],
                             .x = input};
  world.check.ExpectValues(Floats(answer->data()),
                           wants_out ? forward.Out() : forward.Features(),
                           "the result");
}

}  // namespace backboned::client::random
