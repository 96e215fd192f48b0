#include "tools/ptxsim/program/compile.h"

#include <cxxabi.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <memory>
#include <set>
#include <unordered_map>

#include "tools/ptxsim/exec/warp.h"
#include "tools/ptxsim/program/layout.h"
#include "tools/ptxsim/program/lowering.h"
#include "tools/ptxsim/program/registers.h"

namespace ptxsim {

namespace {

uint32_t align_up(uint64_t value, uint64_t alignment) {
  return static_cast<uint32_t>((value + alignment - 1) / alignment * alignment);
}

uint32_t natural_align(const ptx::Variable& v) {
  return v.align != 0 ? v.align : std::max<uint32_t>(1, v.type.bytes());
}

/// Calls f with every name that an operand mentions.
void for_each_name(const ptx::Operand& operand, const std::function<void(const std::string&)>& f) {
  if (!operand.name.empty()) f(operand.name);
  for (const ptx::Operand& part : operand.parts) for_each_name(part, f);
}

std::string text_of(const ptx::Instruction& i) {
  std::string s = i.opcode;
  for (const std::string& m : i.modifiers) s += "." + m;
  return s;
}

}  // namespace

/// Lowers a kernel's functions one after the other into drafts, then lays out their blocks and places their registers.
class Compiler {
 public:
  Compiler(const ptx::Module& module, const ptx::Function& kernel, const SymbolAddress& address_of, bool red_zones)
      : module_(module), kernel_(kernel), address_of_(address_of), red_zones_(red_zones) {
    program_.kernel = kernel.name;
    program_.module = &module;
  }

  Program compile() {
    for (const ptx::Function& f : module_.functions) {
      const auto [it, fresh] = functions_by_name_.emplace(f.name, &f);
      if (!fresh && !f.body.empty()) it->second = &f;  // a definition after its declaration
    }
    for (const ptx::Variable& v : module_.variables) module_variables_.emplace(v.name, &v);
    find_reachable();
    place_shared();
    program_.parameter_bytes =
        place_parameters(kernel_, [&](uint32_t offset, uint32_t) { parameter_offsets_.push_back(offset); });
    for (size_t f = 0; f < program_.functions.size(); ++f) place_frame_parameters(f);
    for (size_t f = 0; f < program_.functions.size(); ++f) lower_function(f);
    measure_stack();
    program_.constants.resize(align_up(program_.constants.size(), 64));
    return std::move(program_);
  }

 private:
  friend class Lowering;

  const ptx::Function& function() const { return *program_.functions[current_].function; }

  /// The kernel, what it calls, and every function whose address is taken.
  void find_reachable() {
    std::vector<const ptx::Function*> todo = {&kernel_};
    std::set<const ptx::Function*> seen = {&kernel_};
    const auto reach = [&](const std::string& name) {
      const auto f = functions_by_name_.find(resolve_alias(name));
      if (f == functions_by_name_.end() || f->second->entry || f->second->external) return;
      if (seen.insert(f->second).second) todo.push_back(f->second);
    };
    for (const ptx::Variable& v : module_.variables) {  // tables of function pointers
      for (const ptx::Initialiser& init : v.initial) {
        if (!init.symbol.empty()) reach(init.symbol);
      }
    }
    for (size_t i = 0; i < todo.size(); ++i) {
      const ptx::Function* f = todo[i];
      function_index_[f->name] = static_cast<uint32_t>(program_.functions.size());
      program_.functions.push_back({});
      program_.functions.back().function = f;
      program_.functions.back().address = address_of_(f->name).value_or(0);
      for (const ptx::Instruction& in : f->body) {
        for (const ptx::Operand& op : in.operands) for_each_name(op, reach);
      }
    }
  }

  std::string resolve_alias(const std::string& name) const {
    const auto alias = module_.aliases.find(name);
    return alias == module_.aliases.end() || alias->second.empty() ? name : alias->second.front();
  }

