// Pages of a sorted list.

#ifndef BACKBONED_SERVER_RPC_PAGE_H_
#define BACKBONED_SERVER_RPC_PAGE_H_

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "backbones/errors.h"

namespace backboned::rpc {

// A half-open range of a list, and the token of what follows.
struct Page {
  size_t begin = 0;
  size_t end = 0;
  std::string next_token;  // Empty: nothing follows.
};

// Cuts a page out of `items`, sorted by `key_of` (item to std::string). A token
// says after which key to go on, so that a page is right though the list
// changed.
//
// kInvalidArgument if `token` is not one that this function made, or `size` is
// negative.
template <typename Items, typename KeyOf>
absl::StatusOr<Page> CutPage(const Items& items, const KeyOf& key_of,
                             int32_t size, std::string_view token) {
  constexpr size_t kMaxSize = 100;
  constexpr std::string_view kPrefix = "after:";
  if (size < 0) {
    return InvalidOption("page_size is negative");
  }
  Page page;
  if (!token.empty()) {
    if (!token.starts_with(kPrefix)) {
      return InvalidOption("page_token is not one that this method gave");
    }
    const std::string key(token.substr(kPrefix.size()));
    while (page.begin < items.size() && key_of(items[page.begin]) <= key)
      ++page.begin;
  }
  const size_t wanted = size == 0 ? kMaxSize : std::min<size_t>(size, kMaxSize);
  page.end = std::min(items.size(), page.begin + wanted);
  if (page.end < items.size() && page.end > page.begin) {
    page.next_token = std::string(kPrefix) + key_of(items[page.end - 1]);
  }
  return page;
}

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_PAGE_H_
