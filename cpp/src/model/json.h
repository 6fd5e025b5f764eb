// JSON from files that anybody may have written.
#pragma once

#include <filesystem>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

namespace hemostat {

// The object in `text`. ValueError "hemostat.Model.load: <file> …" where it is no JSON object, names a member twice,
// holds a number that no double holds, or nests deeper than 32 levels (what walks it afterwards is recursive).
nlohmann::json parse_object(std::string_view text, const std::string& file);

// A file's bytes. ValueError where it cannot be read, or is a git-lfs pointer.
std::string read_text(const std::filesystem::path& path);

}  // namespace hemostat
