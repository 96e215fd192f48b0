#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <utility>
#include <vector>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/ptx/lexer.h"
#include "tools/ptxsim/ptx/module.h"
#include "tools/ptxsim/ptx/scopes.h"

namespace ptxsim::ptx {
namespace {

using TokenKind = Token::Kind;
using SymbolKind = Scopes::Symbol::Kind;

constexpr uint64_t kMaxBytes = uint64_t{1} << 40;    // of one variable: more fits no GPU
constexpr uint64_t kMaxPadding = uint64_t{1} << 24;  // initialisers that nested braces leave out
constexpr int kMaxDepth = 16;                        // of parentheses and braces within an operand
constexpr std::array<char, 4> kLanes = {'x', 'y', 'z', 'w'};

/// What an operand's name starts with until its function is complete: it may be a label that comes later.
constexpr char kUnresolved = '?';

/// The special registers; those that end in a digit are listed without it.
bool is_special(std::string_view name) {
  static const std::unordered_set<std::string_view> names = {"%tid",
                                                             "%ntid",
                                                             "%laneid",
                                                             "%warpid",
                                                             "%nwarpid",
                                                             "%ctaid",
                                                             "%nctaid",
                                                             "%smid",
                                                             "%nsmid",
                                                             "%gridid",
                                                             "%is_explicit_cluster",
                                                             "%clusterid",
                                                             "%nclusterid",
                                                             "%cluster_ctaid",
                                                             "%cluster_nctaid",
                                                             "%cluster_ctarank",
                                                             "%cluster_nctarank",
                                                             "%lanemask_eq",
                                                             "%lanemask_le",
                                                             "%lanemask_lt",
                                                             "%lanemask_ge",
                                                             "%lanemask_gt",
                                                             "%clock",
                                                             "%clock_hi",
                                                             "%clock64",
                                                             "%globaltimer",
                                                             "%globaltimer_lo",
                                                             "%globaltimer_hi",
                                                             "%reserved_smem_offset_begin",
                                                             "%reserved_smem_offset_end",
                                                             "%reserved_smem_offset_cap",
                                                             "%total_smem_size",
                                                             "%aggr_smem_size",
                                                             "%dynamic_smem_size",
                                                             "%current_graph_exec"};
  static const std::unordered_set<std::string_view> numbered = {"%pm", "%envreg", "%reserved_smem_offset_"};
  if (names.contains(name)) return true;
  if (name.ends_with("_64")) name.remove_suffix(3);  // %pm0_64
  return numbered.contains(name.substr(0, name.find_last_not_of("0123456789") + 1));
}

bool find_type(std::string_view name, Type* type) {
  static const std::unordered_map<std::string_view, Type> types = {
      {"pred", {'p', 1}},   {"b8", {'b', 8}},   {"b16", {'b', 16}},  {"b32", {'b', 32}},   {"b64", {'b', 64}},
      {"b128", {'b', 128}}, {"u8", {'u', 8}},   {"u16", {'u', 16}},  {"u32", {'u', 32}},   {"u64", {'u', 64}},
      {"s8", {'s', 8}},     {"s16", {'s', 16}}, {"s32", {'s', 32}},  {"s64", {'s', 64}},   {"f16", {'f', 16}},
      {"f32", {'f', 32}},   {"f64", {'f', 64}}, {"bf16", {'b', 16}}, {"f16x2", {'b', 32}}, {"bf16x2", {'b', 32}}};
  const auto at = types.find(name);
  if (at == types.end()) return false;
  *type = at->second;
  return true;
}

bool find_space(std::string_view name, Space* space) {
  static const std::unordered_map<std::string_view, Space> spaces = {{"global", Space::kGlobal},
                                                                     {"const", Space::kConst},
                                                                     {"shared", Space::kShared},
                                                                     {"local", Space::kLocal},
                                                                     {"param", Space::kParam}};
  const auto at = spaces.find(name);
  if (at == spaces.end()) return false;
  *space = at->second;
  return true;
}

class Parser {
 public:
  explicit Parser(std::string_view text) : lexer_(text) { advance(); }

  Module module();

 private:
  struct Linkage {
    bool external = false, weak = false, visible = false;
  };

  /// What `.TYPE`, `.vN` and `.align` say before the names of a declaration.
  struct Declaration {
    Type type;
    uint8_t lanes = 1;
    uint32_t align = 0;
    bool managed = false;
  };

  /// An initialiser of an array, read brace by brace.
  struct Filling {
    Variable* variable;
    std::vector<uint64_t> extents;  // outermost first, the vector's width last; 0 where the text leaves it out
    uint64_t next = 0;
  };

  /// A name met before its meaning was known, in the scope in which it stands.
  struct Pending {
    size_t instruction;
    uint32_t scope;
  };
  struct PendingTargets {
    std::string table;
    uint32_t scope, line;
  };

  // Tokens.
  void advance() { token_ = lexer_.next(); }
  Token take();
  bool skip(char punctuation);
  void expect(char punctuation);
  [[noreturn]] void fail(std::string_view expected) const;
  std::string_view identifier(std::string_view what);
  uint32_t number(std::string_view what);

