#include "engine/image/resize.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <numbers>
#include <utility>

#include "base/error.h"
#include "engine/image/weighted_rows.h"

namespace cpvt {

namespace {

constexpr std::array<std::pair<std::string_view, Interpolation>, 6> names = {{
    {"nearest", Interpolation::nearest},
    {"box", Interpolation::box},
    {"bilinear", Interpolation::bilinear},
    {"hamming", Interpolation::hamming},
    {"bicubic", Interpolation::bicubic},
    {"lanczos", Interpolation::lanczos},
}};

/// A resampling kernel: its value at a distance in pixels (of the coarser grid), zero from `support` on.
/// To give Pillow's bits, each value must be rounded as there: the order of operations is part of the definition.
struct Filter {
  double support;
  double (*value)(double);
};

double box(double x) { return x > -0.5 && x <= 0.5 ? 1.0 : 0.0; }

double triangle(double x) { return std::max(0.0, 1.0 - std::abs(x)); }

double hamming(double x) {
  x = std::abs(x);
  if (x == 0.0) return 1.0;
  if (x >= 1.0) return 0.0;
  x *= std::numbers::pi;
  return std::sin(x) / x * (0.54F + 0.46F * std::cos(x));  // single precision constants, as Pillow has them
}

// Keys' cubic convolution, a = -0.5.
double cubic(double x) {
  constexpr double a = -0.5;
  x = std::abs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

double sinc(double x) {
  if (x == 0.0) return 1.0;
  x *= std::numbers::pi;
  return std::sin(x) / x;
}

double lanczos3(double x) { return x >= -3.0 && x < 3.0 ? sinc(x) * sinc(x / 3.0) : 0.0; }

Filter filter_of(Interpolation interpolation) {
  switch (interpolation) {
    case Interpolation::nearest:
      break;  // no weights: picks pixels
    case Interpolation::box:
      return {.support = 0.5, .value = box};
    case Interpolation::bilinear:
      return {.support = 1.0, .value = triangle};
    case Interpolation::hamming:
      return {.support = 1.0, .value = hamming};
    case Interpolation::bicubic:
      return {.support = 2.0, .value = cubic};
    case Interpolation::lanczos:
      return {.support = 3.0, .value = lanczos3};
  }
  throw Error("resize: no filter for interpolation {}", static_cast<int>(interpolation));
}

/// Which input pixels make an output pixel along one axis, and with what weights in fixed point.
struct Taps {
  int first;
  int count;
  size_t weights;  ///< where they begin in Axis::weights
};

struct Axis {
  std::vector<Taps> taps;  ///< one per output pixel of the window
  std::vector<int32_t> weights;

  int first_input() const { return taps.front().first; }
  int end_input() const { return taps.back().first + taps.back().count; }
  /// Lets input pixel `by` be number 0, as it is for a pass that gets the needed pixels only.
  void drop_before(int by) {
    for (Taps& pixel : taps) pixel.first -= by;
  }
};

/// Output pixels begin … begin + count of an axis resized from `in` to `out` pixels.
Axis make_axis(int in, int out, const Filter& filter, int begin, int count) {
  Axis axis;
  axis.taps.reserve(static_cast<size_t>(count));
  if (in == out) {  // not filtered at all
    for (int i = begin; i < begin + count; ++i) axis.taps.push_back({.first = i, .count = 1, .weights = 0});
    axis.weights = {1 << weight_bits};
    return axis;
  }
  const double scale = static_cast<double>(in) / out;
  const double stretch = std::max(scale, 1.0);  // the antialiasing: the kernel spans as many input pixels as are merged
  const double support = filter.support * stretch;
  const double per_pixel = 1.0 / stretch;
  std::vector<double> exact;
  for (int i = begin; i < begin + count; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, static_cast<int>(std::floor(centre - support + 0.5)));
    const int end = std::min(in, static_cast<int>(std::floor(centre + support + 0.5)));
    exact.clear();
    double sum = 0.0;
    for (int j = 0; j < end - first; ++j) {
      const double weight = filter.value((j + first - centre + 0.5) * per_pixel);
      exact.push_back(weight);
      sum += weight;
    }
    axis.taps.push_back({.first = first, .count = end - first, .weights = axis.weights.size()});
    for (double weight : exact) {
      if (sum != 0.0) weight /= sum;
      // To the nearest, halves away from zero.
      axis.weights.push_back(static_cast<int32_t>((weight < 0 ? -0.5 : 0.5) + weight * (1 << weight_bits)));
    }
  }
  return axis;
}

/// Rows that the horizontal pass does together. Their pixels are first laid side by side, column after column, so that
/// the taps of an output pixel are rows of bytes and both passes share one inner loop.
constexpr int strip_rows = 16;

/// Lays `count` rows of `width` pixels out as [width, strip_rows, channels].
template <int channels>
void gather_columns(const uint8_t* rows, size_t row_bytes, int count, int width, uint8_t* columns) {
  for (int r = 0; r < count; ++r) {
    const uint8_t* from = rows + static_cast<size_t>(r) * row_bytes;
    uint8_t* to = columns + static_cast<ptrdiff_t>(r) * channels;
    for (int x = 0; x < width; ++x, from += channels, to += ptrdiff_t{strip_rows} * channels) {
      std::memcpy(to, from, channels);
    }
  }
}

/// The way back.
template <int channels>
void scatter_columns(const uint8_t* columns, int count, int width, uint8_t* rows, size_t row_bytes) {
  for (int r = 0; r < count; ++r) {
    const uint8_t* from = columns + static_cast<ptrdiff_t>(r) * channels;
    uint8_t* to = rows + static_cast<size_t>(r) * row_bytes;
    for (int x = 0; x < width; ++x, from += ptrdiff_t{strip_rows} * channels, to += channels) {
      std::memcpy(to, from, channels);
    }
  }
}

/// Rows first … end of the image, each resampled along x.
template <int channels>
Image resize_rows_of(const Image& image, int first, int end, const Axis& axis) {
  Image out = make_image({end - first, static_cast<int>(axis.taps.size())}, channels);
  const int left = axis.first_input();
  const int width = axis.end_input() - left;
  constexpr size_t column_bytes = size_t{strip_rows} * channels;
  std::vector<uint8_t> columns(static_cast<size_t>(width) * column_bytes);
  std::vector<uint8_t> resized(axis.taps.size() * column_bytes);
  for (int y = first; y < end; y += strip_rows) {
    const int rows = std::min(strip_rows, end - y);
    gather_columns<channels>(image.row(y) + static_cast<ptrdiff_t>(left) * channels, image.row_bytes(), rows, width,
                             columns.data());
    for (size_t x = 0; x < axis.taps.size(); ++x) {
      const Taps& taps = axis.taps[x];
      weighted_rows(columns.data() + static_cast<size_t>(taps.first - left) * column_bytes, column_bytes,
                    axis.weights.data() + taps.weights, taps.count, column_bytes, resized.data() + x * column_bytes);
    }
    scatter_columns<channels>(resized.data(), rows, out.size.width, out.row(y - first), out.row_bytes());
  }
  return out;
}

Image resize_rows(const Image& image, int first, int end, const Axis& axis) {
  return image.channels == 3 ? resize_rows_of<3>(image, first, end, axis) : resize_rows_of<1>(image, first, end, axis);
}

/// Columns first … end of the image, each resampled along y.
Image resize_columns(const Image& image, int first, int end, const Axis& axis) {
  Image out = make_image({static_cast<int>(axis.taps.size()), end - first}, image.channels);
  for (size_t y = 0; y < axis.taps.size(); ++y) {
    const Taps& taps = axis.taps[y];
    weighted_rows(image.row(taps.first) + static_cast<ptrdiff_t>(first) * image.channels, image.row_bytes(),
                  axis.weights.data() + taps.weights, taps.count, out.row_bytes(), out.row(static_cast<int>(y)));
  }
  return out;
}

Image crop(const Image& image, const Window& window) {
  Image out = make_image(window.size, image.channels);
  for (int y = 0; y < window.size.height; ++y) {
    std::memcpy(out.row(y), image.row(window.top + y) + static_cast<ptrdiff_t>(window.left) * image.channels,
                out.row_bytes());
  }
  return out;
}

/// The input pixel of each output pixel of the window. Pillow adds the scale up along the axis, and its rounding shows.
std::vector<int> nearest_inputs(int in, int out, int begin, int count) {
  const double scale = static_cast<double>(in) / out;
  double at = scale * 0.5;
  for (int i = 0; i < begin; ++i) at += scale;
  std::vector<int> inputs(static_cast<size_t>(count));
  for (int& input : inputs) {
    input = std::min(in - 1, static_cast<int>(at));
    at += scale;
  }
  return inputs;
}

Image resize_nearest(const Image& image, ImageSize target, const Window& window) {
  const auto rows = nearest_inputs(image.size.height, target.height, window.top, window.size.height);
  const auto columns = nearest_inputs(image.size.width, target.width, window.left, window.size.width);
  Image out = make_image(window.size, image.channels);
  uint8_t* to = out.pixels.data();
  for (const int y : rows) {
    for (const int x : columns) {
      to = std::copy_n(image.row(y) + static_cast<ptrdiff_t>(x) * image.channels, image.channels, to);
    }
  }
  return out;
}

/// Pillow resamples along x, then along y, rounding to bytes in between. Since 13.0 it is the other way round where the
/// height loses more than twice the rows that the width loses columns (or the width grows): tall pictures.
bool columns_first(ImageSize from, ImageSize to) {
  return to.height < from.height && from.height - to.height > 2 * (from.width - to.width);
}

Image resize_filtered(const Image& image, ImageSize target, const Filter& filter, const Window& window) {
  if (target == image.size) return crop(image, window);
  Axis y = make_axis(image.size.height, target.height, filter, window.top, window.size.height);
  Axis x = make_axis(image.size.width, target.width, filter, window.left, window.size.width);
  if (columns_first(image.size, target)) {
    const Image columns = resize_columns(image, x.first_input(), x.end_input(), y);
    x.drop_before(x.first_input());
    return resize_rows(columns, 0, columns.size.height, x);
  }
  const Image rows = resize_rows(image, y.first_input(), y.end_input(), x);
  y.drop_before(y.first_input());
  return resize_columns(rows, 0, rows.size.width, y);
}

void check_extents(std::string_view what, ImageSize size) {
  constexpr int limit = 1 << 24;  // Pillow holds extents as floats
  if (size.height < 1 || size.width < 1 || size.height > limit || size.width > limit) {
    throw Error("resize: expected {} between 1x1 and {}x{}, found {}x{}", what, limit, limit, size.height, size.width);
  }
}

}  // namespace

Interpolation parse_interpolation(std::string_view name) {
  std::vector<std::string_view> known;
  for (const auto& [known_name, interpolation] : names) {
    if (known_name == name) return interpolation;
    known.push_back(known_name);
  }
  throw Error("interpolation: expected one of {}, found '{}'", fmt::join(known, ", "), name);
}

Image resize(const Image& image, ImageSize target, Interpolation interpolation) {
  return resize(image, target, interpolation, {.top = 0, .left = 0, .size = target});
}

Image resize(const Image& image, ImageSize target, Interpolation interpolation, const Window& window) {
  check_extents("an image", image.size);
  check_extents("a target", target);
  if (window.top < 0 || window.left < 0 || window.size.height < 1 || window.size.width < 1 ||
      window.size.height > target.height - window.top || window.size.width > target.width - window.left) {
    throw Error("resize: expected a window within {}x{}, found {}x{} at row {}, column {}", target.height, target.width,
                window.size.height, window.size.width, window.top, window.left);
  }
  Image out = interpolation == Interpolation::nearest
                  ? resize_nearest(image, target, window)
                  : resize_filtered(image, target, filter_of(interpolation), window);
  out.warnings = image.warnings;
  return out;
}

}  // namespace cpvt
