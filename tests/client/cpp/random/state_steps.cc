// Steps of Get- and SetParams, Get-, Set- and ZeroGrads, Get- and SetBuffers,
// and interrupted uploads.

#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/client/cpp/random/steps.h"

namespace backboned::client::random {
namespace {

// Returns how a write ends if all but its condition is right.
Ending WriteEnding(const Subject& subject, bool holds) {
  const Ending writable = subject.Writable();
  return writable.ok() && !holds ? kStale : writable;
}

// Sets the selected parameters' values in order.
template <typename Target>
void Assign(const Values& flat, const Mask& mask, Target& values) {
  auto next = flat.begin();
  for (size_t p = 0; p < kParameters; ++p) {
    if (!mask[p]) continue;
    values[p] = Values(next, next + kSize);
    next += kSize;
  }
}

size_t CountOf(const Mask& mask) {
  return static_cast<size_t>(std::ranges::count(mask, true));
}

}  // namespace

void GetParams(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::GetParamsRequest request;
  Mask mask = kAll;
  const bool is_range = choice.Chance(0.2);
  if (is_range) {  // Of the second half of `scale`, and `bn.weight`.
    request.mutable_selection()->mutable_range()->set_begin(1);
    request.mutable_selection()->mutable_range()->set_end(4);
    mask = {true, true, false, false};
  } else {
    *request.mutable_selection() = ChooseParameters(choice, mask);
  }
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(
      absl::StrCat(subject.name, ": GetParams ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  if (ending.ok() && !holds) ending = kStale;
  const auto answer = subject.net.GetParams(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  world.check.ExpectVersion(answer->result.version(), *subject.model);
  Values expected = FlatOf(ParamsOf(*subject.model), mask);
  if (is_range) expected.erase(expected.begin());
  world.check.ExpectValues(answer->tensors.As<float>(0), expected,
                           "the parameters");
}

void SetParams(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::SetParamsHeader header;
  header.set_request_id(world.ChooseRequestId(choice));
  Mask mask;
  *header.mutable_selection() = ChooseParameters(choice, mask);
  const bool is_wrong = choice.Chance(0.05);
  const Values values = choice.Some(kSize * CountOf(mask) + (is_wrong ? 1 : 0));
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *header.mutable_if_version());
  world.check.Log(absl::StrCat(subject.name, ": SetParams ",
                               header.ShortDebugString(), " ", Word(values)));
  Ending ending = WriteEnding(subject, holds);
  if (is_wrong && subject.Writable().ok()) ending = kWrongShape;
  const std::vector<float> sent = Floats32(values);
  const auto answer = subject.net.SetParams(BytesOf(sent), header);
  if (!world.check.Ends(answer.status(), ending)) return;
  Assign(values, mask, subject.model->params);
  ++subject.model->params_version;
  world.check.ExpectVersion(answer->version(), *subject.model);
  world.Remember(
      header.request_id(), answer->version(), /*has_tensors=*/false,
      [header, sent, net = subject.net]() -> absl::StatusOr<v1::Version> {
        const auto again = net.SetParams(BytesOf(sent), header);
        if (!again.ok()) return again.status();
        return again->version();
      });
}

void GetGrads(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::GetGradsRequest request;
  Mask mask;
  *request.mutable_selection() = ChooseParameters(choice, mask);
  request.set_allow_absent(choice.Chance(0.7));
  world.check.Log(
      absl::StrCat(subject.name, ": GetGrads ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  std::vector<bool> present;
  if (ending.ok()) {
    present = PresenceOf(subject.model->grads, mask);
    const bool all = std::ranges::find(present, false) == present.end();
    if (!all && !request.allow_absent()) ending = kNoGradients;
  }
  const auto answer = subject.net.GetGrads(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  world.check.ExpectVersion(answer->result.version(), *subject.model);
  world.check.Expect(
      std::ranges::equal(answer->result.grads().present(), present),
      absl::StrCat("the gradients are ", answer->result.ShortDebugString()));
  world.check.ExpectValues(answer->tensors.As<float>(0),
                           FlatOf(subject.model->grads, mask), "the gradients");
}

void SetGrads(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::SetGradsHeader header;
  Mask mask;
  *header.mutable_selection() = ChooseParameters(choice, mask);
  PerParameter grads;
  for (size_t p = 0; p < kParameters; ++p) {
    if (!mask[p]) continue;
    if (choice.Chance(0.8)) grads[p] = choice.Some(kSize);
    header.mutable_grads()->add_present(grads[p].has_value());
  }
  const Values flat = FlatOf(grads, mask);
  *header.mutable_grads()->mutable_spec() = Spec({std::ssize(flat)});
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *header.mutable_if_version());
  world.check.Log(absl::StrCat(subject.name, ": SetGrads ",
                               header.ShortDebugString(), " ", Word(flat)));
  const std::vector<float> sent = Floats32(flat);
  const auto answer = subject.net.SetGrads(BytesOf(sent), header);
  if (!world.check.Ends(answer.status(), WriteEnding(subject, holds))) return;
  for (size_t p = 0; p < kParameters; ++p) {
    if (mask[p]) subject.model->grads[p] = grads[p];
  }
  world.check.ExpectVersion(answer->version(), *subject.model);
}

void ZeroGrads(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::ZeroGradsRequest request;
  Mask mask;
  *request.mutable_selection() = ChooseParameters(choice, mask);
  world.check.Log(
      absl::StrCat(subject.name, ": ZeroGrads ", request.ShortDebugString()));
  const auto answer = subject.net.ZeroGrads(request);
  if (!world.check.Ends(answer.status(), subject.Writable())) return;
  for (size_t p = 0; p < kParameters; ++p) {
    if (mask[p]) subject.model->grads[p].reset();
  }
  world.check.ExpectVersion(answer->version(), *subject.model);
}

void GetBuffers(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::GetBuffersRequest request;
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *request.mutable_if_version());
  world.check.Log(
      absl::StrCat(subject.name, ": GetBuffers ", request.ShortDebugString()));
  Ending ending = subject.Readable();
  if (ending.ok() && !holds) ending = kStale;
  const auto answer = subject.net.GetBuffers(request);
  if (!world.check.Ends(answer.status(), ending)) return;
  world.check.ExpectVersion(answer->result.version(), *subject.model);
  world.ExpectBuffers(answer->tensors, 0, subject.model->buffers);
}

void SetBuffers(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  BufferModel buffers;
  buffers.mean = choice.Some(kSize);
  buffers.variance = choice.Some(kSize);
  buffers.batches = static_cast<int64_t>(choice.Below(10));
  v1::SetBuffersHeader header;
  *header.add_buffers() = Spec({kSize}, "bn.running_mean");
  *header.add_buffers() = Spec({kSize}, "bn.running_var");
  *header.add_buffers() = Spec({}, "bn.num_batches_tracked");
  header.mutable_buffers(2)->set_dtype(v1::DATA_TYPE_INT64);
  const bool holds = World::ChooseCondition(choice, subject.model,
                                            *header.mutable_if_version());
  world.check.Log(absl::StrCat(
      subject.name, ": SetBuffers ", header.ShortDebugString(), " ",
      Word(buffers.mean), " ", Word(buffers.variance), " ", buffers.batches));
  const std::vector<float> mean = Floats32(buffers.mean);
  const std::vector<float> variance = Floats32(buffers.variance);
  const auto answer = subject.net.SetBuffers(
      header, {BytesOf(mean), BytesOf(variance),
               std::as_bytes(std::span(&buffers.batches, 1))});
  if (!world.check.Ends(answer.status(), WriteEnding(subject, holds))) return;
  subject.model->buffers = buffers;
  ++subject.model->buffers_version;
  world.check.ExpectVersion(answer->version(), *subject.model);
}

// Nothing changes, whatever the server has received when the client goes away.
void BreakOff(World& world, Choice& choice) {
  const Subject subject = world.ChooseSubject(choice);
  v1::SetParamsHeader header;
  header.set_instance(subject.name);
  *header.mutable_spec() = Spec({kParameters * kSize});
  world.check.Log(absl::StrCat(subject.name, ": SetParams that breaks off"));
  const std::string session = world.ChooseClient(choice).options().session;
  RawCall call(world.server.channel(), "SetParams",
               {.metadata = {{"backboned-session", session}}});
  call.Send(Message(header, 0, Bytes(std::vector<float>(kSize, 9))));
  call.Cancel();
  world.check.Expect(!call.End().ok(), "half an upload was enough");
}

}  // namespace backboned::client::random
