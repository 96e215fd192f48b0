#pragma once

#include <iosfwd>
#include <span>
#include <string>
#include <vector>

#include "tools/efficiency/simulation.h"

/// Budgets: what was counted when they were last renewed, as a table of text that a person can read and compare. The
/// slack is added when they are checked, so that renewing them again and again does not let them drift.
namespace cpvt::efficiency {

/// A column of the table.
struct Counter {
  enum class Bound { kMost, kLeast, kZero, kNone };  // kZero: renewing does not change it

  const char* name;
  double Launch::*value;
  int decimals;
  Bound bound;
  double slack = 0;  // share of the budget by which it may be exceeded
  double steps = 0;  // and this much besides
};

std::span<const Counter> counters();

void write_budgets(std::ostream& out, std::span<const Launch> launches);

/// Throws Error, with the line's number, for text that write_budgets does not write.
std::vector<Launch> read_budgets(std::istream& in, const std::string& origin);

struct Comparison {
  std::vector<std::string> exceeded;  // a sentence each: pass, operator, kernel, counter, budget and found value
  std::vector<std::string> better;    // by more than the slack: budgets that should be renewed
};

/// Of launches with the budgets of the same passes. A launch without a budget, a budget without its launch and another
/// kernel than the budget's are failures too.
Comparison compare(std::span<const Launch> budgets, std::span<const Launch> found);

}  // namespace cpvt::efficiency
