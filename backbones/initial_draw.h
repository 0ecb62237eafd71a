// The first State of a layout, drawn piece by piece.

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
// the same ATen calls as torch.nn.init, so that they have the bits of Python's.
//
// Not thread-safe.
class InitialDraw {
 public:
  enum class Part {
    kAll,
    // The head's parameters, with the bits that they have among all. For the
    // others the generator moves on, but nothing is drawn, and no memory taken.
    kHead,
  };

  // Draws on the CPU in float32 from `generator`, and converts to `dtype`.
  // `layout` must outlive it.
  InitialDraw(const Layout& layout, at::Generator generator,
              at::ScalarType dtype, Part part = Part::kAll);

  // Computes the next steps: as many as have some `elements` elements together,
  // and at least one. Returns false once none is left.
  bool Advance(int64_t elements);

  // After the last step, once: returns the State. Of the whole layout it has
  // buffers too, no gradients, and the generator where it stands now; of the
  // head alone it has the head's parameters only, and the others are undefined.
  State Take();

 private:
  int64_t Draw(const InitStep& step);
  int64_t Convert(size_t parameter);

  const Layout& layout_;
  at::Generator generator_;
  const at::ScalarType dtype_;
  const Part part_;
  size_t draws_;     // Initialisation steps to take.
  size_t next_ = 0;  // Of those, and behind them of the conversions.
  State state_;
};

// Computes the first State of `layout` on `device`: drawn on the CPU in float32
// from `generator`, which moves on as Python's constructor moves it and is the
// State's from there on, and converted to `dtype`.
StatePtr InitialState(const Layout& layout, const at::Generator& generator,
                      at::Device device, at::ScalarType dtype = at::kFloat);

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_INITIAL_DRAW_H_