  /// Shared variables that the reachable functions mention, dynamic ones behind the others.
  void place_shared() {
    uint32_t size = 0, alignment = 1;
    std::vector<std::string> dynamic;
    const auto place = [&](const ptx::Variable& v) {
      if (v.space != ptx::Space::kShared || program_.shared_offsets.count(v.name) != 0) return;
      if (v.unsized || (v.external && v.bytes() == 0)) {
        program_.shared_offsets[v.name] = 0;
        dynamic.push_back(v.name);
        dynamic_align_ = std::max(dynamic_align_, natural_align(v));
        return;
      }
      size = align_up(size, natural_align(v));
      alignment = std::max(alignment, natural_align(v));
      program_.shared_offsets[v.name] = size;
      program_.shared_variables.push_back({v.name, size, static_cast<uint32_t>(v.bytes())});
      size += static_cast<uint32_t>(v.bytes());
    };
    for (const FunctionEntry& f : program_.functions) {
      for (const ptx::Variable& v : f.function->variables) place(v);
      for (const ptx::Instruction& in : f.function->body) {
        for (const ptx::Operand& op : in.operands) {
          for_each_name(op, [&](const std::string& name) {
            const auto v = module_variables_.find(name);
            if (v != module_variables_.end()) place(*v->second);
          });
        }
      }
    }
    if (!dynamic.empty()) size = align_up(size, dynamic_align_);
    program_.shared_static_bytes = size;
    program_.shared_dynamic_offset = size;
    if (red_zones_) lay_red_zones(std::max(alignment, dynamic_align_));
    for (const std::string& name : dynamic) program_.shared_offsets[name] = program_.shared_dynamic_offset;
  }

  /// Moves every static variable away from the one before it, and dynamic memory from them all. By so much that banks,
  /// alignments and the address bits that patterns of swizzling depend on stay as they are.
  void lay_red_zones(uint32_t alignment) {
    const uint32_t zone = std::max<uint32_t>(1024, alignment);
    // Descriptors of matrices have 18 bits for an address, a block has up to 227 KiB: the rest is for red zones.
    // The last is dynamic memory's.
    const uint32_t most = (28 << 10) / zone;
    auto& variables = program_.shared_variables;
    for (uint32_t i = 0; i < variables.size() && most != 0; ++i) {
      variables[i].offset += std::min(i, most - 1) * zone;
      program_.shared_offsets[variables[i].name] = variables[i].offset;
    }
    program_.shared_dynamic_offset += std::min(static_cast<uint32_t>(variables.size()), most) * zone;
  }

  /// The .param variables of a device function and of the calls that a function makes: bytes in its frame.
  void place_frame_parameters(size_t f) {
    FunctionEntry& entry = program_.functions[f];
    auto& places = frame_parameters_.emplace_back();
    uint32_t offset = 0;
    const auto place = [&](const ptx::Variable& v) {
      const auto bytes = align_up(v.bytes(), 16);
      const uint32_t at = offset;
      offset += bytes * kLanes;
      places[v.name] = {at, bytes};
      return FunctionEntry::ParameterPlace{at, bytes};
    };
    if (!entry.function->entry) {
      for (const ptx::Variable& v : entry.function->parameters) entry.parameters.push_back(place(v));
      for (const ptx::Variable& v : entry.function->results) entry.results.push_back(place(v));
    }
    for (const ptx::Variable& v : entry.function->variables) {
      if (v.space == ptx::Space::kParam) place(v);
    }
    entry.frame_bytes = align_up(offset, 64);
    uint32_t local = 0;
    auto& locals = local_offsets_.emplace_back();
    for (const ptx::Variable& v : entry.function->variables) {
      if (v.space != ptx::Space::kLocal) continue;
      local = align_up(local, natural_align(v));
      locals[v.name] = local;
      local += static_cast<uint32_t>(v.bytes());
    }
    entry.local_bytes = align_up(local, 16);
  }

