// Closes file descriptors.

#ifndef BACKBONED_SERVER_RPC_TRANSPORT_DESCRIPTOR_H_
#define BACKBONED_SERVER_RPC_TRANSPORT_DESCRIPTOR_H_

#include <unistd.h>

#include <utility>

namespace backboned::rpc {

// A file descriptor that closes itself. Negative: none.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(Descriptor&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Descriptor& operator=(Descriptor&&) = delete;
  ~Descriptor() {
    if (fd_ >= 0) close(fd_);
  }
  int get() const { return fd_; }
  int Release() { return std::exchange(fd_, -1); }

 private:
  int fd_;
};

}  // namespace backboned::rpc

#endif  // BACKBONED_SERVER_RPC_TRANSPORT_DESCRIPTOR_H_
