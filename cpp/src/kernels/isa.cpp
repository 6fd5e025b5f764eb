#include "kernels/isa.h"

#include <cstdlib>
#include <string_view>

namespace hemostat::kernels {
namespace {

Isa widest() {
#if defined(HEMOSTAT_HAVE_AVX512) && defined(HEMOSTAT_HAVE_AVX2)
  __builtin_cpu_init();
  // x86-64-v3 and x86-64-v4, spelled out: not every compiler knows these names.
  const bool v3 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                  __builtin_cpu_supports("fma");
  const bool v4 = v3 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                  __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                  __builtin_cpu_supports("avx512vl");
  return v4 ? Isa::avx512 : v3 ? Isa::avx2 : Isa::baseline;
#else
  return Isa::baseline;
#endif
}

Isa choose() {
  const Isa available = widest();
  const char* asked = std::getenv("HEMOSTAT_ISA");
  if (asked == nullptr) return available;
  const std::string_view name(asked);
  const Isa wanted = name == "baseline" ? Isa::baseline : name == "avx2" ? Isa::avx2 : Isa::avx512;
  return wanted < available ? wanted : available;
}

}  // namespace

Isa isa() {
  static const Isa chosen = choose();
  return chosen;
}

bool multiplies_bfloat16() {
#if defined(HEMOSTAT_HAVE_AVX512) && defined(HEMOSTAT_HAVE_AVX2)
  return isa() == Isa::avx512 && __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

}  // namespace hemostat::kernels
