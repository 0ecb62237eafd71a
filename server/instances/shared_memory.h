// Counts the bytes of tensors that several states share.

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
// them, or one of `others`, holds too. Touches no tensor's values, and holds no
// tensor. Takes time linear in the tensors of `states`, and of those `others`
// that must be visited until all that may be shared is found.
std::vector<int64_t> SharedBytes(std::span<const StatePtr> states,
                                 std::span<const StatePtr> others = {});

// Returns the bytes of the parameters and buffers of the forwards of `tapes`
// that none of `states` holds.
int64_t TapeStateBytes(std::span<const std::shared_ptr<const Tape>> tapes,
                       std::span<const StatePtr> states);

}  // namespace backboned

#endif  // BACKBONED_SERVER_INSTANCES_SHARED_MEMORY_H_
