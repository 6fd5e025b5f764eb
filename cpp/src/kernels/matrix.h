// A tensor as the Torch-free kernels see it: a pointer, sizes, strides and an element type.
#pragma once

#include <cstdint>

namespace hemostat::kernels {

enum class Element : int32_t { float32, bfloat16, float16 };

// [rows, columns]; strides in elements, of any value.
struct Matrix {
  const void* data;
  Element element;
  int64_t rows, columns;
  int64_t row_stride, column_stride;
};

}  // namespace hemostat::kernels
