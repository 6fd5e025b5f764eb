// A file that appears whole or not at all: it has another name until finish().
#pragma once

#include <cstddef>
#include <cstdio>
#include <string>

namespace hemostat {

class PartialFile {
 public:
  explicit PartialFile(const std::string& path);  // ValueError where it cannot be written, here and below
  PartialFile(const PartialFile&) = delete;
  PartialFile& operator=(const PartialFile&) = delete;
  ~PartialFile();

  void write(const void* data, size_t bytes);
  void finish();

 private:
  [[noreturn]] void fail() const;

  std::string path_, temporary_;
  std::FILE* file_ = nullptr;
};

}  // namespace hemostat
