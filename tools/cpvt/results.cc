#include "tools/cpvt/results.h"

#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <numeric>

#include "base/error.h"
#include "base/file.h"
#include "base/printable.h"

namespace cpvt::cli {

void print_line(std::string_view text) {
  const std::string line = printable(text);
  const bool written = std::fwrite(line.data(), 1, line.size(), stdout) == line.size() &&
                       std::fputc('\n', stdout) != EOF && std::fflush(stdout) == 0;
  if (!written) throw Error("cannot write to standard output: {}", std::strerror(errno));
}

void print_json(const Json& object) { print_line(object.dump(-1, ' ', false, Json::error_handler_t::replace)); }

Json whole_number(double count) {
  constexpr double kExact = 9007199254740992;  // 2^53
  return count <= kExact ? Json(static_cast<int64_t>(count)) : Json(count);
}

void check_output_path(const std::filesystem::path& path) {
  namespace fs = std::filesystem;
  if (path.empty()) throw Error("--output: expected the name of a file to write, found ''");
  if (path == "-") throw Error("--output: expected the name of a file to write, found -, which is no output's");
  std::error_code ignored;
  const fs::file_status status = fs::status(path, ignored);
  if (fs::exists(status) && !fs::is_regular_file(status)) {
    throw Error("{}: expected the name of a file to write, found {}", path.string(), kind_text(status.type()));
  }
  const fs::path folder = path.has_parent_path() ? path.parent_path() : fs::path(".");
  if (!fs::is_directory(folder, ignored)) throw Error("{}: cannot write: there is no such folder", path.string());
  if (access(folder.c_str(), W_OK | X_OK) != 0) {
    throw Error("{}: cannot write into this folder: {}", path.string(), std::strerror(errno));
  }
}

void check_not_read(const std::filesystem::path& output, const std::vector<std::filesystem::path>& read) {
  for (const std::filesystem::path& path : read) {
    std::error_code ignored;
    if (std::filesystem::equivalent(output, path, ignored)) {
      throw Error("{}: cannot write: the output would replace what it is made from", output.string());
    }
  }
}

std::vector<RankedClass> top_classes(std::span<const float> logits, int k) {
  std::vector<int> order(logits.size());
  std::iota(order.begin(), order.end(), 0);
  const auto kept = order.begin() + std::min<std::ptrdiff_t>(k, std::ssize(order));
  std::partial_sort(order.begin(), kept, order.end(), [&](int a, int b) {
    const float of_a = logits[static_cast<size_t>(a)];
    const float of_b = logits[static_cast<size_t>(b)];
    return of_a != of_b ? of_a > of_b : a < b;
  });

  const double largest = *std::max_element(logits.begin(), logits.end());
  double sum = 0;
  for (const float logit : logits) sum += std::exp(logit - largest);
  std::vector<RankedClass> ranked;
  std::transform(order.begin(), kept, std::back_inserter(ranked), [&](int index) {
    return RankedClass{index, std::exp(logits[static_cast<size_t>(index)] - largest) / sum};
  });
  return ranked;
}

}  // namespace cpvt::cli
