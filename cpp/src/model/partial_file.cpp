#include "partial_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstring>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat {

PartialFile::PartialFile(const std::string& path)
    : path_(path), temporary_(path + ".part-" + std::to_string(::getpid())) {
  file_ = std::fopen(temporary_.c_str(), "wb");
  if (file_ == nullptr) {
    throw ValueError(fmt::format("hemostat.Model.save: cannot write {}: {}", temporary_, std::strerror(errno)));
  }
}

PartialFile::~PartialFile() {
  if (file_ != nullptr) {
    std::fclose(file_);
    ::unlink(temporary_.c_str());
  }
}

void PartialFile::write(const void* data, size_t bytes) {
  if (bytes > 0 && std::fwrite(data, 1, bytes, file_) != bytes) {
    fail();
  }
}

void PartialFile::finish() {
  if (std::fflush(file_) != 0 || ::fsync(::fileno(file_)) != 0) {
    fail();
  }
  std::fclose(file_);
  file_ = nullptr;
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary_.c_str());
    throw ValueError(
        fmt::format("hemostat.Model.save: cannot rename {} to {}: {}", temporary_, path_, std::strerror(error)));
  }
}

void PartialFile::fail() const {
  throw ValueError(fmt::format("hemostat.Model.save: cannot write {}: {}", temporary_, std::strerror(errno)));
}

}  // namespace hemostat
