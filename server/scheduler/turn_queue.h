// Decides whose turn it is by start-time fair queueing.
//
// Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996. Each
// member has a tag: the service that it has had, divided by its weight. The
// member with the smallest tag is next, and virtual time is the tag of the last
// member that was next. A member that returns from a rest begins at virtual
// time: it neither saves up service while it rests nor pays for the service of
// others. A service is charged afterwards, when its cost is known, so that no
// estimate is needed.
//
// A pure object, without thread and clock. Each operation takes time
// logarithmic in the number of members.
//
// Not thread-safe.

#ifndef BACKBONED_SERVER_SCHEDULER_TURN_QUEUE_H_
#define BACKBONED_SERVER_SCHEDULER_TURN_QUEUE_H_

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <tuple>
#include <utility>

namespace backboned {

class TurnQueue {
 public:
  // Sets the place of the member's first want in the order of arrival, which
  // decides between equal tags; empty: the member wants nothing now.
  void SetFirst(const std::string& member, std::optional<uint64_t> arrival);

  // Returns the member whose turn it is; empty if no member wants anything.
  std::optional<std::string> Next() const;

  // Notes that `member` is being served, because it was its turn or together
  // with the member whose turn it was. Call `Charge` once afterwards.
  void Begin(const std::string& member, bool its_turn);

  // Notes that a service of `member` that began has ended, and its cost divided
  // by the member's weight.
  void Charge(const std::string& member, double amount);

  // Members that want something, are served, or are over their share.
  int64_t size() const { return static_cast<int64_t>(members_.size()); }

 private:
  using Turn = std::tuple<double, uint64_t, std::string>;

  struct Member {
    double tag = 0;
    std::optional<uint64_t> first;
    int64_t served = 0;  // Services that began and were not charged.
  };
  using Members = std::map<std::string, Member>;

  void TakeOut(const std::string& name, const Member& member);
  void PutBack(const std::string& name, const Member& member);
  void Forget();

  Members members_;
  std::set<Turn> turns_;  // Of members that want something.
  // Tags of resting members, remembered until virtual time reaches them.
  std::set<std::pair<double, std::string>> resting_;
  int64_t served_ = 0;
  double virtual_time_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_TURN_QUEUE_H_
