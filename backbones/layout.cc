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
  if (inheritance_.has_value()) {
    Origin origin = OriginOf(name);
    shared_.push_back({.name = std::move(name),
                       .shape = std::move(shape),
                       .origin = std::move(origin)});
    return parameters_.size() + shared_.size() - 1;
  }
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
  std::optional<Origin> origin;
  if (inheritance_.has_value()) origin = OriginOf(name);
  buffers_.push_back({.name = std::move(name),
                      .shape = std::move(shape),
                      .dtype = dtype,
                      .elements = elements,
                      .initial = initial,
                      .origin = std::move(origin)});
  return buffers_.size() - 1;
}

void Layout::BeginInherited(size_t column, std::string name,
                            std::string source) {
  inheritance_ = {
      .column = column, .name = std::move(name), .source = std::move(source)};
}

Origin Layout::OriginOf(const std::string& name) const {
  return {
      .column = inheritance_->column,
      .name = inheritance_->source + name.substr(inheritance_->name.size())};
}

void Layout::AddAlias(size_t parameter, std::string name) {
  parameters_[parameter].aliases.push_back(std::move(name));
}

size_t Layout::AddBatchNorm(std::string name) {
  batch_norms_.push_back(std::move(name));
  return batch_norms_.size() - 1;
}

void Layout::MarkPositionEmbedding(size_t parameter) {
  parameters_[parameter].position_embedding = true;
}

void Layout::AddInitStep(size_t parameter, const InitRule& rule) {
  init_steps_.push_back({.parameter = parameter, .rule = rule});
}

}  // namespace backboned
