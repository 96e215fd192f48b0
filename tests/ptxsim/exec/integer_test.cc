#include <bit>

#include "tests/ptxsim/exec/lane_cases.h"
#include "tools/ptxsim/error.h"

namespace ptxsim::testing {
namespace {

using Wide = __int128;

/// The value of the low bits, as the type reads them.
Wide value(uint64_t v, uint32_t bits, bool is_signed) {
  Wide x = low_bits(v, bits);
  if (is_signed && (v >> (bits - 1) & 1) != 0) x -= Wide{1} << bits;
  return x;
}

Wide lowest(uint32_t bits, bool is_signed) { return is_signed ? -(Wide{1} << (bits - 1)) : 0; }
Wide highest(uint32_t bits, bool is_signed) { return (Wide{1} << (is_signed ? bits - 1 : bits)) - 1; }
Wide clamp(Wide v, uint32_t bits, bool is_signed) {
  return std::min(std::max(v, lowest(bits, is_signed)), highest(bits, is_signed));
}

struct Type {
  std::string name;
  uint32_t bits;
  bool is_signed;
};

const Type kTypes[] = {{"u16", 16, false}, {"s16", 16, true},  {"u32", 32, false},
                       {"s32", 32, true},  {"u64", 64, false}, {"s64", 64, true}};

std::vector<LaneCase> arithmetic_cases() {
  std::vector<LaneCase> cases;
  for (const Type& t : kTypes) {
    const uint32_t n = t.bits;
    const auto binary = [&](const std::string& opcode, auto f) {
      cases.push_back({opcode + "." + t.name + " $d, $a, $b;", n, {n, n}, [=](const Values& v) {
                         return static_cast<uint64_t>(f(value(v[0], n, t.is_signed), value(v[1], n, t.is_signed)));
                       }});
    };
    const bool is_signed = t.is_signed;
    binary("add", [](Wide a, Wide b) { return a + b; });
    binary("sub", [](Wide a, Wide b) { return a - b; });
    binary("mul.lo", [](Wide a, Wide b) {
      return static_cast<Wide>(static_cast<unsigned __int128>(a) * static_cast<unsigned __int128>(b));
    });
    binary("div", [=](Wide a, Wide b) { return b == 0 ? Wide{-1} : a / b; });
    binary("rem", [=](Wide a, Wide b) { return b == 0 ? Wide{-1} : a % b; });
    binary("min", [](Wide a, Wide b) { return std::min(a, b); });
    binary("max", [](Wide a, Wide b) { return std::max(a, b); });
    if (n < 64) {
      binary("mul.hi", [=](Wide a, Wide b) { return a * b >> n; });
      cases.push_back({"mul.wide." + t.name + " $d, $a, $b;", 2 * n, {n, n}, [=](const Values& v) {
                         return static_cast<uint64_t>(value(v[0], n, is_signed) * value(v[1], n, is_signed));
                       }});
      cases.push_back({"mad.wide." + t.name + " $d, $a, $b, $c;", 2 * n, {n, n, 2 * n}, [=](const Values& v) {
                         return static_cast<uint64_t>(value(v[0], n, is_signed) * value(v[1], n, is_signed)) + v[2];
                       }});
      cases.push_back({"mad.hi." + t.name + " $d, $a, $b, $c;", n, {n, n, n}, [=](const Values& v) {
                         return static_cast<uint64_t>(value(v[0], n, is_signed) * value(v[1], n, is_signed) >> n) +
                                v[2];
                       }});
    } else {
      // By schoolbook halves.
      binary("mul.hi", [=](Wide a, Wide b) {
        const auto x = static_cast<uint64_t>(a), y = static_cast<uint64_t>(b);
        const uint64_t x0 = x & 0xffffffff, x1 = x >> 32, y0 = y & 0xffffffff, y1 = y >> 32;
        const uint64_t middle = (x0 * y0 >> 32) + (x1 * y0 & 0xffffffff) + (x0 * y1 & 0xffffffff);
        uint64_t high = x1 * y1 + (x1 * y0 >> 32) + (x0 * y1 >> 32) + (middle >> 32);
        if (a < 0) high -= y;
        if (b < 0) high -= x;
        return static_cast<Wide>(high);
      });
    }
    cases.push_back(
        {"mad.lo." + t.name + " $d, $a, $b, $c;", n, {n, n, n}, [](const Values& v) { return v[0] * v[1] + v[2]; }});
    cases.push_back({"sad." + t.name + " $d, $a, $b, $c;", n, {n, n, n}, [=](const Values& v) {
                       const Wide a = value(v[0], n, is_signed), b = value(v[1], n, is_signed);
                       return static_cast<uint64_t>(std::max(a, b) - std::min(a, b)) + v[2];
                     }});
    if (t.is_signed) {
      cases.push_back({"abs." + t.name + " $d, $a;", n, {n}, [=](const Values& v) {
                         const Wide a = value(v[0], n, true);
                         return static_cast<uint64_t>(std::max(a, -a));
                       }});
      cases.push_back({"neg." + t.name + " $d, $a;", n, {n}, [](const Values& v) { return ~v[0] + 1; }});
    }
    if (n >= 32) {
      const auto carry = [&](const std::string& first, const std::string& second, bool sub) {
        // The carry in comes from an addition of the third source to itself: its top bit; a borrow from 0 - that bit.
        const std::string source = sub ? "sub.cc." + t.name + " $d, 0, $c;" : "add.cc." + t.name + " $d, $c, $c;";
        cases.push_back({source + "\n" + first + "." + t.name + " $d, $a, $b;\n" + second + "." + t.name + " $d, 0, 0;",
                         n,
                         {n, n, n},
                         [=](const Values& v) {
                           const auto top = static_cast<Wide>(sub ? v[2] != 0 : v[2] >> (n - 1) & 1);
                           const Wide a = static_cast<Wide>(v[0]), b = static_cast<Wide>(v[1]);
                           const bool out = sub ? a - b - top < 0 : (a + b + top) >> n != 0;
                           return sub ? (out ? ~uint64_t{0} : 0) : uint64_t{out};
                         }});
      };
      carry("addc.cc", "addc", false);
      carry("subc.cc", "subc", true);
      cases.push_back(
          {"add.cc." + t.name + " $d, $c, $c;\naddc." + t.name + " $d, $a, $b;", n, {n, n, n}, [=](const Values& v) {
             return v[0] + v[1] + (v[2] >> (n - 1));
           }});
      cases.push_back({"mad.lo.cc." + t.name + " $d, $a, $b, $c;\nmadc.hi." + t.name + " $d, $a, $b, 0;",
                       n,
                       {n, n, n},
                       [=](const Values& v) {
                         const unsigned __int128 low = low_bits(v[0] * v[1], n);
                         const uint64_t out = (low + v[2]) >> n != 0 ? 1 : 0;
                         // Unsigned, for the bits of the largest products are no signed number's.
                         const auto bits = static_cast<unsigned __int128>(value(v[0], n, is_signed)) *
                                           static_cast<unsigned __int128>(value(v[1], n, is_signed));
                         return static_cast<uint64_t>(bits >> n) + out;
                       }});
    }
  }
  const auto s32 = [](uint64_t v) { return value(v, 32, true); };
  const auto add = [&](LaneCase c) { cases.push_back(std::move(c)); };
  add({"add.sat.s32 $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
         return static_cast<uint64_t>(clamp(s32(v[0]) + s32(v[1]), 32, true));
       }});
  // Lanes that a guard leaves out keep their carry.
  add({"add.cc.u32 $d, $c, $c;\n@!$s add.cc.u32 %r90, 0, 0;\naddc.u32 $d, $a, $b;",
       32,
       {32, 32, 32},
       [](const Values& v) { return v[0] + v[1] + ((v[0] & 1) != 0 ? v[2] >> 31 : 0); }});
  add({"sub.sat.s32 $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
         return static_cast<uint64_t>(clamp(s32(v[0]) - s32(v[1]), 32, true));
       }});
  add({"mad.hi.sat.s32 $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
         return static_cast<uint64_t>(clamp((s32(v[0]) * s32(v[1]) >> 32) + s32(v[2]), 32, true));
       }});
  for (const bool is_signed : {false, true}) {
    const std::string t = is_signed ? "s32" : "u32";
    const auto product = [=](const Values& v) { return value(v[0], 24, is_signed) * value(v[1], 24, is_signed); };
    add({"mul24.lo." + t + " $d, $a, $b;", 32, {32, 32}, [=](const Values& v) { return uint64_t(product(v)); }});
    add({"mul24.hi." + t + " $d, $a, $b;", 32, {32, 32}, [=](const Values& v) { return uint64_t(product(v) >> 16); }});
    add({"mad24.lo." + t + " $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
           return uint64_t(product(v)) + v[2];
         }});
    add({"mad24.hi." + t + " $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
           return uint64_t(product(v) >> 16) + v[2];
         }});
  }
  add({"mad24.hi.sat.s32 $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
         return uint64_t(clamp((value(v[0], 24, true) * value(v[1], 24, true) >> 16) + s32(v[2]), 32, true));
       }});
  add({"max.relu.s32 $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
         return uint64_t(std::max({s32(v[0]), s32(v[1]), Wide{0}}));
       }});
  add({"min.relu.s32 $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
         return uint64_t(std::max(std::min(s32(v[0]), s32(v[1])), Wide{0}));
       }});
  for (const bool is_signed : {false, true}) {
    const auto halves = [&](const std::string& opcode, auto f) {
      add({opcode + (is_signed ? ".s16x2 $d, $a, $b;" : ".u16x2 $d, $a, $b;"), 32, {32, 32}, [=](const Values& v) {
             uint64_t result = 0;
             for (const int shift : {0, 16}) {
               const Wide a = value(v[0] >> shift, 16, is_signed), b = value(v[1] >> shift, 16, is_signed);
               result |= low_bits(static_cast<uint64_t>(f(a, b)), 16) << shift;
             }
             return result;
           }});
    };
    halves("add", [](Wide a, Wide b) { return a + b; });
    halves("min", [](Wide a, Wide b) { return std::min(a, b); });
    halves("max", [](Wide a, Wide b) { return std::max(a, b); });
    if (is_signed) halves("max.relu", [](Wide a, Wide b) { return std::max({a, b, Wide{0}}); });
    if (is_signed) halves("min.relu", [](Wide a, Wide b) { return std::max(std::min(a, b), Wide{0}); });
  }
  for (const uint32_t n : {8U, 16U}) {
    const std::string parts = n == 8 ? "4" : "2";
    const auto video = [&](const std::string& opcode, const std::string& types, bool to_signed, bool a_signed,
                           bool b_signed, bool sat, auto f) {
      add({opcode + parts + types + (sat ? ".sat" : "") + " $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
             uint64_t d = 0;
             for (uint32_t i = 0; i < 32; i += n) {
               const Wide x = f(value(v[0] >> i, n, a_signed), value(v[1] >> i, n, b_signed));
               d |= low_bits(static_cast<uint64_t>(sat ? clamp(x, n, to_signed) : x), n) << i;
             }
             return d;
           }});
    };
    const auto difference = [](Wide a, Wide b) { return std::max(a, b) - std::min(a, b); };
    video("vadd", ".u32.u32.u32", false, false, false, true, [](Wide a, Wide b) { return a + b; });
    video("vadd", ".s32.u32.s32", true, false, true, true, [](Wide a, Wide b) { return a + b; });
    video("vsub", ".u32.s32.u32", false, true, false, true, [](Wide a, Wide b) { return a - b; });
    video("vsub", ".s32.s32.s32", true, true, true, false, [](Wide a, Wide b) { return a - b; });
    video("vmin", ".s32.s32.s32", true, true, true, false, [](Wide a, Wide b) { return std::min(a, b); });
    video("vmax", ".u32.u32.u32", false, false, false, false, [](Wide a, Wide b) { return std::max(a, b); });
    video("vabsdiff", ".s32.s32.s32", true, true, true, true, difference);
    add({"vabsdiff" + parts + ".u32.u32.u32.add $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
           uint64_t d = v[2];
           for (uint32_t i = 0; i < 32; i += n) {
             d += static_cast<uint64_t>(difference(value(v[0] >> i, n, false), value(v[1] >> i, n, false)));
           }
           return d;
         }});
  }
  for (const bool a_signed : {false, true}) {
    for (const bool b_signed : {false, true}) {
      const std::string t = std::string(a_signed ? ".s32" : ".u32") + (b_signed ? ".s32" : ".u32");
      add({"dp4a" + t + " $d, $a, $b, $c;", 32, {32, 32, 32}, [=](const Values& v) {
             Wide sum = static_cast<Wide>(v[2]);
             for (int i = 0; i < 32; i += 8) sum += value(v[0] >> i, 8, a_signed) * value(v[1] >> i, 8, b_signed);
             return static_cast<uint64_t>(sum);
           }});
      for (const bool high : {false, true}) {
        add({std::string("dp2a") + (high ? ".hi" : ".lo") + t + " $d, $a, $b, $c;",
             32,
             {32, 32, 32},
             [=](const Values& v) {
               Wide sum = static_cast<Wide>(v[2]);
               for (int i = 0; i < 2; ++i) {
                 sum += value(v[0] >> (16 * i), 16, a_signed) * value(v[1] >> (8 * i + (high ? 16 : 0)), 8, b_signed);
               }
               return static_cast<uint64_t>(sum);
             }});
      }
    }
  }
  return cases;
}

