#include "server/instances/registry.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/principals.h"

namespace backboned {
namespace {

void AddCounts(Instance& instance, Registry::Totals& totals) {
  const FeatureCache::Figures cache = instance.cache().figures();
  totals.demoted_tapes += instance.counters().demoted_tapes;
  totals.replayed_forwards += instance.counters().replayed_forwards;
  totals.cache_hits += cache.hits;
  totals.cache_misses += cache.misses + cache.unknown_digests;
  totals.cache_evictions += cache.evictions;
  totals.cache_bytes += cache.bytes;
}

}  // namespace

Registry::Registry(int64_t max_instances, const Quotas& quotas)
    : places_({.name = "max-instances",
               .unit = "instance",
               .limit = max_instances,
               .quotas = quotas}) {}

absl::StatusOr<std::shared_ptr<Instance>> Registry::Find(
    std::string_view reference, const Caller& caller) const {
  std::shared_ptr<Instance> found;
  const size_t slash = reference.find('/');
  if (slash != std::string_view::npos) {
    found = Get(reference.substr(0, slash), reference.substr(slash + 1));
  } else {
    found = Get(caller.principal, reference);
    if (found == nullptr) found = Get(kServerPrincipal, reference);
  }
  if (found != nullptr && MayRead(found->ownership(), caller)) return found;
  return Error(absl::StatusCode::kNotFound, Reason::kInstanceNotFound,
               reference.empty()
                   ? "the header names no instance"
                   : absl::StrCat("no instance ", Quote(reference)));
}

std::shared_ptr<Instance> Registry::Get(std::string_view owner,
                                        std::string_view name) const {
  absl::MutexLock lock(&mutex_);
  const auto found = instances_.find({std::string(owner), std::string(name)});
  return found == instances_.end() ? nullptr : found->second.instance;
}

absl::Status Registry::CheckRoom(const Payer& payer) const {
  return places_.Check(payer, 1);
}

absl::Status Registry::Add(std::shared_ptr<Instance> instance) {
  const Instance::Identity& identity = instance->identity();
  {
    absl::MutexLock lock(&mutex_);
    if (instances_.contains({identity.owner, identity.name})) {
      return Error(absl::StatusCode::kAlreadyExists, Reason::kInstanceExists,
                   absl::StrCat("instance ", Quote(identity.name),
                                " exists already; choose another name"));
    }
    absl::StatusOr<Budget::Reservation> place =
        places_.Reserve({identity.owner, identity.session}, 1);
    if (!place.ok()) return place.status();
    Key key(identity.owner, identity.name);
    instances_.emplace(std::move(key), Entry{instance, *std::move(place)});
  }
  TellChange(*instance);
  return absl::OkStatus();
}

bool Registry::IfUnused(const std::shared_ptr<Instance>& instance,
                        absl::FunctionRef<void()> change) const {
  absl::MutexLock lock(&mutex_);
  const auto found =
      instances_.find({instance->identity().owner, instance->identity().name});
  if (found == instances_.end() || found->second.instance != instance ||
      instance.use_count() > 2) {
    return false;
  }
  change();
  return true;
}

bool Registry::Remove(const Instance& instance) {
  Entry removed;  // Dies after the lock.
  {
    absl::MutexLock lock(&mutex_);
    const auto found =
        instances_.find({instance.identity().owner, instance.identity().name});
    if (found == instances_.end() || found->second.instance.get() != &instance)
      return false;
    removed = std::move(found->second);
    AddCounts(*removed.instance, removed_);
    removed_.cache_bytes = 0;
    instances_.erase(found);
  }
  TellChange(instance);
  return true;
}

void Registry::SetListener(Listener listener) {
  absl::MutexLock lock(&listener_mutex_);
  listener_ = std::move(listener);
}

void Registry::TellChange(const Instance& instance) const {
  absl::MutexLock lock(&listener_mutex_);
  if (listener_) listener_(instance.identity().name);
}

Registry::Totals Registry::totals() const {
  absl::MutexLock lock(&mutex_);
  Totals totals = removed_;
  for (const auto& [key, entry] : instances_)
    AddCounts(*entry.instance, totals);
  return totals;
}

std::vector<std::shared_ptr<Instance>> Registry::List() const {
  absl::MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Instance>> list;
  list.reserve(instances_.size());
  for (const auto& [key, entry] : instances_) list.push_back(entry.instance);
  return list;
}

std::vector<std::shared_ptr<Instance>> Registry::ListFor(
    const Caller& caller) const {
  std::vector<std::shared_ptr<Instance>> list = List();
  std::erase_if(list, [&](const std::shared_ptr<Instance>& instance) {
    return !MayRead(instance->ownership(), caller);
  });
  return list;
}

}  // namespace backboned
