#include "json.h"

#include <fstream>
#include <iterator>
#include <set>
#include <vector>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "lfs_pointer.h"

namespace hemostat {
namespace {

using nlohmann::json;

constexpr size_t kDeepest = 32;

// Looks at the text before anything is made of it.
class Inspector final : public json::json_sax_t {
 public:
  explicit Inspector(const std::string& file) : file_(file) {}

  bool null() override { return true; }
  bool boolean(bool) override { return true; }
  bool number_integer(number_integer_t) override { return true; }
  bool number_unsigned(number_unsigned_t) override { return true; }
  bool number_float(number_float_t, const string_t&) override { return true; }
  bool string(string_t&) override { return true; }
  bool binary(binary_t&) override { return true; }

  bool start_object(std::size_t) override { return open(); }
  bool key(string_t& name) override {
    if (!names_.back().insert(name).second) {
      fail(fmt::format("names '{}' twice", name));
    }
    return true;
  }
  bool end_object() override { return close(); }
  bool start_array(std::size_t) override { return open(); }
  bool end_array() override { return close(); }

  bool parse_error(std::size_t position, const std::string&, const json::exception& error) override {
    if (dynamic_cast<const json::out_of_range*>(&error) != nullptr) {
      fail(fmt::format("holds a number that is out of range: see its byte {}", position));
    }
    fail(fmt::format("is not valid JSON: see its byte {}", position));
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ValueError(fmt::format("hemostat.Model.load: {} {}", file_, what));
  }
  bool open() {
    if (names_.size() == kDeepest) {
      fail(fmt::format("nests deeper than {} levels", kDeepest));
    }
    names_.emplace_back();
    return true;
  }
  bool close() {
    names_.pop_back();
    return true;
  }

  const std::string& file_;
  std::vector<std::set<std::string>> names_;  // of each object or list that is open
};

}  // namespace

json parse_object(std::string_view text, const std::string& file) {
  Inspector inspector(file);
  json::sax_parse(text, &inspector);
  json object = json::parse(text);
  if (!object.is_object()) {
    throw ValueError(fmt::format("hemostat.Model.load: {} is not a JSON object", file));
  }
  return object;
}

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string bytes(std::istreambuf_iterator<char>(file), {});
  if (file.bad() || !file.is_open()) {
    throw ValueError(fmt::format("hemostat.Model.load: cannot read {}", path.string()));
  }
  refuse_lfs_pointer(bytes, path.string());
  return bytes;
}

}  // namespace hemostat
