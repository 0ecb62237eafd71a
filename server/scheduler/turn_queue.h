// Whose turn it is among those who share something: start-time fair queueing.
//
// Source: Goyal, Vin and Cheng, "Start-time Fair Queueing", SIGCOMM 1996. Each
// member has a tag, the service that it has had, divided by its weight. The one
// with the smallest tag is next, and virtual time is the tag of the one that
// was next last. A member that comes back after a rest begins at virtual time:
// it neither saves up service while it rests nor pays for what others got. What
// a service costs is charged when it is known, afterwards, so it need not be
// estimated.
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
  // Says what `member` wants: its first want's place in the order of arrival,
  // which decides between equal tags, or that it wants nothing now.
  void SetFirst(const std::string& member, std::optional<uint64_t> arrival);

  // The member whose turn it is. Empty: nobody wants anything.
  std::optional<std::string> Next() const;

  // Says that `member` is being served, because it was its turn, or together
  // with the one whose turn it was. Call `Charge` once afterwards.
  void Begin(const std::string& member, bool its_turn);

  // Says that a service of `member` that began has ended, and what it cost,
  // divided by the member's weight.
  void Charge(const std::string& member, double amount);

  // Members that want something, are being served, or are ahead of their share.
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
  std::set<Turn> turns_;  // Of those that want something.
  // Tags of those that rest: they are remembered until virtual time is there.
  std::set<std::pair<double, std::string>> resting_;
  int64_t served_ = 0;
  double virtual_time_ = 0;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_SCHEDULER_TURN_QUEUE_H_
