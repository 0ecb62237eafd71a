// A right that goes back to its owner once.

#ifndef BACKBONED_BASE_TOKEN_H_
#define BACKBONED_BASE_TOKEN_H_

#include <utility>

namespace backboned {

// Holds a `Right` that an `Owner` gave, and gives it back by
// Owner::GiveBack(Right) when it is released, replaced or destroyed. An owner
// whose GiveBack is private has its tokens as friends, and outlives them.
//
// Not thread-safe.
template <typename Owner, typename Right>
class Token {
 public:
  // Holds nothing.
  Token() = default;

  Token(Owner* owner, Right right) : owner_(owner), right_(std::move(right)) {}

  Token(Token&& other) noexcept
      : owner_(std::exchange(other.owner_, nullptr)),
        right_(std::exchange(other.right_, Right())) {}

  Token& operator=(Token&& other) noexcept {
    if (this != &other) {
      Release();
      owner_ = std::exchange(other.owner_, nullptr);
      right_ = std::exchange(other.right_, Right());
    }
    return *this;
  }

  ~Token() { Release(); }

  // Gives the right back now.
  void Release() {
    if (owner_ == nullptr) return;
    Owner* const owner = std::exchange(owner_, nullptr);
    owner->GiveBack(std::exchange(right_, Right()));
  }

  // Returns the right, which is not given back then. The token is empty.
  Right Take() {
    owner_ = nullptr;
    return std::exchange(right_, Right());
  }

  // Null if the token is empty.
  Owner* owner() const { return owner_; }
  const Right& right() const { return right_; }

 private:
  Owner* owner_ = nullptr;
  Right right_ = Right();
};

}  // namespace backboned

#endif  // BACKBONED_BASE_TOKEN_H_
