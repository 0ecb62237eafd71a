// Calls the bulk methods by generated code, which moves the bytes through a
// message's `bytes` field: the baseline for our client.

#ifndef BACKBONED_BENCHMARKS_PLAIN_CLIENT_H_
#define BACKBONED_BENCHMARKS_PLAIN_CLIENT_H_

#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "backboned/v1/backbone_service.grpc.pb.h"

namespace backboned::bench {

// Calls a server by generated code. Throws std::runtime_error if a call fails.
class PlainClient {
 public:
  // Connects with the frame and window sizes of our client.
  explicit PlainClient(const std::string& target);

  // Fills `destination`.
  void GetParams(const std::string& instance,
                 std::span<std::byte> destination) const;

  // Sends `source` in chunks of 1 MiB.
  void SetParams(const std::string& instance,
                 std::span<const std::byte> source) const;

 private:
  std::unique_ptr<v1::BackboneService::Stub> stub_;
};

}  // namespace backboned::bench

#endif  // BACKBONED_BENCHMARKS_PLAIN_CLIENT_H_
