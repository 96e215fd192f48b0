// Damaged files: whatever the bytes, reading ends with a model or an Error; the sanitizers watch for the rest.

#include <random>

#include "tests/weights/support.h"
#include "weights/checkpoint.h"
#include "weights/json.h"

namespace cpvt {
namespace {

constexpr int kRounds = 400;

Config tiny() {
  return Config::parse(
      config_text(
          R"({"embed_dim": 64, "depth": 1, "num_heads": 1, "patch_size": 1, "in_chans": 1, "mlp_ratio": 0.1,
              "num_classes": 2})"),
      "tiny");
}

class Fuzz : public FolderTest {
 protected:
  Fuzz() {
    const auto path = folder_ / "valid.safetensors";
    FakeModel(tiny()).save(path);
    std::ifstream in(path, std::ios::binary);
    valid_.assign(std::istreambuf_iterator<char>(in), {});
    std::filesystem::remove(path);
    uint64_t length = 0;
    std::memcpy(&length, valid_.data(), sizeof(length));
    header_ = valid_.substr(8, length);
    data_ = valid_.substr(8 + length);
  }

  size_t below(size_t limit) { return std::uniform_int_distribution<size_t>(0, limit - 1)(random_); }

  void flip_bit(char& c) { c = static_cast<char>(static_cast<unsigned char>(c) ^ (1U << below(8))); }

  /// Reads everything there is to read, and counts what came of it. A failure names the round that led to it.
  void read(const std::string& bytes, int round) {
    const auto path = write("fuzzed.safetensors", bytes);
    try {
      const SafetensorsFile file(path);
      for (const auto& [name, entry] : file.entries()) {
        if (!SafetensorsFile::is_loadable(entry.dtype)) continue;
        float sum = 0;
        const Tensor tensor = file.load(name);
        for (int64_t i = 0; i < tensor.size(); ++i) sum += tensor.data[i];
        sink_ = sum;
      }
      ++read_;
    } catch (const Error& e) {
      expect_well_formed(e, round);
    }
    try {
      Checkpoint::load(path);
      ++loaded_;
    } catch (const Error& e) {
      expect_well_formed(e, round);
    }
  }

  static void expect_well_formed(const Error& e, int round) {
    EXPECT_GT(std::string_view(e.what()).size(), 20U) << "round " << round;
    EXPECT_LT(std::string_view(e.what()).size(), 8000U) << "round " << round;
  }

  void report() const { std::printf("of %d damaged files, %d read, %d loaded\n", kRounds, read_, loaded_); }

  std::mt19937_64 random_{20261124};
  std::string valid_, header_, data_;
  volatile float sink_ = 0;
  int read_ = 0, loaded_ = 0;
};

TEST_F(Fuzz, TheUndamagedFileLoads) {
  read(valid_, 0);
  EXPECT_EQ(loaded_, 1);
}

TEST_F(Fuzz, EveryTruncationIsRefused) {
  for (int round = 0; round < kRounds; ++round) {
    // Half of them within the header, where most can go wrong.
    const size_t limit = below(2) == 0 ? valid_.size() : 8 + header_.size();
    read(valid_.substr(0, below(limit)), round);
  }
  EXPECT_EQ(read_, 0);
  report();
}

TEST_F(Fuzz, FlippedBits) {
  for (int round = 0; round < kRounds; ++round) {
    std::string bytes = valid_;
    for (size_t flips = 1 + below(4); flips > 0; --flips) {
      const size_t limit = below(8) == 0 ? bytes.size() : 8 + header_.size();
      flip_bit(bytes[below(limit)]);
    }
    read(bytes, round);
  }
  report();
}

TEST_F(Fuzz, SplicedHeaders) {
  for (int round = 0; round < kRounds; ++round) {
    std::string header = header_;
    const size_t at = below(header.size());
    const size_t length = below(std::min<size_t>(64, header.size() - at) + 1);
    const std::string piece = header.substr(below(header.size()), below(64));
    header.replace(at, length, piece);
    read(safetensors_bytes(header, data_), round);
  }
  report();
}

TEST_F(Fuzz, LyingFields) {
  const std::vector<std::string> lies = {"0",
                                         "1",
                                         "-1",
                                         "2147483648",
                                         "4294967296",
                                         "9223372036854775807",
                                         "18446744073709551615",
                                         "1e18",
                                         "null",
                                         "[]",
                                         "{}",
                                         "\"F16\"",
                                         "\"F64\"",
                                         "\"F4\"",
                                         "\"\"",
                                         "[0,0]",
                                         "[1,1,1,1,1,1,1,1]",
                                         "true"};
  const nlohmann::json header = nlohmann::json::parse(header_);
  for (int round = 0; round < kRounds; ++round) {
    nlohmann::json lying = header;
    for (size_t changes = 1 + below(2); changes > 0; --changes) {
      auto tensor = std::next(lying.begin(), static_cast<std::ptrdiff_t>(below(lying.size())));
      if (!tensor->is_object() || tensor->empty()) continue;
      auto field = std::next(tensor->begin(), static_cast<std::ptrdiff_t>(below(tensor->size())));
      const auto lie = nlohmann::json::parse(lies[below(lies.size())]);
      if (field->is_array() && !field->empty() && below(2) == 0) {
        (*field)[below(field->size())] = lie;
      } else {
        *field = lie;
      }
    }
    read(safetensors_bytes(lying.dump(), data_), round);
  }
  report();
}

TEST_F(Fuzz, DamagedConfigurations) {
  const std::string valid = R"({"architecture": "cpvt", "embed_dim": 48, "depth": 4, "num_heads": 6, "mlp_ratio": 2.5,
    "patch_size": 4, "in_chans": 2, "num_classes": 2, "global_pool": "avg", "pos_embed": "peg",
    "peg": {"after": [-1, 0, 3], "kernel": 27}, "layer_norm_eps": 1e-5, "img_size": 30, "label_names": ["a", "b"],
    "pretrained_cfg": {"mean": [0.5, 0.25], "std": [2], "interpolation": "lanczos", "crop_pct": 1}})";
  Config::parse(valid, "valid");
  for (int round = 0; round < 10 * kRounds; ++round) {
    std::string text = valid;
    for (size_t changes = 1 + below(3); changes > 0; --changes) {
      const size_t at = below(text.size());
      switch (below(3)) {
        case 0:
          flip_bit(text[at]);
          break;
        case 1:
          text.replace(at, below(20), valid.substr(below(valid.size()), below(20)));
          break;
        default:
          text.insert(at, 1, static_cast<char>('0' + below(10)));
      }
      if (text.empty()) break;
    }
    try {
      // What was accepted must be safe to build on.
      cpvt_schema(Config::parse(text, "fuzzed"));
      ++read_;
    } catch (const Error& e) {
      expect_well_formed(e, round);
    }
  }
  std::printf("of %d damaged configurations, %d accepted\n", 10 * kRounds, read_);
}

}  // namespace
}  // namespace cpvt
