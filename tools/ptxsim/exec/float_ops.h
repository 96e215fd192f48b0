#pragma once

namespace ptxsim {

class Lowering;

/// What the opcodes that integers and floating types share (add, mul, min, setp, set, …) do for the latter; integer.cc
/// sends them here by the instruction's type. Both look at the opcode themselves.
void lower_float(Lowering& l);  // f32, f64, f32x2 (exec/float.cc)
void lower_half(Lowering& l);   // f16, f16x2, bf16, bf16x2 (exec/half.cc)

}  // namespace ptxsim
