// Which of the tensors of several states are the same ones.

#ifndef BACKBONED_SERVER_SHARING_H_
#define BACKBONED_SERVER_SHARING_H_

#include <cstdint>
#include <span>
#include <vector>

#include "backbones/state.h"

namespace backboned {

// Returns for each state the bytes of its tensors whose memory another of
// `states` holds too. Touches no tensor's values; takes time with the number of
// tensors that more than one object holds.
std::vector<int64_t> SharedBytes(std::span<const StatePtr> states);

}  // namespace backboned

#endif  // BACKBONED_SERVER_SHARING_H_