bool bit(uint64_t v, int64_t i) { return (v >> i & 1) != 0; }

/// The manual's loop.
uint64_t extract(uint64_t a, uint64_t position, uint64_t length, int bits, bool is_signed) {
  const auto pos = static_cast<int64_t>(position & 0xff), len = static_cast<int64_t>(length & 0xff);
  const int64_t msb = bits - 1;
  const bool sign = is_signed && len != 0 && bit(a, std::min(pos + len - 1, msb));
  uint64_t d = 0;
  for (int64_t i = 0; i <= msb; ++i) {
    const bool b = i < len && pos + i <= msb ? bit(a, pos + i) : sign;
    d |= uint64_t{b} << i;
  }
  return d;
}

std::vector<LaneCase> bit_cases() {
  std::vector<LaneCase> cases;
  const auto add = [&](LaneCase c) { cases.push_back(std::move(c)); };
  for (const uint32_t n : {32U, 64U}) {
    const std::string b = ".b" + std::to_string(n);
    add({"popc" + b + " $d, $a;", 32, {n}, [=](const Values& v) {
           uint64_t count = 0;
           for (uint32_t i = 0; i < n; ++i) count += bit(v[0], i);
           return count;
         }});
    add({"clz" + b + " $d, $a;", 32, {n}, [=](const Values& v) {
           uint64_t count = 0;
           for (int64_t i = n - 1; i >= 0 && !bit(v[0], i); --i) ++count;
           return count;
         }});
    add({"brev" + b + " $d, $a;", n, {n}, [=](const Values& v) {
           uint64_t r = 0;
           for (uint32_t i = 0; i < n; ++i) r |= uint64_t{bit(v[0], i)} << (n - 1 - i);
           return r;
         }});
    add({"bfi" + b + " $d, $a, $b, $c, $e;",
         n,
         {n, n, 32, 32},
         [=](const Values& v) {
           uint64_t f = v[1];
           const uint64_t pos = v[2] & 0xff, len = v[3] & 0xff;
           for (uint64_t i = 0; i < len && pos + i < n; ++i) {
             f = (f & ~(uint64_t{1} << (pos + i))) | uint64_t{i < 64 && bit(v[0], static_cast<int64_t>(i))}
                                                         << (pos + i);
           }
           return f;
         },
         {0, 1, 5, 8, 16, 31, 32, 33, 63, 64, 100, 255, 256, 0x12345678}});
    for (const bool is_signed : {false, true}) {
      const std::string t = (is_signed ? ".s" : ".u") + std::to_string(n);
      add({"bfe" + t + " $d, $a, $b, $c;",
           n,
           {n, 32, 32},
           [=](const Values& v) { return extract(v[0], v[1], v[2], static_cast<int>(n), is_signed); },
           {0, 1, 5, 8, 16, 31, 32, 33, 63, 64, 100, 255, 256, 0x87654321}});
      for (const bool shift : {false, true}) {
        add({std::string("bfind") + (shift ? ".shiftamt" : "") + t + " $d, $a;", 32, {n}, [=](const Values& v) {
               const bool sign = is_signed && bit(v[0], n - 1);
               for (int64_t i = n - 1; i >= 0; --i) {
                 if (bit(v[0], i) != sign) return static_cast<uint64_t>(shift ? n - 1 - i : i);
               }
               return uint64_t{0xffffffff};
             }});
      }
    }
  }
  add({"fns.b32 $d, $a, $b, $c;",
       32,
       {32, 32, 32},
       [](const Values& v) -> uint64_t {
         const auto mask = v[0];
         const auto base = static_cast<int64_t>(v[1]);
         const auto offset = static_cast<int64_t>(value(v[2], 32, true));
         if (offset == 0) return base < 32 && bit(mask, base) ? static_cast<uint64_t>(base) : 0xffffffff;
         int64_t count = std::abs(offset) - 1;
         for (int64_t p = base; p >= 0 && p<32; p += offset> 0 ? 1 : -1) {
           if (!bit(mask, p)) continue;
           if (count == 0) return static_cast<uint64_t>(p);
           --count;
         }
         return 0xffffffff;
       },
       {0, 1, 2, 3, 4, 10, 31, uint64_t(-1), uint64_t(-2), uint64_t(-3), 0xf0f0f0f0, 0x80000001}});
  for (const std::string mode : {"clamp", "wrap"}) {
    for (const bool is_signed : {false, true}) {
      add({"szext." + mode + (is_signed ? ".s32" : ".u32") + " $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
             if (mode == "clamp" && v[1] >= 32) return v[0];
             const uint32_t n = v[1] & 31;
             if (n == 0) return uint64_t{0};
             return static_cast<uint64_t>(value(v[0], n, is_signed));
           }});
    }
    add({"bmsk." + mode + ".b32 $d, $a, $b;", 32, {32, 32}, [=](const Values& v) {
           if (mode == "clamp" && v[0] >= 32) return uint64_t{0};
           const uint64_t width = mode == "clamp" ? std::min<uint64_t>(v[1], 32) : v[1] & 31;
           uint64_t d = 0;
           for (uint64_t i = v[0] & 31; i < 32 && i < (v[0] & 31) + width; ++i) d |= uint64_t{1} << i;
           return d;
         }});
  }
  for (const uint32_t n : {16U, 32U, 64U}) {
    const std::string b = ".b" + std::to_string(n);
    add({"and" + b + " $d, $a, $b;", n, {n, n}, [](const Values& v) { return v[0] & v[1]; }});
    add({"or" + b + " $d, $a, $b;", n, {n, n}, [](const Values& v) { return v[0] | v[1]; }});
    add({"xor" + b + " $d, $a, $b;", n, {n, n}, [](const Values& v) { return v[0] ^ v[1]; }});
    add({"not" + b + " $d, $a;", n, {n}, [](const Values& v) { return ~v[0]; }});
    add({"cnot" + b + " $d, $a;", n, {n}, [](const Values& v) { return uint64_t{v[0] == 0}; }});
    add({"shl" + b + " $d, $a, $b;", n, {n, 32}, [=](const Values& v) { return v[1] >= n ? 0 : v[0] << v[1]; }});
    add({"shr" + b + " $d, $a, $b;", n, {n, 32}, [=](const Values& v) { return v[1] >= n ? 0 : v[0] >> v[1]; }});
    add({"shr.u" + b.substr(2) + " $d, $a, $b;", n, {n, 32}, [=](const Values& v) {
           return v[1] >= n ? 0 : v[0] >> v[1];
         }});
    add({"shr.s" + b.substr(2) + " $d, $a, $b;", n, {n, 32}, [=](const Values& v) {
           return static_cast<uint64_t>(value(v[0], n, true) >> std::min<uint64_t>(v[1], 64));
         }});
    add({"selp" + b + " $d, $a, $b, $s;", n, {n, n}, [](const Values& v) { return bit(v[0], 0) ? v[0] : v[1]; }});
    add({"selp" + b + " $d, $a, $b, !$s;", n, {n, n}, [](const Values& v) { return bit(v[0], 0) ? v[1] : v[0]; }});
  }
  for (const int table : {0x80, 0x96, 0xe8, 0xca, 0x00, 0xff, 0x1b, 0x2d}) {
    const auto reference = [=](const Values& v) {
      uint64_t d = 0;
      for (int i = 0; i < 32; ++i) {
        const int row = bit(v[0], i) * 4 + bit(v[1], i) * 2 + bit(v[2], i);
        d |= uint64_t{bit(static_cast<uint64_t>(table), row)} << i;
      }
      return d;
    };
    const std::string operands = "$a, $b, $c, " + std::to_string(table);
    add({"lop3.b32 $d, " + operands + ";", 32, {32, 32, 32}, reference});
    add({"lop3.or.b32 $d|$q, " + operands + ", $s;", 32, {32, 32, 32}, [=](const Values& v) {
           return reference(v) | uint64_t{reference(v) != 0 || bit(v[0], 0)} << 32;
         }});
    add({"lop3.and.b32 _|$d, " + operands + ", !$s;", 1, {32, 32, 32}, [=](const Values& v) {
           return uint64_t{reference(v) != 0 && !bit(v[0], 0)};
         }});
  }
  for (const bool left : {false, true}) {
    for (const bool wrap : {false, true}) {
      add({std::string("shf") + (left ? ".l" : ".r") + (wrap ? ".wrap" : ".clamp") + ".b32 $d, $a, $b, $c;",
           32,
           {32, 32, 32},
           [=](const Values& v) {
             const uint64_t n = wrap ? v[2] & 31 : std::min<uint64_t>(v[2], 32);
             const auto both = static_cast<unsigned __int128>(v[1] << 32 | v[0]);
             return static_cast<uint64_t>(left ? both << n >> 32 : both >> n);
           }});
    }
  }
  // Predicates: and, or, xor, not, with negated sources.
  const auto logic = [&](const std::string& text, auto f) {
    add({"setp.lt.s32 %p2, $b, 0;\n" + text, 1, {32, 32}, [=](const Values& v) {
           return uint64_t{f(bit(v[0], 0), bit(v[1], 31))};
         }});
  };
  logic("and.pred $d, $s, %p2;", [](bool a, bool b) { return a && b; });
  logic("or.pred $d, $s, !%p2;", [](bool a, bool b) { return a || !b; });
  logic("xor.pred $d, !$s, %p2;", [](bool a, bool b) { return a == b; });
  logic("not.pred $d, $s;", [](bool a, bool) { return !a; });
  logic("mov.pred $d, !%p2;", [](bool, bool b) { return !b; });
  logic("mov.pred $d, 1;", [](bool, bool) { return true; });
  return cases;
}

