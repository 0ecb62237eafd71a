// mnistmlp: two hidden layers of ReLUs, for MNIST.

#ifndef BACKBONED_BACKBONES_MNIST_MLP_H_
#define BACKBONED_BACKBONES_MNIST_MLP_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "backbones/architecture.h"
#include "backbones/architecture_entry.h"
#include "backbones/layers.h"

namespace backboned {

// Source: Mammoth, backbone/MNISTMLP.py, commit e75a491.
//
// Deviations: `full` lists both hidden layers, and `layers.1` is the features;
// Mammoth's lists only the features. Input that is not contiguous is accepted.
class MnistMlp : public Architecture {
 public:
  // The differences between the members of the family.
  struct Design {
    std::string name;
    // The number of elements of a sample.
    int64_t input_size;
    int64_t hidden_size;
    // Further state-dict keys, of Python's nested Sequentials.
    bool has_aliases;
    // The number of earlier columns of a progressive network. The adaptors of
    // their layers are declared, but not used: see MnistMlpEntries.
    size_t earlier_columns = 0;
  };

  // `arguments`: `num_classes` and others, as resolved by the registry.
  MnistMlp(const Design& design, const Arguments& arguments);

  // Takes [N, ...] with `input_size` elements a sample; N may be 0.
  absl::Status CheckInput(std::span<const int64_t> shape,
                          bool training) const override;
  TrunkOutputs Trunk(Pass& pass, const at::Tensor& x) const override;
  at::Tensor Head(Pass& pass, const at::Tensor& features) const override;

 private:
  int64_t input_size_;
  Linear fc1_;
  Linear fc2_;
  Linear classifier_;
};

// The registry's entries: mnistmlp, and mnistmlp-pnn.
//
// Source of the latter: Rusu et al. 2016, arXiv:1606.04671, as in Mammoth,
// backbone/MNISTMLP_PNN.py, commit e75a491. There a later column has parameters
// of adaptors and copies of the earlier columns, but computes the same as a
// first column: its forward reads a list of columns that nothing fills. The
// adaptors get no gradient.
std::vector<ArchitectureEntry> MnistMlpEntries();

}  // namespace backboned

#endif  // BACKBONED_BACKBONES_MNIST_MLP_H_
