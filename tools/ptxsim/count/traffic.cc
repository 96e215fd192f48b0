#include "tools/ptxsim/count/traffic.h"

#include <algorithm>
#include <array>
#include <bit>

#include "tools/ptxsim/exec/observer.h"

namespace ptxsim {

namespace {

constexpr uint32_t kSector = 32, kBanks = 32, kWord = 4;

/// Lanes that go together: 32 up to 4 bytes each, 16 of 8, 8 of 16 and more.
uint32_t lanes_together(uint32_t bytes) { return bytes <= 4 ? 32 : bytes <= 8 ? 16 : 8; }

/// Calls f(mask of the part) for each part of the warp with lanes in it.
template <class F>
void each_part(Mask mask, uint32_t bytes, F f) {
  const uint32_t width = lanes_together(bytes);
  const Mask part = width == 32 ? ~Mask{0} : (Mask{1} << width) - 1;
  for (uint32_t first = 0; first < kLanes; first += width) {
    if (const Mask lanes = mask & part << first; lanes != 0) f(lanes);
  }
}

/// How many distinct numbers first(l)…last(l) the lanes have.
template <class F>
uint32_t count_distinct(Mask lanes, F range) {
  std::array<uint64_t, 128> seen;
  uint32_t n = 0;
  for (; lanes != 0; lanes &= lanes - 1) {
    const auto [first, last] = range(std::countr_zero(lanes));
    for (uint64_t s = first; s <= last; ++s) {
      // Neighbouring lanes mostly follow each other: the last one seen is the likeliest.
      if (n != 0 && seen[n - 1] == s) continue;
      if (std::find(seen.begin(), seen.begin() + n, s) == seen.begin() + n) seen[n++] = s;
    }
  }
  return n;
}

}  // namespace

uint32_t global_sectors(Mask mask, const uint64_t* address, uint32_t bytes) {
  uint32_t sectors = 0;
  if (bytes <= 16 && in_row(mask, address, bytes)) {  // from a sector's start on or not
    const uint64_t part = uint64_t{lanes_together(bytes)} * bytes;
    for (uint64_t at = address[0]; at < address[0] + uint64_t{kLanes} * bytes; at += part) {
      sectors += static_cast<uint32_t>((at + part - 1) / kSector - at / kSector + 1);
    }
    return sectors;
  }
  each_part(mask, bytes, [&](Mask lanes) {
    sectors += count_distinct(
        lanes, [&](int l) { return std::pair(address[l] / kSector, (address[l] + bytes - 1) / kSector); });
  });
  return sectors;
}

uint32_t local_sectors(Mask mask, const uint64_t* address, uint32_t bytes) {
  uint32_t sectors = 0;
  each_part(mask, bytes, [&](Mask lanes) {
    // Word w of lane l lies at (w · 32 + l) · 4; a sector holds eight lanes' words.
    std::array<uint64_t, 512> seen;
    uint32_t n = 0;
    for (Mask m = lanes; m != 0; m &= m - 1) {
      const int l = std::countr_zero(m);
      for (uint64_t word = address[l] / kWord; word <= (address[l] + bytes - 1) / kWord; ++word) {
        const uint64_t sector = word * 4 + static_cast<uint64_t>(l) / 8;
        if (std::find(seen.begin(), seen.begin() + n, sector) == seen.begin() + n) seen[n++] = sector;
      }
    }
    sectors += n;
  });
  return sectors;
}

Wavefronts shared_wavefronts(Mask mask, const uint64_t* address, uint32_t bytes) {
  // Each part reads at most as many words in a row as there are banks.
  if (bytes <= 16 && address[0] % bytes == 0 && in_row(mask, address, bytes)) {
    const uint32_t parts = kLanes / lanes_together(bytes);
    return {parts, parts};
  }
  Wavefronts result{0, 0};
  each_part(mask, bytes, [&](Mask lanes) {
    // Distinct words of each bank.
    std::array<std::array<uint64_t, kLanes>, kBanks> words;
    std::array<uint8_t, kBanks> counts{};
    uint32_t most = 1;
    for (; lanes != 0; lanes &= lanes - 1) {
      const int l = std::countr_zero(lanes);
      for (uint64_t word = address[l] / kWord; word <= (address[l] + bytes - 1) / kWord; ++word) {
        const size_t bank = word % kBanks;
        auto& row = words[bank];
        uint8_t& n = counts[bank];
        if (std::find(row.begin(), row.begin() + n, word) != row.begin() + n) continue;
        if (n == kLanes) continue;
        row[n++] = word;
        most = std::max<uint32_t>(most, n);
      }
    }
    result.count += most;
    ++result.ideal;
  });
  return result;
}

Wavefronts cluster_wavefronts(Mask mask, const uint64_t* address, uint32_t bytes) {
  Wavefronts result{0, 0};
  while (mask != 0) {
    const uint64_t block = address[std::countr_zero(mask)] >> kClusterRankShift;
    Mask same = 0;
    for (Mask m = mask; m != 0; m &= m - 1) {
      const int l = std::countr_zero(m);
      same |= Mask{address[l] >> kClusterRankShift == block} << l;
    }
    const Wavefronts there = shared_wavefronts(same, address, bytes);
    result.count += there.count;
    result.ideal += there.ideal;
    mask &= ~same;
  }
  return result;
}

}  // namespace ptxsim