  void lower_function(size_t f) {
    current_ = f;
    const ptx::Function& fn = function();
    drafts_.clear();
    registers_.clear();
    register_ids_.clear();
    for (const auto& [name, type] : fn.registers) {
      register_ids_[name] = static_cast<uint32_t>(registers_.size());
      registers_.push_back(type.bits);
    }
    std::vector<uint32_t> draft_of(fn.body.size() + 1);
    Lowering l(*this);
    for (size_t i = 0; i < fn.body.size(); ++i) {
      draft_of[i] = static_cast<uint32_t>(drafts_.size());
      l.text_ = &fn.body[i];
      const OpcodeTable::Row* row = opcodes().find(fn.body[i].opcode);
      if (row == nullptr) l.fail("unknown instruction {}", text_of(fn.body[i]));
      l.kind_ = row->kind;
      l.reads_.clear();
      l.writes_.clear();
      l.temporaries_.clear();
      row->lower(l);
    }
    draft_of[fn.body.size()] = static_cast<uint32_t>(drafts_.size());
    // Running off the end is a return.
    static const ptx::Instruction end = [] {
      ptx::Instruction i;
      i.opcode = "ret";
      return i;
    }();
    l.text_ = &end;
    l.kind_ = Kind::kControl;
    opcodes().find("ret")->lower(l);
    drafts_.back().origin.hidden = true;

    for (Draft& d : drafts_) {
      for (const std::string& label : d.labels) d.successors.push_back(draft_of[label_position(fn, label)]);
    }
    const std::vector<LaidOut> order = lay_out(drafts_);
    const std::vector<uint32_t> offsets =
        place_registers(drafts_, order, registers_, program_.functions[f].frame_bytes);
    append(f, order, offsets);
  }

  size_t label_position(const ptx::Function& fn, const std::string& label) const {
    const auto at = fn.labels.find(label);
    if (at == fn.labels.end()) throw Error("kernel {}: no label '{}' in {}", program_.kernel, label, fn.name);
    return at->second;
  }

  /// Copies the drafts into the program in their order, with jumps where a block no longer falls into the next.
  void append(size_t f, const std::vector<LaidOut>& order, const std::vector<uint32_t>& offsets) {
    const auto start = static_cast<uint32_t>(program_.code.size());
    program_.functions[f].pc = start;
    std::vector<uint32_t> pc_of(drafts_.size());
    for (size_t i = 0; i < order.size(); ++i) {
      if (!order[i].jump) pc_of[order[i].draft] = start + static_cast<uint32_t>(i);
    }
    const auto place = [&](Slot& slot) {
      if (slot.base() == kVirtual) slot = Slot::at(Slot::kFrame, offsets[slot.offset()]);
    };
    for (const LaidOut& item : order) {
      Instruction in;
      Origin origin;
      if (item.jump) {
        in.execute = jump_handler();
        in.target = pc_of[item.draft];
        origin = {drafts_[item.after].origin.text, Kind::kControl, true};
      } else {
        Draft& d = drafts_[item.draft];
        in = d.instruction;
        origin = d.origin;
        Slot* slots = d.slots.get();
        for (size_t s = 0; s < in.slot_count; ++s) place(slots[s]);
        in.slots = slots;
        program_.slot_pool.push_back(std::move(d.slots));
        if (in.guard != kNoGuard) in.guard = offsets[in.guard];
        if (d.table) {
          in.immediate = program_.jump_tables.size();
          auto& table = program_.jump_tables.emplace_back();
          for (const uint32_t s : d.successors) table.push_back(pc_of[s]);
        } else if (!d.successors.empty()) {
          in.target = pc_of[d.successors.front()];
        }
      }
      in.index = static_cast<uint32_t>(program_.code.size());
      program_.code.push_back(in);
      program_.origins.push_back(origin);
    }
  }

