// Rights on an instance, which methods declare.

#ifndef BACKBONED_SERVER_CALLERS_ACCESS_H_
#define BACKBONED_SERVER_CALLERS_ACCESS_H_

namespace backboned {

// The right that a method needs on the instance that its request names. A
// forward or backward that changes the instance asks for kWrite besides.
enum class Access {
  kNone,    // The request names no instance.
  kRead,    // Reads the instance, or computes with it.
  kWrite,   // Changes its tensors; a read-only instance is refused.
  kManage,  // Changes its settings, or deletes it.
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_CALLERS_ACCESS_H_
