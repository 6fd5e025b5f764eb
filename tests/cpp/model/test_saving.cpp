// A save is killed before each of its calls to the system that change a disk, and each of them fails: the old model or
// the new one is there, and what else lay in the directory.
#include <dlfcn.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdarg>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <set>
#include <string>

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "../random_model.h"

namespace {

enum class End { none, killed, failed };

// What happens at the count-th call from now on.
End end = End::none;
int count = 0;
std::set<int> written;  // files opened for writing since

// Whether this call fails.
bool ends() {
  if (end == End::none || --count != 0) {
    return false;
  }
  if (end == End::killed) {
    ::_exit(137);
  }
  errno = ENOSPC;
  return true;
}

template <typename Function>
Function* real(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

// The library's calls come here first.
extern "C" {

int open(const char* path, int flags, ...) {
  std::va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  static auto* const next = real<int(const char*, int, ...)>("open");
  if ((flags & O_CREAT) == 0) {
    return next(path, flags);
  }
  if (ends()) {
    return -1;
  }
  const int file = next(path, flags, mode);
  written.insert(file);
  return file;
}

ssize_t write(int file, const void* data, size_t bytes) {
  static auto* const next = real<ssize_t(int, const void*, size_t)>("write");
  return written.contains(file) && ends() ? -1 : next(file, data, bytes);
}

int fsync(int) { return ends() ? -1 : 0; }

int close(int file) {
  static auto* const next = real<int(int)>("close");
  const bool fails = written.erase(file) != 0 && ends();
  const int result = next(file);
  if (fails) {
    errno = ENOSPC;
    return -1;
  }
  return result;
}

int mkdir(const char* path, mode_t mode) {
  static auto* const next = real<int(const char*, mode_t)>("mkdir");
  return ends() ? -1 : next(path, mode);
}

int rename(const char* from, const char* to) {
  static auto* const next = real<int(const char*, const char*)>("rename");
  return ends() ? -1 : next(from, to);
}

int unlink(const char* path) {
  static auto* const next = real<int(const char*)>("unlink");
  return ends() ? -1 : next(path);
}

int rmdir(const char* path) {  // nothing depends on these two
  static auto* const next = real<int(const char*)>("rmdir");
  return end == End::killed && ends() ? -1 : next(path);
}

int unlinkat(int directory, const char* path, int flags) {
  static auto* const next = real<int(int, const char*, int)>("unlinkat");
  return end == End::killed && ends() ? -1 : next(directory, path, flags);
}
}

namespace hemostat {
namespace {

using testing::random_model;
namespace fs = std::filesystem;
using Files = std::map<std::string, std::string>;

Model model_of(uint64_t seed) {
  Model model = random_model({.layers = 1, .seed = seed});
  model.config.json = R"({"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 128, "dtype": "float32"})";
  return model;
}

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path, std::ios::binary) << text;
}

// Every file below a directory by its path, but those of temporary directories.
Files files_in(const fs::path& directory) {
  Files files;
  if (!fs::exists(directory)) {
    return files;
  }
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
    const std::string name = entry.path().lexically_relative(directory).string();
    if (entry.is_regular_file() && name.find(".hemostat-save-") == std::string::npos) {
      std::ifstream file(entry.path(), std::ios::binary);
      files[name] = {std::istreambuf_iterator<char>(file), {}};
    }
  }
  return files;
}

bool has_temporaries(const fs::path& directory) {
  for (const fs::directory_entry& entry : fs::recursive_directory_iterator(directory)) {
    if (entry.path().filename().string().starts_with(".hemostat-save")) {
      return true;
    }
  }
  return false;
}

// What a scenario saves over.
void put_same_config(const fs::path& target) {
  model_of(1).save(target);
  put(target / "optimizer.pt", "moments");
  put(target / "notes" / "a.txt", "by hand");
  put(target / "checkpoint-500" / "model.safetensors", "earlier");
}

void put_everything_else(const fs::path& target) {
  put_same_config(target);
  fs::rename(target / "model.safetensors", target / "model-00001-of-00001.safetensors");
  put(target / "model.safetensors.index.json", R"({"weight_map": {"a": "other.safetensors"}})");
  put(target / "other.safetensors", "shard");
  put(target / "pytorch_model.bin", "old form");
  put(target / "hemostat.json", "{}");
  put(target / "tokenizer.json", "of the old one");
  put(target / "additional_chat_templates" / "mine.jinja", "mine");
}

void put_nothing(const fs::path&) {}
void put_empty(const fs::path& target) { fs::create_directories(target); }
void put_file(const fs::path& target) { model_of(1).save(target); }

