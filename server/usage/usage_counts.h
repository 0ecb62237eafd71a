// Adds up what calls use, as they end.

#ifndef BACKBONED_SERVER_USAGE_USAGE_COUNTS_H_
#define BACKBONED_SERVER_USAGE_USAGE_COUNTS_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "absl/time/time.h"

namespace backboned {

// The usage of calls.
struct UsageAmounts {
  int64_t calls = 0;
  // The time that devices have worked for them.
  absl::Duration device_time;
  // Floating-point operations, see Flops; exact up to 2^53.
  double flops = 0;
  // Bytes of the calls' messages.
  int64_t bytes_in = 0;
  int64_t bytes_out = 0;

  UsageAmounts& operator+=(const UsageAmounts& other);
  bool operator==(const UsageAmounts&) const = default;
};

// The user, and what was used when. `Text` is std::string, or std::string_view.
template <typename Text>
struct UsageKeyOf {
  int64_t hour = 0;  // Since 1970, in UTC.
  Text principal;
  Text instance;  // `owner/name`. Empty: the call named none.
  Text uid;       // The instance's.
  Text label;     // Empty: the call had none.
};
using UsageKey = UsageKeyOf<std::string>;
using UsageKeyView = UsageKeyOf<std::string_view>;

// The instance and label of what has no row of its own.
inline constexpr std::string_view kOtherUsage = "(other)";

// Amounts by key that nobody has taken yet.
//
// Clients choose labels and names, so that the rows are bounded: those that a
// principal has beyond kMostRowsOfPrincipal in an hour, and of all beyond
// kMostRows, are its row kOtherUsage.
//
// Thread-safe.
class UsageCounts {
 public:
  using Rows = std::vector<std::pair<UsageKey, UsageAmounts>>;

  static constexpr size_t kMostRowsOfPrincipal = 1000;
  static constexpr size_t kMostRows = 100'000;

  // Adds `amounts` to the key's. Takes less than 1 us.
  void Add(const UsageKeyView& key, const UsageAmounts& amounts);

  // Returns the rows that have amounts; Take leaves none.
  Rows Get() const;
  Rows Take();

  // Adds rows that Take returned, and that are not needed yet.
  void GiveBack(const Rows& rows);

 private:
  struct Hash {
    using is_transparent = void;
    template <typename Text>
    size_t operator()(const UsageKeyOf<Text>& key) const {
      size_t hash = static_cast<size_t>(key.hour);
      for (const std::string_view text :
           {std::string_view(key.principal), std::string_view(key.instance),
            std::string_view(key.uid), std::string_view(key.label)}) {
        hash = hash * 31 + std::hash<std::string_view>()(text);
      }
      return hash;
    }
  };
  struct Equal {
    using is_transparent = void;
    template <typename A, typename B>
    bool operator()(const UsageKeyOf<A>& a, const UsageKeyOf<B>& b) const {
      return a.hour == b.hour && a.label == b.label && a.uid == b.uid &&
             a.instance == b.instance && a.principal == b.principal;
    }
  };

  UsageAmounts& NewRow(const UsageKeyView& key)
      ABSL_EXCLUSIVE_LOCKS_REQUIRED(mutex_);

  mutable absl::Mutex mutex_;
  // Those of the present hour stay, so that they are counted.
  std::unordered_map<UsageKey, UsageAmounts, Hash, Equal> rows_
      ABSL_GUARDED_BY(mutex_);
  int64_t hour_ ABSL_GUARDED_BY(mutex_) = 0;  // The present one.
  std::unordered_map<std::string, size_t> rows_of_
      ABSL_GUARDED_BY(mutex_);  // In that hour, by principal.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_USAGE_USAGE_COUNTS_H_
