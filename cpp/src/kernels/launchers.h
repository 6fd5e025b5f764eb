// How a CUDA kernel (*.cu, free of Torch headers) is called by its registration (cuda.cpp): by a launcher, which the
// kernel's header declares. Pointers are the device's, `stream` is a cudaStream_t. Rows are read with a column stride
// of 1; no tensor is empty. A launcher adds what its kernel counts as invalid to *invalid, which the caller has zeroed,
// and returns null or what went wrong.
#pragma once

namespace hemostat::kernels::cuda {

using Error = const char*;

}  // namespace hemostat::kernels::cuda