  // Constant expressions.
  uint64_t expression(int depth, int strength = 0);
  uint64_t rest_of_expression(uint64_t left, int depth, int strength);
  uint64_t unary(int depth);
  int64_t offsets();

  // The module.
  void file_directive();
  void alias_directive();
  void location_directive();
  uint32_t location(uint32_t file, uint32_t line, uint32_t column, uint32_t inlined_at);
  void module_statement();

  // Declarations.
  void declare_in_module(std::string_view name, uint32_t line);
  Declaration declaration(bool parameter);
  void attributes(Declaration* declaration);
  std::vector<uint64_t> extents();
  Variable variable(std::string_view name, Space space, const Declaration& declaration, const Linkage& linkage);
  void initialise(Filling* filling, size_t level);
  Initialiser initialiser(const Type& type);
  uint64_t initial_bits(const Type& type);
  void variables(Space space, const Linkage& linkage);
  void registers();
  void add_register(const std::string& unique, uint8_t lanes, Type type);

  // Functions.
  void function(bool entry, const Linkage& linkage);
  std::vector<Variable> parameters(bool prototype);
  void function_directives();
  void body();
  void body_directive(std::string_view label);
  void branch_targets(const std::string& table);
  void call_targets(const std::string& table);
  void prototype(const std::string& table);
  const std::string& declare_label(std::string_view name, uint32_t line);
  void resolve(Operand* operand, uint32_t scope, uint32_t line);
  void resolve_names();

  // Instructions.
  void instruction(const Token& opcode, std::optional<Instruction::Guard> guard);
  Instruction::Guard guard();
  Operand operand(int depth, bool of_call);
  Operand list(Operand::Kind kind, char end, int depth, bool of_call);
  Operand constant(int depth);
  Operand named_operand();
  Operand name_or_pair();
  Operand address(int depth);
  const Scopes::Symbol* find(std::string_view name);

