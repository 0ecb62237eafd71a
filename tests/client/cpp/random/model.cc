#include "tests/client/cpp/random/model.h"

#include <algorithm>
#include <cmath>

namespace backboned::client::random {
namespace {

// Returns `x` with each sample multiplied by `factor`, element by element.
Values Times(Values x, const Values& factor) {
  for (size_t i = 0; i < x.size(); ++i) x[i] *= factor[i % kSize];
  return x;
}

// Returns the sum over samples of the products of `a` and `b`.
Values SumOfProducts(const Values& a, const Values& b) {
  Values sum(kSize, 0);
  for (size_t i = 0; i < a.size(); ++i) sum[i % kSize] += a[i] * b[i];
  return sum;
}

double LargestOf(const Values& values) {
  double largest = 0;
  for (const double value : values) {
    largest = std::max(largest, std::abs(value));
  }
  return largest;
}

double LargestOf(const PerParameter& values) {
  double largest = 0;
  for (const auto& one : values) {
    if (one) largest = std::max(largest, LargestOf(*one));
  }
  return largest;
}

}  // namespace

void AddTo(PerParameter& sums, const PerParameter& more) {
  for (size_t p = 0; p < kParameters; ++p) {
    if (!more[p]) continue;
    if (!sums[p]) sums[p] = Values(kSize, 0);
    for (size_t i = 0; i < kSize; ++i) (*sums[p])[i] += (*more[p])[i];
  }
}

void BufferModel::Move(const Values& x) {
  const double rows = static_cast<double>(x.size() / kSize);
  for (size_t i = 0; i < kSize; ++i) {
    double sum = 0, squares = 0;
    for (size_t j = i; j < x.size(); j += kSize) sum += x[j];
    for (size_t j = i; j < x.size(); j += kSize) {
      squares += (x[j] - sum / rows) * (x[j] - sum / rows);
    }
    mean[i] = 0.9 * mean[i] + 0.1 * sum / rows;
    variance[i] = 0.9 * variance[i] + 0.1 * squares / (rows - 1);
  }
  ++batches;
}

Mask InstanceModel::trained() const {
  Mask mask;
  for (size_t p = 0; p < kParameters; ++p) mask[p] = !frozen[p];
  return mask;
}

int64_t InstanceModel::Step(const StepWish& wish) {
  OptimizerModel next = *optimizer;
  if (wish.lr) next.lr = *wish.lr;
  int64_t count = 0;
  for (size_t p = 0; p < kParameters; ++p) {
    if (!next.stepped[p] || !grads[p] || frozen[p]) continue;
    ++count;
    Values direction = *grads[p];
    if (next.momentum != 0) {
      const Values before = next.momenta[p].value_or(Values(kSize, 0));
      for (size_t i = 0; i < kSize; ++i) {
        direction[i] += next.momentum * before[i];
      }
      next.momenta[p] = direction;
    }
    for (size_t i = 0; i < kSize; ++i) params[p][i] -= next.lr * direction[i];
  }
  if (count == 0) return 0;
  optimizer = next;
  ++params_version;
  if (wish.zero_after) grads = {};
  return count;
}

double InstanceModel::Largest() const {
  double largest = LargestOf(grads);
  for (const Values& param : params) {
    largest = std::max(largest, LargestOf(param));
  }
  if (optimizer) largest = std::max(largest, LargestOf(optimizer->momenta));
  return largest;
}

Values TapeModel::Features() const { return Times(x, scale); }

Values TapeModel::Out() const { return Times(Features(), head); }

TapeGrads Differentiate(const TapeModel& tape, const OutputGrads& grads) {
  TapeGrads result;
  if (!grads.out && !grads.features) return result;
  Values of_features(tape.x.size(), 0);
  if (grads.out) of_features = Times(*grads.out, tape.head);
  if (grads.features) {
    for (size_t i = 0; i < of_features.size(); ++i) {
      of_features[i] += (*grads.features)[i];
    }
  }
  if (tape.mask[kScale]) {
    result.params[kScale] = SumOfProducts(of_features, tape.x);
  }
  if (tape.mask[kHead] && grads.out) {
    result.params[kHead] = SumOfProducts(*grads.out, tape.Features());
  }
  if (tape.input_grad) result.input = Times(of_features, tape.scale);
  return result;
}

}  // namespace backboned::client::random
