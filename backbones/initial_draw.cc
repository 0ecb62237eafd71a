#include "backbones/initial_draw.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/core/MT19937RNGEngine.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <mutex>
#include <numeric>
#include <utility>
#include <variant>
#include <vector>

#include "backbones/dtypes.h"

namespace backboned {
namespace {

// Applies a rule to a parameter, by the same ATen calls as torch.nn.init.
class Initializer {
 public:
  Initializer(at::Tensor param, at::Generator generator)
      : param_(std::move(param)), generator_(std::move(generator)) {}

  void operator()(const UniformDraw& draw) {
    param_.uniform_(draw.low, draw.high, generator_);
    if (draw.factor != 1) param_.mul_(draw.factor);
  }

  void operator()(const NormalDraw& draw) {
    param_.normal_(draw.mean, draw.std, generator_);
  }

  // Draws by the inverse of the distribution function.
  void operator()(const TruncatedNormalDraw& draw) {
    const double low = NormalCdf((draw.low - draw.mean) / draw.std);
    const double high = NormalCdf((draw.high - draw.mean) / draw.std);
    param_.uniform_(2 * low - 1, 2 * high - 1, generator_);
    param_.erfinv_();
    param_.mul_(draw.std * std::sqrt(2.0));
    param_.add_(draw.mean);
    param_.clamp_(draw.low, draw.high);
  }

  void operator()(const ConstantFill& fill) { param_.fill_(fill.value); }

 private:
  static double NormalCdf(double x) {
    return (1 + std::erf(x / std::sqrt(2.0))) / 2;
  }

  at::Tensor param_;
  at::Generator generator_;
};

// Advances a generator as an Initializer would for a float32 tensor.
class Skipper {
 public:
  Skipper(int64_t elements, at::Generator generator)
      : elements_(elements), generator_(std::move(generator)) {}

  // Skips one number for each element.
  void operator()(const UniformDraw&) { Discard(elements_); }
  void operator()(const TruncatedNormalDraw&) { Discard(elements_); }

  // LibTorch draws in groups of sixteen, and the last group again if it was not
  // full. Fewer than sixteen are drawn one by one, in another way, which leaves
  // a number behind in the generator.
  void operator()(const NormalDraw&) {
    constexpr int64_t kBlock = 16;
    if (elements_ < kBlock) {
      at::empty({elements_}, at::kFloat).normal_(0, 1, generator_);
    } else {
      Discard(elements_ + (elements_ % kBlock == 0 ? 0 : kBlock));
    }
  }

  void operator()(const ConstantFill&) {}

 private:
  void Discard(int64_t numbers) {
    const std::lock_guard<std::mutex> lock(generator_.mutex());
    auto* const cpu = at::check_generator<at::CPUGeneratorImpl>(generator_);
    at::mt19937 engine = cpu->engine();
    for (int64_t i = 0; i < numbers; ++i) engine();
    cpu->set_engine(engine);
  }

  const int64_t elements_;
  at::Generator generator_;
};

int64_t ElementsOf(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         std::multiplies<>());
}

// Returns the number of steps up to the last one of the head.
size_t CountUntilHead(const Layout& layout) {
  const std::vector<InitStep>& steps = layout.init_steps();
  size_t count = steps.size();
  while (count > 0) {
    const size_t target = steps[count - 1].parameter;
    if (target < layout.parameters().size() &&
        layout.parameters()[target].head) {
      break;
    }
    --count;
  }
  return count;
}

}  // namespace

InitialDraw::InitialDraw(const Layout& layout, at::Generator generator,
                         at::ScalarType dtype, Part part)
    : layout_(layout),
      generator_(std::move(generator)),
      dtype_(dtype),
      part_(part),
      draws_(part == Part::kAll ? layout.init_steps().size()
                                : CountUntilHead(layout)) {
  state_.params.resize(layout.parameters().size());
}

bool InitialDraw::Advance(int64_t elements) {
  const size_t count = draws_ + state_.params.size();
  int64_t done = 0;
  while (next_ < count && done < elements) {
    done += next_ < draws_ ? Draw(layout_.init_steps()[next_])
                           : Convert(next_ - draws_);
    ++next_;
  }
  return next_ < count;
}

// Takes a step, and returns the number of elements that it drew.
int64_t InitialDraw::Draw(const InitStep& step) {
  const size_t count = state_.params.size();
  const bool inherited = step.parameter >= count;
  const std::vector<int64_t>& shape =
      inherited ? layout_.shared()[step.parameter - count].shape
                : layout_.parameters()[step.parameter].shape;
  const int64_t elements = ElementsOf(shape);
  if (inherited ||
      (part_ == Part::kHead && !layout_.parameters()[step.parameter].head)) {
    std::visit(Skipper(elements, generator_), step.rule);
  } else {
    at::Tensor& param = state_.params[step.parameter];
    if (!param.defined()) param = at::empty(shape, at::kFloat);
    std::visit(Initializer(param, generator_), step.rule);
  }
  return elements;
}

// Converts a parameter, and returns its number of elements.
int64_t InitialDraw::Convert(size_t parameter) {
  at::Tensor& param = state_.params[parameter];
  if (!param.defined() || dtype_ == at::kFloat) return 0;
  param = param.to(dtype_);
  return param.numel();
}

State InitialDraw::Take() {
  if (part_ == Part::kHead) return std::move(state_);
  for (const Buffer& buffer : layout_.buffers()) {
    state_.buffers.push_back(
        at::full(buffer.shape, buffer.initial,
                 at::TensorOptions().dtype(StoredDtype(buffer.dtype, dtype_))));
  }
  state_.grads.resize(state_.params.size());
  state_.rng_state = GeneratorState(generator_);
  return std::move(state_);
}

StatePtr InitialState(const Layout& layout, const at::Generator& generator,
                      at::Device device, at::ScalarType dtype) {
  InitialDraw draw(layout, generator, dtype);
  draw.Advance(std::numeric_limits<int64_t>::max());
  State state = draw.Take();
  for (auto* tensors : {&state.params, &state.buffers}) {
    for (at::Tensor& tensor : *tensors) tensor = tensor.to(device);
  }
  return std::make_shared<const State>(std::move(state));
}

}  // namespace backboned
