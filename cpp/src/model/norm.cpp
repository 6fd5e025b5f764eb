#include <ATen/ops/layer_norm.h>
#include <ATen/ops/rms_norm.h>
#include <ATen/ops/tanh.h>

#include <hemostat/model.h>

namespace hemostat {
namespace {

// A norm's tensor in the dtype of what it is applied to, which under autocast may be another.
std::optional<at::Tensor> like(const at::Tensor& x, const at::Tensor& tensor) {
  return tensor.defined() ? std::optional(tensor.to(x.scalar_type())) : std::nullopt;
}

}  // namespace

at::Tensor apply_norm(const Norm& norm, const at::Tensor& x) {
  switch (norm.kind) {
    case NormKind::none:
      return x;
    case NormKind::rms:
      if (norm.offset != 0 && norm.weight.defined()) {  // in float32, as Gemma's weights are near −1 … 1
        const at::Tensor weight = norm.weight.to(at::kFloat) + norm.offset;
        return at::rms_norm(x.to(at::kFloat), {x.size(-1)}, weight, norm.epsilon).to(x.scalar_type());
      }
      return at::rms_norm(x, {x.size(-1)}, like(x, norm.weight), norm.epsilon);
    case NormKind::layer:
      return at::layer_norm(x, {x.size(-1)}, like(x, norm.weight), like(x, norm.bias), norm.epsilon);
    case NormKind::dynamic_tanh: {
      at::Tensor y = at::tanh(x * norm.alpha);
      if (norm.weight.defined()) {
        y = y * norm.weight;
      }
      return norm.bias.defined() ? y + norm.bias : y;
    }
  }
  return x;
}

}  // namespace hemostat
