// Closes a file.

#ifndef BACKBONED_BASE_DESCRIPTOR_H_
#define BACKBONED_BASE_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace backboned {

// An open file descriptor, which closes with this object; negative: none.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }

  int get() const { return fd_; }

  // Returns the descriptor, which the caller closes.
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace backboned

#endif  // BACKBONED_BASE_DESCRIPTOR_H_
