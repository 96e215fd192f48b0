#include <gtest/gtest.h>

#include <bit>
#include <cstdint>
#include <random>
#include <string>
#include <string_view>

#include "tools/ptxsim/error.h"
#include "tools/ptxsim/ptx/module.h"

namespace ptxsim::ptx {
namespace {

using Kind = Operand::Kind;

constexpr std::string_view kHeader = ".version 9.0\n.target sm_90a, debug\n.address_size 64\n";

Module module_of(std::string_view rest) { return parse(std::string(kHeader) + std::string(rest)); }

/// A kernel with registers of every type, and `statements`, which start on line 11.
Function kernel_of(std::string_view statements) {
  Module module = module_of(
      ".global .align 4 .b8 memory[64]; "
      ".extern .func (.param .b32 result) callee (.param .b64 argument);\n"
      ".visible .entry kernel(.param .u64 p)\n{\n.reg .pred %p<4>;\n.reg .b32 %r<10>;\n.reg .b64 %rd<10>;\n"
      ".reg .f32 %f<10>;\n" +
      std::string(statements) + "\n}\n");
  return std::move(module.functions.back());
}

std::vector<Operand> operands_of(std::string_view statement) { return kernel_of(statement).body.at(0).operands; }

std::string error_of(std::string_view text) {
  try {
    parse(text);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string error_in_kernel(std::string_view statement) {
  try {
    kernel_of(statement);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

/// A short form of an operand, for comparison.
std::string show(const Operand& operand) {
  std::string parts;
  for (const Operand& part : operand.parts) parts += (parts.empty() ? "" : " ") + show(part);
  const std::string offset = operand.offset != 0 ? "+" + std::to_string(operand.offset) : "";
  std::string name = (operand.negated ? "!" : "") + operand.name + offset;
  switch (operand.kind) {
    case Kind::kRegister:
      return name;
    case Kind::kSpecial:
      return "special:" + name;
    case Kind::kInteger:
      return std::to_string(static_cast<int64_t>(operand.bits));
    case Kind::kFloat:
      return "f" + std::to_string(operand.bits_wide) + ":" + std::to_string(operand.bits);
    case Kind::kSymbol:
      return "&" + name;
    case Kind::kAddress:
      return "[" + std::string(operand.of_symbol ? "&" : "") + name + "]";
    case Kind::kVector:
      return "{" + parts + "}";
    case Kind::kPair:
      return "<" + parts + ">";
    case Kind::kGroup:
      return "(" + parts + ")";
    case Kind::kTensor:
      return "tensor(" + parts + ")";
    case Kind::kSink:
      return "_";
  }
  return "?";
}

std::string shown(std::string_view statement) {
  std::string result;
  for (const Operand& operand : operands_of(statement)) result += (result.empty() ? "" : ", ") + show(operand);
  return result;
}

TEST(PtxParser, Header) {
  const Module module = module_of("");
  EXPECT_EQ(module.version, "9.0");
  EXPECT_EQ(module.target, "sm_90a");
}

TEST(PtxParser, VariablesOfAModule) {
  const Module module = module_of(
      ".visible .global .align 8 .u32 a = 7, b;\n"
      ".const .align 4 .b8 table[6] = {1, 0x10, 010, 0b11, -1};\n"
      ".global .v4 .f32 vector[2] = {{1.5, 2, 0f40400000, 0d4010000000000000}};\n"
      ".global .s16 matrix[2][3] = {{1}, {2, 3}};\n"
      ".global .u64 pointers[3] = {a, generic(b)+8, table-4};\n"
      ".global .u8 bytes[2] = {0XFF(generic(a)+8), 0xFF00(a)};\n"
      ".extern .shared .align 16 .b8 dynamic[];\n"
      ".global .attribute(.managed) .b32 managed;\n"
      ".weak .global .b64 weak;\n"
      ".global .f64 wide = 1;\n"
      ".global .u32 counted[] = {4, 5, 6};\n");
  const auto at = [&](std::string_view name) {
    for (const Variable& variable : module.variables) {
      if (variable.name == name) return variable;
    }
    ADD_FAILURE() << name;
    return Variable{};
  };
  EXPECT_EQ(at("a").align, 8U);
  EXPECT_TRUE(at("a").visible);
  EXPECT_EQ(at("a").initial.at(0).bits, 7U);
  EXPECT_EQ(at("b").bytes(), 4U);
  EXPECT_TRUE(at("b").initial.empty());

  const Variable table = at("table");
  EXPECT_EQ(table.space, Space::kConst);
  EXPECT_EQ(table.elements, 6U);
  ASSERT_EQ(table.initial.size(), 5U);
  EXPECT_EQ(table.initial[1].bits, 16U);
  EXPECT_EQ(table.initial[2].bits, 8U);
  EXPECT_EQ(table.initial[3].bits, 3U);
  EXPECT_EQ(table.initial[4].bits & 0xFF, 0xFFU);

  const Variable vector = at("vector");
  EXPECT_EQ(vector.elements, 8U);
  EXPECT_EQ(vector.align, 16U);
  ASSERT_EQ(vector.initial.size(), 4U);
  for (const auto& [index, value] : {std::pair(0, 1.5F), {1, 2.0F}, {2, 3.0F}, {3, 4.0F}}) {
    EXPECT_EQ(vector.initial[index].bits, std::bit_cast<uint32_t>(value)) << index;
  }

  const Variable matrix = at("matrix");
  EXPECT_EQ(matrix.elements, 6U);
  ASSERT_EQ(matrix.initial.size(), 5U);
  EXPECT_EQ(matrix.initial[0].bits, 1U);
  EXPECT_EQ(matrix.initial[1].bits, 0U);
  EXPECT_EQ(matrix.initial[3].bits, 2U);
  EXPECT_EQ(matrix.initial[4].bits, 3U);

  const Variable pointers = at("pointers");
  EXPECT_EQ(pointers.initial.at(0).symbol, "a");
  EXPECT_FALSE(pointers.initial.at(0).generic);
  EXPECT_EQ(pointers.initial.at(1).symbol, "b");
  EXPECT_TRUE(pointers.initial.at(1).generic);
  EXPECT_EQ(pointers.initial.at(1).offset, 8);
  EXPECT_EQ(pointers.initial.at(2).offset, -4);
  EXPECT_EQ(pointers.initial.at(2).mask_byte, 0U);

  const Variable bytes = at("bytes");
  EXPECT_EQ(bytes.initial.at(0).mask_byte, 1U);
  EXPECT_TRUE(bytes.initial.at(0).generic);
  EXPECT_EQ(bytes.initial.at(0).offset, 8);
  EXPECT_EQ(bytes.initial.at(1).mask_byte, 2U);

  EXPECT_TRUE(at("dynamic").unsized);
  EXPECT_TRUE(at("dynamic").external);
  EXPECT_EQ(at("dynamic").elements, 0U);
  EXPECT_TRUE(at("managed").managed);
  EXPECT_TRUE(at("weak").weak);
  EXPECT_EQ(at("wide").initial.at(0).bits, std::bit_cast<uint64_t>(1.0));
  EXPECT_EQ(at("counted").elements, 3U);
  EXPECT_FALSE(at("counted").unsized);
}

TEST(PtxParser, DeclarationsAndDefinitions) {
  const Module module = module_of(
      ".extern .global .u32 shared_with_others;\n"
      ".func (.param .b32 result) f (.param .b64 a);\n"
      ".global .u64 table = f;\n"
      ".weak .func (.param .b32 result) f (.param .b64 a) { ret; }\n"
      ".extern .func stop () .noreturn;\n"
      ".func (.reg .b32 out) registers (.reg .b32 in) { mov.b32 out, in; ret; }\n"
      ".alias g, f;\n"
      ".global .u32 shared_with_others = 3;\n");
  ASSERT_EQ(module.functions.size(), 3U);
  EXPECT_FALSE(module.functions[0].external);
  EXPECT_TRUE(module.functions[0].weak);
  EXPECT_EQ(module.functions[0].results.at(0).name, "result");
  EXPECT_TRUE(module.functions[1].external);
  EXPECT_EQ(module.functions[2].parameters.at(0).space, Space::kReg);
  EXPECT_EQ(module.functions[2].registers.at("in"), (Type{'b', 32}));
  EXPECT_EQ(module.aliases.at("g").at(0), "f");
  EXPECT_FALSE(module.variables[0].external);
}

TEST(PtxParser, KernelDirectivesAndParameters) {
  const Module module = module_of(
      ".entry k(.param .align 16 .b8 map[128], .param .u64 .ptr .global .align 4 p, .param .f32 x)\n"
      ".maxntid 32, 4\n.minnctapersm 2\n.maxnreg 64\n.reqnctapercluster 2, 1, 1\n.explicitcluster\n"
      ".pragma \"nounroll\";\n{\n.pragma \"used_bytes_mask 15\";\nret;\n}\n"
      ".entry l() .blocksareclusters .reqntid 64 { }");
  const Function& kernel = module.functions.at(0);
  EXPECT_TRUE(kernel.entry);
  EXPECT_EQ(kernel.max_threads, 128U);
  EXPECT_FALSE(kernel.required_threads);
  EXPECT_EQ(kernel.min_blocks, 2U);
  EXPECT_EQ(kernel.max_registers, 64U);
  EXPECT_EQ(kernel.cluster[0], 2U);
  EXPECT_TRUE(kernel.explicit_cluster);
  ASSERT_EQ(kernel.parameters.size(), 3U);
  EXPECT_EQ(kernel.parameters[0].bytes(), 128U);
  EXPECT_EQ(kernel.parameters[0].align, 16U);
  EXPECT_EQ(kernel.parameters[1].align, 8U);  // its own; 4 is that of what it points to
  EXPECT_TRUE(module.functions.at(1).required_threads);
  EXPECT_TRUE(module.functions.at(1).blocks_are_clusters);
  EXPECT_EQ(module.functions.at(1).block[0], 64U);
  EXPECT_EQ(module.functions.at(1).block[2], 1U);
  EXPECT_FALSE(kernel.blocks_are_clusters);
  EXPECT_TRUE(module.functions.at(1).body.empty());
}

TEST(PtxParser, Instructions) {
  const Function kernel =
      kernel_of("@!%p1 ld.global.nc.L1::no_allocate.L2::cache_hint.v4.u32 {%r1, _, %r2, %r3}, [%rd1+-4], %rd2;\n ret;");
  const Instruction& load = kernel.body.at(0);
  EXPECT_EQ(load.opcode, "ld");
  EXPECT_EQ(load.modifiers,
            (std::vector<std::string>{"global", "nc", "L1::no_allocate", "L2::cache_hint", "v4", "u32"}));
  EXPECT_TRUE(load.has("nc"));
  EXPECT_EQ(load.guard->predicate, "%p1");
  EXPECT_TRUE(load.guard->negated);
  EXPECT_EQ(load.text_line, 11U);
  EXPECT_EQ(kernel.body.at(1).text_line, 12U);
  EXPECT_EQ(kernel.registers.at("%r1"), (Type{'b', 32}));
  EXPECT_EQ(kernel.registers.at("%p1"), (Type{'p', 1}));
}

TEST(PtxParser, Operands) {
  EXPECT_EQ(shown("add.s32 %r1, %r2, -5;"), "%r1, %r2, -5");
  EXPECT_EQ(shown("add.s32 %r1, %r2, (1<<3) + 0x10U - -(2);"), "%r1, %r2, 26");
  EXPECT_EQ(shown("mov.b32 %r1, 2 + 3 * 4 & 0xF | 0b10000 ^ 1;"), "%r1, 31");
  EXPECT_EQ(shown("mov.b64 %rd1, 0xFFFFFFFFFFFFFFFF;"), "%rd1, -1");
  EXPECT_EQ(shown("mov.b32 %r1, ~0;"), "%r1, -1");
  EXPECT_EQ(shown("mov.f32 %f1, 0f3F800000;"), "%f1, f32:" + std::to_string(0x3F800000));
  EXPECT_EQ(shown("mov.f32 %f1, -0f3F800000;"), "%f1, f32:" + std::to_string(0xBF800000));
  EXPECT_EQ(shown("mov.f32 %f1, 1.5;"), "%f1, f64:" + std::to_string(std::bit_cast<uint64_t>(1.5)));
  EXPECT_EQ(shown("mov.f32 %f1, -.5e-1;"), "%f1, f64:" + std::to_string(std::bit_cast<uint64_t>(-.5e-1)));
  EXPECT_EQ(shown("mov.u32 %r1, %tid.x;"), "%r1, special:tid.x");
  EXPECT_EQ(shown("mov.u32 %r1, %envreg3;"), "%r1, special:envreg3");
  EXPECT_EQ(shown("mov.u32 %r1, WARP_SZ;"), "%r1, special:WARP_SZ");
  EXPECT_EQ(shown("mov.u64 %rd1, memory+8;"), "%rd1, &memory+8");
  EXPECT_EQ(shown("ld.u32 %r1, [memory + 4];"), "%r1, [&memory+4]");
  EXPECT_EQ(shown("ld.u32 %r1, [%rd1 - 16 + 4];"), "%r1, [%rd1+-12]");
  EXPECT_EQ(shown("ld.shared.u32 %r1, [64];"), "%r1, [+64]");
  EXPECT_EQ(shown("setp.eq.and.s32 %p1|%p2, %r1, %r2, !%p3;"), "<%p1 %p2>, %r1, %r2, !%p3");
  EXPECT_EQ(shown("elect.sync _|%p1, 0xffffffff;"), "<_ %p1>, 4294967295");
  EXPECT_EQ(shown("mov.b32 {%r1, _}, %rd1;"), "{%r1 _}, %rd1");
  EXPECT_EQ(
      shown("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r2, 7}], "
            "[%r3];"),
      "[%r1], tensor([%rd1] {%r2 7}), [%r3]");
  EXPECT_EQ(shown("call.uni (%r1), callee, (%r2, 5), proto; proto: .callprototype (.param .b32 _) _ (.param .b64 _);"),
            "(%r1), &callee, (%r2 5), &proto");
  EXPECT_EQ(shown("call %rd1, ();"), "%rd1, ()");
  EXPECT_EQ(shown("mov.b32 %r1, -%r2;"), "%r1, !%r2");
}

TEST(PtxParser, VectorRegisters) {
  const Function kernel = kernel_of(
      ".reg .v4 .f32 v; .reg .v2 .b32 w<2>; ld.v4.f32 v, [%rd1]; mov.b32 %r1, w1.y; "
      "mov.f32 %f1, v.b;");
  EXPECT_EQ(show(kernel.body[0].operands[0]), "{v.x v.y v.z v.w}");
  EXPECT_EQ(show(kernel.body[1].operands[1]), "w1.y");
  EXPECT_EQ(show(kernel.body[2].operands[1]), "v.z");
  EXPECT_EQ(kernel.registers.at("v.w"), (Type{'f', 32}));
  EXPECT_EQ(kernel.registers.at("w1.x"), (Type{'b', 32}));
}

TEST(PtxParser, NestedScopesAreRenamed) {
  const Function kernel = kernel_of(
      "{ .reg .pred p; WAIT: setp.eq.s32 p, %r1, 0; @p bra DONE; bra WAIT; DONE: }\n"
      "{ .reg .pred p; WAIT: setp.eq.s32 p, %r1, 1; @p bra DONE; bra WAIT; DONE: }\n"
      "{ .reg .b64 %r<3>; .param .b32 q; st.param.b32 [q], 1; { .param .b32 q; st.param.b32 [q+0], 2; } "
      "mov.b64 %r1, memory; }\n"
      "mov.b32 %r1, 3;");
  const auto name = [&](size_t index, size_t operand) { return kernel.body.at(index).operands.at(operand).name; };
  const std::string first = name(0, 0), second = name(3, 0);
  EXPECT_NE(first, second);
  EXPECT_EQ(kernel.body[1].guard->predicate, first);
  EXPECT_EQ(kernel.body[4].guard->predicate, second);
  EXPECT_EQ(kernel.registers.at(second), (Type{'p', 1}));
  EXPECT_NE(name(1, 0), name(4, 0));
  EXPECT_EQ(kernel.labels.at(name(2, 0)), 0U);
  EXPECT_EQ(kernel.labels.at(name(5, 0)), 3U);
  EXPECT_EQ(kernel.labels.at(name(1, 0)), 3U);
  EXPECT_EQ(kernel.labels.at(name(4, 0)), 6U);
  EXPECT_NE(name(6, 0), name(7, 0));
  ASSERT_EQ(kernel.variables.size(), 2U);
  EXPECT_EQ(kernel.variables[0].name, name(6, 0));
  EXPECT_EQ(kernel.variables[1].name, name(7, 0));
  EXPECT_NE(name(8, 0), name(9, 0));
  EXPECT_EQ(kernel.registers.at(name(8, 0)), (Type{'b', 64}));
  EXPECT_EQ(kernel.registers.at(name(9, 0)), (Type{'b', 32}));
}

TEST(PtxParser, AFunctionsVariableHidesTheModules) {
  const Function kernel = kernel_of("mov.u64 %rd1, memory; { .local .b8 memory[4]; mov.u64 %rd2, memory; }");
  EXPECT_EQ(kernel.body[0].operands[1].name, "memory");
  EXPECT_EQ(kernel.body[1].operands[1].name, kernel.variables.at(0).name);
  EXPECT_NE(kernel.variables[0].name, "memory");
}

TEST(PtxParser, TheInnerLabelIsMeantThoughItComesLater) {
  const Function kernel = kernel_of("L: ret; { bra L; L: } bra L;");
  EXPECT_EQ(kernel.labels.at(kernel.body[1].operands[0].name), 2U);
  EXPECT_EQ(kernel.labels.at(kernel.body[2].operands[0].name), 0U);
}

TEST(PtxParser, Tables) {
  const Function kernel = kernel_of(
      "targets: .branchtargets A, B,\n A;\n brx.idx %r1, targets;\nA: ret;\nB:\n"
      "functions: .calltargets callee; call (%r1), %rd1, (%rd2), functions;\n"
      "stop: .callprototype _ (.param .align 8 .b8 _[16], .param .b64 _) .noreturn; call %rd1, (%rd2, %rd3), stop;");
  EXPECT_EQ(kernel.branch_targets.at("targets"), (std::vector<std::string>{"A", "B", "A"}));
  EXPECT_EQ(kernel.body[0].operands[1].name, "targets");
  EXPECT_EQ(kernel.labels.at("B"), 2U);
  const Function& called = kernel.prototypes.at("functions");
  EXPECT_EQ(called.results.size(), 1U);
  EXPECT_EQ(called.parameters.at(0).type, (Type{'b', 64}));
  EXPECT_EQ(kernel.prototypes.at("stop").parameters.at(0).bytes(), 16U);
  EXPECT_TRUE(kernel.prototypes.at("stop").results.empty());
}

TEST(PtxParser, LinesFollowWhatIsInlined) {
  const Module module = module_of(
      ".entry k()\n{\n"
      ".loc 1 10 0\nmembar.gl;\n"
      ".loc 2 20 3, function_name $L__info_string0, inlined_at 1 10 0\nmembar.gl;\n"
      ".loc 2 30 3, function_name $L__info_string0+12, inlined_at 2 20 3\nmembar.gl;\n"
      ".loc 1 0 3\nmembar.gl;\n"
      ".loc 1 11 5\nmembar.gl;\n}\n"
      ".file 1 \"/home/somebody/kernel.cu\"\n.file 2 \"header.h\", 1234, 56\n"
      ".section .debug_str\n{\n$L__info_string0:\n.b8 95,90,0\n}\n");
  const std::vector<Instruction>& body = module.functions.at(0).body;
  for (const size_t i : {0, 1, 2, 3}) EXPECT_EQ(module.outer_place(body[i].source), "kernel.cu:10") << i;
  EXPECT_EQ(module.place(body[0].source), "kernel.cu:10");
  EXPECT_EQ(module.place(body[1].source), "header.h:20 (inlined at kernel.cu:10)");
  for (const size_t i : {2, 3}) {
    EXPECT_EQ(module.place(body[i].source), "header.h:30 (inlined at header.h:20, kernel.cu:10)");
  }
  EXPECT_EQ(module.place(body[4].source), "kernel.cu:11");
  EXPECT_EQ(module.lines[body[2].source - 1].line, 30U);
  EXPECT_EQ(module.place(0), "");
  EXPECT_EQ(module.outer_place(0), "");
}

TEST(PtxParser, CommentsAndEmptyStatements) {
  const Function kernel = kernel_of("/* a\n b */ ;; // c\n { } /**/ ret /* d */ ; ; L1: L2:");
  ASSERT_EQ(kernel.body.size(), 1U);
  EXPECT_EQ(kernel.body[0].text_line, 13U);
  EXPECT_EQ(kernel.labels.at("L2"), 1U);
}

TEST(PtxParser, ErrorsNameLineTokenAndWhatWasExpected) {
  EXPECT_EQ(error_of(""), "ptx line 1: expected '.version', found the end of the text");
  EXPECT_EQ(error_of(".version 9.0\n.target sm_80\n.address_size 32"),
            "ptx line 3: only 64-bit addresses are supported");
  EXPECT_EQ(error_of(".version nonsense\n"), "ptx line 1: expected a version such as 9.0, found 'nonsense'");
  EXPECT_EQ(error_of(".version 9\n"), "ptx line 1: expected a version such as 9.0, found '9'");
  EXPECT_EQ(error_of(".version 9.0\n.texture x;"), "ptx line 2: expected a directive of a module, found '.texture'");
  EXPECT_EQ(error_in_kernel("add.s32 %r1, %r2"), "ptx line 12: expected ';', found '}'");
  EXPECT_EQ(error_in_kernel("add.s32 %r1, , %r2;"), "ptx line 11: expected an operand, found ','");
  EXPECT_EQ(error_in_kernel("add.s32 %r1, %r99;"), "ptx line 11: the register '%r99' is not declared");
  EXPECT_EQ(error_in_kernel("\nbra nowhere;\n"), "ptx line 12: 'nowhere' is not declared");
  EXPECT_EQ(error_in_kernel("@%p9 ret;"), "ptx line 11: the predicate '%p9' is not declared");
  EXPECT_EQ(error_in_kernel("L: ret; L: ret;"), "ptx line 11: 'L' is declared twice");
  EXPECT_EQ(error_in_kernel(".reg .b32 %r1, %r1;"), "ptx line 11: '%r1' is declared twice");
  EXPECT_EQ(error_in_kernel("mov.b32 %r1, 12ab;"), "ptx line 11: '12ab' is no number");
  EXPECT_EQ(error_in_kernel("mov.b32 %r1, 09;"), "ptx line 11: '09' is no number");
  EXPECT_EQ(error_in_kernel("mov.b32 %r1, 0x10000000000000000;"), "ptx line 11: '0x10000000000000000' is out of range");
  EXPECT_EQ(error_in_kernel("mov.f32 %f1, 0f3F8;"), "ptx line 11: '0f3F8' needs 8 hexadecimal digits");
  EXPECT_EQ(error_in_kernel("mov.b32 %r1, `;"), "ptx line 11: no token starts with the character 0x60");
  EXPECT_EQ(error_in_kernel("mov.b32 %r1, 1; /* "), "ptx line 11: a comment has no end");
  EXPECT_EQ(error_in_kernel(".reg .q32 %q;"),
            "ptx line 11: expected a type or an attribute of a declaration, found '.q32'");
  EXPECT_EQ(error_in_kernel(".local .b8 x[99999999999999];"),
            "ptx line 11: the array extent 99999999999999 is too large");
  EXPECT_EQ(error_of(std::string(kHeader) + ".global .u64 x = {y};\n"), "ptx line 4: expected an operand, found '{'");
  EXPECT_EQ(error_of(std::string(kHeader) + ".global .u64 x = y;\n"),
            "ptx line 4: an initialiser names 'y', which is not declared");
  EXPECT_EQ(error_of(std::string(kHeader) + ".global .u64 x;\n.global .u32 x;"), "ptx line 5: 'x' is defined twice");
  EXPECT_EQ(error_of(std::string(kHeader) + ".global .u8 x[2] = {1, 2, 3};"),
            "ptx line 4: expected '}' after as many elements as the array has, found '3'");
}

TEST(PtxParser, DeepNestingIsAnErrorAndNoCrash) {
  for (const char* piece : {"(", "{", "[", "-", "~", "!", "{{", "[1,"}) {
    std::string statement = "mov.b32 %r1, ";
    for (int i = 0; i < 100000; i++) statement += piece;
    EXPECT_NE(error_in_kernel(statement), "no error") << piece;
  }
  std::string extents = ".global .u32 x", braces;
  for (int i = 0; i < 100000; i++) {
    extents += "[1]";
    braces += "{";
  }
  EXPECT_NE(error_of(std::string(kHeader) + extents + " = " + braces), "no error");
  std::string scopes;
  for (int i = 0; i < 100000; i++) scopes += "{";
  EXPECT_NE(error_in_kernel(scopes), "no error");
}

constexpr std::string_view kSample = R"(.version 9.0
.target sm_90a
.address_size 64
.extern .func (.param .b32 func_retval0) vprintf (.param .b64 vprintf_param_0, .param .b64 vprintf_param_1);
.global .align 8 .u64 names[3] = {generic($str)+4, 0xFF00(generic($str)), -1};
.global .align 1 .b8 $str[4] = {97, 98, 0x63};
.global .v2 .f32 pairs[2][2] = {{{1.0, 2}, {0f40400000, 4}}, {{5, 6}}};
.visible .entry _Z1kPf(
  .param .u64 .ptr .align 1 _Z1kPf_param_0,
  .param .align 16 .b8 _Z1kPf_param_1[64]
) .maxntid 256, 1, 1 .minnctapersm 2
{
  .local .align 8 .b8 __local_depot3[56];
  .reg .b64 %SP;
  .reg .pred %p<3>;
  .reg .b32 %r<20>;
  .reg .f32 %f<9>;
  .reg .b64 %rd<9>;
  .loc 1 16 0
  .shared .align 4 .b8 tile[4224];
  mov.u64 %SP, __local_depot3;
  ld.param.u64 %rd1, [_Z1kPf_param_0];
  mov.u32 %r1, %tid.x;
  setp.ge.s32 %p1|%p2, %r1, 5;
  @!%p1 bra $L__BB0_2;
  .loc 2 708 1, function_name $L__info_string0, inlined_at 1 16 0
  {  .reg .pred p; LAB: mbarrier.try_wait.parity.shared::cta.b64 p, [%r1], 0; @p bra DONE; bra LAB; DONE: }
  mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%f1,%f2,%f3,%f4}, {%r1,%r2,%r3,%r4}, {%r5,%r6}, {%f1,%f2,%f3,%f4};
  cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%r1], [%rd1, {%r3, %r4}], [%r2];
  { // callseq 2, 0
  .param .b64 param0;
  st.param.b64 [param0+0], %rd1;
  .param .b32 retval0;
  call.uni (retval0), vprintf, (param0, param0);
  ld.param.b32 %r10, [retval0+0];
  }
  T: .branchtargets $L__BB0_2, $L__BB0_3;
  brx.idx %r10, T;
$L__BB0_2:
  fma.rn.f32 %f1, %f2, 0f3F800000, %f3;
$L__BB0_3:
  ret;
}
  .file 1 "/tmp/a.cu"
  .section .debug_str
  {
$L__info_string0:
.b8 95,90,0
  }
)";

/// Damaged texts parse or are refused; the sanitizers say whether anything worse happens.
TEST(PtxParser, DamagedTexts) {
  ASSERT_EQ(error_of(kSample), "no error");
  size_t refused = 0;
  for (size_t size = 0; size < kSample.size(); size++) {
    if (error_of(kSample.substr(0, size)) != "no error") refused++;
  }
  EXPECT_GT(refused, kSample.size() / 2);
  std::minstd_rand random(1);
  for (int i = 0; i < 4000; i++) {
    std::string text(kSample);
    for (uint32_t changes = 1 + random() % 3; changes > 0; changes--) {
      const size_t at = random() % text.size(), from = random() % text.size(), size = 1 + random() % 8;
      switch (random() % 4) {
        case 0:
          text[at] = static_cast<char>(text[at] ^ 1 << random() % 8);
          break;
        case 1:
          text.erase(at, size);
          break;
        case 2:
          text.insert(at, std::string(kSample.substr(from, size)));
          break;
        default:
          text[at] = "(){}[]<>,;:.%@!|-09"[random() % 19];
      }
    }
    error_of(text);
  }
}

}  // namespace
}  // namespace ptxsim::ptx
