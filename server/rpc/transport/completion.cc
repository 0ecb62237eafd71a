#include "server/rpc/transport/completion.h"

#include <utility>

namespace backboned::rpc {

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
  while (queue_->Next(&tag, &ok)) static_cast<Completion*>(tag)->Complete(ok);
}

}  // namespace backboned::rpc
