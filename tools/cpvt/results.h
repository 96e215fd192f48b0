#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <span>
#include <string_view>
#include <vector>

namespace cpvt::cli {

/// JSON whose keys stay in the order in which they were put.
using Json = nlohmann::ordered_json;

/// Writes a line to stdout, at once; control characters, which names may hold, as printable() has them. Throws Error
/// where it cannot be written: a full disk must not pass for success.
void print_line(std::string_view text);

/// An object on a line of its own. Names that are no UTF-8 (file names may be anything) get replacement characters.
void print_json(const Json& object);

/// A count in JSON: digits as long as they are all known, a number with an exponent beyond.
Json whole_number(double count);

/// Throws Error where a file could not be written at that path: before the work, not after it.
void check_output_path(const std::filesystem::path& path);

/// Throws Error where the output would replace a file that it is made from.
void check_not_read(const std::filesystem::path& output, const std::vector<std::filesystem::path>& read);

struct RankedClass {
  int index;
  double probability;  // softmax over all classes, in double precision
};

/// The `k` most probable classes (all of them where there are fewer), the first class first among equals.
/// The logits must be finite.
std::vector<RankedClass> top_classes(std::span<const float> logits, int k);

}  // namespace cpvt::cli
