// Finds the server's instances by owner and name.

#ifndef BACKBONED_SERVER_INSTANCES_REGISTRY_H_
#define BACKBONED_SERVER_INSTANCES_REGISTRY_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "absl/synchronization/mutex.h"
#include "server/callers/rights.h"
#include "server/instances/instance.h"
#include "server/limits/budget.h"
#include "server/limits/quotas.h"

namespace backboned {

// The instances of a server.
//
// Thread-safe.
class Registry {
 public:
  Registry(int64_t max_instances, const Quotas& quotas);

  // Finds the instance that `reference` means to `caller`: a bare name is
  // its own instance, else one of `server`; `owner/name` names any that it may
  // read. Returns kNotFound if there is none.
  absl::StatusOr<std::shared_ptr<Instance>> Find(std::string_view reference,
                                                 const Caller& caller) const;

  // Returns the instance `owner/name`, or nullptr.
  std::shared_ptr<Instance> Get(std::string_view owner,
                                std::string_view name) const;

  // Returns kResourceExhausted if `payer` has no place for another instance.
  absl::Status CheckRoom(const Payer& payer) const;

  // Adds an instance, for which its owner and the session that made it pay.
  // Returns kAlreadyExists if the owner has an instance of this name,
  // kResourceExhausted if there are too many.
  absl::Status Add(std::shared_ptr<Instance> instance);

  // Calls `change`, unless the registry no longer has `instance`, or somebody
  // besides it and the caller has. Until it returns nobody can find it.
  bool IfUnused(const std::shared_ptr<Instance>& instance,
                absl::FunctionRef<void()> change) const;

  // Removes this very instance; returns false if it is not there.
  bool Remove(const Instance& instance);

  // From now on calls `listener` with the name of each instance that was added
  // or removed, or that TellChange tells of: on the thread that did so, behind
  // the change. It must not call this function. Null: nobody, and the former
  // one is not called any more.
  using Listener = std::function<void(std::string_view name)>;
  void SetListener(Listener listener);

  // Tells the listener that others may read `instance` than before, or that it
  // became readable or unreadable.
  void TellChange(const Instance& instance) const;

  // Counts of all instances since the start, those that were removed among
  // them.
  struct Totals {
    int64_t demoted_tapes = 0;
    int64_t replayed_forwards = 0;
    int64_t cache_hits = 0;
    int64_t cache_misses = 0;  // Those by digest among them.
    int64_t cache_evictions = 0;
    int64_t cache_bytes = 0;  // Of the instances that are there.
  };
  Totals totals() const;

  // The places of instances, by payer.
  const Budget& places() const { return places_; }

  // Returns all instances, or those that `caller` may read, by owner and
  // name.
  std::vector<std::shared_ptr<Instance>> List() const;
  std::vector<std::shared_ptr<Instance>> ListFor(const Caller& caller) const;

 private:
  using Key = std::pair<std::string, std::string>;  // Owner, name.

  struct Entry {
    std::shared_ptr<Instance> instance;
    Budget::Reservation place;
  };

  Budget places_;
  mutable absl::Mutex mutex_;
  std::map<Key, Entry> instances_ ABSL_GUARDED_BY(mutex_);
  Totals removed_ ABSL_GUARDED_BY(mutex_);
  mutable absl::Mutex listener_mutex_;
  Listener listener_ ABSL_GUARDED_BY(listener_mutex_);
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_REGISTRY_H_