  /// What the deepest chain of calls takes of frame and local memory.
  void measure_stack() {
    const size_t n = program_.functions.size();
    std::vector<std::set<uint32_t>> callees(n);
    for (size_t f = 0; f < n; ++f) callees[f] = calls_[static_cast<uint32_t>(f)];
    std::vector<int> state(n, 0);
    std::vector<std::pair<uint64_t, uint64_t>> need(n);
    bool recursive = false;
    const std::function<void(uint32_t)> visit = [&](uint32_t f) {
      state[f] = 1;
      std::pair<uint64_t, uint64_t> deepest{0, 0};
      for (const uint32_t c : callees[f]) {
        if (state[c] == 1) recursive = true;
        if (state[c] == 0) visit(c);
        if (state[c] == 2) {
          deepest.first = std::max(deepest.first, need[c].first);
          deepest.second = std::max(deepest.second, need[c].second);
        }
      }
      need[f] = {deepest.first + program_.functions[f].frame_bytes, deepest.second + program_.functions[f].local_bytes};
      state[f] = 2;
    };
    visit(0);
    uint64_t frame = need[0].first, local = need[0].second;
    if (recursive) {
      uint64_t largest_frame = 0, largest_local = 0;
      for (const FunctionEntry& f : program_.functions) {
        largest_frame = std::max<uint64_t>(largest_frame, f.frame_bytes);
        largest_local = std::max<uint64_t>(largest_local, f.local_bytes);
      }
      frame += largest_frame * kRecursionDepth;
      local += largest_local * kRecursionDepth;
    }
    program_.recursive = recursive;
    program_.frame_bytes = align_up(std::max<uint64_t>(frame, 64), 64);
    program_.local_bytes = align_up(local, 16);
  }

  uint32_t new_register(uint32_t bits) {
    registers_.push_back(bits);
    return static_cast<uint32_t>(registers_.size() - 1);
  }

  const ptx::Module& module_;
  const ptx::Function& kernel_;
  const SymbolAddress& address_of_;
  const bool red_zones_;
  Program program_;
  std::unordered_map<std::string, const ptx::Function*> functions_by_name_;
  std::unordered_map<std::string, const ptx::Variable*> module_variables_;
  std::unordered_map<std::string, uint32_t> function_index_;
  std::vector<uint32_t> parameter_offsets_;  // the kernel's
  uint32_t dynamic_align_ = 16;
  std::map<std::pair<uint64_t, uint32_t>, uint32_t> constant_offsets_;
  std::vector<std::unordered_map<std::string, Lowering::FrameParameter>> frame_parameters_;  // by function
  std::vector<std::unordered_map<std::string, uint32_t>> local_offsets_;                     // by function
  std::map<uint32_t, std::set<uint32_t>> calls_;                                             // caller -> callees

