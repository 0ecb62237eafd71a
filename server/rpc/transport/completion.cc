#include "server/rpc/transport/completion.h"

#include <grpcpp/alarm.h>

#include <chrono>
#include <utility>

namespace backboned::rpc {
namespace {

// Runs a function when its alarm rings, which is at once.
class Posted final : public Completion {
 public:
  explicit Posted(std::function<void()> run) : run_(std::move(run)) {}

  void Ring(grpc::CompletionQueue& queue) {
    void* const tag = static_cast<Completion*>(this);
    GiveTag(tag);
    alarm_.Set(&queue, std::chrono::system_clock::now(), tag);
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

CompletionThread::CompletionThread(
    std::unique_ptr<grpc::ServerCompletionQueue> queue)
    : queue_(std::move(queue)), thread_([this] { Run(); }) {}

CompletionThread::~CompletionThread() {
  {
    absl::MutexLock lock(&mutex_);
    mutex_.Await(absl::Condition(this, &CompletionThread::IsUnused));
  }
  queue_->Shutdown();
  thread_.join();
}

void CompletionThread::Enter() {
  absl::MutexLock lock(&mutex_);
  ++users_;
}

void CompletionThread::Leave() {
  absl::MutexLock lock(&mutex_);
  --users_;
}

void CompletionThread::Run() {
  void* tag = nullptr;
  bool ok = false;
  while (queue_->Next(&tag, &ok)) {
    TakeTag(tag);
    static_cast<Completion*>(tag)->Complete(ok);
  }
}

}  // namespace backboned::rpc
