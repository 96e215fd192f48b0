#include <gtest/gtest.h>

#include "tests/ptxsim/exec/ptx_fixture.h"

namespace ptxsim::testing {
namespace {

/// A call's text: argument i is the register given, of 64 bits but for "r…" names.
std::string call(const std::string& function, const std::vector<std::string>& arguments,
                 const std::string& result = "") {
  std::string text = "{\n", names;
  for (size_t i = 0; i < arguments.size(); ++i) {
    const std::string type = arguments[i].starts_with("%rd") ? "b64" : "b32";
    const std::string name = "a" + std::to_string(i);
    text += ".param ." + type + " " + name + ";\nst.param." + type + " [" + name + "], " + arguments[i] + ";\n";
    names += (i != 0 ? ", " : "") + name;
  }
  if (result.empty()) return text + "call.uni " + function + ", (" + names + ");\n}\n";
  const std::string type = result.starts_with("%rd") ? "b64" : "b32";
  return text + ".param ." + type + " z;\ncall.uni (z), " + function + ", (" + names + ");\nld.param." + type + " " +
         result + ", [z];\n}\n";
}

/// A kernel of one parameter with the device runtime's declarations.
std::string module_of(const std::string& body) {
  std::string text = kernel(1, "ld.param.u64 %rd0, [p0];\nmov.u32 %r0, %tid.x;\n" + body);
  const std::string declarations =
      ".extern .func (.param .b32 z) vprintf (.param .b64 a, .param .b64 b);\n"
      ".extern .func (.param .b64 z) malloc (.param .b64 a);\n.extern .func free (.param .b64 a);\n"
      ".extern .func __assertfail (.param .b64 a, .param .b64 b, .param .b32 c, .param .b64 d, .param .b64 e);\n";
  return text.insert(text.find(".visible"), declarations);
}

/// Device memory: a format at 0, a string at 128, the arguments at 256, results from 512.
std::vector<uint8_t> page(const std::string& format, const std::string& text = "") {
  std::vector<uint8_t> bytes(1024);
  std::memcpy(bytes.data(), format.c_str(), format.size() + 1);
  std::memcpy(bytes.data() + 128, text.c_str(), text.size() + 1);
  return bytes;
}

std::string print(Device& d, Allocation* a, uint32_t threads, const std::string& before, Outcome& outcome) {
  ::testing::internal::CaptureStdout();
  outcome = d.run(module_of(before + "add.s64 %rd1, %rd0, 256;\n" + call("vprintf", {"%rd0", "%rd1"}, "%r1") +
                            "st.global.u32 [%rd0+512], %r1;\n"),
                  {1, 1, 1}, {threads, 1, 1}, a);
  return ::testing::internal::GetCapturedStdout();
}

TEST(DevicePrintf, EveryKindOfArgument) {
  std::vector<uint8_t> bytes = page("%d|%+5i|%s|%.3s|%6.2f|%c|%#llx|%-4u|%hd|%%|%e|%*d|%lu\n", "hello");
  size_t at = 256;
  const auto put = [&](auto value) {
    at = (at + sizeof(value) - 1) / sizeof(value) * sizeof(value);
    std::memcpy(bytes.data() + at, &value, sizeof(value));
    at += sizeof(value);
  };
  Device d;
  Allocation* a = d.upload(bytes);
  put(-7), put(42), put(a->base + 128), put(a->base + 128), put(3.14159), put(int{'x'}), put(uint64_t{0xdeadbeef00}),
      put(9);
  put(0x12345), put(1e100), put(6), put(-5), put(~uint64_t{0});
  std::memcpy(a->host, bytes.data(), bytes.size());
  Outcome o;
  EXPECT_EQ(print(d, a, 1, "", o),
            "-7|  +42|hello|hel|  3.14|x|0xdeadbeef00|9   |9029|%|1.000000e+100|    -5|18446744073709551615\n");
  EXPECT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint32_t>(a)[128], 13U);
}

TEST(DevicePrintf, ArgumentsInLocalMemoryAndLinesInOrderOfLanes) {
  Device d;
  Allocation* a = d.upload(page("thread %d\n"));
  ::testing::internal::CaptureStdout();
  const Outcome o = d.run(module_of(".local .align 8 .b8 buffer[8];\nmov.u64 %rd2, buffer;\nst.local.u32 [%rd2], %r0;\n"
                                    "cvta.local.u64 %rd3, %rd2;\n" +
                                    call("vprintf", {"%rd0", "%rd3"}, "%r1")),
                          {1, 1, 1}, {3, 1, 1}, a);
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "thread 0\nthread 1\nthread 2\n");
  EXPECT_EQ(o.status, Status::kOk) << o.message;
}

