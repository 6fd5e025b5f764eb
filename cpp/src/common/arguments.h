// The checks of tensor arguments that operators share. Each throws with the operator's and the argument's name.
#pragma once

#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/error.h>

namespace hemostat::arguments {

// As PyTorch's users write it: "float16".
std::string dtype_name(at::ScalarType dtype);

// "[3, 4]"
std::string shape(at::IntArrayRef sizes);

// TypeError unless dense, ValueError on the meta device, which holds no data.
void check_dense(std::string_view operation, std::string_view name, const at::Tensor& tensor);

// The same, and TypeError unless float32, bfloat16 or float16.
void check_floating(std::string_view operation, std::string_view name, const at::Tensor& tensor);

// The same, and ValueError unless it has two dimensions.
void check_matrix(std::string_view operation, std::string_view name, const at::Tensor& tensor);

// A number for each input feature of `weight`: ValueError unless [in_features] on its device.   → float32, contiguous
at::Tensor checked_features(std::string_view operation, std::string_view name, const at::Tensor& features,
                            const at::Tensor& weight);

// The same checks as check_matrix, and ValueError unless it is square.
void check_gram(std::string_view operation, const at::Tensor& gram);

// The same, and ValueError unless it is of as many features as `weight` takes, and on its device.
void check_gram(std::string_view operation, const at::Tensor& gram, std::string_view weight_name,
                const at::Tensor& weight);

// Unless gram can be XᵀX: ValueError for NaN, infinities, a negative diagonal or one that is not symmetric,
// NumericalError where it is not positive semidefinite; all but for rounding. Costs one Cholesky factorization.
void check_gram_values(std::string_view operation, const at::Tensor& gram);

// ValueError unless `tensor` is on the device of `other`.
void check_device(std::string_view operation, std::string_view name, const at::Tensor& tensor,
                  std::string_view other_name, const at::Tensor& other);

// TypeError, ValueError unless `out` is contiguous and has this shape, dtype and device.
void check_out(std::string_view operation, const at::Tensor& out, at::IntArrayRef sizes, at::ScalarType dtype,
               c10::Device device);

// Whether `out` is the very memory of `input`, entry for entry; ValueError where they overlap in another way.
bool is_in_place(std::string_view operation, const at::Tensor& out, std::string_view name, const at::Tensor& input);

// ValueError where autograd would have to see through `out`.
void check_out_without_gradient(std::string_view operation, std::string_view name, const at::Tensor& input);

// An argument has entries that a formula cannot take. Its message names check_finite, which an operator's caller has;
// the finding alone, "weight has 1 NaN entry", is for those who call an operator on someone's behalf.
class InvalidEntries : public ValueError {
 public:
  InvalidEntries(std::string_view operation, std::string finding);
  const std::string& finding() const { return finding_; }

 private:
  std::string finding_;
};

// Whether every entry is.
bool all_finite(const at::Tensor& tensor);

// InvalidEntries where `invalid`, a kernel's count of entries that its formula cannot take, is not 0.
//   kind  what was counted: "NaN", "NaN or infinite"
void check_invalid(std::string_view operation, std::string_view name, const at::Tensor& invalid, std::string_view kind);

// The same, where `tensor` has NaN or infinite entries.
void check_finite(std::string_view operation, std::string_view name, const at::Tensor& tensor);

// The same, where `tensor` has NaN, infinite or negative entries.
void check_not_negative(std::string_view operation, std::string_view name, const at::Tensor& tensor);

// NumericalError, with the count, where the result of finite arguments has NaN or infinite entries.
//   name  the argument that is too large
void check_result(std::string_view operation, std::string_view name, const at::Tensor& result);

// 2^-k that brings the largest magnitude of a finite tensor to 1 … 2: a factor that is exact, but where it makes
// entries subnormal, and keeps sums and products of entries in range. 1 where all are 0.
double unit_factor(const at::Tensor& tensor);

// Whether autograd wants a gradient of `tensor` now.
bool wants_gradient(const at::Tensor& tensor);

}  // namespace hemostat::arguments
