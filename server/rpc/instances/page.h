// Cuts pages out of sorted lists.

#ifndef BACKBONED_SERVER_RPC_INSTANCES_PAGE_H_
#define BACKBONED_SERVER_RPC_INSTANCES_PAGE_H_

#include <google/protobuf/repeated_ptr_field.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace backboned::rpc {

// The most bytes of a list in an answer of one message, so that the message
// fits gRPC's default of 4 MiB with its other fields.
inline constexpr size_t kMaxAnswerBytes =
    (size_t{4} << 20) - (size_t{64} << 10);

// The most items of a page.
inline constexpr size_t kMaxPageSize = 100;

// A half-open range of a list, and the token of the next page.
struct Page {
  size_t begin = 0;
  size_t end = 0;
  std::string next_token;  // Empty: no page follows.
};

inline constexpr std::string_view kTokenPrefix = "after:";

// Returns the token of the page that begins after the item of `key`.
inline std::string TokenAfter(const std::string& key) {
  return std::string(kTokenPrefix) + key;
}

// Cuts a page out of `items`, sorted by `key_of` (item to std::string). A token
// names the key after which the page begins, so that pages are right even if
// the list changes.
//
// Returns kInvalidArgument unless this function made `token`, and if `size` is
// negative.
template <typename Items, typename KeyOf>
absl::StatusOr<Page> CutPage(const Items& items, const KeyOf& key_of,
                             int32_t size, std::string_view token) {
  if (size < 0) {
    return InvalidOption(
        absl::StrCat("page_size is ", size, ", must be at least 0"));
  }
  Page page;
  if (!token.empty()) {
    if (!token.starts_with(kTokenPrefix)) {
      return InvalidOption("page_token was not returned by this method");
    }
    const std::string key(token.substr(kTokenPrefix.size()));
    while (page.begin < items.size() && key_of(items[page.begin]) <= key)
      ++page.begin;
  }
  const size_t wanted =
      size == 0 ? kMaxPageSize : std::min<size_t>(size, kMaxPageSize);
  page.end = std::min(items.size(), page.begin + wanted);
  if (page.end < items.size() && page.end > page.begin) {
    page.next_token = TokenAfter(key_of(items[page.end - 1]));
  }
  return page;
}

// Moves as many of `entries`, which are those of `page` in `items`, to `answer`
// as fit one message, at least one, and ends the page after them.
template <typename Items, typename KeyOf, typename Entry>
void FillPage(const Items& items, const KeyOf& key_of,
              std::vector<Entry> entries, Page& page,
              google::protobuf::RepeatedPtrField<Entry>& answer) {
  constexpr size_t kFramingBytes = 8;  // An entry's tag and length.
  size_t bytes = 0;
  for (Entry& entry : entries) {
    bytes += entry.ByteSizeLong() + kFramingBytes;
    if (bytes > kMaxAnswerBytes && !answer.empty()) {
      page.end = page.begin + static_cast<size_t>(answer.size());
      page.next_token = TokenAfter(key_of(items[page.end - 1]));
      return;
    }
    *answer.Add() = std::move(entry);
  }
}

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_INSTANCES_PAGE_H_
