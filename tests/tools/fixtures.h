#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "engine/image/image.h"

namespace cpvt {

/// The configuration of a model small enough to be made for each test: 4-pixel patches, 7 classes "class 0"…, pictures
/// of 32 pixels.
nlohmann::json tiny_config();

/// A model folder with random weights for the configuration. The same seed makes the same weights.
void write_model(const std::filesystem::path& folder, const nlohmann::json& config = tiny_config(), uint32_t seed = 1);

/// A picture of coloured noise, as the text of a PNG file. Stored without compression: needs no library.
std::string png_text(ImageSize size, uint32_t seed);

/// Numbers like those of normalised pictures.
std::vector<float> random_floats(size_t count, uint32_t seed);

}  // namespace cpvt
