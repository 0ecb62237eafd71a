// Steps of Backward and ReleaseTapes.

#include <algorithm>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "tests/client/cpp/random/steps.h"

namespace backboned::client::random {
namespace {

// A backward to be made.
struct BackwardPlan {
  v1::BackwardHeader header;
  std::vector<std::string> ids;
  std::vector<std::vector<float>> sent;
  std::vector<TapeGrads> grads;  // By tape.

  Sources sources() const {
    Sources result;
    for (const std::vector<float>& one : sent) result.push_back(BytesOf(one));
    return result;
  }
};

PerParameter SumOf(const BackwardPlan& plan) {
  PerParameter sum;
  for (const TapeGrads& one : plan.grads) AddTo(sum, one.params);
  return sum;
}

PerParameter SumOfSquares(const BackwardPlan& plan) {
  PerParameter sum;
  for (const TapeGrads& one : plan.grads) {
    PerParameter squares = one.params;
    for (auto& values : squares) {
      if (!values) continue;
      for (double& value : *values) value *= value;
    }
    AddTo(sum, squares);
  }
  return sum;
}

// Chooses one to three tapes, mostly tapes that can be used together.
void ChooseTapes(const World& world, Choice& choice, const Subject& subject,
                 BackwardPlan& plan) {
  std::vector<std::string> usable;
  for (const std::string& id : world.LiveTapes()) {
    if (subject.model && world.HasTape(id, subject.model->uid)) {
      usable.push_back(id);
    }
  }
  const size_t count = 1 + choice.Below(3);
  while (plan.ids.size() < count && !usable.empty()) {
    const size_t index = choice.Below(usable.size());
    plan.ids.push_back(usable[index]);
    const bool may_come_again = choice.Chance(0.03);
    if (may_come_again) continue;
    usable.erase(usable.begin() + static_cast<int64_t>(index));
  }
  if (plan.ids.empty() || choice.Chance(0.05)) {
    const bool is_unknown = world.tape_ids.empty() || choice.Chance(0.2);
    plan.ids.push_back(is_unknown ? "none" : choice.Of(world.tape_ids));
  }
}

// Chooses gradients of the tapes' outputs.
void ChooseGrads(const World& world, Choice& choice, BackwardPlan& plan) {
  for (const std::string& id : plan.ids) {
    v1::TapeGradients& named = *plan.header.add_tapes();
    named.set_tape_id(id);
    const auto found = world.tapes.find(id);
    if (found == world.tapes.end()) continue;
    const TapeModel& tape = found->second;
    const auto send = [&](const char* name) {
      const Values values = choice.Some(tape.x.size());
      *named.add_gradients() = BatchSpec(values, name);
      plan.sent.push_back(Floats32(values));
      return values;
    };
    OutputGrads grads;
    if (tape.has_out && choice.Chance(0.9)) grads.out = send("out");
    if (tape.has_features && choice.Chance(0.9)) {
      grads.features = send("features");
    }
    plan.grads.push_back(Differentiate(tape, grads));
  }
}

BackwardPlan ChooseBackward(World& world, Choice& choice,
                            const Subject& subject) {
  BackwardPlan plan;
  v1::BackwardHeader& header = plan.header;
  header.set_request_id(world.ChooseRequestId(choice));
  ChooseTapes(world, choice, subject, plan);
  ChooseGrads(world, choice, plan);
  header.set_accumulate(choice.Chance(0.6));
  header.set_zero_before(choice.Chance(header.accumulate() ? 0.3 : 0.03));
  const bool may_step = header.accumulate() && subject.model != nullptr &&
                        subject.model->optimizer.has_value();
  if (choice.Chance(may_step ? 0.5 : 0.03)) {
    header.mutable_step()->set_zero_after(choice.Chance(0.5));
  }
  header.set_retain(choice.Chance(0.3));
  header.set_return_grads(choice.Chance(0.5));
  const bool has_input_grads =
      std::ranges::all_of(plan.ids, [&](const std::string& id) {
        const auto tape = world.tapes.find(id);
        return tape != world.tapes.end() && tape->second.input_grad;
      });
  header.set_input_grad(choice.Chance(has_input_grads ? 0.7 : 0.03));
  header.set_per_tape_grads(choice.Chance(0.3));
  header.set_squared_grads(choice.Chance(0.3));
  std::string line =
      absl::StrCat(subject.name, ": Backward ", header.ShortDebugString());
  for (const std::vector<float>& one : plan.sent) {
    absl::StrAppend(&line, " [", absl::StrJoin(one, ", "), "]");
  }
  world.check.Log(line);
  return plan;
}

// Returns how the call ends, apart from its step.
Ending EndingOf(const World& world, const BackwardPlan& plan,
                const Subject& subject) {
  const v1::BackwardHeader& header = plan.header;
  if (subject.model == nullptr) return kNoInstance;
  if (!header.accumulate() && (header.zero_before() || header.has_step())) {
    return kInvalid;
  }
  if (header.accumulate() && subject.model->read_only) return kReadOnly;
  const std::set<std::string> distinct(plan.ids.begin(), plan.ids.end());
  if (distinct.size() < plan.ids.size()) return kInvalid;
  for (const std::string& id : plan.ids) {
    if (!world.HasTape(id, subject.model->uid)) return kNoTape;
  }
  for (const std::string& id : plan.ids) {
    if (header.input_grad() && !world.tapes.at(id).input_grad) return kInvalid;
  }
  if (header.has_step() && !subject.model->optimizer) return kNoOptimizer;
  return {};
}

// Adds the gradients to those of `model` and, if asked for, steps its
// optimizer; returns false if no parameter could be stepped.
bool Accumulate(const BackwardPlan& plan, InstanceModel& model) {
  if (!plan.header.accumulate()) return true;
  if (plan.header.zero_before()) model.grads = {};
  AddTo(model.grads, SumOf(plan));
  if (!plan.header.has_step()) return true;
  return model.Step({.zero_after = plan.header.step().zero_after()}) > 0;
}

// Compares the gradients of an answer one after the other.
class GradsChecker {
 public:
  GradsChecker(Checker& check, const Received<v1::BackwardResult>& answer)
      : check_(check), answer_(answer) {}