  Lexer lexer_;
  Token token_;
  Module module_;
  std::unordered_set<std::string_view> names_;  // of the module
  std::unordered_map<std::string_view, size_t> functions_, variables_;
  std::vector<std::pair<std::string, uint32_t>> initialiser_names_;  // with their lines
  std::map<std::array<uint32_t, 3>, uint32_t>
      locations_;  // file, line, column -> its newest index + 1 in module_.lines
  // The function that is being read.
  Function function_;
  std::optional<Scopes> scopes_;  // empty between functions
  std::vector<Pending> pending_;
  std::vector<PendingTargets> pending_targets_;
  bool unresolved_ = false;  // in the instruction that is being read
  uint32_t source_ = 0;
};

// --- Tokens -------------------------------------------------------------------------------------------------------

Token Parser::take() {
  const Token token = token_;
  advance();
  return token;
}

bool Parser::skip(char punctuation) {
  if (!token_.is(punctuation)) return false;
  advance();
  return true;
}

void Parser::expect(char punctuation) {
  if (!skip(punctuation)) fail(fmt::format("'{}'", punctuation));
}

void Parser::fail(std::string_view expected) const {
  if (token_.kind == TokenKind::kEnd) {
    throw Error("ptx line {}: expected {}, found the end of the text", token_.line, expected);
  }
  throw Error("ptx line {}: expected {}, found '{}{}'", token_.line, expected,
              token_.kind == TokenKind::kDot ? "." : "", token_.text);
}

std::string_view Parser::identifier(std::string_view what) {
  if (token_.kind != TokenKind::kIdentifier) fail(what);
  return take().text;
}

uint32_t Parser::number(std::string_view what) {
  if (token_.kind != TokenKind::kInteger || token_.bits > UINT32_MAX) fail(what);
  return static_cast<uint32_t>(take().bits);
}

// --- Constant expressions -----------------------------------------------------------------------------------------

uint64_t Parser::expression(int depth, int strength) { return rest_of_expression(unary(depth), depth, strength); }

uint64_t Parser::rest_of_expression(uint64_t left, int depth, int strength) {
  static constexpr std::string_view kByStrength = "|^&<+*";  // weakest first, with > as < and - as +
  for (;;) {
    if (token_.kind != TokenKind::kPunctuation) return left;
    const char sign = token_.text[0];
    const size_t found = kByStrength.find(sign == '>' ? '<' : sign == '-' ? '+' : sign);
    if (found == std::string_view::npos || static_cast<int>(found) < strength) return left;
    advance();
    if (sign == '<' || sign == '>') expect(sign);
    const uint64_t right = expression(depth, static_cast<int>(found) + 1);
    switch (sign) {
      case '|':
        left |= right;
        break;
      case '^':
        left ^= right;
        break;
      case '&':
        left &= right;
        break;
      case '<':
        left = right < 64 ? left << right : 0;
        break;
      case '>':
        left = static_cast<uint64_t>(static_cast<int64_t>(left) >> std::min<uint64_t>(right, 63));
        break;
      case '+':
        left += right;
        break;
      case '-':
        left -= right;
        break;
      default:
        left *= right;
    }
  }
}

uint64_t Parser::unary(int depth) {
  if (depth > kMaxDepth) fail("fewer nested parentheses");
  if (skip('-')) return 0 - unary(depth + 1);
  if (skip('+')) return unary(depth + 1);
  if (skip('~')) return ~unary(depth + 1);
  if (skip('(')) {
    const uint64_t value = expression(depth + 1);
    expect(')');
    return value;
  }
  if (token_.kind != TokenKind::kInteger) fail("an integer");
  return take().bits;
}

/// What follows a symbol or an address's base: "+8", "+-4", "- 4 + 8".
int64_t Parser::offsets() {
  if (!token_.is('+') && !token_.is('-')) return 0;
  return static_cast<int64_t>(rest_of_expression(0, 0, 0));
}

// --- The module ---------------------------------------------------------------------------------------------------

Module Parser::module() {
  if (!token_.dot("version")) fail("'.version'");
  while (token_.kind != TokenKind::kEnd) module_statement();
  for (const auto& [name, line] : initialiser_names_) {
    if (!names_.contains(name))
      throw Error("ptx line {}: an initialiser names '{}', which is not declared", line, name);
  }
  return std::move(module_);
}

void Parser::module_statement() {
  if (skip(';')) return;
  if (token_.kind != TokenKind::kDot) fail("a directive");
  Linkage linkage;
  for (;; advance()) {
    if (token_.dot("extern")) {
      linkage.external = true;
    } else if (token_.dot("weak") || token_.dot("common")) {
      linkage.weak = true;
    } else if (token_.dot("visible")) {
      linkage.visible = true;
    } else {
      break;
    }
  }
  Space space{};
  if (token_.kind != TokenKind::kDot) fail("a directive");
  const std::string_view name = token_.text;
  if (name == "entry" || name == "func") {
    advance();
    function(name == "entry", linkage);
  } else if (find_space(name, &space) && space != Space::kLocal && space != Space::kParam) {
    advance();
    variables(space, linkage);
  } else if (name == "version") {
    advance();
    const Token version = take();
    const auto digits = [](std::string_view part) {
      return !part.empty() && part.find_first_not_of("0123456789") == std::string_view::npos;
    };
    const size_t point = std::min(version.text.find('.'), version.text.size());
    if (!digits(version.text.substr(0, point)) ||
        !digits(version.text.substr(std::min(point + 1, version.text.size())))) {
      throw Error("ptx line {}: expected a version such as 9.0, found '{}'", version.line, version.text);
    }
    module_.version = version.text;
  } else if (name == "target") {
    advance();
    module_.target = identifier("an architecture");
    while (skip(',')) identifier("a target option");
  } else if (name == "address_size") {
    advance();
    if (number("an address size") != 64) throw Error("ptx line {}: only 64-bit addresses are supported", token_.line);
  } else if (name == "file") {
    advance();
    file_directive();
  } else if (name == "section") {
    advance();
    if (token_.kind != TokenKind::kDot && token_.kind != TokenKind::kIdentifier) fail("a section name");
    lexer_.skip_block();
    advance();
  } else if (name == "alias") {
    advance();
    alias_directive();
  } else if (name == "pragma") {
    while (!token_.is(';') && token_.kind != TokenKind::kEnd) advance();
    expect(';');
  } else if (name == "loc") {
    advance();
    location_directive();
  } else {
    fail("a directive of a module");
  }
}

void Parser::file_directive() {
  const uint32_t index = number("a file index");
  if (token_.kind != TokenKind::kString) fail("a file name");
  module_.files[index] = take().text;
  while (skip(',')) {  // time stamp and size
    if (token_.kind != TokenKind::kInteger) fail("a number");
    advance();
  }
}

void Parser::alias_directive() {
  const std::string_view name = identifier("a function");
  expect(',');
  module_.aliases[std::string(name)] = {std::string(identifier("a function"))};
  expect(';');
}

uint32_t Parser::location(uint32_t file, uint32_t line, uint32_t column, uint32_t inlined_at) {
  uint32_t& newest = locations_[{file, line, column}];
  const SourceLine here{.file = file, .line = line, .column = column, .inlined_at = inlined_at};
  if (newest == 0 || module_.lines[newest - 1] != here) {
    module_.lines.push_back(here);
    newest = static_cast<uint32_t>(module_.lines.size());
  }
  return newest;
}

/// `.loc file line column [, function_name label [+ offset], inlined_at file line column]`
void Parser::location_directive() {
  const uint32_t file = number("a file index");
  const uint32_t line = number("a line");
  const uint32_t column = number("a column");
  uint32_t outer = 0;
  while (skip(',')) {
    const std::string_view what = identifier("'function_name' or 'inlined_at'");
    if (what == "function_name") {
      identifier("a label");
      offsets();
    } else if (what == "inlined_at") {
      const uint32_t outer_file = number("a file index");
      const uint32_t outer_line = number("a line");
      const uint32_t outer_column = number("a column");
      // The place was given by a .loc of its own before, which says what that was inlined into.
      const auto known = locations_.find({outer_file, outer_line, outer_column});
      outer = known != locations_.end() ? known->second : location(outer_file, outer_line, outer_column, 0);
    } else {
      throw Error("ptx line {}: expected 'function_name' or 'inlined_at', found '{}'", token_.line, what);
    }
  }
  // Line 0: the compiler merged code of several lines; the one before is the nearest.
  if (line != 0) source_ = location(file, line, column, outer);
}

// --- Declarations -------------------------------------------------------------------------------------------------

void Parser::declare_in_module(std::string_view name, uint32_t line) {
  if (!names_.insert(name).second) throw Error("ptx line {}: '{}' is declared twice", line, name);
}

/// `.attribute(.managed)`, `.attribute(.unified(1, 2))`
void Parser::attributes(Declaration* declaration) {
  expect('(');
  do {
    if (token_.kind != TokenKind::kDot) fail("an attribute");
    if (take().text == "managed") declaration->managed = true;
    if (skip('(')) {
      do expression(0);
      while (skip(','));
      expect(')');
    }
  } while (skip(','));
  expect(')');
}

Parser::Declaration Parser::declaration(bool parameter) {
  Declaration result;
  bool pointer = false, typed = false;
  while (token_.kind == TokenKind::kDot) {
    const Token token = take();
    Space space{};
    if (token.text == "align") {
      const uint32_t align = number("an alignment");
      if (!std::has_single_bit(align))
        throw Error("ptx line {}: the alignment {} is no power of two", token.line, align);
      if (!pointer) result.align = align;  // after .ptr it is that of what the parameter points to
    } else if (find_type(token.text, &result.type)) {
      typed = true;
    } else if (token.text == "v2" || token.text == "v4") {
      result.lanes = token.text == "v2" ? 2 : 4;
    } else if (token.text == "attribute") {
      attributes(&result);
    } else if (parameter && token.text == "ptr") {
      pointer = true;
    } else if (!(pointer && find_space(token.text, &space))) {
      throw Error("ptx line {}: expected a type or an attribute of a declaration, found '.{}'", token.line, token.text);
    }
  }
  if (!typed) fail("a type");
  return result;
}

/// "[2][3]"; an extent left out is 0.
std::vector<uint64_t> Parser::extents() {
  std::vector<uint64_t> result;
  while (skip('[')) {
    if (skip(']')) {
      if (!result.empty()) throw Error("ptx line {}: only the first extent of an array can be left out", token_.line);
      result.push_back(0);
      continue;
    }
    if (result.size() == kMaxDepth) throw Error("ptx line {}: an array has too many extents", token_.line);
    const uint64_t extent = expression(0);
    if (extent > kMaxBytes) throw Error("ptx line {}: the array extent {} is too large", token_.line, extent);
    result.push_back(extent);
    expect(']');
  }
  return result;
}

Variable Parser::variable(std::string_view name, Space space, const Declaration& declaration, const Linkage& linkage) {
  Variable result;
  result.name = name;
  result.space = space;
  result.type = declaration.type;
  result.align = declaration.align != 0 ? declaration.align : declaration.type.bytes() * declaration.lanes;
  result.external = linkage.external;
  result.weak = linkage.weak;
  result.visible = linkage.visible;
  result.managed = declaration.managed;
  if (declaration.type.kind == 'p') throw Error("ptx line {}: '{}' is a predicate in memory", token_.line, name);
  Filling filling{.variable = &result, .extents = extents()};
  if (declaration.lanes > 1) filling.extents.push_back(declaration.lanes);
  result.elements = 1;
  for (const uint64_t extent : filling.extents) {
    if (extent != 0 && result.elements > kMaxBytes / extent) {
      throw Error("ptx line {}: the array '{}' is too large", token_.line, name);
    }
    result.elements *= extent;
  }
  const bool open_ended = !filling.extents.empty() && filling.extents[0] == 0;
  if (skip('=')) {
    initialise(&filling, 0);
    if (filling.next > kMaxBytes) throw Error("ptx line {}: the array '{}' is too large", token_.line, name);
    if (open_ended) result.elements = filling.next;
  } else {
    result.unsized = open_ended;
  }
  return result;
}

/// Reads what stands for the array of extents[level…]: as in C, inner braces may be left out.
void Parser::initialise(Filling* filling, size_t level) {
  if (level == filling->extents.size()) {
    std::vector<Initialiser>& initial = filling->variable->initial;
    if (filling->next > initial.size() + kMaxPadding) fail("fewer elements left out");
    initial.resize(filling->next);
    initial.push_back(initialiser(filling->variable->type));
    filling->next++;
    return;
  }
  expect('{');
  uint64_t inner = 1;
  for (size_t i = level + 1; i < filling->extents.size(); i++) inner *= filling->extents[i];
  const uint64_t start = filling->next;
  const uint64_t size = filling->extents[level] * inner;  // 0: any
  while (!token_.is('}')) {
    if (size != 0 && filling->next >= start + size) fail("'}' after as many elements as the array has");
    if (token_.is('{')) {
      if (inner != 0 && (filling->next - start) % inner != 0) fail("an element");
      const uint64_t row = filling->next;
      initialise(filling, level + 1);
      filling->next = row + inner;
    } else {
      initialise(filling, filling->extents.size());
    }
    if (!skip(',')) break;
  }
  expect('}');
}

/// "7", "-1.5", "symbol", "generic(symbol)+8", "0xFF00(generic(symbol)+8)"
Initialiser Parser::initialiser(const Type& type) {
  Initialiser result;
  if (token_.kind != TokenKind::kIdentifier) {
    const uint32_t line = token_.line;
    result.bits = initial_bits(type);
    if (!skip('(')) return result;
    const int shift = std::countr_zero(result.bits);
    if (result.bits == 0 || shift % 8 != 0 || result.bits >> shift != 0xFF) {
      throw Error("ptx line {}: the mask {:#x} does not select a byte", line, result.bits);
    }
    result = initialiser(type);
    result.mask_byte = static_cast<uint32_t>(shift / 8) + 1;
    expect(')');
    return result;
  }
  std::string_view name = identifier("a symbol");
  result.generic = name == "generic" && skip('(');
  if (result.generic) name = identifier("a symbol");
  initialiser_names_.emplace_back(name, token_.line);
  result.symbol = name;
  if (result.generic) expect(')');
  result.offset = offsets();
  return result;
}

uint64_t Parser::initial_bits(const Type& type) {
  const Operand value = constant(0);
  uint64_t bits = value.bits;
  if (value.kind == Operand::Kind::kFloat) {
    if (value.bits_wide == type.bits) return bits;
    if (type.kind != 'f' || type.bits == 16) fail("an initialiser of the variable's type");
    return type.bits == 32 ? std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(bits)))
                           : std::bit_cast<uint64_t>(double{std::bit_cast<float>(static_cast<uint32_t>(bits))});
  }
  if (type.kind == 'f' && type.bits == 32)
    return std::bit_cast<uint32_t>(static_cast<float>(static_cast<int64_t>(bits)));
  if (type.kind == 'f' && type.bits == 64) {
    return std::bit_cast<uint64_t>(static_cast<double>(static_cast<int64_t>(bits)));
  }
  return bits;
}

