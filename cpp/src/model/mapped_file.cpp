#include "mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "lfs_pointer.h"

namespace hemostat {

MappedFile::MappedFile(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file < 0) {
    throw ValueError(fmt::format("hemostat.Model.load: cannot open {}: {}", path, std::strerror(errno)));
  }
  struct stat status{};
  if (::fstat(file, &status) != 0 || !S_ISREG(status.st_mode)) {
    ::close(file);
    throw ValueError(fmt::format("hemostat.Model.load: {} is not a regular file", path));
  }
  size_ = static_cast<uint64_t>(status.st_size);
  if (size_ > 0) {
    data_ = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
  }
  const int error = errno;
  ::close(file);
  if (data_ == MAP_FAILED) {
    throw ValueError(fmt::format("hemostat.Model.load: cannot map {}: {}", path, std::strerror(error)));
  }
  try {
    refuse_lfs_pointer({static_cast<const char*>(data_), size_}, path);
  } catch (...) {
    ::munmap(data_, size_);
    throw;
  }
}

MappedFile::~MappedFile() {
  if (size_ > 0) {
    ::munmap(data_, size_);
  }
}

}  // namespace hemostat
