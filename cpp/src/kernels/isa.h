// Which of the copies of a CPU loop runs: each *.simd.cpp is compiled once per instruction set.
#pragma once

namespace hemostat::kernels {

enum class Isa { baseline, avx2, avx512 };

// The widest set that this build has and the machine runs; the environment variable HEMOSTAT_ISA (baseline, avx2,
// avx512), read once, asks for a lower one. All give the same bits.
Isa isa();

// Whether products of bfloat16, summed in float32, are faster than float32's here: AVX512-BF16, unless a lower set is
// asked for.
bool multiplies_bfloat16();

// The namespaces of the copies, for a header that declares what each of them exports.
#define HEMOSTAT_FOR_EACH_ISA(declaration) \
  namespace baseline {                     \
  declaration                              \
  }                                        \
  namespace avx2 {                         \
  declaration                              \
  }                                        \
  namespace avx512 {                       \
  declaration                              \
  }

// The copy of `table` that runs here.
#if defined(HEMOSTAT_HAVE_AVX512) && defined(HEMOSTAT_HAVE_AVX2)
#define HEMOSTAT_PICK(table) (isa() == Isa::avx512 ? avx512::table : isa() == Isa::avx2 ? avx2::table : baseline::table)
#else
#define HEMOSTAT_PICK(table) (baseline::table)
#endif

}  // namespace hemostat::kernels