/// What follows `.shared` and the like: "[.align N] .TYPE name[N] = {…}, name…;"
void Parser::variables(Space space, const Linkage& linkage) {
  const Declaration declared = declaration(false);
  const bool in_module = !scopes_;
  do {
    const uint32_t line = token_.line;
    const std::string_view name = identifier("the name of a variable");
    Variable made = variable(name, space, declared, linkage);
    if (!in_module) {
      const Scopes::Symbol* symbol = scopes_->declare(name, SymbolKind::kVariable);
      if (symbol == nullptr) throw Error("ptx line {}: '{}' is declared twice", line, name);
      made.name = symbol->unique;
      function_.variables.push_back(std::move(made));
      continue;
    }
    const auto [at, added] = variables_.try_emplace(name, module_.variables.size());
    if (added) {
      declare_in_module(name, line);
      module_.variables.push_back(std::move(made));
    } else if (made.external || module_.variables[at->second].external) {
      if (!made.external) module_.variables[at->second] = std::move(made);
    } else {
      throw Error("ptx line {}: '{}' is defined twice", line, name);
    }
  } while (skip(','));
  expect(';');
}

void Parser::add_register(const std::string& unique, uint8_t lanes, Type type) {
  if (lanes == 1) {
    function_.registers.emplace(unique, type);
    return;
  }
  for (uint8_t i = 0; i < lanes; i++) function_.registers.emplace(fmt::format("{}.{}", unique, kLanes[i]), type);
}