  void Expect(const Values& expected, const std::string& what) {
    if (next_ >= answer_.tensors.size()) {
      return check_.Fail(absl::StrCat(what, " is missing"));
    }
    check_.ExpectValues(answer_.tensors.As<float>(next_++), expected, what);
  }

  void Expect(const v1::FlatGrads& grads, const PerParameter& expected,
              const std::string& what) {
    check_.Expect(
        std::ranges::equal(grads.present(), PresenceOf(expected, kAll)),
        absl::StrCat(what,
                     " has other parameters: ", grads.ShortDebugString()));
    Expect(FlatOf(expected, kAll), what);
  }

  void ExpectNoMore() {
    check_.Expect(next_ == answer_.tensors.size(),
                  "the answer has more tensors");
  }

 private:
  Checker& check_;
  const Received<v1::BackwardResult>& answer_;
  size_t next_ = 0;
};

void ExpectAnswer(Checker& check, const BackwardPlan& plan,
                  const Received<v1::BackwardResult>& answer) {
  GradsChecker grads(check, answer);
  const v1::BackwardResult& result = answer.result;
  if (plan.header.return_grads()) {
    grads.Expect(result.grads(), SumOf(plan), "the gradient");
  }
  if (plan.header.input_grad()) {
    for (const TapeGrads& one : plan.grads) {
      grads.Expect(one.input.value_or(Values()), "an input's gradient");
    }
  }
  if (plan.header.per_tape_grads()) {
    if (result.tape_grads_size() != std::ssize(plan.grads)) {
      return check.Fail("there are not as many gradients as tapes");
    }
    for (int i = 0; i < result.tape_grads_size(); ++i) {
      grads.Expect(result.tape_grads(i),
                   plan.grads[static_cast<size_t>(i)].params,
                   "a tape's gradient");
    }
  }
  if (plan.header.squared_grads()) {
    grads.Expect(result.squared_grads(), SumOfSquares(plan), "the squares");
  }
  grads.ExpectNoMore();
}

}  // namespace

void Backward(World& world, Choice& choice) {
  const Subject subject = world.ChooseTaped(choice);
  const BackwardPlan plan = ChooseBackward(world, choice, subject);
  Ending ending = EndingOf(world, plan, subject);
  InstanceModel next;
  if (ending.ok()) {
    next = *subject.model;
    const bool stepped = Accumulate(plan, next);
    if (!stepped) ending = kNoGradients;
    // A failed step uses the tapes up.
    for (const std::string& id : plan.ids) {
      if (!plan.header.retain() || !stepped) world.tapes[id].gone = true;
    }
  }
  const auto answer = subject.net.Backward(plan.header, plan.sources());
  if (!world.check.Ends(answer.status(), ending)) return;
  *subject.model = next;
  world.check.ExpectVersion(answer->result.version(), next);
  ExpectAnswer(world.check, plan, *answer);
  size_t bytes = 0;
  for (const auto& tensor : answer->tensors.spans()) bytes += tensor.size();
  world.Remember(plan.header.request_id(), answer->result.version(), bytes > 0,
                 [plan, net = subject.net]() -> absl::StatusOr<v1::Version> {
                   const auto again = net.Backward(plan.header, plan.sources());
                   if (!again.ok()) return again.status();
                   return again->result.version();
                 });
}

void ReleaseTapes(World& world, Choice& choice) {
  std::vector<std::string> ids = {"none"};
  int64_t count = 0;
  for (const std::string& id : world.tape_ids) {
    if (choice.Chance(0.7)) continue;
    ids.push_back(id);
    if (!std::exchange(world.tapes[id].gone, true)) ++count;
  }
  world.check.Log(absl::StrCat("ReleaseTapes ", absl::StrJoin(ids, " ")));
  const auto answer = world.ChooseClient(choice).backbone("").ReleaseTapes(ids);
  if (!world.check.Ends(answer.status(), {})) return;
  world.check.Expect(answer->released_count() == count,
                     absl::StrCat("released ", answer->released_count(),
                                  " tapes, expected ", count));
}

}  // namespace backboned::client::random
