// A server, its clients, and the model of its state.

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

// The instance of a step, used by one of the sessions.
struct Subject {
  std::string name;
  Backbone net;
  InstanceModel* model;  // Null: the instance does not exist.

  // Return how a call that reads it, and one that writes it, ends if all else
  // is right.
  Ending Readable() const;
  Ending Writable() const;
};

// A change that had a request id.
struct Change {
  std::function<absl::StatusOr<v1::Version>()> again;  // Null: none.
  v1::Version version;
  bool has_tensors = false;  // In the answer.
};

struct World {
  // `tapes_are_scarce`: the server has so little memory for tapes that most are
  // demoted, and some are refused.
  explicit World(bool tapes_are_scarce);

  // Chooses an instance, which need not exist, and a session.
  Subject ChooseSubject(Choice& choice);

  // Chooses likewise, but mostly an instance that has tapes.
  Subject ChooseTaped(Choice& choice);
  const Client& ChooseClient(Choice& choice) { return choice.Of(clients); }

  // Returns a new request id, or none.
  std::string ChooseRequestId(Choice& choice);

  // May fill in a condition; returns whether it holds.
  static bool ChooseCondition(Choice& choice, const InstanceModel* model,
                              v1::IfVersion& condition);

  // Returns the live tapes, the oldest first.
  std::vector<std::string> LiveTapes() const;

  // Keeps a change that succeeded, if it had a request id.
  void Remember(const std::string& request_id, const v1::Version& version,
                bool has_tensors,
                std::function<absl::StatusOr<v1::Version>()> again);

  // Returns whether the instance `uid` has this tape.
  bool HasTape(const std::string& id, const std::string& uid) const;

  // Compares an answer's buffers, which begin at `first`.
  void ExpectBuffers(const Tensors& tensors, size_t first,
                     const BufferModel& expected);

  // Returns the instance `name`, for a call of `client`.
  Subject SubjectOf(const std::string& name, const Client& client);

  // Sets large numbers to small ones, so that float32 is exact enough.
  void KeepSmall(const std::string& name);

  const bool tapes_are_scarce;
  TestServer server;
  std::vector<Client> clients;
  std::map<std::string, InstanceModel> instances;  // By name.
  std::map<std::string, TapeModel> tapes;  // By id, the used ones included.
  std::vector<std::string> tape_ids;       // The oldest first.
  int64_t request_count = 0;
  Change last_change;
  Checker check;
};

// Names of instances.
inline constexpr std::array<const char*, 4> kInstances = {"fake", "a", "b",
                                                          "c"};

// Returns `values` as float32.
std::vector<float> Floats32(const Values& values);

inline Source BytesOf(const std::vector<float>& values) {
  return std::as_bytes(std::span(values));
}

v1::TensorSpec Spec(const std::vector<int64_t>& shape,
                    const std::string& name = "");

// Returns the spec of `x`, a batch of samples.
v1::TensorSpec BatchSpec(const Values& x, const std::string& name = "");

inline constexpr Mask kAll = {true, true, true, true};

// Chooses whole parameters by patterns; sets `mask` to the choice.
v1::Selection ChooseParameters(Choice& choice, Mask& mask);

// Returns the flat tensor of those of `values` that are selected and present.
Values FlatOf(const PerParameter& values, const Mask& mask);

// Returns for each selected parameter whether its value is present.
std::vector<bool> PresenceOf(const PerParameter& values, const Mask& mask);

// Returns all parameters of an instance.
PerParameter ParamsOf(const InstanceModel& model);

}  // namespace backboned::client::random

#endif  // BACKBONED_TESTS_CLIENT_CPP_RANDOM_WORLD_H_
