// Amounts of all callers, of each principal, and of each of its sessions.

#ifndef BACKBONED_SERVER_LIMITS_LEDGER_H_
#define BACKBONED_SERVER_LIMITS_LEDGER_H_

#include <algorithm>
#include <array>
#include <cstddef>
#include <map>
#include <string>
#include <utility>

#include "base/errors.h"
#include "server/limits/quotas.h"

namespace backboned {

// Tells an amount that need not be kept: it is as if it had never been there.
struct IsDefault {
  template <typename Amount>
  bool operator()(const Amount& amount) const {
    return amount == Amount();
  }
};

// Keeps an amount for each scope in which a payer counts. An amount that is not
// known is Amount().
//
// Not thread-safe.
template <typename Amount, typename IsIdle = IsDefault>
class Ledger {
 public:
  // Returns the amounts for which `payer` counts, in the order of kScopes. They
  // stay valid until ForgetIdle.
  std::array<Amount*, kScopes.size()> Of(const Payer& payer) {
    return {&by_session_[payer], &by_principal_[payer.principal], &all_};
  }

  // Returns the amount within `scope` of `payer`, or null if it is not known.
  const Amount* Find(LimitScope scope, const Payer& payer) const {
    switch (scope) {
      case LimitScope::kSession:
        return FindIn(by_session_, payer);
      case LimitScope::kPrincipal:
        return FindIn(by_principal_, payer.principal);
      default:
        return &all_;
    }
  }

  // Returns a copy of that amount.
  Amount Get(LimitScope scope, const Payer& payer) const {
    const Amount* amount = Find(scope, payer);
    return amount == nullptr ? Amount() : *amount;
  }

  const Amount& all() const { return all_; }
  const std::map<std::string, Amount>& by_principal() const {
    return by_principal_;
  }

  // Forgets idle amounts, if there are twice as many sessions as were left the
  // last time: a caller pays its part of one walk, and one that calls again and
  // again is not made anew each time.
  void ForgetIdle() {
    if (by_session_.size() < forget_at_) return;
    const auto is_idle = [](const auto& each) { return IsIdle()(each.second); };
    std::erase_if(by_session_, is_idle);
    std::erase_if(by_principal_, is_idle);
    forget_at_ = std::max(kForgetAt, 2 * by_session_.size());
  }

  // Sessions that are known.
  size_t session_count() const { return by_session_.size(); }

 private:
  static constexpr size_t kForgetAt = 64;

  template <typename Key>
  static const Amount* FindIn(const std::map<Key, Amount>& amounts,
                              const Key& key) {
    const auto found = amounts.find(key);
    return found == amounts.end() ? nullptr : &found->second;
  }

  Amount all_ = Amount();
  std::map<std::string, Amount> by_principal_;
  std::map<Payer, Amount> by_session_;
  size_t forget_at_ = kForgetAt;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_LIMITS_LEDGER_H_