  size_t current_ = 0;  // function
  std::vector<Draft> drafts_;
  std::vector<uint32_t> registers_;  // bits, by virtual id
  std::unordered_map<std::string, uint32_t> register_ids_;
};

// --- Lowering: what instruction families see of the compiler ---------------------------------------------------------

const ptx::Operand& Lowering::operand(size_t i) const {
  if (i >= text_->operands.size()) fail("operand {} is missing in {}", i + 1, text_of(*text_));
  return text_->operands[i];
}

DataType Lowering::type(size_t i) const {
  for (const std::string& m : text_->modifiers) {
    if (const auto t = data_type(m)) {
      if (i-- == 0) return *t;
    }
  }
  fail("expected a type among the modifiers of {}", text_of(*text_));
}

size_t Lowering::type_count() const {
  return static_cast<size_t>(std::count_if(text_->modifiers.begin(), text_->modifiers.end(),
                                           [](const std::string& m) { return data_type(m).has_value(); }));
}

Space Lowering::space() const {
  for (const std::string& m : text_->modifiers) {
    if (m == "global") return Space::kGlobal;
    if (m == "shared" || m == "shared::cta") return Space::kShared;
    if (m == "shared::cluster") return Space::kSharedCluster;
    if (m == "local") return Space::kLocal;
    if (m == "param" || m == "param::entry" || m == "param::func") return Space::kParam;
    if (m == "const") return Space::kConst;
  }
  return Space::kGeneric;
}

uint32_t Lowering::register_bits(const ptx::Operand& operand) const {
  if (operand.kind != ptx::Operand::Kind::kRegister) return 0;
  const auto id = compiler_.register_ids_.find(operand.name);
  return id == compiler_.register_ids_.end() ? 0 : compiler_.registers_[id->second];
}

namespace {

Slot virtual_slot(uint32_t id) { return Slot::at(kVirtual, id); }

}  // namespace

Slot Lowering::read(const ptx::Operand& operand, uint32_t bits, bool wider) {
  using K = ptx::Operand::Kind;
  switch (operand.kind) {
    case K::kRegister: {
      const auto id = compiler_.register_ids_.find(operand.name);
      if (id == compiler_.register_ids_.end()) fail("undeclared register {}", operand.name);
      if (operand.negated && bits != 1) fail("a negated operand is not known here: {}", operand.name);
      const uint32_t have = compiler_.registers_[id->second];
      const bool fits =
          have == bits || (wider && have > bits) || (bits < 16 && have == 16) || (have == 8 && bits == 16);
      if (!fits) fail("expected a register of {} bits, found {} of {}", bits, operand.name, have);
      reads_.push_back(id->second);
      return virtual_slot(id->second);
    }
    case K::kSpecial:
      return special(operand.name, bits);
    case K::kInteger:
      return constant(operand.bits, bits);
    case K::kFloat: {
      uint64_t value = operand.bits;
      if (operand.bits_wide == 32 && bits == 64) {
        value = std::bit_cast<uint64_t>(static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(value))));
      } else if (operand.bits_wide == 64 && bits == 32) {
        value = std::bit_cast<uint32_t>(static_cast<float>(std::bit_cast<double>(value)));
      }
      return constant(value, bits);
    }
    case K::kSymbol: {
      const Address a = address(operand, Space::kGeneric);
      if (a.base_bits == 0) return constant(static_cast<uint64_t>(a.offset), bits);
      return a.base;
    }
    default:
      fail("operand of {} cannot be read", text_of(*text_));
  }
}

Slot Lowering::write(const ptx::Operand& operand, uint32_t bits, bool wider) {
  if (operand.kind == ptx::Operand::Kind::kSink) {
    const uint32_t id = compiler_.new_register(std::max<uint32_t>(bits, 16));
    writes_.push_back(id);
    return virtual_slot(id);
  }
  if (operand.kind != ptx::Operand::Kind::kRegister) fail("destination of {} is no register", text_of(*text_));
  const Slot slot = read(operand, bits, wider);
  reads_.pop_back();
  writes_.push_back(slot.offset());
  return slot;
}

Slot Lowering::read_write(const ptx::Operand& operand, uint32_t bits) {
  const Slot slot = read(operand, bits);
  writes_.push_back(slot.offset());
  return slot;
}

Slot Lowering::read_predicate(const ptx::Operand& operand, bool& negated) {
  negated = operand.negated;
  if (operand.kind == ptx::Operand::Kind::kInteger) return constant(operand.bits != 0 ? kAllLanes : 0, 32);
  if (register_bits(operand) != 1) fail("expected a predicate, found {}", operand.name);
  return read(operand, 1);
}

Slot Lowering::write_predicate(const ptx::Operand& operand) {
  if (operand.kind == ptx::Operand::Kind::kSink) {
    const uint32_t id = compiler_.new_register(1);
    writes_.push_back(id);
    return virtual_slot(id);
  }
  if (register_bits(operand) != 1) fail("expected a predicate, found {}", operand.name);
  return write(operand, 1);
}

