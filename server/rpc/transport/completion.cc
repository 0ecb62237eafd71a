#include "server/rpc/transport/completion.h"

#include <grpc/support/time.h>
#include <grpcpp/alarm.h>

#include <utility>

namespace backboned::rpc {
namespace {

// Runs a function when its alarm rings, which is at once: an alarm of the past
// needs no timer.
class Posted final : public Completion {
 public:
  explicit Posted(std::function<void()> run) : run_(std::move(run)) {}

  void Ring(grpc::CompletionQueue& queue) {
    void* const tag = static_cast<Completion*>(this);
    GiveTag(tag);
    alarm_.Set(&queue, gpr_inf_past(GPR_CLOCK_MONOTONIC), tag);
  }

  void Complete(bool) override {
    const std::unique_ptr<Posted> self(this);
    run_();
  }

 private:
  std::function<void()> run_;
  grpc::Alarm alarm_;
};

}  // namespace

void Post(grpc::CompletionQueue& queue, std::function<void()> run) {
  (new Posted(std::move(run)))->Ring(queue);  // Owns itself.
}

}  // namespace backboned::rpc
