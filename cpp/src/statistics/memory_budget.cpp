#include <cerrno>
#include <cstdlib>
#include <string>
#include <system_error>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ATen/core/Tensor.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/zeros.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/accumulate.h>
#include <fmt/format.h>

#include <hemostat/statistics.h>

namespace hemostat {
namespace {

// The file is unlinked at once: it goes when the mapping goes, also where the program is killed.
at::Tensor mapped_zeros(at::IntArrayRef sizes, at::ScalarType dtype, size_t bytes) {
  const char* directory = std::getenv("TMPDIR");
  std::string path = fmt::format("{}/hemostat-XXXXXX", directory != nullptr && *directory != '\0' ? directory : "/tmp");
  const int file = ::mkostemp(path.data(), O_CLOEXEC);
  if (file < 0) {
    throw std::system_error(errno, std::generic_category(),
                            fmt::format("hemostat.MemoryBudget: cannot create {}", path));
  }
  ::unlink(path.c_str());

  // Claims the disk now: a mapped page without one would end the program later.
  const int full = ::posix_fallocate(file, 0, static_cast<off_t>(bytes));
  void* data = full == 0 ? ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0) : MAP_FAILED;
  const int error = full == 0 ? errno : full;
  ::close(file);
  if (data == MAP_FAILED) {
    throw std::system_error(error, std::generic_category(),
                            fmt::format("hemostat.MemoryBudget: cannot map {} bytes of {}", bytes, path));
  }
  return at::from_blob(
      data, sizes, [bytes](void* mapped) { ::munmap(mapped, bytes); }, at::TensorOptions().dtype(dtype));
}

}  // namespace

bool MemoryBudget::take(double bytes) {
  if (!(bytes <= remaining_)) {
    return false;
  }
  remaining_ -= bytes;
  return true;
}

at::Tensor MemoryBudget::zeros(at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device) {
  const c10::InferenceMode off(false);  // so that it can be added to in and out of inference mode
  const auto bytes = static_cast<size_t>(c10::multiply_integers(sizes)) * c10::elementSize(dtype);
  if (bytes == 0 || take(static_cast<double>(bytes))) {
    return at::zeros(sizes, at::TensorOptions().dtype(dtype).device(device));
  }
  return mapped_zeros(sizes, dtype, bytes);
}

at::Tensor MemoryBudget::hold(const at::Tensor& tensor) {
  if (tensor.nbytes() == 0 || take(static_cast<double>(tensor.nbytes()))) {
    return tensor;
  }
  return mapped_zeros(tensor.sizes(), tensor.scalar_type(), tensor.nbytes()).copy_(tensor);
}

}  // namespace hemostat
