// Shares the device's time between principals, and inside each between its
// flows.

#ifndef BACKBONED_SERVER_SCHEDULER_FAIR_SHARE_H_
#define BACKBONED_SERVER_SCHEDULER_FAIR_SHARE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <string>

#include "absl/time/time.h"
#include "server/scheduler/turn_queue.h"

namespace backboned {

// Who pays for a piece of work: a principal, and which of its runs.
struct FlowName {
  std::string principal;
  // The run's label, else its session. It subdivides the principal's share.
  std::string run;

  auto operator<=>(const FlowName&) const = default;
};

// Two levels of TurnQueue: principals by their weights, and equally the flows
// of each. A flow that rests leaves its share to the others of its principal,
// and a principal that rests to the other principals.
//
// Not thread-safe.
class FairShare {
 public:
  // `weights`: by principal, positive; 1 for one who is not named.
  explicit FairShare(std::map<std::string, double> weights)
      : weights_(std::move(weights)) {}

  // Says where the first ready item of `flow` stands in the order of arrival;
  // empty: it has none.
  void SetFirst(const FlowName& flow, std::optional<uint64_t> arrival);

  // The flow whose turn it is. Empty: none has a ready item.
  std::optional<FlowName> Next() const;

  // Says that an item of `flow` is being served, because it was its turn, or
  // together with the one whose turn it was. Call `Charge` once afterwards.
  void Begin(const FlowName& flow, bool its_turn);

  // Says that a service that began has ended, and what it cost.
  void Charge(const FlowName& flow, absl::Duration cost);

 private:
  struct Principal {
    TurnQueue flows;
    std::map<std::string, uint64_t> firsts;  // By flow, where its first stands.
  };

  double WeightOf(const std::string& principal) const;
  void Update(const std::string& principal);

  const std::map<std::string, double> weights_;
  TurnQueue order_;
  std::map<std::string, Principal> principals_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_FAIR_SHARE_H_
