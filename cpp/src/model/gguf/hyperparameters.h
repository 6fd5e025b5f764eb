// The hyperparameters in a file's metadata: "llama.context_length" and so on. Each is honoured, known to change no
// number, or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include <fmt/format.h>

#include "model/gguf/gguf.h"

namespace hemostat::gguf {

class Hyperparameters {
 public:
  Hyperparameters(const File& file, const std::string& architecture) : file_(file), prefix_(architecture + ".") {}

  const File& file() const { return file_; }

  std::optional<int64_t> integer(const std::string& name) { return file_.integer(take(name)); }
  std::optional<double> number(const std::string& name) { return file_.number(take(name)); }
  std::optional<std::string_view> text(const std::string& name) { return file_.text(take(name)); }
  std::optional<bool> boolean(const std::string& name) { return file_.boolean(take(name)); }

  // One integer, or an array.
  std::optional<int64_t> integer_of(const std::string& name) {
    return array(name) ? std::nullopt : file_.integer(prefix_ + name);
  }
  std::optional<Array> array(const std::string& name) {
    const auto found = file_.metadata().find(take(name));
    const bool is_array = found != file_.metadata().end() && found->second.type == ValueType::array;
    return is_array ? std::optional(std::get<Array>(found->second.value)) : std::nullopt;
  }

  template <typename T>
  T required(const std::string& name, std::optional<T> value) const {
    if (!value) {
      file_.fail(fmt::format("has no metadata '{}{}'", prefix_, name));
    }
    return *value;
  }
  int64_t required_integer(const std::string& name) { return required(name, integer(name)); }
  double required_number(const std::string& name) { return required(name, number(name)); }

  // What is not taken otherwise may be there with that value.
  void only_integer(const std::string& name, int64_t supported) { only(name, &File::integer, supported); }
  void only_number(const std::string& name, double supported) { only(name, &File::number, supported); }
  void only_boolean(const std::string& name, bool supported) { only(name, &File::boolean, supported); }
  void harmless(const std::string& name) { take(name); }

  void refuse_the_rest() const {
    for (auto entry = file_.metadata().lower_bound(prefix_);
         entry != file_.metadata().end() && entry->first.starts_with(prefix_); ++entry) {
      if (seen_.count(entry->first) == 0) {
        file_.fail(fmt::format("has metadata '{}', which is not supported", entry->first));
      }
    }
  }

 private:
  std::string take(const std::string& name) { return *seen_.insert(prefix_ + name).first; }

  template <typename T>
  void only(const std::string& name, std::optional<T> (File::*read)(std::string_view) const, T supported) {
    if (seen_.count(prefix_ + name) != 0) {
      return;
    }
    const std::optional<T> value = (file_.*read)(take(name));
    if (value && *value != supported) {
      file_.fail(fmt::format("has {}{} {}; only {} is supported", prefix_, name, *value, supported));
    }
  }

  const File& file_;
  std::string prefix_;
  std::set<std::string> seen_;
};

}  // namespace hemostat::gguf
