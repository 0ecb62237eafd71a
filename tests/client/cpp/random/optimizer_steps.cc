// Steps of ConfigureOptimizer, Step, Get- and SetOptimizerState.

#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/cpp/random/steps.h"

namespace backboned::client::random {
namespace {

const std::vector<double> kRates = {0.0625, 0.125, 0.25};

// Chooses SGD of some parameters.
OptimizerModel ChooseOptimizer(Choice& choice, v1::Optimizer& optimizer) {
  OptimizerModel model = {.lr = choice.Of(kRates),
                          .momentum = choice.Chance(0.5) ? 0.5 : 0};
  optimizer.set_kind(v1::OPTIMIZER_KIND_SGD);
  v1::ParameterGroup& group = *optimizer.add_groups();
  *group.mutable_selection() = ChooseParameters(choice, model.stepped);
  group.set_lr(model.lr);
  group.set_momentum(model.momentum);
  return model;
}

// Appends the specs of an optimizer's slots, and their values.
void Remembered(const OptimizerModel& model,
                google::protobuf::RepeatedPtrField<v1::TensorSpec>& specs,
                std::vector<Values>& values) {
  for (size_t p = 0; p < kParameters; ++p) {
    if (!model.momenta[p]) continue;
    *specs.Add() = Spec({kSize}, absl::StrCat(kNames[p], "/momentum_buffer"));
    values.push_back(*model.momenta[p]);
  }
}

}  // namespace

void ConfigureOptimizer(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::ConfigureOptimizerRequest request;
  const OptimizerModel model =
      ChooseOptimizer(choice, *request.mutable_optimizer());
  const bool is_wrong = choice.Chance(0.05);
  if (is_wrong) request.mutable_optimizer()->mutable_groups(0)->set_lr(-1);
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(absl::StrCat(subject.name, ": ConfigureOptimizer ",
                               request.ShortDebugString()));
  Ending ending = subject.Writable();
  if (ending.ok() && !holds) ending = kStale;
  if (is_wrong && subject.Writable().ok()) ending = kInvalid;
  const auto answer = subject.net.ConfigureOptimizer(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  subject.model->optimizer = model;
  world.check.ExpectVersion(answer->version(), *subject.model);
}

void StepOptimizer(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::StepRequest request;
  request.set_request_id(world.ChooseRequestId(choice));
  StepWish wish = {.zero_after = choice.Chance(0.5)};
  request.mutable_options()->set_zero_after(wish.zero_after);
  if (choice.Chance(0.3)) {
    wish.lr = choice.Of(kRates);
    request.mutable_options()->add_lr(*wish.lr);
  }
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(
      absl::StrCat(subject.name, ": Step ", request.ShortDebugString()));
  Ending ending = subject.Writable();
  if (ending.ok() && !holds) ending = kStale;
  if (ending.ok() && !subject.model->optimizer) ending = kNoOptimizer;
  InstanceModel next;
  int64_t count = 0;
  if (ending.ok()) {
    next = *subject.model;
    count = next.Step(wish);
    if (count == 0) ending = kNoGradients;
  }
  const auto answer = subject.net.Step(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  *subject.model = next;
  world.check.ExpectVersion(answer->version(), next);
  world.check.Expect(answer->result().stepped_count() == count,
                     absl::StrCat("stepped ", answer->result().stepped_count(),
                                  " parameters, expected ", count));
  world.Remember(request.request_id(), answer->version(),
                 /*has_tensors=*/false,
                 [request, net = subject.net]() -> absl::StatusOr<v1::Version> {
                   const auto again = net.Step(request);
                   if (!again.ok()) return again.status();
                   return again->version();
                 });
}

void GetOptimizerState(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  world.check.Log(absl::StrCat(subject.name, ": GetOptimizerState"));
  Ending ending = subject.Readable();
  if (ending.ok() && !subject.model->optimizer) ending = kNoOptimizer;
  const auto answer = subject.net.GetOptimizerState();
  if (!world.check.Ends(answer.status(), ending)) return;
  const OptimizerModel& model = *subject.model->optimizer;
  world.check.ExpectVersion(answer->result.version(), *subject.model);
  const v1::ParameterGroup& group = answer->result.optimizer().groups(0);
  world.check.Expect(
      group.lr() == model.lr && group.momentum() == model.momentum,
      absl::StrCat("the group is ", group.ShortDebugString(), ", expected lr ",
                   model.lr, " and momentum ", model.momentum));
  v1::GetOptimizerStateResult expected;
  std::vector<Values> values;
  Remembered(model, *expected.mutable_tensors(), values);
  *expected.mutable_version() = answer->result.version();
  *expected.mutable_optimizer() = answer->result.optimizer();
  if (expected.SerializeAsString() != answer->result.SerializeAsString()) {
    return world.check.Fail(
        absl::StrCat("the state is ", answer->result.ShortDebugString(),
                     ", expected ", expected.ShortDebugString()));
  }
  for (size_t i = 0; i < values.size(); ++i) {
    world.check.ExpectValues(answer->tensors.As<float>(i), values[i],
                             expected.tensors(static_cast<int>(i)).name());
  }
}

void SetOptimizerState(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::SetOptimizerStateHeader header;
  OptimizerModel model = ChooseOptimizer(choice, *header.mutable_optimizer());
  for (size_t p = 0; p < kParameters; ++p) {
    if (model.momentum == 0 || !model.stepped[p] || choice.Chance(0.3)) {
      continue;
    }
    model.momenta[p] = choice.Some(kSize);
  }
  std::vector<Values> values;
  Remembered(model, *header.mutable_tensors(), values);
  const bool is_wrong = choice.Chance(0.05);
  if (is_wrong) {
    *header.add_tensors() = Spec({kSize}, "head/exp_avg");
    values.push_back(choice.Some(kSize));
  }
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *header.mutable_if_version());
  std::string line = absl::StrCat(subject.name, ": SetOptimizerState ",
                                  header.ShortDebugString());
  std::vector<std::vector<float>> sent;
  for (const Values& one : values) {
    absl::StrAppend(&line, " ", Word(one));
    sent.push_back(Floats32(one));
  }
  world.check.Log(line);
  Ending ending = subject.Writable();
  if (ending.ok() && !holds) ending = kStale;
  if (is_wrong && subject.Writable().ok()) ending = kInvalid;
  Sources tensors;
  for (const std::vector<float>& one : sent) tensors.push_back(BytesOf(one));
  const auto answer = subject.net.SetOptimizerState(header, tensors);
  if (!world.check.Ends(answer.status(), ending)) return;
  subject.model->optimizer = model;
  world.check.ExpectVersion(answer->version(), *subject.model);
}

}  // namespace backboned::client::random
