// What reads files that anybody may have written, on bytes: for fuzzers, and for the test that replays what they found.
// True: accepted. False: refused by ValueError. Anything else (a crash, another exception) is a bug.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace hemostat::fuzz {

bool read_safetensors(std::string_view bytes);  // *.safetensors: every tensor's bytes are read
bool read_config(std::string_view text);        // config.json: what is accepted is saved and read again
bool read_gguf(std::string_view bytes);         // *.gguf: every tensor's bytes are read, and the tokenizer is made
bool read_structure(std::string_view text);     // hemostat.json: what is accepted and small runs

struct Reader {
  bool (*read)(std::string_view);
  std::vector<std::string> seeds;  // accepted inputs that use every field
};

const std::map<std::string, Reader>& readers();  // by name: "safetensors", "config", …

}  // namespace hemostat::fuzz