/// What follows `.reg`: ".TYPE %r<10>, %x;"
void Parser::registers() {
  const Declaration declared = declaration(false);
  do {
    const uint32_t line = token_.line;
    const std::string_view name = identifier("the name of a register");
    bool added = false;
    if (skip('<')) {
      added = scopes_->declare_range(name, unary(0), declared.type, declared.lanes);
      expect('>');
    } else if (const Scopes::Symbol* symbol = scopes_->declare(name, SymbolKind::kRegister, declared.lanes)) {
      added = true;
      add_register(symbol->unique, declared.lanes, declared.type);
    }
    if (!added) throw Error("ptx line {}: '{}' is declared twice", line, name);
  } while (skip(','));
  expect(';');
}

// --- Functions ----------------------------------------------------------------------------------------------------

/// "(.param .b32 a, .reg .b32 %b)"; a prototype's have no names that count.
std::vector<Variable> Parser::parameters(bool prototype) {
  std::vector<Variable> result;
  expect('(');
  while (!token_.is(')')) {
    const bool in_register = token_.dot("reg");
    if (!in_register && !token_.dot("param")) fail("'.param' or '.reg'");
    advance();
    const Declaration declared = declaration(true);
    const uint32_t line = token_.line;
    const std::string_view name = identifier("the name of a parameter");
    Variable made;
    if (in_register) {
      made.name = name;
      made.space = Space::kReg;
      made.type = declared.type;
      made.elements = declared.lanes;
    } else {
      made = variable(name, Space::kParam, declared, {});
    }
    if (!prototype) {
      const SymbolKind kind = in_register ? SymbolKind::kRegister : SymbolKind::kVariable;
      const Scopes::Symbol* symbol = scopes_->declare(name, kind, declared.lanes);
      if (symbol == nullptr) throw Error("ptx line {}: '{}' is declared twice", line, name);
      made.name = symbol->unique;
      if (in_register) add_register(symbol->unique, declared.lanes, declared.type);
    }
    result.push_back(std::move(made));
    if (!skip(',')) break;
  }
  expect(')');
  return result;
}

