#include "tools/ptxsim/exec/device_runtime.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <mutex>
#include <optional>
#include <string>

#include "tools/ptxsim/exec/cta.h"

/// What device code calls without having it: printf, malloc, free, assert.
namespace ptxsim {

namespace {

// No parameter of these functions takes more.
constexpr uint32_t kParameterStride = 16;

template <class T>
T argument(const Warp& w, const Instruction& in, size_t i, int lane) {
  T value;
  std::memcpy(
      &value,
      w.base[Slot::kFrame] + in.slots[in.flags[0] + i].offset() + static_cast<uint32_t>(lane) * kParameterStride,
      sizeof(T));
  return value;
}

template <class T>
void give_result(Warp& w, const Instruction& in, int lane, T value) {
  if (in.flags[0] == 0) return;
  std::memcpy(w.base[Slot::kFrame] + in.slots[0].offset() + static_cast<uint32_t>(lane) * kParameterStride, &value,
              sizeof(T));
}

bool expect(Warp& w, const Instruction& in, Mask m, const char* name, size_t arguments) {
  if (in.flags[1] == arguments) return true;
  w.fault(Status::kIllegalInstruction, in, std::countr_zero(m),
          fmt::format("{} called with {} parameters, expected {}", name, in.flags[1], arguments));
  return false;
}

/// What can be read from a generic address on, up to the end of the allocation or window; null where nothing can.
struct Readable {
  const std::byte* at = nullptr;
  uint64_t bytes = 0;
};

Readable readable(const Warp& w, int lane, uint64_t address) {
  const auto within = [](const std::byte* start, uint64_t size, uint64_t offset) {
    return offset < size ? Readable{start + offset, size - offset} : Readable{};
  };
  const uint64_t inside = address & ~kWindowMask;
  const Cta& cta = *w.cta;
  switch (address & kWindowMask) {
    case 0: {
      const Allocation* a = cta.grid.machine->memory().find_live(address, 1);
      return a == nullptr ? Readable{} : within(a->host, a->bytes, address - a->base);
    }
    case kWindowShared: {
      const uint64_t rank = inside >> kClusterRankShift;
      const Cta* owner = &cta;
      if (rank != 0) {
        if (cta.cluster == nullptr || rank > cta.cluster->blocks.size()) return {};
        owner = cta.cluster->blocks[rank - 1].get();
      }
      return within(owner->shared, cta.grid.shared_bytes, inside & ((uint64_t{1} << kClusterRankShift) - 1));
    }
    case kWindowLocal: {
      const uint64_t size = w.program().local_bytes;
      return within(cta.locals + (uint64_t{w.index} * kLanes + static_cast<uint64_t>(lane)) * size, size, inside);
    }
    case kWindowParam:
      return within(cta.grid.launch->parameters.data(), cta.grid.launch->parameters.size(), inside);
    default:
      return {};
  }
}

/// A string of the device up to its end or `most` characters; none where it leaves its memory before.
std::optional<std::string> device_string(const Warp& w, int lane, uint64_t address, uint64_t most = ~uint64_t{0}) {
  const Readable r = readable(w, lane, address);
  const auto* text = reinterpret_cast<const char*>(r.at);
  if (most == 0) return std::string();
  if (text == nullptr) return {};
  const uint64_t length = strnlen(text, std::min(r.bytes, most));
  if (length == r.bytes && length < most) return {};
  return std::string(text, length);
}

// --- printf ----------------------------------------------------------------------------------------------------------

/// One thread's printf: walks the format, takes arguments from the buffer that the caller laid out like a struct.
class Printf {
 public:
  Printf(Warp& w, const Instruction& in, int lane, uint64_t arguments)
      : w_(w), in_(in), lane_(lane), arguments_(arguments) {}

  /// False after a fault.
  bool run(const std::string& format, std::string& out) {
    size_t i = 0;
    while (i < format.size() && !failed_) {
      const size_t percent = std::min(format.find('%', i), format.size());
      out.append(format, i, percent - i);
      i = percent;
      if (i < format.size()) conversion(format, i, out);
    }
    return !failed_;
  }

  int taken() const { return taken_; }

