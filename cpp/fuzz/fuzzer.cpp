// One reader under libFuzzer: HEMOSTAT_READER is its name.
#include <cstddef>
#include <cstdint>

#include "readers.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto read = hemostat::fuzz::readers().at(HEMOSTAT_READER).read;
  read({reinterpret_cast<const char*>(data), size});
  return 0;
}