std::vector<LaneCase> comparison_cases() {
  std::vector<LaneCase> cases;
  const auto add = [&](const std::string& compare, const std::string& type, uint32_t n, bool is_signed, auto holds) {
    const auto result = [=](const Values& v) { return holds(value(v[0], n, is_signed), value(v[1], n, is_signed)); };
    cases.push_back({"setp." + compare + "." + type + " $d, $a, $b;", 1, {n, n}, [=](const Values& v) {
                       return uint64_t{result(v)};
                     }});
    cases.push_back({"setp." + compare + "." + type + " $d|$q, $a, $b;", 1, {n, n}, [=](const Values& v) {
                       return uint64_t{result(v)} | uint64_t{!result(v)} << 32;
                     }});
    cases.push_back({"setp." + compare + ".and." + type + " $d|$q, $a, $b, $s;", 1, {n, n}, [=](const Values& v) {
                       const bool c = bit(v[0], 0);
                       return uint64_t{result(v) && c} | uint64_t{!result(v) && c} << 32;
                     }});
    cases.push_back({"setp." + compare + ".or." + type + " $d, $a, $b, !$s;", 1, {n, n}, [=](const Values& v) {
                       return uint64_t{result(v) || !bit(v[0], 0)};
                     }});
    cases.push_back({"setp." + compare + ".xor." + type + " $d, $a, $b, $s;", 1, {n, n}, [=](const Values& v) {
                       return uint64_t{result(v) != bit(v[0], 0)};
                     }});
    cases.push_back({"set." + compare + ".u32." + type + " $d, $a, $b;", 32, {n, n}, [=](const Values& v) {
                       return result(v) ? uint64_t{0xffffffff} : 0;
                     }});
    cases.push_back({"set." + compare + ".and.f32." + type + " $d, $a, $b, !$s;", 32, {n, n}, [=](const Values& v) {
                       return result(v) && !bit(v[0], 0) ? uint64_t{0x3f800000} : 0;
                     }});
  };
  for (const Type& t : kTypes) {
    add("eq", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a == b; });
    add("ne", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a != b; });
    add("lt", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a < b; });
    add("le", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a <= b; });
    add("gt", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a > b; });
    add("ge", t.name, t.bits, t.is_signed, [](Wide a, Wide b) { return a >= b; });
    if (t.is_signed) continue;
    add("lo", t.name, t.bits, false, [](Wide a, Wide b) { return a < b; });
    add("ls", t.name, t.bits, false, [](Wide a, Wide b) { return a <= b; });
    add("hi", t.name, t.bits, false, [](Wide a, Wide b) { return a > b; });
    add("hs", t.name, t.bits, false, [](Wide a, Wide b) { return a >= b; });
  }
  for (const uint32_t n : {16U, 32U, 64U}) {
    add("eq", "b" + std::to_string(n), n, false, [](Wide a, Wide b) { return a == b; });
    add("ne", "b" + std::to_string(n), n, false, [](Wide a, Wide b) { return a != b; });
  }
  return cases;
}