Slot Lowering::constant(uint64_t bits, uint32_t width) {
  width = std::max<uint32_t>(width, 16);
  if (width < 64) bits &= (uint64_t{1} << width) - 1;
  const auto [at, fresh] = compiler_.constant_offsets_.emplace(std::pair(bits, width), 0);
  auto& pool = compiler_.program_.constants;
  if (fresh) {
    at->second = static_cast<uint32_t>(pool.size());
    pool.resize(align_up(pool.size() + width / 8 * kLanes, 64));
    if (width == 128) {
      std::memset(pool.data() + at->second, 0, 2 * 8 * kLanes);
      for (int l = 0; l < kLanes; ++l) std::memcpy(pool.data() + at->second + 8 * l, &bits, 8);
    } else {
      for (int l = 0; l < kLanes; ++l) std::memcpy(pool.data() + at->second + width / 8 * l, &bits, width / 8);
    }
  }
  return Slot::at(Slot::kConstants, at->second);
}

Slot Lowering::temporary(uint32_t bits) {
  const uint32_t id = compiler_.new_register(bits);
  temporaries_.push_back(id);
  return virtual_slot(id);
}

uint64_t Lowering::literal(size_t i) const {
  if (operand(i).kind != ptx::Operand::Kind::kInteger) fail("expected a number as operand {}", i + 1);
  return operand(i).bits;
}

Slot Lowering::special(std::string_view name, uint32_t bits) {
  static const std::unordered_map<std::string_view, Special> kNames = {
      {"tid.x", Special::kTidX},
      {"tid.y", Special::kTidY},
      {"tid.z", Special::kTidZ},
      {"tid", Special::kTidX},
      {"ntid.x", Special::kNtidX},
      {"ntid.y", Special::kNtidY},
      {"ntid.z", Special::kNtidZ},
      {"ctaid.x", Special::kCtaidX},
      {"ctaid.y", Special::kCtaidY},
      {"ctaid.z", Special::kCtaidZ},
      {"nctaid.x", Special::kNctaidX},
      {"nctaid.y", Special::kNctaidY},
      {"nctaid.z", Special::kNctaidZ},
      {"laneid", Special::kLaneid},
      {"warpid", Special::kWarpid},
      {"nwarpid", Special::kNwarpid},
      {"smid", Special::kSmid},
      {"nsmid", Special::kNsmid},
      {"lanemask_eq", Special::kLanemaskEq},
      {"lanemask_lt", Special::kLanemaskLt},
      {"lanemask_le", Special::kLanemaskLe},
      {"lanemask_gt", Special::kLanemaskGt},
      {"lanemask_ge", Special::kLanemaskGe},
      {"dynamic_smem_size", Special::kDynamicSmemSize},
      {"total_smem_size", Special::kTotalSmemSize},
      {"aggr_smem_size", Special::kAggrSmemSize},
      {"clusterid.x", Special::kClusteridX},
      {"clusterid.y", Special::kClusteridY},
      {"clusterid.z", Special::kClusteridZ},
      {"nclusterid.x", Special::kNclusteridX},
      {"nclusterid.y", Special::kNclusteridY},
      {"nclusterid.z", Special::kNclusteridZ},
      {"cluster_ctaid.x", Special::kClusterCtaidX},
      {"cluster_ctaid.y", Special::kClusterCtaidY},
      {"cluster_ctaid.z", Special::kClusterCtaidZ},
      {"cluster_nctaid.x", Special::kClusterNctaidX},
      {"cluster_nctaid.y", Special::kClusterNctaidY},
      {"cluster_nctaid.z", Special::kClusterNctaidZ},
      {"cluster_ctarank", Special::kClusterCtarank},
      {"cluster_nctarank", Special::kClusterNctarank},
      {"is_explicit_cluster", Special::kIsExplicitCluster},
      {"envreg1", Special::kEnvreg1},
      {"envreg2", Special::kEnvreg2},
      {"gridid", Special::kGridid},
  };
  if (name == "WARP_SZ") return constant(kLanes, bits);
  const auto at = kNames.find(name);
  if (at == kNames.end()) fail("special register %{} is not known here", name);
  if (at->second == Special::kGridid && bits != 64) fail("%gridid has 64 bits, {} wanted", bits);
  // Special registers are 32 bits wide; narrower and wider readers (mov.u16, mov.u64) go by mov's own way.
  if (at->second != Special::kGridid && bits != 32) fail("special register %{} has 32 bits, {} wanted", name, bits);
  return Slot::at(Slot::kSpecials, static_cast<uint32_t>(at->second) * 4 * kLanes);
}

