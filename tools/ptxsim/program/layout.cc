#include "tools/ptxsim/program/layout.h"

#include <algorithm>
#include <set>

namespace ptxsim {

namespace {

struct Block {
  uint32_t first, last;  // drafts
  std::vector<uint32_t> successors, predecessors;
  std::vector<uint32_t> loops;  // headers of the loops that hold it
};

std::vector<Block> find_blocks(const std::vector<Draft>& drafts) {
  const auto n = static_cast<uint32_t>(drafts.size());
  std::vector<bool> leader(n + 1, false);
  leader[0] = true;
  for (uint32_t i = 0; i < n; ++i) {
    const Draft& d = drafts[i];
    for (const uint32_t s : d.successors) leader[s] = true;
    if (!d.successors.empty() || !d.falls_through || d.leaves || d.ends_block) leader[i + 1] = true;
  }
  std::vector<Block> blocks;
  std::vector<uint32_t> block_of(n);
  for (uint32_t i = 0; i < n; ++i) {
    if (leader[i]) blocks.push_back({i, i, {}, {}, {}});
    block_of[i] = static_cast<uint32_t>(blocks.size() - 1);
    blocks.back().last = i;
  }
  for (uint32_t b = 0; b < blocks.size(); ++b) {
    const Draft& d = drafts[blocks[b].last];
    std::vector<uint32_t>& to = blocks[b].successors;
    if (d.falls_through && blocks[b].last + 1 < n) to.push_back(block_of[blocks[b].last + 1]);
    for (const uint32_t s : d.successors) {
      if (std::find(to.begin(), to.end(), block_of[s]) == to.end()) to.push_back(block_of[s]);
    }
  }
  return blocks;
}

std::vector<uint32_t> postorder(const std::vector<Block>& blocks) {
  std::vector<uint32_t> order;
  std::vector<uint8_t> seen(blocks.size(), 0);
  std::vector<std::pair<uint32_t, size_t>> stack = {{0, 0}};
  seen[0] = 1;
  while (!stack.empty()) {
    auto& [b, next] = stack.back();
    if (next < blocks[b].successors.size()) {
      const uint32_t s = blocks[b].successors[next++];
      if (seen[s] == 0) {
        seen[s] = 1;
        stack.emplace_back(s, 0);
      }
    } else {
      order.push_back(b);
      stack.pop_back();
    }
  }
  return order;
}

/// Notes for each block the headers of its natural loops (Cooper, Harvey, Kennedy: "A simple, fast dominance
/// algorithm").
void find_loops(std::vector<Block>& blocks) {
  const std::vector<uint32_t> order = postorder(blocks);
  const auto none = static_cast<uint32_t>(blocks.size());
  std::vector<uint32_t> number(blocks.size(), none), dominator(blocks.size(), none);
  for (uint32_t i = 0; i < order.size(); ++i) number[order[i]] = i;
  for (const uint32_t b : order) {
    for (const uint32_t s : blocks[b].successors) blocks[s].predecessors.push_back(b);
  }
  dominator[0] = 0;
  for (bool changed = true; changed;) {
    changed = false;
    for (auto it = order.rbegin(); it != order.rend(); ++it) {
      if (*it == 0) continue;
      uint32_t best = none;
      for (const uint32_t p : blocks[*it].predecessors) {
        if (dominator[p] == none) continue;
        if (best == none) {
          best = p;
          continue;
        }
        uint32_t a = p;
        while (a != best) {
          while (number[a] < number[best]) a = dominator[a];
          while (number[best] < number[a]) best = dominator[best];
        }
      }
      if (best != dominator[*it]) {
        dominator[*it] = best;
        changed = true;
      }
    }
  }
  const auto dominates = [&](uint32_t a, uint32_t b) {
    while (b != a && b != 0) b = dominator[b];
    return a == b;
  };
  for (const uint32_t tail : order) {
    for (const uint32_t header : blocks[tail].successors) {
      if (!dominates(header, tail)) continue;
      std::vector<uint32_t> todo = {tail};
      std::set<uint32_t> body = {header};
      while (!todo.empty()) {
        const uint32_t b = todo.back();
        todo.pop_back();
        if (!body.insert(b).second) continue;
        todo.insert(todo.end(), blocks[b].predecessors.begin(), blocks[b].predecessors.end());
      }
      for (const uint32_t b : body) {
        auto& loops = blocks[b].loops;
        if (std::find(loops.begin(), loops.end(), header) == loops.end()) loops.push_back(header);
      }
    }
  }
}

}  // namespace

std::vector<LaidOut> lay_out(const std::vector<Draft>& drafts) {
  std::vector<Block> blocks = find_blocks(drafts);
  find_loops(blocks);
  // Who leaves the most loops is visited first and so comes last.
  for (Block& b : blocks) {
    const auto left = [&](uint32_t to) {
      return std::count_if(b.loops.begin(), b.loops.end(), [&](uint32_t header) {
        const auto& inside = blocks[to].loops;
        return std::find(inside.begin(), inside.end(), header) == inside.end();
      });
    };
    // Among equals, what branches away is visited before what falls through, which so follows at once.
    std::reverse(b.successors.begin(), b.successors.end());
    std::stable_sort(b.successors.begin(), b.successors.end(),
                     [&](uint32_t x, uint32_t y) { return left(x) > left(y); });
  }
  std::vector<uint32_t> order = postorder(blocks);
  std::reverse(order.begin(), order.end());

  std::vector<LaidOut> result;
  for (size_t i = 0; i < order.size(); ++i) {
    const Block& b = blocks[order[i]];
    for (uint32_t d = b.first; d <= b.last; ++d) result.push_back({d});
    if (!drafts[b.last].falls_through || b.last + 1 == drafts.size()) continue;
    const uint32_t next = b.last + 1;
    const bool follows = i + 1 < order.size() && blocks[order[i + 1]].first == next;
    if (!follows) result.push_back({next, true, b.last});
  }
  return result;
}

}  // namespace ptxsim
