#include "tests/client/cpp/random/world.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"

namespace backboned::client::random {
namespace {

constexpr size_t kSessions = 3;

// Of tapes, each of which takes some 50.
constexpr int64_t kScarceBytes = 200;
constexpr int64_t kAmpleBytes = 1 << 20;

// Larger numbers are made small before they grow further.
constexpr double kLargest = 100;

v1::ConfigureOptimizerRequest PlainSgd() {
  v1::ConfigureOptimizerRequest request;
  request.mutable_optimizer()->set_kind(v1::OPTIMIZER_KIND_SGD);
  request.mutable_optimizer()->add_groups()->set_lr(0.125);
  return request;
}

}  // namespace

Ending Subject::Readable() const { return model ? Ending() : kNoInstance; }

Ending Subject::Writable() const {
  if (model == nullptr) return kNoInstance;
  return model->read_only ? kReadOnly : Ending();
}

World::World(bool scarce)
    : tapes_are_scarce(scarce),
      // Keeps no tensors of answers, so that none are left at the end.
      server({.size = kSize,
              .limits = {.max_tape_bytes = scarce ? kScarceBytes : kAmpleBytes,
                         .quotas = {}},
              .answers = {.max_payload_bytes = 0}}) {
  for (size_t i = 0; i < kSessions; ++i) {
    clients.emplace_back(server.channel(),
                         Options{.session = absl::StrCat("session-", i),
                                 .retry_timeout = absl::ZeroDuration()});
  }
  v1::GetInstanceRequest request;
  request.set_instance("fake");
  instances["fake"].uid =
      clients[0].GetInstance(request)->instance().version().uid();
}

Subject World::ChooseSubject(Choice& choice) {
  const Client& client = ChooseClient(choice);
  std::string name = choice.Of(kInstances);
  if (!instances.contains(name) && choice.Chance(0.8)) {
    const auto index = static_cast<int64_t>(choice.Below(instances.size()));
    name = std::next(instances.begin(), index)->first;
  }
  return SubjectOf(name, client);
}

Subject World::ChooseTaped(Choice& choice) {
  const std::vector<std::string> live = LiveTapes();
  if (live.empty() || choice.Chance(0.15)) return ChooseSubject(choice);
  const std::string uid = tapes.at(choice.Of(live)).uid;
  const auto owner = std::ranges::find_if(instances, [&](const auto& instance) {
    return instance.second.uid == uid;
  });
  return SubjectOf(owner->first, ChooseClient(choice));
}

Subject World::SubjectOf(const std::string& name, const Client& client) {
  KeepSmall(name);
  const auto found = instances.find(name);
  return {.name = name,
          .net = client.backbone(name),
          .model = found == instances.end() ? nullptr : &found->second};
}

std::string World::ChooseRequestId(Choice& choice) {
  if (choice.Chance(0.6)) return "";
  return absl::StrCat("request-", ++request_count);
}

bool World::ChooseCondition(Choice& choice, const InstanceModel* model,
                            v1::IfVersion& condition) {
  if (model == nullptr || choice.Chance(0.6)) return true;
  condition.set_uid(model->uid);
  condition.set_params(model->params_version);
  condition.set_buffers(model->buffers_version);
  switch (choice.Below(6)) {
    case 0:
      condition.set_params(model->params_version + 1);
      return false;
    case 1:
      condition.set_buffers(model->buffers_version - 1);
      return false;
    case 2:
      condition.set_uid("another");
      return false;
    default:
      return true;
  }
}

void World::Remember(const std::string& request_id, const v1::Version& version,
                     bool has_tensors,
                     std::function<absl::StatusOr<v1::Version>()> again) {
  if (request_id.empty()) return;
  last_change = {.again = std::move(again),
                 .version = version,
                 .has_tensors = has_tensors};
}

std::vector<std::string> World::LiveTapes() const {
  std::vector<std::string> live;
  std::ranges::copy_if(tape_ids, std::back_inserter(live),
                       [&](const auto& id) { return !tapes.at(id).gone; });
  return live;
}

bool World::HasTape(const std::string& id, const std::string& uid) const {
  const auto found = tapes.find(id);
  return found != tapes.end() && !found->second.gone &&
         found->second.uid == uid;
}

void World::ExpectBuffers(const Tensors& tensors, size_t first,
                          const BufferModel& expected) {
  if (tensors.size() != first + 3) return check.Fail("there are not 3 buffers");
  check.ExpectValues(tensors.As<float>(first), expected.mean, "the mean");
  check.ExpectValues(tensors.As<float>(first + 1), expected.variance,
                     "the variance");
  check.Expect(tensors.As<int64_t>(first + 2)[0] == expected.batches,
               absl::StrCat("batches: ", tensors.As<int64_t>(first + 2)[0],
                            ", expected ", expected.batches));
}

void World::KeepSmall(const std::string& name) {
  const auto found = instances.find(name);
  if (found == instances.end() || found->second.Largest() < kLargest) return;
  InstanceModel& model = found->second;
  if (model.read_only) return;
  const Backbone net = clients[0].backbone(name);
  check.Log(absl::StrCat(name, ": all parameters become 1, no gradients"));
  const std::vector<float> ones(kParameters * kSize, 1);
  if (!check.Ends(net.SetParams(BytesOf(ones)).status(), {})) return;
  if (!check.Ends(net.ZeroGrads().status(), {})) return;
  model.params.fill(Values(kSize, 1));
  ++model.params_version;
  model.grads = {};
  if (!model.optimizer) return;
  if (!check.Ends(net.ConfigureOptimizer(PlainSgd()).status(), {})) return;
  model.optimizer = OptimizerModel{.lr = 0.125, .stepped = kAll};
}

std::vector<float> Floats32(const Values& values) {
  return {values.begin(), values.end()};
}

v1::TensorSpec Spec(const std::vector<int64_t>& shape,
                    const std::string& name) {
  v1::TensorSpec spec;
  spec.set_name(name);
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.mutable_shape()->Assign(shape.begin(), shape.end());
  return spec;
}

v1::TensorSpec BatchSpec(const Values& x, const std::string& name) {
  return Spec({static_cast<int64_t>(x.size() / kSize), kSize}, name);
}

v1::Selection ChooseParameters(Choice& choice, Mask& mask) {
  v1::Selection selection;
  mask = kAll;
  switch (choice.Below(5)) {
    case 0:
      selection.add_globs("scale");
      mask = {true, false, false, false};
      break;
    case 1:
      selection.add_globs("bn.*");
      selection.add_globs("head");
      mask = {false, true, true, true};
      break;
    case 2:
      selection.add_globs("!head");
      mask = {true, true, true, false};
      break;
    default:
      break;
  }
  return selection;
}

Values FlatOf(const PerParameter& values, const Mask& mask) {
  Values flat;
  for (size_t p = 0; p < kParameters; ++p) {
    if (!mask[p] || !values[p]) continue;
    flat.insert(flat.end(), values[p]->begin(), values[p]->end());
  }
  return flat;
}

std::vector<bool> PresenceOf(const PerParameter& values, const Mask& mask) {
  std::vector<bool> present;
  for (size_t p = 0; p < kParameters; ++p) {
    if (mask[p]) present.push_back(values[p].has_value());
  }
  return present;
}

PerParameter ParamsOf(const InstanceModel& model) {
  PerParameter params;
  for (size_t p = 0; p < kParameters; ++p) params[p] = model.params[p];
  return params;
}

}  // namespace backboned::client::random
