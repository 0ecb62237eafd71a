// Which of the tensors of several states are the same ones.

#ifndef BACKBONED_SERVER_INSTANCES_SHARED_MEMORY_H_
#define BACKBONED_SERVER_INSTANCES_SHARED_MEMORY_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "backbones/state.h"
#include "server/tapes/tape.h"

namespace backboned {

// Returns for each of `states` the bytes of its tensors whose memory another of
// them holds too, or one of `others`. Touches no tensor's values, and holds no
// tensor. Takes time with the tensors of `states`, and with those of `others`
// until it is known of all that may be shared.
std::vector<int64_t> SharedBytes(std::span<const StatePtr> states,
                                 std::span<const StatePtr> others = {});

// Returns the bytes of what the forwards of `tapes` ran with that none of
// `states` holds.
int64_t TapeStateBytes(std::span<const std::shared_ptr<const Tape>> tapes,
                       std::span<const StatePtr> states);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_SHARED_MEMORY_H_
