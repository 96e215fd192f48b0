#include "tools/efficiency/page.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <ostream>
#include <string>
#include <vector>

#include "base/error.h"

namespace cpvt::efficiency {

namespace {

/// What is coloured alike, found by a part of the operator's name, whose end is written as $.
struct Group {
  const char* part;
  const char* label;
  const char* colour;
};
constexpr std::array kGroups = {
    Group{"patch_embed", "patch embedding", "#7f7f7f"},
    Group{".norm", "LayerNorm (alone)", "#a8961f"},
    Group{".qkv", "qkv", "#1f77b4"},
    Group{".attn$", "attention", "#d95f02"},
    Group{".proj", "proj + residual", "#4a98c9"},
    Group{".fc1", "fc1 + GELU", "#1b7837"},
    Group{".fc2", "fc2 + residual", "#5aa55a"},
    Group{"pos_block", "PEG", "#c51b7d"},
    Group{"", "pool, head", "#3f3f3f"},
};

size_t group_of(const std::string& op) {
  const std::string name = op + "$";
  const auto found =
      std::ranges::find_if(kGroups, [&](const Group& g) { return name.find(g.part) != std::string::npos; });
  return static_cast<size_t>(found - kGroups.begin());
}

/// The launches of one pass, and their sums.
struct PassTotals {
  std::string name;
  std::vector<const Launch*> launches;
  double kernels = 0, microseconds = 0, multiply_adds = 0, device_bytes = 0, l2_bytes = 0;
  std::array<double, kGroups.size()> of_group{};

