// Draws the first State of a layout, piece by piece.

#ifndef BACKBONED_BACKBONES_INITIAL_DRAW_H_
#define BACKBONED_BACKBONES_INITIAL_DRAW_H_

#include <ATen/core/Generator.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <cstddef>
#include <cstdint>

#include "backbones/layout.h"
#include "backbones/state.h"

namespace backboned {

// Draws the parameters of a layout in the order of its initialisation steps, by
// the ATen calls of torch.nn.init, so that they have the bits of Python's.
//
// Not thread-safe.
class InitialDraw {
 public:
  enum class Part {
    kAll,
    // Only the head's parameters, with the bits of a full draw. For the others
    // the generator advances, but nothing is drawn, and no memory is taken.
    kHead,
  };

  // Draws on the CPU in float32 from `generator`, and converts to `dtype`.
  // `layout` must outlive it.
  InitialDraw(const Layout& layout, at::Generator generator,
              at::ScalarType dtype, Part part = Part::kAll);

  // Computes the next steps: about `elements` elements' worth, and at least
  // one. Returns false once none is left.
  bool Advance(int64_t elements);

  // Returns the State, once, after the last step. That of the whole layout has
  // buffers, no gradients, and the generator after the draws; that of the head
  // has only the head's parameters, and the others are undefined.
  State Take();

 private:
  int64_t Draw(const InitStep& step);
  int64_t Convert(size_t parameter);

  const Layout& layout_;
  at::Generator generator_;
  const at::ScalarType dtype_;
  const Part part_;
  size_t draws_;     // The number of initialisation steps.
  size_t next_ = 0;  // Counts these steps, then the conversions.
  State state_;
};

// Computes the first State of `layout` on `device`. Draws it on the CPU in
// float32 from `generator`, which advances as in Python's constructor and
// becomes the State's, and converts it to `dtype`.
StatePtr InitialState(const Layout& layout, const at::Generator& generator,
                      at::Device device, at::ScalarType dtype = at::kFloat);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_INITIAL_DRAW_H_
