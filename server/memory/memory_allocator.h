// Gives LibTorch's CPU tensors the memory of a MemoryRoom.

#ifndef BACKBONED_SERVER_MEMORY_MEMORY_ALLOCATOR_H_
#define BACKBONED_SERVER_MEMORY_MEMORY_ALLOCATOR_H_

#include "server/memory/memory_room.h"

namespace backboned {

// Returns the room of this process's CPU tensors. The first call makes it, with
// a pool of 1 GiB and without a limit; all CPU tensors made later have their
// memory there. Call it first in `main`, before other threads use LibTorch.
//
// Thread-safe; the room lives as long as the process.
MemoryRoom& CpuMemory();

}  // namespace backboned

#endif  // BACKBONED_SERVER_MEMORY_MEMORY_ALLOCATOR_H_