Lowering::Address Lowering::address(const ptx::Operand& operand, Space space) {
  using K = ptx::Operand::Kind;
  const bool direct = operand.kind == K::kSymbol;
  if (!direct && operand.kind != K::kAddress) fail("expected an address");
  if (!direct && !operand.of_symbol) {
    if (operand.name.empty()) return {constant(0, 64), 0, operand.offset};
    ptx::Operand base;
    base.kind = K::kRegister;
    base.name = operand.name;
    const uint32_t bits = register_bits(base);
    if (bits != 32 && bits != 64) fail("expected an address in a register of 32 or 64 bits, found {}", operand.name);
    return {read(base, bits), bits, operand.offset};
  }
  const std::string& name = operand.name;
  const auto known = [&](uint64_t value) {
    return Address{constant(0, 64), 0, static_cast<int64_t>(value) + operand.offset};
  };
  if (const auto s = compiler_.program_.shared_offsets.find(name); s != compiler_.program_.shared_offsets.end()) {
    return known(s->second);
  }
  const auto& locals = compiler_.local_offsets_[compiler_.current_];
  if (const auto s = locals.find(name); s != locals.end()) {
    // Local variables move with the depth of calls.
    const Slot base = temporary(64);
    Instruction& in = emit(local_base_handler(), {base});
    in.immediate = s->second + (direct ? static_cast<uint64_t>(operand.offset) : 0);
    compiler_.drafts_.back().origin.hidden = true;
    return {base, 64, direct ? 0 : operand.offset};
  }
  if (in_entry()) {
    const auto& parameters = compiler_.kernel_.parameters;
    for (size_t p = 0; p < parameters.size(); ++p) {
      if (parameters[p].name == name) return known(compiler_.parameter_offsets_[p]);
    }
  }
  if (const auto a = compiler_.address_of_(name)) return known(*a);
  if (const auto v = compiler_.module_variables_.find(name); v != compiler_.module_variables_.end()) {
    fail("variable {} is defined in another module, which is not supported", name);
  }
  static_cast<void>(space);
  fail("unknown symbol {}", name);
}

std::optional<Lowering::FrameParameter> Lowering::frame_parameter(const std::string& name) const {
  const auto& places = compiler_.frame_parameters_[compiler_.current_];
  const auto at = places.find(name);
  if (at == places.end()) return {};
  return at->second;
}

uint32_t Lowering::parameter_bytes() const { return compiler_.program_.parameter_bytes; }
bool Lowering::in_entry() const { return compiler_.function().entry; }

std::optional<uint32_t> Lowering::function(const std::string& name) const {
  const auto at = compiler_.function_index_.find(compiler_.resolve_alias(name));
  if (at == compiler_.function_index_.end()) return {};
  return at->second;
}

const ptx::Function* Lowering::declaration(const std::string& name) const {
  const ptx::Function& here = compiler_.function();
  if (const auto p = here.prototypes.find(name); p != here.prototypes.end()) return &p->second;
  const auto at = compiler_.functions_by_name_.find(compiler_.resolve_alias(name));
  return at == compiler_.functions_by_name_.end() ? nullptr : at->second;
}

const FunctionEntry& Lowering::entry(uint32_t function) const { return compiler_.program_.functions[function]; }
uint32_t Lowering::current_function() const { return static_cast<uint32_t>(compiler_.current_); }
void Lowering::calls(uint32_t function) { compiler_.calls_[current_function()].insert(function); }
uint32_t Lowering::function_count() const { return static_cast<uint32_t>(compiler_.program_.functions.size()); }

Instruction& Lowering::emit(Handler handler, std::initializer_list<Slot> slots) {
  return emit(handler, std::vector<Slot>(slots));
}