TEST(DevicePrintf, WhatIsNoConversionStandsAsItIsAndNoStringIsAFault) {
  Device d;
  Outcome o;
  EXPECT_EQ(print(d, d.upload(page("50%! %s|")), 1, "", o), "50%! (null)|");
  std::vector<uint8_t> bytes = page("%s");
  bytes[256] = 8;
  print(d, d.upload(bytes), 1, "", o);
  EXPECT_EQ(o.status, Status::kIllegalAddress);
}

TEST(DeviceHeap, MallocUntilItIsFullAndFree) {
  Device d;
  d.machine().heap_limit = 1000;
  Allocation* a = d.upload(std::vector<uint64_t>(8));
  const std::string allocate = "mov.u64 %rd1, 600;\n" + call("malloc", {"%rd1"}, "%rd2") +
                               "st.global.u64 [%rd2+592], %rd1;\n" + call("malloc", {"%rd1"}, "%rd3") +
                               "st.global.u64 [%rd0], %rd3;\n" + call("free", {"%rd3"}) + call("free", {"%rd2"});
  Outcome o = d.run(module_of(allocate + call("malloc", {"%rd1"}, "%rd4") + "st.global.u64 [%rd0+8], %rd4;\n"),
                    {1, 1, 1}, {1, 1, 1}, a);
  ASSERT_EQ(o.status, Status::kOk) << o.message;
  EXPECT_EQ(d.download<uint64_t>(a)[0], 0U);
  EXPECT_NE(d.download<uint64_t>(a)[1], 0U);
  EXPECT_EQ(d.machine().heap_used.load(), 608U);
}

TEST(DeviceHeap, WrongFreesAreFaults) {
  Device d;
  Allocation* a = d.upload(std::vector<uint64_t>(8));
  EXPECT_EQ(d.run(module_of(call("free", {"%rd0"})), {1, 1, 1}, {1, 1, 1}, a).status, Status::kIllegalAddress);
  Device fresh;
  a = fresh.upload(std::vector<uint64_t>(8));
  const Outcome o = fresh.run(module_of("mov.u64 %rd1, 16;\n" + call("malloc", {"%rd1"}, "%rd2") +
                                        call("free", {"%rd2"}) + call("free", {"%rd2"})),
                              {1, 1, 1}, {1, 1, 1}, a);
  EXPECT_EQ(o.status, Status::kIllegalAddress);
  EXPECT_NE(o.message.find("freed already"), std::string::npos) << o.message;
}

TEST(DeviceAssert, TellsWhereAsCudaDoes) {
  Device d;
  std::vector<uint8_t> bytes = page("x < 3", "file.cu");
  std::memcpy(bytes.data() + 256, "void k()", 9);
  Allocation* a = d.upload(bytes);
  ::testing::internal::CaptureStderr();
  const Outcome o =
      d.run(module_of("setp.lt.u32 %p1, %r0, 3;\n@%p1 bra GOOD;\nadd.s64 %rd1, %rd0, 128;\nmov.u32 %r1, 12;\n"
                      "add.s64 %rd2, %rd0, 256;\nmov.u64 %rd3, 1;\n" +
                      call("__assertfail", {"%rd0", "%rd1", "%r1", "%rd2", "%rd3"}) + "GOOD:\n"),
            {1, 1, 1}, {5, 1, 1}, a);
  const std::string text = ::testing::internal::GetCapturedStderr();
  EXPECT_EQ(o.status, Status::kAssert);
  EXPECT_EQ(text,
            "file.cu:12: void k(): block: [0,0,0], thread: [3,0,0] Assertion `x < 3` failed.\n"
            "file.cu:12: void k(): block: [0,0,0], thread: [4,0,0] Assertion `x < 3` failed.\n");
}

TEST(DeviceRuntime, OtherFunctionsAreRefusedByName) {
  Device d;
  std::string text = kernel(0, "call.uni cudaLaunchDeviceV2;\n");
  text.insert(text.find(".visible"), ".extern .func cudaLaunchDeviceV2;\n");
  const Outcome o = d.run(text, {1, 1, 1}, {1, 1, 1});
  EXPECT_EQ(o.status, Status::kIllegalInstruction);
  EXPECT_NE(o.message.find("cudaLaunchDeviceV2"), std::string::npos) << o.message;
}

}  // namespace
}  // namespace ptxsim::testing