 private:
  template <class T>
  T take() {
    offset_ = (offset_ + sizeof(T) - 1) / sizeof(T) * sizeof(T);
    const Readable r = readable(w_, lane_, arguments_ + offset_);
    T value{};
    if (r.bytes < sizeof(T)) {
      fail(fmt::format("printf: argument {} cannot be read at {:#x}", taken_ + 1, arguments_ + offset_));
      return value;
    }
    std::memcpy(&value, r.at, sizeof(T));
    offset_ += sizeof(T);
    ++taken_;
    return value;
  }

  void fail(const std::string& what) {
    if (!failed_) w_.fault(Status::kIllegalAddress, in_, lane_, what);
    failed_ = true;
  }

  template <class T>
  static void append(std::string& out, const std::string& spec, T value) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"  // the specification was put together here for exactly this type
    const int length = std::snprintf(nullptr, 0, spec.c_str(), value);
    if (length <= 0) return;
    const size_t old = out.size();
    out.resize(old + static_cast<size_t>(length) + 1);
    std::snprintf(out.data() + old, static_cast<size_t>(length) + 1, spec.c_str(), value);
    out.resize(old + static_cast<size_t>(length));
#pragma GCC diagnostic pop
  }

  /// A number in the format, or `*`: then an argument.
  std::optional<int> number(const std::string& format, size_t& i) {
    if (i < format.size() && format[i] == '*') {
      ++i;
      return take<int>();
    }
    if (i >= format.size() || format[i] < '0' || format[i] > '9') return {};
    int n = 0;
    for (; i < format.size() && format[i] >= '0' && format[i] <= '9'; ++i)
      n = std::min(n * 10 + (format[i] - '0'), 1 << 20);
    return n;
  }

  /// format[i] is the '%'; leaves i behind the conversion. What is none is printed as it stands.
  void conversion(const std::string& format, size_t& i, std::string& out) {
    const size_t start = i++;
    std::string spec = "%";
    while (i < format.size() && std::strchr("-+ #0", format[i]) != nullptr && format[i] != '\0') spec += format[i++];
    if (const auto width = number(format, i)) {
      if (*width < 0) spec += '-';
      spec += fmt::format("{}", std::abs(*width));
    }
    int precision = -1;  // none
    if (i < format.size() && format[i] == '.') {
      ++i;
      precision = number(format, i).value_or(0);
      if (precision >= 0) spec += fmt::format(".{}", precision);
    }
    std::string size;
    while (i < format.size() && std::strchr("hlLqjzt", format[i]) != nullptr && format[i] != '\0') size += format[i++];
    const bool wide = !size.empty() && size[0] != 'h';
    const char type = i < format.size() ? format[i++] : '\0';
    switch (type) {
      case '%':
        out += '%';
        return;
      case 'd':
      case 'i':
      case 'o':
      case 'u':
      case 'x':
      case 'X':
        if (wide) {
          append(out, spec + "ll" + type, take<long long>());
        } else {
          append(out, spec + size + type, take<int>());
        }
        return;
      case 'c':
        append(out, spec + type, take<int>());
        return;
      case 'e':
      case 'E':
      case 'f':
      case 'F':
      case 'g':
      case 'G':
      case 'a':
      case 'A':
        append(out, spec + type, take<double>());
        return;
      case 'p':
        append(out, spec + type, take<void*>());
        return;
      case 's': {
        const auto address = take<uint64_t>();
        if (failed_) return;
        const uint64_t most = precision < 0 ? ~uint64_t{0} : static_cast<uint64_t>(precision);
        const auto text = address == 0 ? "(null)" : device_string(w_, lane_, address, most);
        if (!text) {
          fail(fmt::format("printf: no string at {:#x} (argument {})", address, taken_));
          return;
        }
        append(out, spec + type, text->c_str());
        return;
      }
      default:
        out.append(format, start, i - start);
    }
  }

