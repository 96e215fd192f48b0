#pragma once

#include <omp.h>

namespace cpvt::cpu {

/// While it lives, OpenMP regions that this thread opens have a team of one. oneDNN takes its thread count from there,
/// both when a primitive is made and when it runs; our ThreadPool is the only team there is.
class OneThreadForOpenMP {
 public:
  OneThreadForOpenMP() : before_(omp_get_max_threads()) { omp_set_num_threads(1); }
  ~OneThreadForOpenMP() { omp_set_num_threads(before_); }
  OneThreadForOpenMP(const OneThreadForOpenMP&) = delete;
  OneThreadForOpenMP& operator=(const OneThreadForOpenMP&) = delete;

 private:
  int before_;
};

}  // namespace cpvt::cpu