/// What follows `.entry` or `.func`.
void Parser::function(bool entry, const Linkage& linkage) {
  function_ = {};
  scopes_.emplace(names_);
  pending_.clear();
  pending_targets_.clear();
  source_ = 0;
  function_.entry = entry;
  function_.weak = linkage.weak;
  if (token_.dot("attribute")) {
    advance();
    Declaration ignored;
    attributes(&ignored);
  }
  if (token_.is('(')) function_.results = parameters(false);
  const uint32_t line = token_.line;
  const std::string_view name = identifier("the name of a function");
  function_.name = name;
  const auto [at, added] = functions_.try_emplace(name, module_.functions.size());
  if (added) {
    declare_in_module(name, line);
    module_.functions.emplace_back();
  }
  if (token_.is('(')) function_.parameters = parameters(false);
  function_directives();
  function_.external = skip(';');
  if (!function_.external) {
    expect('{');
    body();
    resolve_names();
  }
  Function& known = module_.functions[at->second];
  if (added || known.external) {
    known = std::move(function_);
  } else if (!function_.external) {
    throw Error("ptx line {}: '{}' is defined twice", line, name);
  }
  scopes_.reset();
}

void Parser::function_directives() {
  const auto extents = [&](const char* what) {
    std::array<uint32_t, 3> result = {number(what), 1, 1};
    for (size_t i = 1; i < result.size() && skip(','); i++) result[i] = number(what);
    return result;
  };
  while (token_.kind == TokenKind::kDot) {
    const Token token = take();
    if (token.text == "maxntid" || token.text == "reqntid") {
      const std::array<uint32_t, 3> threads = extents("a number of threads");
      const uint64_t plane = uint64_t{threads[0]} * threads[1];
      if (plane > UINT32_MAX || plane * threads[2] > UINT32_MAX) {
        throw Error("ptx line {}: '.{}' has too many threads", token.line, token.text);
      }
      function_.max_threads = static_cast<uint32_t>(plane * threads[2]);
      function_.required_threads = token.text == "reqntid";
      if (function_.required_threads) std::ranges::copy(threads, function_.block);
    } else if (token.text == "minnctapersm") {
      function_.min_blocks = number("a number of blocks");
    } else if (token.text == "maxnctapersm" || token.text == "maxclusterrank" || token.text == "abi_preserve" ||
               token.text == "abi_preserve_control") {
      number("a number");
    } else if (token.text == "maxnreg") {
      function_.max_registers = number("a number of registers");
    } else if (token.text == "reqnctapercluster") {
      std::ranges::copy(extents("a number of blocks"), function_.cluster);
    } else if (token.text == "explicitcluster") {
      function_.explicit_cluster = true;
    } else if (token.text == "blocksareclusters") {
      function_.blocks_are_clusters = true;
    } else if (token.text == "pragma") {
      if (token_.kind != TokenKind::kString) fail("a string");
      advance();
      expect(';');
    } else if (token.text != "noreturn") {
      throw Error("ptx line {}: expected a directive of a function, found '.{}'", token.line, token.text);
    }
  }
}

/// Up to and with the function's '}'.
void Parser::body() {
  for (;;) {
    if (skip('}')) {
      if (!scopes_->close()) return;
    } else if (skip('{')) {
      scopes_->open();
    } else if (token_.kind == TokenKind::kDot) {
      body_directive({});
    } else if (token_.is('@')) {
      Instruction::Guard predicate = guard();
      if (token_.kind != TokenKind::kIdentifier) fail("an instruction");
      instruction(take(), std::move(predicate));
    } else if (token_.kind == TokenKind::kIdentifier) {
      const Token name = take();
      if (!skip(':')) {
        instruction(name, {});
      } else if (token_.dot("branchtargets") || token_.dot("calltargets") || token_.dot("callprototype")) {
        body_directive(name.text);
      } else {
        function_.labels[declare_label(name.text, name.line)] = function_.body.size();
      }
    } else if (!skip(';')) {
      fail("a statement");
    }
  }
}

/// A directive in a body; `label` stands before it when it is a table.
void Parser::body_directive(std::string_view label) {
  const Token token = take();
  Space space{};
  if (token.text == "reg") {
    registers();
  } else if (token.text == "extern") {
    if (!token_.dot("shared")) fail("'.shared'");
    advance();
    variables(Space::kShared, {.external = true});
  } else if (find_space(token.text, &space)) {
    variables(space, {});
  } else if (token.text == "loc") {
    location_directive();
  } else if (token.text == "file") {
    file_directive();
  } else if (token.text == "pragma") {
    if (token_.kind != TokenKind::kString) fail("a string");
    advance();
    expect(';');
  } else if (!label.empty()) {
    const std::string table = declare_label(label, token.line);
    if (token.text == "branchtargets") {
      branch_targets(table);
    } else if (token.text == "calltargets") {
      call_targets(table);
    } else {
      prototype(table);
    }
  } else {
    throw Error("ptx line {}: expected a directive of a function's body, found '.{}'", token.line, token.text);
  }
}