  Warp& w_;
  const Instruction& in_;
  int lane_;
  uint64_t arguments_;
  uint64_t offset_ = 0;
  int taken_ = 0;
  bool failed_ = false;
};

/// vprintf(format, arguments): how many arguments it took; -1 without a format.
void device_printf(Warp& w, const Instruction& in, Mask m) {
  if (!expect(w, in, m, "vprintf", 2)) return;
  std::string out;
  bool fine = true;
  each_lane(m, [&](int l) {
    if (!fine) return;
    const auto format_address = argument<uint64_t>(w, in, 0, l);
    if (format_address == 0) {
      give_result(w, in, l, int32_t{-1});
      return;
    }
    const auto format = device_string(w, l, format_address);
    if (!format) {
      w.fault(Status::kIllegalAddress, in, l, fmt::format("printf: no format at {:#x}", format_address));
      fine = false;
      return;
    }
    Printf call(w, in, l, argument<uint64_t>(w, in, 1, l));
    fine = call.run(*format, out);
    give_result(w, in, l, int32_t{call.taken()});
  });
  // One write, so that a warp's lines stay together; at once, so that a fault later cannot lose them.
  std::fwrite(out.data(), 1, out.size(), stdout);
  std::fflush(stdout);
}

// --- malloc and free -------------------------------------------------------------------------------------------------

uint64_t charged(uint64_t bytes) { return (bytes + 15) / 16 * 16; }

void device_malloc(Warp& w, const Instruction& in, Mask m) {
  if (!expect(w, in, m, "malloc", 1)) return;
  Machine& machine = *w.cta->grid.machine;
  each_lane(m, [&](int l) {
    const uint64_t bytes = std::max<uint64_t>(1, argument<uint64_t>(w, in, 0, l));
    const uint64_t limit = machine.heap_limit;
    uint64_t used = machine.heap_used;
    Allocation* allocation = nullptr;
    bool fits = false;
    do {
      fits = bytes <= limit && used <= limit - charged(bytes);
    } while (fits && !machine.heap_used.compare_exchange_weak(used, used + charged(bytes)));
    if (fits) {
      allocation = machine.memory().allocate(MemoryKind::kHeap, bytes);
      if (allocation == nullptr) {
        machine.heap_used -= charged(bytes);
      } else if (machine.options().check) {
        allocation->site = w.program().place(in.index);
      }
    }
    give_result(w, in, l, allocation == nullptr ? uint64_t{0} : allocation->base);
  });
}

void device_free(Warp& w, const Instruction& in, Mask m) {
  if (!expect(w, in, m, "free", 1)) return;
  Machine& machine = *w.cta->grid.machine;
  static std::mutex mutex;  // two threads that free the same
  bool fine = true;
  each_lane(m, [&](int l) {
    const auto address = argument<uint64_t>(w, in, 0, l);
    if (!fine || address == 0) return;
    const std::lock_guard lock(mutex);
    Allocation* a = machine.memory().find(address);
    if (a == nullptr || a->kind != MemoryKind::kHeap || a->base != address || !a->live) {
      const bool again = a != nullptr && a->kind == MemoryKind::kHeap && a->base == address;
      w.fault(Status::kIllegalAddress, in, l,
              fmt::format("free of {:#x}, {}", address,
                          again ? "which has been freed already" : "which malloc in device code did not return"));
      fine = false;
      return;
    }
    machine.memory().free(a);
    machine.heap_used -= charged(a->bytes);
  });
}

// --- assert ----------------------------------------------------------------------------------------------------------

/// __assertfail(message, file, line, function, size of a character).
void device_assert(Warp& w, const Instruction& in, Mask m) {
  if (!expect(w, in, m, "__assertfail", 5)) return;
  std::string out;
  std::string assertion;
  each_lane(m, [&](int l) {
    const auto text = [&](size_t i) { return device_string(w, l, argument<uint64_t>(w, in, i, l)).value_or("?"); };
    if (assertion.empty()) assertion = text(0);
    const auto thread = w.thread_of(l);
    const Dim3& block = w.cta->index;
    out += fmt::format("{}:{}: {}: block: [{},{},{}], thread: [{},{},{}] Assertion `{}` failed.\n", text(1),
                       argument<uint32_t>(w, in, 2, l), text(3), block[0], block[1], block[2], thread[0], thread[1],
                       thread[2], text(0));
  });
  std::fwrite(out.data(), 1, out.size(), stderr);
  w.fault(Status::kAssert, in, std::countr_zero(m), fmt::format("assertion `{}` failed", assertion));
}

}  // namespace

Handler device_runtime_function(std::string_view name) {
  if (name == "vprintf") return device_printf;
  if (name == "malloc") return device_malloc;
  if (name == "free") return device_free;
  if (name == "__assertfail") return device_assert;
  return nullptr;
}

}  // namespace ptxsim
