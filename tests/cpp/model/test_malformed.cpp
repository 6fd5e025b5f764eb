// Files that anybody may have written. Whatever their bytes, they are accepted, or refused by a ValueError: another
// exception ends the test, and a crash does too. The readers are those of cpp/fuzz.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>

#include <gtest/gtest.h>

#include "readers.h"

namespace hemostat::fuzz {
namespace {

using namespace std::string_literals;

class Malformed : public ::testing::TestWithParam<std::string> {
 protected:
  const Reader& reader() const { return readers().at(GetParam()); }
};

INSTANTIATE_TEST_SUITE_P(Reader, Malformed, ::testing::Values("safetensors", "config", "gguf", "structure"),
                         [](const auto& info) { return info.param; });

TEST(Readers, AreAllTested) { EXPECT_EQ(readers().size(), 4); }

TEST_P(Malformed, SeedsAreAccepted) {
  for (const std::string& seed : reader().seeds) {
    EXPECT_TRUE(reader().read(seed)) << seed;
  }
}

TEST_P(Malformed, NoBeginningOfASeedIsAccepted) {
  for (const std::string& seed : reader().seeds) {
    const size_t length = seed.find_last_not_of(" \n");
    for (size_t end = 0; end < length; end += 1 + length / 300) {
      EXPECT_FALSE(reader().read(seed.substr(0, end))) << end;
    }
  }
}

TEST_P(Malformed, ChangedBytes) {
  const std::string replacements = "\0\1\x7f\x80\xff-0123456789eE.,:\"[]{}"s;
  std::mt19937 random(0);
  const auto below = [&](size_t end) { return random() % end; };
  size_t refused = 0;
  for (const std::string& seed : reader().seeds) {
    for (int i = 0; i < 400; ++i) {
      std::string text = seed;
      for (size_t change = 0; change <= below(3); ++change) {
        const size_t at = below(text.size()), length = std::min(below(6), text.size() - at);
        switch (below(3)) {
          case 0:
            text[at] = replacements[below(replacements.size())];
            break;
          case 1:
            text.erase(at, length);
            break;
          default:
            text.insert(at, text.substr(below(text.size()), length));
        }
        if (text.empty()) {
          break;
        }
      }
      refused += !reader().read(text);
    }
  }
  EXPECT_GT(refused, 0);
}

TEST_P(Malformed, WhatFuzzersFound) {
  ASSERT_TRUE(std::filesystem::is_directory(HEMOSTAT_FINDINGS));
  const auto directory = std::filesystem::path(HEMOSTAT_FINDINGS) / GetParam();
  if (!std::filesystem::exists(directory)) {
    GTEST_SKIP() << "none so far";
  }
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    std::ifstream file(entry.path(), std::ios::binary);
    const std::string text(std::istreambuf_iterator<char>(file), {});
    ASSERT_FALSE(text.empty()) << entry.path();
    SCOPED_TRACE(entry.path());
    EXPECT_FALSE(reader().read(text));
  }
}

// A hemostat.json whose parts do not fit is refused before forward() would trust it.
struct Misfit {
  const char* name;
  const char* field;  // of the seed, with its value
  const char* changed;
};

class Structure : public ::testing::TestWithParam<Misfit> {};

TEST_P(Structure, IsRefused) {
  std::string text = readers().at("structure").seeds[0];
  const size_t found = text.rfind(GetParam().field);
  ASSERT_NE(found, std::string::npos) << text;
  text.replace(found, std::string(GetParam().field).size(), GetParam().changed);
  EXPECT_FALSE(readers().at("structure").read(text));
}

INSTANTIATE_TEST_SUITE_P(
    Misfits, Structure,
    ::testing::Values(Misfit{"no_heads", "\"heads\": 4", "\"heads\": 0"},
                      Misfit{"minus_one_head", "\"kv_heads\": 2", "\"kv_heads\": -1"},
                      Misfit{"heads_do_not_divide", "\"kv_heads\": 2", "\"kv_heads\": 3"},
                      Misfit{"heads_overflow", "\"heads\": 4", "\"heads\": 4611686018427387904"},
                      Misfit{"heads_beyond_int64", "\"heads\": 4", "\"heads\": 18446744073709551615"},
                      Misfit{"heads_are_a_fraction", "\"heads\": 4", "\"heads\": 1e300"},
                      Misfit{"other_head_dim", "\"head_dim\": 2", "\"head_dim\": 1"},
                      Misfit{"negative_window", "\"window\": 0", "\"window\": -5"},
                      Misfit{"one_bit", "\"input_bits\": 16.0", "\"input_bits\": 1.0"},
                      Misfit{"negative_noise", "\"input_noise\": 0.0", "\"input_noise\": -1.0"},
                      Misfit{"unknown_activation", "\"activation\": \"silu\"", "\"activation\": \"gate\""},
                      Misfit{"unknown_activation_number", "\"activation\": \"silu\"", "\"activation\": 9"},
                      Misfit{"unknown_field", "\"window\": 0", "\"windows\": 0"},
                      Misfit{"zero_temperature", "\"temperature\": 1.0", "\"temperature\": 0.0"},
                      Misfit{"no_embedding", "\"embedding\"", "\"embedded\""},
                      Misfit{"another_version", "\"version\": ", "\"version\": 9"}),
    [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace hemostat::fuzz
