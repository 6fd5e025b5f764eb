// How many float32 values a register of the instruction set has. Included by the CPU's loops only; internal linkage.
#pragma once

namespace hemostat::kernels {
namespace {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

}  // namespace
}  // namespace hemostat::kernels