  /// "Ti 224 px, batch 32, fp16" -> 32.
  double images() const { return std::stod(name.substr(name.find("batch ") + 6)); }
  std::string model() const { return name.substr(0, name.find(' ')); }
  std::string rest() const { return name.substr(name.find(' ') + 1); }
};

std::vector<PassTotals> totals(std::span<const Launch> launches) {
  std::vector<PassTotals> passes;
  for (const Launch& l : launches) {
    if (passes.empty() || passes.back().name != l.pass) passes.emplace_back().name = l.pass;
    PassTotals& pass = passes.back();
    pass.launches.push_back(&l);
    pass.kernels += l.count;
    pass.microseconds += l.count * l.estimate_us;
    pass.multiply_adds += l.count * l.multiply_adds;
    pass.device_bytes += l.count * l.device_bytes;
    pass.l2_bytes += l.count * l.l2_bytes;
    pass.of_group[group_of(l.op)] += l.count * l.estimate_us;
  }
  return passes;
}

/// Three digits that mean something: "3.08", "12.3", "1,234".
std::string digits(double value) {
  if (value >= 1e3) {
    const std::string below = fmt::format("{:03.0f}", std::fmod(std::round(value), 1e3));
    return digits(std::floor(std::round(value) / 1e3)) + "," + below;
  }
  if (value >= 100 || value == std::floor(value)) return fmt::format("{:.0f}", value);
  return value >= 10 ? fmt::format("{:.1f}", value) : fmt::format("{:.2f}", value);
}

std::string escaped(std::string text) {
  for (size_t at = 0; (at = text.find_first_of("<>&", at)) != std::string::npos; ++at) {
    const std::string name = text[at] == '<' ? "&lt;" : text[at] == '>' ? "&gt;" : "&amp;";
    text.replace(at, 1, name);
  }
  return text;
}

/// A table of Markdown: the columns' heads, those that begin with "<" flush left.
void write_head(std::ostream& out, std::initializer_list<std::string_view> heads) {
  std::string rule = "|";
  out << '|';
  for (std::string_view head : heads) {
    const bool left = head.starts_with('<');
    if (left) head.remove_prefix(1);
    out << ' ' << head << " |";
    rule += left ? "---|" : "--:|";
  }
  out << '\n' << rule << '\n';
}

void write_passes(std::ostream& out, const std::vector<PassTotals>& passes) {
  write_head(out, {"<model", "<pass", "kernels", "estimate, µs", "images/s by it", "multiply-adds, G", "memory, MB",
                   "sectors, MB"});
  for (const PassTotals& p : passes) {
    out << fmt::format("| {} | {} | {:.0f} | **{}** | {} | {} | {} | {} |\n", p.model(), p.rest(), p.kernels,
                       digits(p.microseconds), digits(p.images() / p.microseconds * 1e6), digits(p.multiply_adds / 1e9),
                       digits(p.device_bytes / 1e6), digits(p.l2_bytes / 1e6));
  }
}

void write_kernels(std::ostream& out, const PassTotals& pass) {
  out << fmt::format("\n### {}\n\n", pass.name);
  write_head(out, {"<operator", "launches", "estimate, µs each", "share", "<limiter", "blocks × threads", "waves",
                   "memory, MB", "sectors, × that", "sectors/request, load, store", "bank conflicts",
                   "tensor instructions", "tensor work", "registers", "shared, KiB", "blocks resident"});
  for (const Launch* l : pass.launches) {
    const bool tensor = l->tensor_percent > 0;
    out << fmt::format(
        "| {} | {:.0f} | {} | {:.0f} % | {} | {:.0f} × {:.0f} | {:.2f} | {} | {:.1f} | {:.1f}, {:.1f} | {} | {} | {} | "
        "{:.0f} | {} | {:.0f} |\n",
        escaped(l->op), l->count, digits(l->estimate_us), 100 * l->count * l->estimate_us / pass.microseconds,
        l->limiter, l->blocks, l->threads, l->waves, digits(l->device_bytes / 1e6), l->l2_bytes / l->device_bytes,
        l->load_sectors, l->store_sectors, digits(l->conflicts),
        tensor ? fmt::format("{:.1f} %", l->tensor_percent) : "–", tensor ? fmt::format("{:.2f}", l->tensor_work) : "–",
        l->registers, digits(l->shared_bytes / 1024), l->resident);
  }
  out << "\n<details><summary>Which kernels these are</summary>\n\n";
  for (const Launch* l : pass.launches) out << fmt::format("* {}: `{}`\n", escaped(l->op), l->kernel);
  out << "\n</details>\n";
}

}  // namespace

void write_page(std::ostream& out, std::span<const Launch> launches) {
  const std::vector<PassTotals> passes = totals(launches);
  out << R"(<!-- Made by tools/efficiency/renew.sh from tests/kernels/cuda/budgets.txt. Change those, not this. -->
# The CUDA kernels, counted

**Estimates, not measurements.** No GPU had a part in this page. The simulator,
[ptxsim](../README.md#ptxsim-cuda-kernels-without-a-gpu), executed the PTX that nvcc made of every kernel, at the shapes
of CPVT-GAP with a PEG of 3×3 (cls: with a class token; k7, k9, k27: with such a PEG), and counted. The counters are
exact for the PTX. A time is what an NVIDIA H200 would need if nothing ever waited: the largest of the times that its
memory, L2, shared memory, instruction issue, tensor cores and arithmetic need by themselves, at the rates of the data
sheet (132 multiprocessors at 1.98 GHz, memory 4.8 TB/s) and 5.5 TB/s for L2.

Waiting is latency, barriers, the start and end of a kernel and the gap to the next. At batch 1, where a kernel is a
microsecond of work for a part of the multiprocessors, it is most of the real time; at large batches the estimate is
nearer. In one way it is too long: what first-level caches answer is not taken off what L2 is asked for, so that a
kernel limited by L2 may be faster than it says here.

## A forward pass

)";
  write_passes(out, passes);
  out << R"(
Kernels are those that the engine launches for one pass, from its fused graph. Memory is the sum over them of the
different bytes that each touches, as if nothing stayed in L2 from one kernel to the next.

![Shares of the estimated time](cuda-kernels.svg)

## Kernel by kernel

* **limiter**: which of the bounds is the largest.
* **memory**: different bytes of global memory that are read or written, the least that can move. **sectors**: those
  that were asked for, of 32 bytes, as a multiple of that: a tile's operands come again for each of its neighbours.
* **sectors/request**: 16 is a warp's full access of 16 bytes a thread, 4 one of 4 bytes; fewer where a row ends within,
  more where an access uses its sectors only in part. What TMA brings counts as a request, of 4 sectors, for each 128
  bytes.
* **tensor instructions**: share of all warp instructions. **tensor work**: multiply-adds of the tensor cores over those
  that mathematics needs; what lies beyond 1 are tiles that reach over the edge.
* **registers** of a thread are ptxas's for sm_90a; **blocks resident** is how many a multiprocessor holds at a time.
)";
  const auto spills = std::ranges::count_if(launches, [](const Launch& l) { return l.local_bytes != 0; });
  out << (spills == 0 ? "* No kernel uses local memory: nothing spills.\n"
                      : fmt::format("* **{} of {} kernels use local memory.**\n", spills, launches.size()))
      << R"(
The test `kernels_cuda.budgets` counts anew and fails where something got worse; the slack of each counter stands in
[budgets.txt](../tests/kernels/cuda/budgets.txt). `tools/efficiency/renew.sh` renews budgets and this page.
)";
  for (const PassTotals& pass : passes) write_kernels(out, pass);
}

