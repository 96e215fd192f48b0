#pragma once

#include <bit>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace ptxsim {

/// A set of byte addresses, a bit each, in pages made when first touched.
class UniqueBytes {
 public:
  void add(uint64_t first, uint64_t bytes) {
    while (bytes != 0) {
      Page& page = page_of(first / kPageBytes);
      const uint64_t at = first % kPageBytes;
      const uint64_t here = std::min(bytes, kPageBytes - at);
      for (uint64_t b = at; b < at + here;) {
        const uint64_t n = std::min(64 - b % 64, at + here - b);
        const uint64_t bits = (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << b % 64;
        page[b / 64] |= bits;
        b += n;
      }
      first += here;
      bytes -= here;
    }
  }

  void merge(const UniqueBytes& other) {
    for (const auto& [number, page] : other.pages_) {
      Page& mine = page_of(number);
      for (size_t i = 0; i < mine.size(); ++i) mine[i] |= (*page)[i];
    }
  }

  uint64_t count() const {
    uint64_t n = 0;
    for (const auto& [number, page] : pages_) {
      for (const uint64_t bits : *page) n += static_cast<uint64_t>(std::popcount(bits));
    }
    return n;
  }

 private:
  static constexpr uint64_t kPageBytes = 4096;
  using Page = std::vector<uint64_t>;

  Page& page_of(uint64_t number) {
    if (number == last_number_ && last_ != nullptr) return *last_;
    std::unique_ptr<Page>& page = pages_[number];
    if (page == nullptr) page = std::make_unique<Page>(kPageBytes / 64, 0);
    last_number_ = number;
    last_ = page.get();
    return *page;
  }

  std::map<uint64_t, std::unique_ptr<Page>> pages_;
  uint64_t last_number_ = 0;
  Page* last_ = nullptr;
};

}  // namespace ptxsim