const std::string& Parser::declare_label(std::string_view name, uint32_t line) {
  const Scopes::Symbol* symbol = scopes_->declare(name, SymbolKind::kLabel);
  if (symbol == nullptr) throw Error("ptx line {}: '{}' is declared twice", line, name);
  return symbol->unique;
}

/// ".branchtargets L1, L2;"
void Parser::branch_targets(const std::string& table) {
  pending_targets_.push_back({.table = table, .scope = scopes_->current(), .line = token_.line});
  std::vector<std::string>& labels = function_.branch_targets[table];
  do labels.emplace_back(identifier("a label"));
  while (skip(','));
  expect(';');
}

/// ".calltargets f, g;": all are called alike, so the first one's declaration is the prototype.
void Parser::call_targets(const std::string& table) {
  const uint32_t line = token_.line;
  const std::string_view name = identifier("a function");
  const auto known = functions_.find(name);
  if (known == functions_.end()) throw Error("ptx line {}: '{}' is no function", line, name);
  const Function& target = name == function_.name ? function_ : module_.functions[known->second];
  Function& made = function_.prototypes[table];
  made.external = true;
  made.results = target.results;
  made.parameters = target.parameters;
  while (skip(',')) identifier("a function");
  expect(';');
}

/// ".callprototype (.param .b32 _) _ (.param .b64 _) .noreturn;"
void Parser::prototype(const std::string& table) {
  Function& made = function_.prototypes[table];
  made.external = true;
  if (token_.is('(')) made.results = parameters(true);
  made.name = identifier("'_'");
  if (token_.is('(')) made.parameters = parameters(true);
  while (token_.kind == TokenKind::kDot) {  // .noreturn, .abi_preserve N
    advance();
    if (token_.kind == TokenKind::kInteger) advance();
  }
  expect(';');
}

void Parser::resolve(Operand* operand, uint32_t scope, uint32_t line) {
  for (Operand& part : operand->parts) resolve(&part, scope, line);
  if (operand->name.empty() || operand->name[0] != kUnresolved) return;
  operand->name.erase(0, 1);
  if (const Scopes::Symbol* symbol = scopes_->find(operand->name, scope).symbol; symbol != nullptr) {
    operand->name = symbol->unique;
  } else if (!names_.contains(operand->name)) {
    throw Error("ptx line {}: '{}' is not declared", line, operand->name);
  }
}

void Parser::resolve_names() {
  for (const auto& [index, scope] : pending_) {
    Instruction& instruction = function_.body[index];
    for (Operand& operand : instruction.operands) resolve(&operand, scope, instruction.text_line);
  }
  for (const auto& [table, scope, line] : pending_targets_) {
    for (std::string& label : function_.branch_targets[table]) {
      const Scopes::Symbol* symbol = scopes_->find(label, scope).symbol;
      if (symbol == nullptr || symbol->kind != SymbolKind::kLabel) {
        throw Error("ptx line {}: '{}' is no label", line, label);
      }
      label = symbol->unique;
    }
  }
}

// --- Instructions -------------------------------------------------------------------------------------------------

const Scopes::Symbol* Parser::find(std::string_view name) {
  const Scopes::Found found = scopes_->find(name, scopes_->current());
  if (found.first_use != nullptr) add_register(found.symbol->unique, found.symbol->lanes, *found.first_use);
  return found.symbol;
}

/// "@%p1", "@!%p1"
Instruction::Guard Parser::guard() {
  expect('@');
  Instruction::Guard result;
  result.negated = skip('!');
  const uint32_t line = token_.line;
  const std::string_view name = identifier("a predicate");
  const Scopes::Symbol* symbol = find(name);
  if (symbol == nullptr || symbol->kind != SymbolKind::kRegister) {
    throw Error("ptx line {}: the predicate '{}' is not declared", line, name);
  }
  result.predicate = symbol->unique;
  return result;
}

void Parser::instruction(const Token& opcode, std::optional<Instruction::Guard> guard) {
  Instruction& made = function_.body.emplace_back();
  made.guard = std::move(guard);
  made.opcode = opcode.text;
  made.text_line = opcode.line;
  made.source = source_;
  while (token_.kind == TokenKind::kDot) made.modifiers.emplace_back(take().text);
  unresolved_ = false;
  if (!token_.is(';')) {
    const bool call = made.opcode == "call";
    do made.operands.push_back(operand(0, call));
    while (skip(','));
  }
  expect(';');
  if (unresolved_) pending_.push_back({.instruction = function_.body.size() - 1, .scope = scopes_->current()});
}

