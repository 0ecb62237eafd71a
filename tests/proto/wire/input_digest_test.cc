#include "proto/wire/input_digest.h"

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace backboned::wire {
namespace {

v1::TensorSpec InputSpec(const std::vector<int64_t>& shape) {
  v1::TensorSpec spec;
  spec.set_dtype(v1::DATA_TYPE_FLOAT32);
  spec.mutable_shape()->Assign(shape.begin(), shape.end());
  return spec;
}

// Returns the digest of inputs of two numbers each.
std::string HexDigestOf(const std::vector<v1::TensorSpec>& specs) {
  const std::vector<float> values = {1, -2};
  return absl::BytesToHexString(
      InputDigest({specs.begin(), specs.end()},
                  std::vector(specs.size(), std::as_bytes(std::span(values)))));
}

// These are from Python's hashlib, by the rules of docs/wire.md.
TEST(InputDigestTest, IsWhatTheDocumentsSay) {
  EXPECT_EQ(HexDigestOf({InputSpec({1, 2})}),
            "11c4ef37a0b99d6ebba76c22fc2e73f12b284d71158d05aa11e873c404a4951b");
  v1::TensorSpec named = InputSpec({2});
  named.set_name("x");
  EXPECT_EQ(HexDigestOf({named}),
            "f9e3842d50d8242455a768acaa96e243badd36e18c3066c5d076364b13b3bea6");
  EXPECT_EQ(HexDigestOf({InputSpec({1, 2}), named}),
            "063f0dd35a6693efc304291700b20e3135741660bf7913325984344527571355");
}

TEST(InputDigestTest, TellsShapesApart) {
  EXPECT_NE(HexDigestOf({InputSpec({1, 2})}), HexDigestOf({InputSpec({2, 1})}));
  EXPECT_NE(HexDigestOf({InputSpec({1, 2})}), HexDigestOf({InputSpec({2})}));
}

}  // namespace
}  // namespace backboned::wire
