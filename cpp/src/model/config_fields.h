// The fields of one JSON object, each honoured, known to change no number, or refused by name.
#pragma once

#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <nlohmann/json.hpp>

namespace hemostat {

// A field and the values at which it changes no number.
struct NeutralField {
  std::string_view name;
  std::vector<nlohmann::json> values;
};

class ConfigFields {
 public:
  ConfigFields(const nlohmann::json& object, std::string file) : object_(object), file_(std::move(file)) {}

  [[noreturn]] void fail(const std::string& what) const;

  // The field's value, or null where it is missing; it counts as honoured.
  const nlohmann::json& take(const std::string& name);

  // The same object without taking it; empty where it is none.
  nlohmann::json peek(const std::string& name) const {
    const auto found = object_.find(name);
    return found != object_.end() && found->is_object() ? *found : nlohmann::json::object();
  }

  const std::string& file() const { return file_; }
  bool contains(const std::string& name) const { return object_.contains(name); }

  // Where the field is missing or null these give `missing`, or refuse the file where there is none.
  int64_t integer(const std::string& name, std::optional<int64_t> missing = std::nullopt, int64_t minimum = 1,
                  int64_t maximum = int64_t{1} << 31);
  double positive(const std::string& name, std::optional<double> missing = std::nullopt);
  double number(const std::string& name, double missing);
  // c of a cap c · tanh(x / c); null: 0, which is none. `missing`: the field is not there.
  double cap(const std::string& name, double missing);
  bool boolean(const std::string& name, bool missing);
  std::string text(const std::string& name, const std::string& missing);

  // A list of integers of 0 or more, empty where the field is missing or null; of `count` where that is given.
  std::vector<int64_t> integers(const std::string& name, std::optional<size_t> count = std::nullopt);
  // A list of `count` positive numbers, which must be there.
  std::vector<double> numbers(const std::string& name, size_t count);

  // A field of token IDs: one, a list of them, null or −1, which is none. none: the field is missing.
  std::optional<std::vector<int64_t>> tokens(const std::string& name);

  // What was not taken must be known to change no number at its value: as `own` says of this file, or in general.
  void refuse_the_rest(const std::vector<NeutralField>& own = {}) const;

  static bool is_integer(const nlohmann::json& value, int64_t minimum, int64_t maximum);
  static std::string abbreviated(const nlohmann::json& value);

 private:
  const nlohmann::json& object_;
  std::string file_;
  std::set<std::string> seen_;
};

}  // namespace hemostat