struct Scenario {
  const char* name;
  void (*put)(const fs::path& target);
  const char* target;
  bool one_file;  // is all that changes: old and new are one rename apart for everybody
};

class Saving : public ::testing::TestWithParam<Scenario> {
 protected:
  void SetUp() override {
    place_ = fs::path(::testing::TempDir()) / fmt::format("hemostat-saving-{}-{}", ::getpid(), GetParam().name);
    fs::remove_all(place_);
    fs::path source = place_ / "source";
    put(source / "tokenizer.json", "{}");
    put(source / "LICENSE", "free");
    put(source / "additional_chat_templates" / "tool.jinja", "{{ tool }}");
    model_ = model_of(2);
    if (!GetParam().one_file) {
      model_.source = source;
      model_.config.json.insert(1, R"("rope_theta": 500.0, )");
    }
    before_ = prepared();
    model_.save(target());
    after_ = files_in(whole());
  }
  void TearDown() override { fs::remove_all(place_); }

  fs::path whole() const { return place_ / "whole"; }  // with what lies around the target
  fs::path target() const { return whole() / GetParam().target; }

  Files prepared() const {
    fs::remove_all(whole());
    fs::create_directories(whole());
    GetParam().put(target());
    return files_in(whole());
  }

  // What every loader may find, and ours does.
  void check_old_or_new(const std::string& when) const {
    Files found = files_in(whole());
    if (found == before_ || found == after_) {
      return;
    }
    Files others;  // what other readers than ours look at
    std::copy_if(found.begin(), found.end(), std::inserter(others, others.end()),
                 [](const auto& file) { return file.first.find(".hemostat-saved/") == std::string::npos; });
    ASSERT_TRUE(others == before_ || others == after_ ||
                (!GetParam().one_file && !others.contains(std::string(GetParam().target) + "/config.json")))
        << when;
    Model::load(target());
    ASSERT_EQ(files_in(whole()), after_) << when;
    ASSERT_FALSE(has_temporaries(whole())) << when;
  }

  Model model_;
  fs::path place_;
  Files before_, after_;
};

TEST_P(Saving, KilledAtAnyCall) {
  int calls = 0;
  for (int status = -1; status != 0;) {
    ASSERT_EQ(prepared(), before_);
    ++calls;
    const pid_t child = ::fork();
    if (child == 0) {
      count = calls;
      end = End::killed;
      model_.save(target());
      end = End::none;
      ::_exit(0);
    }
    ASSERT_EQ(::waitpid(child, &status, 0), child);
    ASSERT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 0 || WEXITSTATUS(status) == 137));
    check_old_or_new(fmt::format("killed before call {}", calls));
    model_.save(target());
    ASSERT_EQ(files_in(whole()), after_) << "saved after a kill before call " << calls;
    ASSERT_FALSE(has_temporaries(whole())) << "saved after a kill before call " << calls;
  }
  EXPECT_GT(calls, 15);
}

TEST_P(Saving, FailingAtAnyCall) {
  for (int calls = 1;; ++calls) {
    ASSERT_EQ(prepared(), before_);
    written.clear();
    count = calls;
    end = End::failed;
    std::string message;
    try {
      model_.save(target());
    } catch (const ValueError& error) {
      message = error.what();
    }
    end = End::none;
    if (count > 0) {  // there is no such call any more
      ASSERT_EQ(message, "");
      break;
    }
    ASSERT_NE(message.find("No space left on device"), std::string::npos) << "call " << calls << ": " << message;
    ASSERT_NE(message.find(whole()), std::string::npos) << message;
    check_old_or_new(fmt::format("failed at call {}", calls));
    ASSERT_FALSE(has_temporaries(whole())) << message;
    ASSERT_TRUE(GetParam().put != put_nothing || fs::is_empty(whole()) || files_in(whole()) == after_) << message;
  }
}

INSTANTIATE_TEST_SUITE_P(Model, Saving,
                         ::testing::Values(Scenario{"same_config", put_same_config, "model", true},
                                           Scenario{"everything_else", put_everything_else, "model", false},
                                           Scenario{"new_directory", put_nothing, "a/b/model", false},
                                           Scenario{"empty_directory", put_empty, "model", false},
                                           Scenario{"gguf", put_file, "model.gguf", true},
                                           Scenario{"new_gguf", put_nothing, "a/model.gguf", true}),
                         [](const auto& test) { return test.param.name; });

}  // namespace
}  // namespace hemostat
