#pragma once

#include <bit>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

/// IEEE arithmetic of any small format from its definition: values as numbers of 113 bits, rounded by counting steps.
namespace ptxsim::testing {

__extension__ using Wide = __float128;

struct BinaryFormat {
  int mantissa;         // bits, without the hidden one
  int lowest, highest;  // exponents of normal numbers
  uint64_t nan;         // canonical

  int bits() const { return nan > 0x7fff ? 32 : 16; }
  uint64_t sign() const { return uint64_t{1} << (bits() - 1); }
  uint64_t infinity() const { return sign() - (uint64_t{1} << mantissa); }
  bool is_nan(uint64_t v) const { return (v & (sign() - 1)) > infinity(); }
  bool is_subnormal(uint64_t v) const { return (v & infinity()) == 0 && (v & (sign() - 1)) != 0; }
  bool negative(uint64_t v) const { return (v & sign()) != 0; }

  double decode(uint64_t v) const {
    if (is_nan(v)) return NAN;
    const auto field = static_cast<int>((v & infinity()) >> mantissa);
    const auto fraction = static_cast<double>(v & ((uint64_t{1} << mantissa) - 1));
    double x = INFINITY;
    if ((v & (sign() - 1)) != infinity()) {
      x = field == 0 ? std::ldexp(fraction, lowest - mantissa)
                     : std::ldexp(fraction + std::ldexp(1.0, mantissa), field - 1 + lowest - mantissa);
    }
    return negative(v) ? -x : x;
  }
};

constexpr BinaryFormat kF32Format{23, -126, 127, 0x7fffffff};
constexpr BinaryFormat kF16Format{10, -14, 15, 0x7fff};
constexpr BinaryFormat kBf16Format{7, -126, 127, 0x7fff};

inline Wide power2(int e) {
  Wide x = 1;
  for (; e >= 512; e -= 512) x *= static_cast<Wide>(0x1p512);
  for (; e <= -512; e += 512) x *= static_cast<Wide>(0x1p-512);
  return x * static_cast<Wide>(std::ldexp(1.0, e));
}

inline Wide magnitude(Wide x) { return x < 0 ? -x : x; }

/// The exponent e with 2^e <= x < 2^(e + 1).
inline int exponent_of(Wide x) {
  int e = 0;
  Wide scale = 1;
  for (; x >= scale * 2; ++e) scale *= 2;
  for (; x < scale; --e) scale /= 2;
  return e;
}

/// x > 0 in whole steps of 2^(e - mantissa), rounded; the result in steps.
inline uint64_t in_steps(Wide x, int step, char mode, bool is_negative) {
  const Wide scaled = x * power2(-step);
  auto whole = static_cast<uint64_t>(scaled);
  const Wide rest = scaled - static_cast<Wide>(whole);
  const bool up = mode == 'n'   ? rest > 0.5 || (rest == 0.5 && whole % 2 == 1)
                  : mode == 'z' ? false
                  : mode == 'm' ? is_negative && rest > 0
                                : !is_negative && rest > 0;
  return whole + (up ? 1 : 0);
}

/// Rounds x != 0, finite; with ftz, what is subnormal after rounding to any exponent becomes zero.
inline uint64_t encode(const BinaryFormat& f, Wide x, char mode, bool ftz) {
  const bool is_negative = x < 0;
  const uint64_t sign = is_negative ? f.sign() : 0;
  const Wide m = magnitude(x);
  const int e = exponent_of(m);
  if (ftz && e < f.lowest) {
    const uint64_t steps = in_steps(m, e - f.mantissa, mode, is_negative);
    const bool carried = steps == uint64_t{2} << f.mantissa;
    if (e + (carried ? 1 : 0) < f.lowest) return sign;
  }
  const int place = e < f.lowest ? f.lowest : e;
  const bool to_infinity = mode == 'n' || (mode == 'm') == is_negative;
  const uint64_t overflowed = sign | (f.infinity() - (to_infinity && mode != 'z' ? 0 : 1));
  if (place > f.highest) return overflowed;
  const uint64_t steps = in_steps(m, place - f.mantissa, mode, is_negative);
  // Steps count on through the exponents.
  const uint64_t bits = steps + (static_cast<uint64_t>(place - f.lowest) << f.mantissa);
  return bits >= f.infinity() ? overflowed : sign | bits;
}

/// x + y, where one may be so much smaller that 113 bits do not hold both: then all that matters is its sign.
inline Wide exact_sum(Wide x, Wide y) {
  if (magnitude(x) < magnitude(y)) std::swap(x, y);
  if (y == 0) return x;
  const int gap = exponent_of(magnitude(x)) - exponent_of(magnitude(y));
  if (gap > 60) y = power2(exponent_of(magnitude(x)) - 80) * (y < 0 ? -1 : 1);
  return x + y;
}

inline Wide wide_sqrt(double x) {
  Wide root = std::sqrt(x);
  for (int i = 0; i < 3; ++i) root = (root + static_cast<Wide>(x) / root) / 2;
  return root;
}

struct Arithmetic {
  std::string operation;  // add, sub, mul, fma, div, sqrt, rcp
  char mode = 'n';        // n z m p
  bool ftz = false;
  std::string finish = {};  // sat, relu
};

inline uint64_t finish(const BinaryFormat& f, const std::string& how, uint64_t v) {
  const double x = f.decode(v);
  if (how == "sat") return std::isnan(x) || x <= 0 ? 0 : x >= 1 ? uint64_t(-f.lowest + 1) << f.mantissa : v;
  if (how == "relu") return x <= 0 ? 0 : v;
  return v;
}

inline uint64_t reference(const BinaryFormat& f, const Arithmetic& op, std::vector<uint64_t> source) {
  for (uint64_t& v : source) {
    v &= 2 * f.sign() - 1;
    if (f.is_nan(v)) return finish(f, op.finish, f.nan);
    if (op.ftz && f.is_subnormal(v)) v &= f.sign();
  }
  std::vector<double> x;
  for (const uint64_t v : source) x.push_back(f.decode(v));
  if (op.operation == "sub") x[1] = -x[1];
  // Doubles hold every product exactly; sums of them serve for infinities and the sign of zero.
  double special = NAN;
  Wide exact = 0;
  if (op.operation == "add" || op.operation == "sub") {
    special = x[0] + x[1];
    if (std::isfinite(special)) exact = exact_sum(x[0], x[1]);
    if (special == 0 && op.mode == 'm' && (std::signbit(x[0]) || std::signbit(x[1]))) special = -0.0;
  } else if (op.operation == "mul") {
    special = x[0] * x[1];
    if (std::isfinite(special)) exact = special;
  } else if (op.operation == "fma") {
    const double product = x[0] * x[1];
    special = product + x[2];
    if (std::isfinite(special)) exact = exact_sum(product, x[2]);
    if (special == 0 && op.mode == 'm' && (std::signbit(product) || std::signbit(x[2]))) special = -0.0;
  } else if (op.operation == "div") {
    special = x[0] / x[1];
    if (std::isfinite(special)) exact = static_cast<Wide>(x[0]) / static_cast<Wide>(x[1]);
  } else if (op.operation == "rcp") {
    special = 1 / x[0];
    if (std::isfinite(special)) exact = static_cast<Wide>(1) / static_cast<Wide>(x[0]);
  } else {
    special = std::sqrt(x[0]);
    if (std::isfinite(special) && special != 0) exact = wide_sqrt(x[0]);
  }
  uint64_t result = 0;
  if (std::isnan(special)) {
    result = f.nan;
  } else if (std::isinf(special)) {
    result = (special < 0 ? f.sign() : 0) | f.infinity();
  } else if (exact == 0) {
    result = std::signbit(special) ? f.sign() : 0;
  } else {
    result = encode(f, exact, op.mode, op.ftz);
  }
  return finish(f, op.finish, result);
}

/// min and max as PTX writes them down.
struct Extreme {
  bool max = false, nan = false, xorsign = false, ftz = false;
};

inline uint64_t reference(const BinaryFormat& f, const Extreme& op, uint64_t a, uint64_t b) {
  a &= 2 * f.sign() - 1;
  b &= 2 * f.sign() - 1;
  if (op.ftz && f.is_subnormal(a)) a &= f.sign();
  if (op.ftz && f.is_subnormal(b)) b &= f.sign();
  const uint64_t sign = (a ^ b) & f.sign();
  if (op.xorsign) {
    a &= ~f.sign();
    b &= ~f.sign();
  }
  uint64_t d = 0;
  if (f.is_nan(a) && f.is_nan(b)) return f.nan;
  if (op.nan && (f.is_nan(a) || f.is_nan(b))) return f.nan;
  if (f.is_nan(a)) {
    d = b;
  } else if (f.is_nan(b)) {
    d = a;
  } else {
    const double x = f.decode(a), y = f.decode(b);
    const bool a_less = x < y || (x == y && f.negative(a) && !f.negative(b));
    d = a_less == op.max ? b : a;
  }
  return op.xorsign ? d | sign : d;
}

/// A comparison by its PTX name.
inline bool compares(const std::string& name, double a, double b) {
  const bool unordered = std::isnan(a) || std::isnan(b);
  if (name == "num") return !unordered;
  if (name == "nan") return unordered;
  if (unordered) return name.size() == 3;  // equ, neu, ltu…
  const std::string basic = name.substr(0, 2);
  return basic == "eq"   ? a == b
         : basic == "ne" ? a != b
         : basic == "lt" ? a < b
         : basic == "le" ? a <= b
         : basic == "gt" ? a > b
                         : a >= b;
}
inline const std::vector<std::string> kRelationNames = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                                        "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

}  // namespace ptxsim::testing