void write_picture(std::ostream& out, std::span<const Launch> launches) {
  constexpr int kLeft = 210;
  constexpr int kBar = 560;
  constexpr int kRow = 34;
  constexpr int kTop = 112;
  const std::vector<PassTotals> passes = totals(launches);
  const int height = kTop + static_cast<int>(passes.size()) * kRow + 16;
  out << fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 960 {0}\" width=\"960\" height=\"{0}\" "
      "font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\">\n"
      "<rect width=\"960\" height=\"{0}\" fill=\"#ffffff\"/>\n"
      "<text x=\"20\" y=\"28\" font-size=\"17\" font-weight=\"bold\" fill=\"#222\">"
      "Where the estimated time of a forward pass goes</text>\n"
      "<text x=\"20\" y=\"48\" fill=\"#666\">CPVT-GAP on an NVIDIA H200: estimated from ptxsim's counters, not "
      "measured</text>\n",
      height);
  for (size_t g = 0; g < kGroups.size(); ++g) {
    const int x = 20 + static_cast<int>(g % 5) * 185;
    const int y = 62 + static_cast<int>(g / 5) * 20;
    out << fmt::format(
        "<rect x=\"{}\" y=\"{}\" width=\"12\" height=\"12\" fill=\"{}\"/><text x=\"{}\" y=\"{}\" "
        "fill=\"#222\">{}</text>\n",
        x, y, kGroups[g].colour, x + 18, y + 11, kGroups[g].label);
  }
  int y = kTop;
  for (const PassTotals& pass : passes) {
    out << fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#222\">{}</text>\n", kLeft - 10, y + 17,
                       escaped(pass.name));
    double x = kLeft;
    for (size_t g = 0; g < kGroups.size(); ++g) {
      const double share = pass.of_group[g] / pass.microseconds;
      const double width = share * kBar;
      if (width <= 0) continue;
      out << fmt::format(
          "<rect x=\"{:.1f}\" y=\"{}\" width=\"{:.1f}\" height=\"24\" fill=\"{}\" stroke=\"#fff\" stroke-width=\"0.5\">"
          "<title>{}: {}: {} µs, {:.1f} %</title></rect>\n",
          x, y, width, kGroups[g].colour, escaped(pass.name), kGroups[g].label, digits(pass.of_group[g]), 100 * share);
      if (width >= 30) {
        out << fmt::format(
            "<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\" font-size=\"11\" fill=\"#fff\">{:.0f} %</text>\n",
            x + width / 2, y + 16, 100 * share);
      }
      x += width;
    }
    out << fmt::format("<text x=\"{}\" y=\"{}\" fill=\"#222\">{} µs, {:.0f} kernels</text>\n", kLeft + kBar + 10,
                       y + 17, digits(pass.microseconds), pass.kernels);
    y += kRow;
  }
  out << "</svg>\n";
}

}  // namespace cpvt::efficiency
