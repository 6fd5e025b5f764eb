// What git leaves in a file's place where git-lfs has not fetched it.
#pragma once

#include <string>
#include <string_view>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat {

inline void refuse_lfs_pointer(std::string_view bytes, const std::string& file) {
  if (bytes.starts_with("version https://git-lfs.github.com/spec/")) {
    throw ValueError(
        fmt::format("hemostat.Model.load: {} is a git-lfs pointer, not the file itself; run: git lfs pull", file));
  }
}

}  // namespace hemostat
