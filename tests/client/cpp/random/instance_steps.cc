// Steps of Get-, Clone-, Update- and DeleteInstance, and repetitions.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/client/cpp/random/steps.h"

namespace backboned::client::random {

void GetInstance(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::GetInstanceRequest request;
  request.set_instance(subject.name);
  world.check.Log(absl::StrCat("GetInstance ", subject.name));
  const auto answer = world.ChooseClient(choice).GetInstance(request);
  if (!world.check.Ends(answer.status(), subject.Readable())) return;
  const v1::Instance& instance = answer->instance();
  const InstanceModel& model = *subject.model;
  world.check.ExpectVersion(instance.version(), model);
  const auto frozen = std::ranges::count(model.frozen, true);
  const auto tapes = std::ranges::count_if(world.tapes, [&](const auto& tape) {
    return world.HasTape(tape.first, model.uid);
  });
  world.check.Expect(
      instance.settings().read_only() == model.read_only &&
          instance.settings().frozen_size() == frozen &&
          instance.has_optimizer() == model.optimizer.has_value() &&
          instance.tape_count() == tapes,
      absl::StrCat("it is ", instance.ShortDebugString(), ", expected ", tapes,
                   " tapes"));
}

void CloneInstance(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  const std::string name = choice.Of(kInstances);
  v1::CloneInstanceRequest request;
  request.set_instance(subject.name);
  request.set_name(name);
  request.set_with_grads(choice.Chance(0.5));
  request.set_with_optimizer(choice.Chance(0.5));
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(absl::StrCat("CloneInstance ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  if (ending.ok() && !holds) ending = kStale;
  if (ending.ok() && world.instances.contains(name)) ending = kTaken;
  const auto answer = world.ChooseClient(choice).CloneInstance(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  InstanceModel clone = *subject.model;
  clone.uid = answer->instance().version().uid();
  clone.params_version = clone.buffers_version = 1;
  clone.read_only = false;
  if (!request.with_grads()) clone.grads = {};
  if (!request.with_optimizer()) clone.optimizer.reset();
  world.check.Expect(clone.uid != subject.model->uid, "the uid is the same");
  world.check.ExpectVersion(answer->instance().version(), clone);
  world.instances[name] = clone;
}

void UpdateInstance(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::UpdateInstanceRequest request;
  request.set_instance(subject.name);
  const bool read_only = choice.Chance(0.2);
  Mask frozen = {};
  for (size_t p = 0; p < kParameters; ++p) {
    frozen[p] = choice.Chance(0.25);
    if (frozen[p]) request.mutable_settings()->add_frozen(kNames[p]);
  }
  request.mutable_settings()->set_read_only(read_only);
  const bool sets_frozen = choice.Chance(0.5);
  const bool sets_read_only = choice.Chance(0.6);
  if (sets_frozen) request.mutable_update_mask()->add_paths("frozen");
  if (sets_read_only) request.mutable_update_mask()->add_paths("read_only");
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(absl::StrCat("UpdateInstance ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  if (ending.ok() && !holds) ending = kStale;
  if (subject.model && !sets_frozen && !sets_read_only) ending = kInvalid;
  const auto answer = world.ChooseClient(choice).UpdateInstance(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  if (sets_frozen) subject.model->frozen = frozen;
  if (sets_read_only) subject.model->read_only = read_only;
  world.check.ExpectVersion(answer->instance().version(), *subject.model);
}

void DeleteInstance(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  // The last instance could not be made again.
  if (subject.model && world.instances.size() == 1) return;
  v1::DeleteInstanceRequest request;
  request.set_instance(subject.name);
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(absl::StrCat("DeleteInstance ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  if (ending.ok() && !holds) ending = kStale;
  const auto answer = world.ChooseClient(choice).DeleteInstance(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  for (auto& [id, tape] : world.tapes) {
    if (tape.uid == subject.model->uid) tape.gone = true;
  }
  world.instances.erase(subject.name);
}

void Repeat(World& world, Choice&) {
  const Change& change = world.last_change;
  if (!change.again) return;
  world.check.Log("the last request with an id again");
  const absl::StatusOr<v1::Version> again = change.again();
  const Ending ending = change.has_tensors ? kAnswerExpired : Ending();
  if (!world.check.Ends(again.status(), ending)) return;
  world.check.Expect(
      again->SerializeAsString() == change.version.SerializeAsString(),
      absl::StrCat("the repetition has version ", again->ShortDebugString(),
                   ", the request had ", change.version.ShortDebugString()));
}

}  // namespace backboned::client::random
