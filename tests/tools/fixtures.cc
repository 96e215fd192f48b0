#include "tests/tools/fixtures.h"

#include <array>
#include <filesystem>
#include <random>

#include "tests/tools/process.h"
#include "weights/config.h"
#include "weights/safetensors.h"
#include "weights/schema.h"

namespace cpvt {

nlohmann::json tiny_config() {
  nlohmann::json labels = nlohmann::json::array();
  for (int i = 0; i < 7; ++i) labels.push_back("class " + std::to_string(i));
  return {{"architecture", "cpvt"},
          {"embed_dim", 32},
          {"depth", 2},
          {"num_heads", 2},
          {"mlp_ratio", 2},
          {"patch_size", 4},
          {"in_chans", 3},
          {"num_classes", 7},
          {"global_pool", "avg"},
          {"pos_embed", "peg"},
          {"peg", {{"after", {0}}, {"kernel", 3}}},
          {"layer_norm_eps", 1e-6},
          {"img_size", 32},
          {"label_names", labels},
          {"pretrained_cfg",
           {{"input_size", {3, 32, 32}},
            {"mean", {0.5, 0.5, 0.5}},
            {"std", {0.25, 0.25, 0.25}},
            {"interpolation", "bicubic"},
            {"crop_pct", 1.0}}}};
}

void write_model(const std::filesystem::path& folder, const nlohmann::json& config, uint32_t seed) {
  std::filesystem::create_directories(folder);
  write_text(folder / "config.json", config.dump(2));
  const std::vector<TensorSpec> specs = cpvt_schema(Config::parse(config.dump(), "test"));
  std::vector<std::vector<float>> data;
  std::vector<NamedTensor> tensors;
  for (const TensorSpec& spec : specs) {
    data.push_back(random_floats(static_cast<size_t>(element_count(spec.shape)), seed++));
    for (float& x : data.back()) x *= 0.3F;
    tensors.push_back({spec.name, spec.shape, data.back().data()});
  }
  write_safetensors(folder / "model.safetensors", tensors);
}

std::vector<float> random_floats(size_t count, uint32_t seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

namespace {

std::string big_endian(uint32_t value) {
  std::string text;
  for (int shift = 24; shift >= 0; shift -= 8) text += static_cast<char>(value >> static_cast<unsigned>(shift));
  return text;
}

uint32_t crc32(const std::string& text) {
  uint32_t crc = ~0U;
  for (const char byte : text) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1U) ^ ((crc & 1U) != 0 ? 0xEDB88320U : 0U);
  }
  return ~crc;
}

uint32_t adler32(const std::string& text) {
  uint32_t a = 1;
  uint32_t b = 0;
  for (const char byte : text) {
    a = (a + static_cast<uint8_t>(byte)) % 65521;
    b = (b + a) % 65521;
  }
  return b << 16U | a;
}

std::string chunk(const std::string& kind, const std::string& data) {
  return big_endian(static_cast<uint32_t>(data.size())) + kind + data + big_endian(crc32(kind + data));
}

/// A zlib stream of stored blocks: a last-block flag, the length and its complement, the bytes.
std::string stored(const std::string& data) {
  constexpr size_t kLargest = 65535;
  std::string stream = "\x78\x01";
  for (size_t at = 0; at < data.size(); at += kLargest) {
    const std::string block = data.substr(at, kLargest);
    const auto length = static_cast<uint16_t>(block.size());
    stream += at + kLargest >= data.size() ? '\1' : '\0';
    for (const unsigned value : {unsigned{length}, ~unsigned{length}}) {
      stream += static_cast<char>(value);
      stream += static_cast<char>(value >> 8U);
    }
    stream += block;
  }
  return stream + big_endian(adler32(data));
}

}  // namespace

std::string png_text(ImageSize size, uint32_t seed) {
  std::mt19937 random(seed);
  std::string rows;
  for (int y = 0; y < size.height; ++y) {
    rows += '\0';  // no filter
    for (int i = 0; i < 3 * size.width; ++i) rows += static_cast<char>(random() >> 24U);
  }
  const std::string header = big_endian(static_cast<uint32_t>(size.width)) +
                             big_endian(static_cast<uint32_t>(size.height)) + std::string("\x08\x02\0\0\0", 5);
  return "\x89PNG\r\n\x1a\n" + chunk("IHDR", header) + chunk("IDAT", stored(rows)) + chunk("IEND", "");
}

}  // namespace cpvt
