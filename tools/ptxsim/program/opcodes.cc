#include "tools/ptxsim/program/lowering.h"

namespace ptxsim {

const OpcodeTable& opcodes() {
  static const OpcodeTable table = [] {
    OpcodeTable t;
    add_control(t);
    add_move(t);
    add_integer(t);
    add_video(t);
    add_float(t);
    add_half(t);
    add_conversion(t);
    add_memory(t);
    add_atomic(t);
    add_warp(t);
    add_async(t);
    add_matrix(t);
    return t;
  }();
  return table;
}

}  // namespace ptxsim
