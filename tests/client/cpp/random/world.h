// A server, its clients, and the model of what it holds.

#ifndef BACKBONED_TESTS_CLIENT_CPP_RANDOM_WORLD_H_
#define BACKBONED_TESTS_CLIENT_CPP_RANDOM_WORLD_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/client.h"
#include "tests/client/cpp/random/checker.h"
#include "tests/client/cpp/random/choice.h"
#include "tests/client/cpp/random/model.h"
#include "tests/testing/test_server.h"

namespace backboned::client::random {

// The instance that a step is about, by one of the sessions.
struct Subject {
  std::string name;
  Backbone net;
  InstanceModel* model;  // Null: it does not exist.

  // How a call ends that reads it, and one that writes it, if nothing else is
  // wrong.
  Ending Readable() const;
  Ending Writable() const;
};

// A change that had a request id.
struct Change {
  std::function<absl::StatusOr<v1::Version>()> again;  // Null: there is none.
  v1::Version version;
  bool has_tensors = false;  // In its answer.
};

struct World {
  // `tapes_are_scarce`: the server has so little room for tapes that most are
  // demoted, and some are refused.
  explicit World(bool tapes_are_scarce);

  // Chooses an instance, which need not exist, and a session.
  Subject ChooseSubject(Choice& choice);

  // The same, mostly an instance that has tapes.
  Subject ChooseTaped(Choice& choice);
  const Client& ChooseClient(Choice& choice) { return choice.Of(clients); }

  // A new request id, or none.
  std::string ChooseRequestId(Choice& choice);

  // Fills in a condition, or leaves it alone; returns whether it holds.
  static bool ChooseCondition(Choice& choice, const InstanceModel* model,
                              v1::IfVersion& condition);

  // The tapes that there are, in the order of their making.
  std::vector<std::string> LiveTapes() const;

  // Keeps a change that succeeded, if it had a request id.
  void Remember(const std::string& request_id, const v1::Version& version,
                bool has_tensors,
                std::function<absl::StatusOr<v1::Version>()> again);

  // Whether there is a tape of the instance `uid`.
  bool HasTape(const std::string& id, const std::string& uid) const;

  // Compares an answer's buffers, which begin at `first`.
  void ExpectBuffers(const Tensors& tensors, size_t first,
                     const BufferModel& expected);

  // The instance `name`, for a call of `client`.
  Subject SubjectOf(const std::string& name, const Client& client);

  // Sets what grew large to small numbers, so that float32 is good enough.
  void KeepSmall(const std::string& name);

  const bool tapes_are_scarce;
  TestServer server;
  std::vector<Client> clients;
  std::map<std::string, InstanceModel> instances;  // By name.
  std::map<std::string, TapeModel> tapes;  // By id, those that are gone too.
  std::vector<std::string> tape_ids;       // In the order of their making.
  int64_t request_count = 0;
  Change last_change;
  Checker check;
};

// Names of instances.
inline constexpr std::array<const char*, 4> kInstances = {"fake", "a", "b",
                                                          "c"};

// The float32 numbers of `values`.
std::vector<float> Floats32(const Values& values);

inline Source BytesOf(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

v1::TensorSpec Spec(const std::vector<int64_t>& shape,
                    const std::string& name = "");

// The spec of `x`, a batch of samples.
v1::TensorSpec BatchSpec(const Values& x, const std::string& name = "");

inline constexpr Mask kAll = {true, true, true, true};

// Chooses whole parameters by patterns; `mask` says which.
v1::Selection ChooseParameters(Choice& choice, Mask& mask);

// The flat tensor of those of `values` that are selected and there.
Values FlatOf(const PerParameter& values, const Mask& mask);

// One value a selected parameter: whether it is there.
std::vector<bool> PresenceOf(const PerParameter& values, const Mask& mask);

// All parameters of an instance.
PerParameter ParamsOf(const InstanceModel& model);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_WORLD_H_
