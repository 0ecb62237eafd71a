// A limit on bytes that are taken and given back.

#ifndef BACKBONED_SERVER_BYTE_BUDGET_H_
#define BACKBONED_SERVER_BYTE_BUDGET_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "server/memory_account.h"

namespace backboned {

// Admits work by its bytes before any of them is allocated.
//
// It never waits: over the limit is refused at once, since calls that wait for
// bytes would fill the connection that the freeing call needs.
//
// Thread-safe. Must outlive its reservations.
class ByteBudget {
 public:
  // Bytes that are taken until this object is gone. Not thread-safe.
  class Reservation {
   public:
    // Reserves nothing.
    Reservation() = default;
    Reservation(Reservation&& other) noexcept;
    Reservation& operator=(Reservation&& other) noexcept;
    ~Reservation();

    // Gives the bytes back now.
    void Release();

    // The bytes that are taken.
    int64_t bytes() const { return bytes_; }

   private:
    friend class ByteBudget;
    Reservation(ByteBudget* budget, int64_t bytes);

    ByteBudget* budget_ = nullptr;
    int64_t bytes_ = 0;
  };

  // Makes a budget of `limit_bytes`. `name` is what errors call it: the
  // server's option without dashes in front.
  ByteBudget(std::string name, int64_t limit_bytes);

  ByteBudget(const ByteBudget&) = delete;
  ByteBudget& operator=(const ByteBudget&) = delete;

  // Takes `bytes`, which is not negative.
  //
  // Returns kResourceExhausted (LimitReached) if that would pass the limit,
  // with a retry delay where it can fit later. Nothing is taken then.
  absl::StatusOr<Reservation> Reserve(int64_t bytes);

  // Bytes that are taken.
  int64_t used_bytes() const { return taken_.live_bytes(); }

  // Bytes that may be taken.
  int64_t limit_bytes() const { return taken_.limit_bytes(); }

 private:
  MemoryAccount taken_;
};

}  // namespace backboned

#endif  // BACKBONED_SERVER_BYTE_BUDGET_H_
