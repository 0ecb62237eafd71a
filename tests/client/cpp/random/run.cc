#include "tests/client/cpp/random/run.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "tests/client/cpp/random/steps.h"
#include "tests/client/cpp/random/world.h"

namespace backboned::client::random {
namespace {

constexpr absl::Duration kTimeToShorten = absl::Seconds(30);

// The verbs, and the frequency of each.
struct Verb {
  void (*make)(World& world, Choice& choice);
  size_t weight;
};

constexpr std::array<Verb, 22> kVerbs = {{
    {&Forward, 20},          {&Backward, 18},
    {&TrainStep, 8},         {&Extract, 3},
    {&ReleaseTapes, 3},      {&GetParams, 4},
    {&SetParams, 6},         {&GetGrads, 4},
    {&SetGrads, 5},          {&ZeroGrads, 3},
    {&GetBuffers, 3},        {&SetBuffers, 3},
    {&BreakOff, 3},          {&ConfigureOptimizer, 6},
    {&StepOptimizer, 6},     {&GetOptimizerState, 3},
    {&SetOptimizerState, 3}, {&GetInstance, 4},
    {&CloneInstance, 6},     {&UpdateInstance, 5},
    {&DeleteInstance, 2},    {&Repeat, 4},
}};

void Make(Step step, World& world) {
  Choice choice(step);
  size_t sum = 0;
  for (const Verb& verb : kVerbs) sum += verb.weight;
  size_t left = choice.Below(sum);
  for (const Verb& verb : kVerbs) {
    if (left < verb.weight) return verb.make(world, choice);
    left -= verb.weight;
  }
}

// Compares an instance with its model, and deletes it.
void TakeAway(World& world, const std::string& name,
              const InstanceModel& model) {
  Checker& check = world.check;
  check.Log(absl::StrCat("at the end ", name));
  const auto params = world.clients[0].backbone(name).GetParams();
  if (!check.Ends(params.status(), {})) return;
  check.ExpectVersion(params->result.version(), model);
  check.ExpectValues(params->tensors.As<float>(0),
                     FlatOf(ParamsOf(model), kAll), "the parameters");
  v1::DeleteInstanceRequest request;
  request.set_instance(name);
  check.Ends(world.clients[0].DeleteInstance(request).status(), {});
}

// Expects that neither a session nor all together use anything any more.
// Interrupted calls may end a little later on the server.
void ExpectNothingUsed(World& world, const Client& client,
                       absl::Duration patience) {
  world.check.Log(absl::StrCat("at the end ", client.options().session));
  v1::Usage nothing;
  nothing.set_calls(1);  // That of GetServer.
  const std::string expected = nothing.ShortDebugString();
  const absl::Time give_up = absl::Now() + patience;
  std::string session, principal;
  do {
    const auto server = client.GetServer();
    if (!world.check.Ends(server.status(), {})) return;
    session = server->session_usage().ShortDebugString();
    principal = server->principal_usage().ShortDebugString();
    if (session == expected && principal == expected) return;
  } while (absl::Now() < give_up);
  world.check.Fail(absl::StrCat("the session still uses {", session,
                                "}, all together {", principal, "}"));
}

int64_t DemotedTapes(World& world) {
  int64_t count = 0;
  const auto list = world.clients[0].ListInstances();
  if (!world.check.Ends(list.status(), {})) return 0;
  for (const v1::Instance& instance : list->instances()) {
    count += instance.counters().demoted_tapes();
  }
  return count;
}

void TakeAllAway(World& world, absl::Duration patience) {
  for (const auto& [name, model] : world.instances) {
    TakeAway(world, name, model);
  }
  for (const Client& client : world.clients) {
    ExpectNothingUsed(world, client, patience);
    if (!world.check.failure().empty()) return;
  }
  world.check.Expect(world.server.in_flight_bytes() == 0,
                     "the server has uploads under way");
  world.check.Expect(
      world.server.tape_count() == 0 && world.server.tape_bytes() == 0,
      "the server has tapes");
}

}  // namespace

Outcome Run(const std::vector<Step>& steps, bool tapes_are_scarce,
            absl::Duration patience) {
  World world(tapes_are_scarce);
  Outcome outcome;
  for (const Step step : steps) {
    Make(step, world);
    ++outcome.step_count;
    if (!world.check.failure().empty()) break;
  }
  if (world.check.failure().empty()) {
    outcome.demoted_tapes = DemotedTapes(world);
    TakeAllAway(world, patience);
  }
  outcome.failure = world.check.failure();
  outcome.log = world.check.log();
  return outcome;
}

std::vector<Step> Shorten(std::vector<Step> steps, bool tapes_are_scarce) {
  const absl::Time end_time = absl::Now() + kTimeToShorten;
  const auto has_time = [&] { return absl::Now() < end_time; };
  const auto fails = [&](const std::vector<Step>& fewer) {
    const Outcome outcome = Run(fewer, tapes_are_scarce, absl::Seconds(1));
    return !outcome.failure.empty();
  };
  // Removes halves, quarters, ..., then single ones, from the end.
  for (size_t size = steps.size() / 2; size > 0 && has_time(); size /= 2) {
    for (size_t end = steps.size(); end >= size && has_time();) {
      std::vector<Step> fewer = steps;
      const auto last = fewer.begin() + static_cast<int64_t>(end);
      fewer.erase(last - static_cast<int64_t>(size), last);
      end -= size;
      if (fails(fewer)) steps = std::move(fewer);
    }
  }
  return steps;
}

}  // namespace backboned::client::random
