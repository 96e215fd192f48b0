#pragma once

#include <functional>
#include <initializer_list>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/program/data_type.h"
#include "tools/ptxsim/program/program.h"

namespace ptxsim {

class Lowering;

/// Turns one PTX instruction into instructions of a Program: picks the handler for its modifiers and places its
/// operands.
using Lower = void (*)(Lowering& l);

/// Every opcode that the simulator knows. A family of instructions is a file in exec/ with a function that adds its
/// rows.
class OpcodeTable {
 public:
  void add(std::string_view opcode, Kind kind, Lower lower) { rows_[opcode] = {kind, lower}; }
  struct Row {
    Kind kind;
    Lower lower;
  };
  const Row* find(std::string_view opcode) const {
    const auto row = rows_.find(opcode);
    return row == rows_.end() ? nullptr : &row->second;
  }

 private:
  std::unordered_map<std::string_view, Row> rows_;
};

const OpcodeTable& opcodes();
Handler jump_handler();                   // to Instruction::target, without counting
void lower_cluster_barrier(Lowering& l);  // barrier.cluster (exec/cluster_barrier.cc)
Handler local_base_handler();  // slot 0 (64 bits) = address in local memory of the running function's byte `immediate`
void add_control(OpcodeTable& table);  // bra, brx, call, ret, exit, trap, bar, barrier, nanosleep
void add_move(OpcodeTable& table);     // mov, cvta, isspacep, selp, slct, prmt, mapa, getctarank, activemask…
void add_integer(OpcodeTable& table);  // add, sub, mul, mad… of integers; logic, shifts, bit fields, setp of integers
void add_video(OpcodeTable& table);    // vadd4, vabsdiff4… on parts of a word
void add_float(OpcodeTable& table);    // f32 and f64 arithmetic, approximations
void add_half(OpcodeTable& table);     // f16, bf16 and packed arithmetic
void add_conversion(OpcodeTable& table);  // cvt
void add_memory(OpcodeTable& table);      // ld, st, ldu, prefetch
void add_atomic(OpcodeTable& table);      // atom, red
void add_warp(OpcodeTable& table);        // shfl, vote, match, redux, elect
void add_async(OpcodeTable& table);       // cp.async, mbarrier, bulk copies, fences, griddepcontrol
void add_matrix(OpcodeTable& table);      // ldmatrix, stmatrix, movmatrix, mma, wgmma

/// One function being lowered, at one of its instructions. Operands are counted from 0 as written.
class Lowering {
 public:
  const ptx::Instruction& text() const { return *text_; }
  size_t operand_count() const { return text_->operands.size(); }
  const ptx::Operand& operand(size_t i) const;  ///< fails with a message when there is none

  // --- modifiers ------------------------------------------------------------------------------------------------
  bool has(std::string_view modifier) const { return text_->has(modifier); }
  /// The i-th modifier that is a type (from 0), e.g. cvt.rn.f16.f32: type(0) = kF16, type(1) = kF32.
  DataType type(size_t i = 0) const;
  size_t type_count() const;
  Space space() const;  ///< from .global, .shared(::cta), …; kGeneric when none is named

  // --- operands -------------------------------------------------------------------------------------------------
  /// Where the value of an operand lies: a register (of exactly `bits`, or at least `bits` where `wider` is allowed:
  /// then the low bits count), a constant, a special register, an address of a variable.
  Slot read(size_t i, uint32_t bits, bool wider = false) { return read(operand(i), bits, wider); }
  Slot read(const ptx::Operand& operand, uint32_t bits, bool wider = false);
  Slot write(size_t i, uint32_t bits, bool wider = false) { return write(operand(i), bits, wider); }
  Slot write(const ptx::Operand& operand, uint32_t bits, bool wider = false);  // `_` gets a place nobody reads
  /// A predicate operand; `negated` tells of a `!`. A literal true/false (1/0) becomes a constant.
  Slot read_predicate(const ptx::Operand& operand, bool& negated);
  Slot write_predicate(const ptx::Operand& operand);
  /// Bits of the register that an operand names: 1 (predicate), 16, 32, 64, 128; 0 when it is no register.
  uint32_t register_bits(const ptx::Operand& operand) const;
  /// A value that is both read and written (accumulators that stay in place).
  Slot read_write(const ptx::Operand& operand, uint32_t bits);
  Slot constant(uint64_t bits, uint32_t width);  // broadcast to 32 lanes
  Slot special(std::string_view name, uint32_t bits);
  /// A place for 32 lanes of `bits` that only this PTX instruction uses: written by the instruction emitted next, read
  /// by those after it.
  Slot temporary(uint32_t bits);
  /// The value of an operand that must be a literal integer.
  uint64_t literal(size_t i) const;

  /// [base + offset]: `base` is a slot of 64 bits (of 32 for shared addresses held in 32-bit registers), or the
  /// constant zero when the address is known; `offset` includes a variable's address.
  struct Address {
    Slot base;
    uint32_t base_bits;  // 0: no base, offset is everything
    int64_t offset;
  };
  Address address(const ptx::Operand& operand, Space space);
  /// A .param variable of a call or of a device function: its bytes lie in the frame, lane after lane.
  struct FrameParameter {
    uint32_t offset, bytes;  // of lane 0 in the frame; per lane
  };
  std::optional<FrameParameter> frame_parameter(const std::string& name) const;
  bool in_entry() const;
  uint32_t parameter_bytes() const;  // of the kernel
  /// Index in Program::functions of a function with a body; none for another module's or the device runtime's.
  std::optional<uint32_t> function(const std::string& name) const;
  const ptx::Function* declaration(const std::string& name) const;
  const FunctionEntry& entry(uint32_t function) const;  // its parameters' places are known from the start
  uint32_t current_function() const;
  uint32_t function_count() const;
  void calls(uint32_t function);  ///< for the depth of the stack

  // --- output ---------------------------------------------------------------------------------------------------
  /// Appends an instruction under the text's guard. Slots: destinations first, as the handler wants them.
  Instruction& emit(Handler handler, std::initializer_list<Slot> slots);
  Instruction& emit(Handler handler, const std::vector<Slot>& slots);
  /// The instruction's target is a label of this function.
  void target(Instruction& instruction, const std::string& label);
  /// For brx.idx: Instruction::immediate becomes the index into Program::jump_tables.
  void targets(Instruction& instruction, const std::string& table);
  /// Nothing follows the instruction for the lanes that execute it (ret, exit, trap).
  void ends(Instruction& instruction);
  /// Lanes may go elsewhere and come back behind the instruction emitted last (calls).
  void ends_block();
  /// The instruction emitted last is a part of its PTX instruction that counters do not count again.
  void hide();
  void set_kind(Kind kind) { kind_ = kind; }  ///< of what is emitted from here for this PTX instruction

  /// Throws Error: "kernel K, file.cu:LINE (ptx line N): cannot …: TEXT".
  template <class... Args>
  [[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) const {
    fail_with(fmt::format(format, std::forward<Args>(args)...));
  }
  /// Fails because of a modifier or form that is not known.
  [[noreturn]] void unknown() const;

 private:
  friend class Compiler;
  explicit Lowering(class Compiler& compiler) : compiler_(compiler) {}
  [[noreturn]] void fail_with(const std::string& what) const;

  class Compiler& compiler_;
  const ptx::Instruction* text_ = nullptr;
  Kind kind_ = Kind::kOther;
  // What the instruction under construction reads and writes, for the placing of registers.
  std::vector<uint32_t> reads_, writes_, temporaries_;
};

}  // namespace ptxsim
