#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

/// What a PTX text says, before anybody decides what it means: names resolved to their scope, nothing evaluated.
/// Source: PTX ISA 9.0 (the syntax chapters); what nvcc 13 and hand-written inline assembly emit of it.
namespace ptxsim::ptx {

enum class Space : uint8_t { kReg, kGlobal, kConst, kShared, kLocal, kParam, kGeneric };

/// A fundamental type as declared: its letter (b, u, s, f, or p for .pred) and size; packed and alternate floating
/// formats (f16x2, bf16, tf32, e4m3…) occur only as instruction modifiers, which stay text.
struct Type {
  char kind = 'b';
  uint16_t bits = 0;  // 1 for .pred, 8…128

  uint32_t bytes() const { return bits / 8; }
  bool operator==(const Type&) const = default;
};

/// Where an instruction came from: `.loc`. `inlined_at` is the index + 1 of the place into whose function this line was
/// inlined, 0 for none; follow it to the kernel's own line.
struct SourceLine {
  uint32_t file = 0;  // key of Module::files; 0 when the text has no line information
  uint32_t line = 0;
  uint32_t column = 0;
  uint32_t inlined_at = 0;  // index + 1 into Module::lines

  bool operator==(const SourceLine&) const = default;
};

/// One element of a variable's initialiser: a number of the variable's element type (its bits), or a symbol's address.
struct Initialiser {
  uint64_t bits = 0;
  std::string symbol;      // empty for a number
  bool generic = false;    // generic(symbol)
  int64_t offset = 0;      // symbol + offset
  uint32_t mask_byte = 0;  // 0xFF(symbol) and the like: byte index + 1; 0 for the whole address
};

struct Variable {
  std::string name;  // unique within the module, or within the function for its own variables
  Space space = Space::kGlobal;
  Type type;                         // of an element
  uint32_t align = 0;                // bytes; natural where not stated
  uint64_t elements = 1;             // product of all array extents and of the vector width (.v2, .v4)
  bool unsized = false;              // `extern .shared x[]`: dynamic shared memory; `elements` is 0
  bool external = false;             // .extern
  bool weak = false;                 // .weak / .common
  bool visible = false;              // .visible
  bool managed = false;              // .attribute(.managed)
  std::vector<Initialiser> initial;  // the elements stated; the rest is zero

  uint64_t bytes() const { return elements * type.bytes(); }
};

/// What an instruction names.
struct Operand {
  enum class Kind : uint8_t {
    kRegister,  // name (in its scope's unique spelling), negated for `!%p` and `-%r`
    kSpecial,   // %tid.x, %laneid, %clock64, %envreg3, WARP_SZ…: name without '%'
    kInteger,   // bits
    kFloat,     // bits: of an f32 (0f…) when bits_wide == 32, else of an f64 (0d… or a decimal)
    kSymbol,    // a variable, function or label by name, + offset
    kAddress,   // [base + offset]: base a register (name, of_symbol false), a symbol (of_symbol true), or none
    kVector,    // {a, b, c, d}: parts
    kPair,      // a|b: parts
    kGroup,     // (a, b, …): parts; the argument and result lists of call
    kTensor,    // [map, {c0, c1, …}] of cp.async.bulk.tensor: parts = {address operand, vector}
    kSink,      // _
  };
  Kind kind = Kind::kSink;
  std::string name;
  bool negated = false;
  bool of_symbol = false;
  uint8_t bits_wide = 0;
  uint64_t bits = 0;
  int64_t offset = 0;
  std::vector<Operand> parts;
};

struct Instruction {
  struct Guard {
    std::string predicate;
    bool negated = false;
  };
  std::optional<Guard> guard;
  std::string opcode;                  // "add"; what stands before the first dot
  std::vector<std::string> modifiers;  // {"rn", "ftz", "f32"}: without dots; "shared::cta" stays one modifier
  std::vector<Operand> operands;
  uint32_t text_line = 0;  // 1-based, in the PTX text
  uint32_t source = 0;     // index + 1 into Module::lines; 0 for none

  bool has(std::string_view modifier) const {
    for (const std::string& m : modifiers) {
      if (m == modifier) return true;
    }
    return false;
  }
};

struct Function {
  std::string name;  // mangled
  bool entry = false;
  bool external = false;  // a declaration without a body (vprintf, malloc, free, __assertfail, or another module's)
  bool weak = false;
  std::vector<Variable> results, parameters;  // Space::kParam, or kReg for register parameters
  std::map<std::string, Type> registers;      // declared in the body, by unique name; of `%r<N>` only those used
  std::vector<Variable> variables;            // .local, .shared and .param declared in the body, by unique name
  std::vector<Instruction> body;
  std::map<std::string, size_t> labels;  // unique name -> index of the instruction that follows (may be body.size())
  std::map<std::string, std::vector<std::string>> branch_targets;  // .branchtargets label -> labels
  std::map<std::string, Function> prototypes;                      // .callprototype label -> a declaration

  uint32_t max_threads = 0;          // .maxntid / .reqntid, product of the extents; 0 for none
  bool required_threads = false;     // .reqntid
  uint32_t block[3] = {0, 0, 0};     // its extents
  uint32_t min_blocks = 0;           // .minnctapersm
  uint32_t max_registers = 0;        // .maxnreg
  uint32_t cluster[3] = {0, 0, 0};   // .reqnctapercluster; zeros for none
  bool explicit_cluster = false;     // .explicitcluster
  bool blocks_are_clusters = false;  // .blocksareclusters: a launch's grid counts clusters
};

struct Module {
  std::string version, target;  // "9.0", "sm_90a"
  std::vector<Variable> variables;
  std::vector<Function> functions;
  std::map<std::string, std::vector<std::string>> aliases;  // .alias name -> {aliasee}
  std::map<uint32_t, std::string> files;                    // .file
  std::vector<SourceLine> lines;

  /// "file.cu:12", or "helper.h:5 (inlined at file.cu:12)"; empty without line information.
  std::string place(uint32_t source) const;
  /// "file.cu:12" of the kernel's own line: follows inlined_at outwards.
  std::string outer_place(uint32_t source) const;
};

/// Parses a module. Throws ptxsim::Error with "ptx line N: …" naming the token, what was expected and what was found.
Module parse(std::string_view text);

}  // namespace ptxsim::ptx