Instruction& Lowering::emit(Handler handler, const std::vector<Slot>& slots) {
  Draft& d = compiler_.drafts_.emplace_back();
  d.instruction.execute = handler;
  d.instruction.slot_count = static_cast<uint8_t>(slots.size());
  if (slots.size() > 255) fail("too many operands");
  d.slots = std::make_unique<Slot[]>(slots.size());
  std::copy(slots.begin(), slots.end(), d.slots.get());
  d.origin = {text_, kind_, false};
  if (text_->guard) {
    const auto id = compiler_.register_ids_.find(text_->guard->predicate);
    if (id == compiler_.register_ids_.end()) fail("undeclared predicate {}", text_->guard->predicate);
    d.instruction.guard = id->second;
    d.instruction.guard_negated = text_->guard->negated;
    reads_.push_back(id->second);
  }
  // What was asked for so far for this text counts for each of its instructions: a source is not overwritten early.
  d.reads = reads_;
  d.writes = writes_;
  d.kills = temporaries_;
  reads_.insert(reads_.end(), temporaries_.begin(), temporaries_.end());
  temporaries_.clear();
  return d.instruction;
}

void Lowering::target(Instruction& instruction, const std::string& label) {
  static_cast<void>(instruction);
  compiler_.drafts_.back().labels.push_back(label);
  compiler_.drafts_.back().falls_through = text_->guard.has_value();
}

void Lowering::targets(Instruction& instruction, const std::string& table) {
  static_cast<void>(instruction);
  const auto at = compiler_.function().branch_targets.find(table);
  if (at == compiler_.function().branch_targets.end()) fail("no branch targets {}", table);
  compiler_.drafts_.back().labels = at->second;
  compiler_.drafts_.back().table = true;
  compiler_.drafts_.back().falls_through = text_->guard.has_value();
}

void Lowering::ends(Instruction& instruction) {
  static_cast<void>(instruction);
  compiler_.drafts_.back().falls_through = text_->guard.has_value();
  compiler_.drafts_.back().leaves = true;
}

void Lowering::ends_block() { compiler_.drafts_.back().ends_block = true; }
void Lowering::hide() { compiler_.drafts_.back().origin.hidden = true; }

void Lowering::fail_with(const std::string& what) const {
  const std::string place = compiler_.module_.place(text_->source);
  throw Error("kernel {}{}{} (ptx line {}): {} [{}]", demangle(compiler_.program_.kernel), place.empty() ? "" : ", ",
              place, text_->text_line, what, text_of(*text_));
}

void Lowering::unknown() const { fail("instruction is not known in this form"); }

// --- entry points ----------------------------------------------------------------------------------------------------

Program compile(const ptx::Module& module, const ptx::Function& kernel, const SymbolAddress& address_of,
                bool red_zones) {
  return Compiler(module, kernel, address_of, red_zones).compile();
}

uint32_t place_parameters(const ptx::Function& kernel, const std::function<void(uint32_t, uint32_t)>& each) {
  uint64_t offset = 0;
  for (const ptx::Variable& p : kernel.parameters) {
    offset = align_up(offset, natural_align(p));
    each(static_cast<uint32_t>(offset), static_cast<uint32_t>(p.bytes()));
    offset += p.bytes();
  }
  return static_cast<uint32_t>(offset);
}

std::string demangle(const std::string& name) {
  int status = 0;
  const std::unique_ptr<char, void (*)(void*)> text(abi::__cxa_demangle(name.c_str(), nullptr, nullptr, &status),
                                                    std::free);
  return status == 0 ? text.get() : name;
}

std::string Program::place(uint32_t pc) const {
  const Origin& o = origins.at(pc);
  std::string text = demangle(kernel);
  if (o.text == nullptr) return text;
  const std::string where = module->place(o.text->source);
  if (!where.empty()) text += ", " + where;
  return text + ": " + text_of(*o.text);
}

}  // namespace ptxsim
