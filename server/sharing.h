// Which of the tensors of several states are the same ones.

#ifndef BACKBONED_SERVER_SHARING_H_
#define BACKBONED_SERVER_SHARING_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backbones/state.h"
#include "server/tape.h"

namespace backboned {

// Returns for each state the bytes of its tensors whose memory another of
// `states` holds too. Touches no tensor's values; takes time with the number of
// tensors that more than one object holds.
std::vector<int64_t> SharedBytes(std::span<const StatePtr> states);

// Returns the bytes of what the forwards of `tapes` ran with that none of
// `states` holds.
int64_t TapeStateBytes(std::span<const std::shared_ptr<const Tape>> tapes,
                       std::span<const StatePtr> states);

}  // namespace backboned

#endif  // BACKBONED_SERVER_SHARING_H_
