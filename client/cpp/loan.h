// Lends memory to gRPC for the time of a call.

#ifndef BACKBONED_CLIENT_CPP_LOAN_H_
#define BACKBONED_CLIENT_CPP_LOAN_H_

#include <memory>

#include "absl/synchronization/notification.h"

namespace backboned::client {

// Ends only when every holder of a keep_alive() has released it.
//
// A call's status may arrive while the connection still holds slices of what
// the call sent. With a Loan as their keep-alive, the caller's memory is not
// touched after the call has returned.
class Loan {
 public:
  Loan() : token_(&returned_, [](absl::Notification* n) { n->Notify(); }) {}
  Loan(const Loan&) = delete;
  Loan& operator=(const Loan&) = delete;

  ~Loan() {
    token_.reset();
    returned_.WaitForNotification();
  }

  // Lends nothing more, and returns whether every holder has released it.
  bool TryEnd() {
    token_.reset();
    return returned_.HasBeenNotified();
  }

  // May be released on any thread.
  std::shared_ptr<const void> keep_alive() const { return token_; }

 private:
  absl::Notification returned_;
  std::shared_ptr<absl::Notification> token_;
};

}  // namespace backboned::client

#endif  // BACKBONED_CLIENT_CPP_LOAN_H_