Operand Parser::operand(int depth, bool of_call) {
  if (depth > kMaxDepth) fail("fewer nested operands");
  if (token_.kind == TokenKind::kIdentifier) return name_or_pair();
  if (token_.is('[')) return address(depth);
  if (token_.is('{')) return list(Operand::Kind::kVector, '}', depth, of_call);
  if (token_.is('(') && of_call) return list(Operand::Kind::kGroup, ')', depth, of_call);
  if (skip('!')) {
    Operand result = named_operand();
    result.negated = true;
    return result;
  }
  return constant(depth);
}

/// "{a, b}" or, of a call, "(a, b)".
Operand Parser::list(Operand::Kind kind, char end, int depth, bool of_call) {
  advance();
  Operand result;
  result.kind = kind;
  while (!token_.is(end)) {
    result.parts.push_back(operand(depth + 1, of_call));
    if (!skip(',')) break;
  }
  expect(end);
  return result;
}

/// A number, a constant expression, or "-%r1".
Operand Parser::constant(int depth) {
  Operand result;
  const bool minus = token_.is('-');
  if (minus) {
    advance();
    if (token_.kind == TokenKind::kIdentifier && scopes_) {
      result = named_operand();
      result.negated = true;
      return result;
    }
  }
  if (token_.kind == TokenKind::kFloat) {
    const Token token = take();
    result.kind = Operand::Kind::kFloat;
    result.bits_wide = token.bits_wide;
    result.bits = minus ? token.bits ^ (uint64_t{1} << (token.bits_wide - 1)) : token.bits;
    return result;
  }
  if (token_.kind != TokenKind::kInteger && !token_.is('(') && !token_.is('-') && !token_.is('+') && !token_.is('~')) {
    fail("an operand");
  }
  const uint64_t first = unary(depth);
  result.kind = Operand::Kind::kInteger;
  result.bits = rest_of_expression(minus ? 0 - first : first, depth, 0);
  return result;
}

/// "d", "d|p", "_|p"
Operand Parser::name_or_pair() {
  Operand first = named_operand();
  if (!skip('|')) return first;
  Operand pair;
  pair.kind = Operand::Kind::kPair;
  pair.parts.push_back(std::move(first));
  pair.parts.push_back(named_operand());
  return pair;
}

/// "%r1", "%tid.x", "v.x", "_", "symbol+8"
Operand Parser::named_operand() {
  Operand result;
  const uint32_t line = token_.line;
  const std::string_view name = identifier("a register or a symbol");
  if (name == "_") return result;
  if (const Scopes::Symbol* symbol = find(name); symbol != nullptr && symbol->kind == SymbolKind::kRegister) {
    result.kind = Operand::Kind::kRegister;
    result.name = symbol->unique;
    if (symbol->lanes == 1) return result;
    if (token_.kind == TokenKind::kDot) {
      static constexpr std::string_view kNames = "xyzwrgba";
      const size_t lane = token_.text.size() == 1 ? kNames.find(token_.text) : std::string_view::npos;
      if (lane == std::string_view::npos || lane % 4 >= symbol->lanes) fail("an element of the vector");
      advance();
      result.name += fmt::format(".{}", kLanes[lane % 4]);
      return result;
    }
    Operand vector;
    vector.kind = Operand::Kind::kVector;
    for (uint8_t i = 0; i < symbol->lanes; i++) {
      vector.parts.push_back(result);
      vector.parts.back().name += fmt::format(".{}", kLanes[i]);
    }
    return vector;
  } else if (symbol != nullptr && symbol->kind == SymbolKind::kVariable) {
    result.kind = Operand::Kind::kSymbol;
    result.name = symbol->unique;
  } else if (name == "WARP_SZ") {
    result.kind = Operand::Kind::kSpecial;
    result.name = name;
    return result;
  } else if (name[0] == '%') {
    if (!is_special(name)) throw Error("ptx line {}: the register '{}' is not declared", line, name);
    result.kind = Operand::Kind::kSpecial;
    result.name = name.substr(1);
    if (token_.kind == TokenKind::kDot) result.name += fmt::format(".{}", take().text);
    return result;
  } else {
    result.kind = Operand::Kind::kSymbol;
    result.name = fmt::format("{}{}", kUnresolved, name);
    unresolved_ = true;
  }
  result.offset = offsets();
  return result;
}

/// "[%rd1+8]", "[symbol]", "[64]", "[map, {x, y}]"
Operand Parser::address(int depth) {
  expect('[');
  Operand result;
  if (token_.kind == TokenKind::kIdentifier) {
    result = named_operand();
    if (result.kind != Operand::Kind::kRegister && result.kind != Operand::Kind::kSymbol) fail("an address");
    result.of_symbol = result.kind == Operand::Kind::kSymbol;
    result.offset += offsets();
  } else {
    result.offset = static_cast<int64_t>(expression(depth));
  }
  result.kind = Operand::Kind::kAddress;
  if (token_.is(',')) {
    Operand tensor;
    tensor.kind = Operand::Kind::kTensor;
    tensor.parts.push_back(std::move(result));
    while (skip(',')) tensor.parts.push_back(operand(depth + 1, false));
    result = std::move(tensor);
  }
  expect(']');
  return result;
}

}  // namespace

Module parse(std::string_view text) { return Parser(text).module(); }

}  // namespace ptxsim::ptx
