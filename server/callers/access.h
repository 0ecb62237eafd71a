// Rights that methods declare.

#ifndef BACKBONED_SERVER_CALLERS_ACCESS_H_
#define BACKBONED_SERVER_CALLERS_ACCESS_H_

namespace backboned {

// The needs of a method: of its caller, and of the instance that its request
// names. A forward or backward that changes the instance asks for kWrite
// besides.
enum class Access {
  kAny,     // The request names no instance, and changes none.
  kCreate,  // Makes an instance, or makes or deletes a checkpoint.
  kRead,    // Reads the instance, or computes with it.
  kWrite,   // Changes its tensors; a read-only instance is refused.
  kManage,  // Changes its settings, or deletes it.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_ACCESS_H_
