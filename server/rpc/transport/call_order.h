// Puts the calls of a stream in order.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_CALL_ORDER_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_CALL_ORDER_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/synchronization/mutex.h"
#include "server/limits/continuation.h"

namespace backboned::rpc {

// Says which calls of a stream may work. Calls on one instance work in the
// order of their numbers, but those that change nothing work together. Besides,
// a call may wait for the success of an earlier one.
//
// Thread-safe.
class CallOrder {
 public:
  // The subject of a call.
  struct Work {
    std::string instance;  // By full name. Empty: the call waits for nobody.
    bool changes = false;  // The call may change the instance.
  };

  // A call's place. It must End() before it is destroyed.
  struct Place {
    uint64_t number = 0;
    uint64_t after = 0;  // The call that must succeed. 0: none.
    Work work = {};
    // Happens when the call may work, or never can. Shared with a thread that
    // lets it happen: the call may end by itself meanwhile.
    std::shared_ptr<Event> begin = std::make_shared<Event>();

    // The following belong to the order.
    bool has_turn = false;
    bool waits_for_after = false;
    bool after_failed = false;
    bool ended = false;
  };

  // The most failed calls that are remembered one by one. `after` an older call
  // is taken for `after` a failed one.
  static constexpr size_t kMostFailed = 1024;

  // Takes the last place. `place.number` must be above all others, and above
  // `place.after`.
  void Join(Place& place);

  // Returns whether a call whose `begin` has happened may work: kAborted
  // (NOT_BEGUN) if the call that it was to follow did not succeed.
  absl::Status CheckBegun(const Place& place);

  // Notes that the call's work has succeeded or failed, and lets those behind
  // it begin. Does nothing if it has ended.
  void End(Place& place, bool succeeded);

 private:
  using Events = std::vector<std::shared_ptr<Event>>;

  bool HasFailed(uint64_t number) const ABSL_SHARED_LOCKS_REQUIRED(mutex_);
  void Advance(std::list<Place*>& line, Events& begun)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);
  void Settle(uint64_t number, bool succeeded, Events& begun)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  absl::Mutex mutex_;
  // Calls that have not ended, by number, and by instance in order.
  std::set<uint64_t> active_ ABSL_GUARDED_BY(mutex_);
  std::map<std::string, std::list<Place*>> lines_ ABSL_GUARDED_BY(mutex_);
  // The calls that wait for another one's success, by that one's number.
  std::multimap<uint64_t, Place*> followers_ ABSL_GUARDED_BY(mutex_);
  std::set<uint64_t> failed_ ABSL_GUARDED_BY(mutex_);
  uint64_t forgotten_ ABSL_GUARDED_BY(mutex_) = 0;  // The last one.
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_CALL_ORDER_H_
