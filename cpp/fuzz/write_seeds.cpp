// write_seeds DIRECTORY: every reader's seeds as files, DIRECTORY/<reader>/seed-<number>, and what they are made of as
// a dictionary for libFuzzer, DIRECTORY/<reader>.dict.
#include <filesystem>
#include <fstream>
#include <iostream>
#include <regex>
#include <set>
#include <stdexcept>

#include "readers.h"

namespace {

namespace fs = std::filesystem;

void write(const fs::path& path, const std::string& bytes) {
  std::ofstream file(path, std::ios::binary);
  if (!(file << bytes).flush()) {
    throw std::runtime_error("cannot write " + path.string());
  }
}

// JSON's names, texts and numbers in the seeds, and values at the ends of their ranges.
std::string dictionary(const std::vector<std::string>& seeds) {
  static const std::regex token(R"("[\w.]+"|-?\d+(\.\d+)?)");
  std::set<std::string> tokens = {"null",
                                  "true",
                                  "false",
                                  "[]",
                                  "{}",
                                  "0",
                                  "-1",
                                  "1e99",
                                  "1e999",
                                  "1e-9",
                                  "2147483647",
                                  "4611686018427387904",
                                  "9223372036854775807",
                                  "18446744073709551615"};
  for (const std::string& seed : seeds) {
    tokens.insert(std::sregex_token_iterator(seed.begin(), seed.end(), token), {});
  }
  std::string lines;
  for (const std::string& text : tokens) {
    lines += '"' + std::regex_replace(text, std::regex("\""), "\\\"") + "\"\n";
  }
  return lines;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 2) {
    std::cerr << "usage: write_seeds DIRECTORY\n";
    return 2;
  }
  try {
    for (const auto& [name, reader] : hemostat::fuzz::readers()) {
      const fs::path directory = fs::path(argv[1]) / name;
      fs::create_directories(directory);
      for (size_t i = 0; i < reader.seeds.size(); ++i) {
        write(directory / ("seed-" + std::to_string(i)), reader.seeds[i]);
      }
      write(fs::path(argv[1]) / (name + ".dict"), dictionary(reader.seeds));
    }
  } catch (const std::exception& error) {
    std::cerr << "write_seeds: " << error.what() << "\n";
    return 1;
  }
}