class Integer : public ::testing::TestWithParam<LaneCase> {};

TEST_P(Integer, EveryLane) { check_lanes(GetParam(), false); }
TEST_P(Integer, UnderAGuard) { check_lanes(GetParam(), true); }

INSTANTIATE_TEST_SUITE_P(Arithmetic, Integer, ::testing::ValuesIn(arithmetic_cases()));
INSTANTIATE_TEST_SUITE_P(Bits, Integer, ::testing::ValuesIn(bit_cases()));
INSTANTIATE_TEST_SUITE_P(Comparisons, Integer, ::testing::ValuesIn(comparison_cases()));

TEST(IntegerForms, UnknownOnesAreRefused) {
  for (const std::string text :
       {"add.sat.u32 %r1, %r2, %r3;", "mul.u32 %r1, %r2, %r3;", "mul.wide.u64 %rd1, %rd2, %rd3;",
        "add.u32 %r1, %rd2, %r3;", "shf.l.b32 %r1, %r2, %r3, %r4;", "setp.lt.b32 %p1, %r1, %r2;",
        "setp.lo.s32 %p1, %r1, %r2;", "setp.u32 %p1, %r1, %r2;", "lop3.b32 %r1, %r2, %r3, %r4, 256;",
        "max.relu.u32 %r1, %r2, %r3;", "abs.u32 %r1, %r2;", "popc.u32 %r1, %r2;", "add.u32.rn %r1, %r2, %r3;",
        "setp.eq.and.u32 %p1, %r1, %r2;", "addc.u16 %h1, %h2, %h3;", "add.u32 %r1, %r2;"}) {
    Device device;
    bool refused = false;
    try {
      refused = device.run(kernel(0, text), {1, 1, 1}, {32, 1, 1}).status != Status::kOk;
    } catch (const ptxsim::Error&) {
      refused = true;
    }
    EXPECT_TRUE(refused) << text;
  }
}

}  // namespace
}  // namespace ptxsim::testing
