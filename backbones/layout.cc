#include "backbones/layout.h"

#include <c10/core/ScalarType.h>

#include <functional>
#include <numeric>
#include <string>
#include <utility>

namespace backboned {
namespace {

int64_t CountElements(const std::vector<int64_t>& shape) {
  return std::accumulate(shape.begin(), shape.end(), int64_t{1},
                         std::multiplies<>());
}

}  // namespace

size_t Layout::AddParameter(std::string name, std::vector<int64_t> shape) {
  const int64_t elements = CountElements(shape);
  parameters_.push_back({.name = std::move(name),
                         .shape = std::move(shape),
                         .elements = elements,
                         .offset = parameter_elements_,
                         .head = in_head_});
  parameter_elements_ += elements;
  return parameters_.size() - 1;
}

size_t Layout::AddBuffer(std::string name, std::vector<int64_t> shape,
                         at::ScalarType dtype, double initial) {
  const int64_t elements = CountElements(shape);
  buffers_.push_back({.name = std::move(name),
                      .shape = std::move(shape),
                      .dtype = dtype,
                      .elements = elements,
                      .initial = initial});
  return buffers_.size() - 1;
}

void Layout::AddAlias(size_t parameter, std::string name) {
  parameters_[parameter].aliases.push_back(std::move(name));
}

size_t Layout::AddBatchNorm(std::string name) {
  batch_norms_.push_back(std::move(name));
  return batch_norms_.size() - 1;
}

void Layout::AddInitStep(size_t parameter, const InitRule& rule) {
  init_steps_.push_back({.parameter = parameter, .rule = rule});
}

int64_t Layout::state_bytes() const {
  int64_t bytes = parameter_elements_ * static_cast<int64_t>(sizeof(float));
  for (const Buffer& buffer : buffers_) {
    bytes +=
        buffer.elements * static_cast<int64_t>(c10::elementSize(buffer.dtype));
  }
  return bytes;
}

}  // namespace backboned
