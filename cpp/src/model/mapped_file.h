// A file's bytes as private, writable memory: what is written there stays in this process.
#pragma once

#include <cstdint>
#include <string>

namespace hemostat {

class MappedFile {
 public:
  explicit MappedFile(const std::string& path);  // ValueError naming the file where it cannot be mapped
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  ~MappedFile();

  char* data() const { return static_cast<char*>(data_); }
  uint64_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  uint64_t size_ = 0;
};

}  // namespace hemostat
