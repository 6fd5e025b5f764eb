// What the registrations of CUDA kernels (<kernel>/cuda.cpp) share. They check, find memory and the current stream, and
// call a launcher. Nothing there needs the CUDA runtime: the device is guarded, and its stream and memory are found,
// through c10.
#pragma once

#include <cstdint>

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>
#include <c10/util/Exception.h>

#include "kernels/launchers.h"

namespace hemostat::kernels::cuda {

// The device of a call's tensors made current, its current stream, and the count of invalid entries.
class Call {
 public:
  Call(const char* op, const at::Tensor& tensor)
      : op_(op),
        guard_(tensor.device()),
        stream_(c10::impl::VirtualGuardImpl(tensor.device().type()).getStream(tensor.device()).native_handle()),
        options_(tensor.options()) {}

  void* stream() const { return stream_; }

  at::Tensor zero_count() const { return at::zeros({}, options_.dtype(at::kLong)); }
  at::Tensor bytes(int64_t count) const { return at::empty({count}, options_.dtype(at::kByte)); }

  void check(Error error) const { TORCH_CHECK(error == nullptr, "hemostat::", op_, ": ", error); }

 private:
  const char* op_;
  c10::DeviceGuard guard_;
  void* stream_;
  at::TensorOptions options_;
};

// The kernels read rows without gaps; PyTorch's own copy transposes faster than reading across rows would be.
inline at::Tensor with_dense_rows(const at::Tensor& matrix) {
  return matrix.stride(1) == 1 || matrix.size(1) == 1 ? matrix : matrix.contiguous();
}

}  // namespace hemostat::kernels::cuda
