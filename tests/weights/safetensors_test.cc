#include "weights/safetensors.h"

#include <bit>
#include <cmath>
#include <limits>
#include <random>

#include "tests/weights/support.h"

namespace cpvt {
namespace {

class SafetensorsTest : public FolderTest {
 protected:
  /// The error of reading a file of this header and this many zero bytes of data.
  std::string error(std::string_view header, size_t data_bytes = 0) const {
    const auto path = write("bad.safetensors", safetensors_bytes(header, std::string(data_bytes, '\0')));
    return error_of([&] { SafetensorsFile file(path); }, path);
  }
  /// The error of one tensor's description, for 16 bytes of data.
  std::string tensor_error(const std::string& description) const { return error(R"({"x":)" + description + "}", 16); }
  SafetensorsFile one(std::string_view dtype, std::string_view shape, std::string_view data) const {
    const auto header =
        fmt::format(R"({{"x":{{"dtype":"{}","shape":{},"data_offsets":[0,{}]}}}})", dtype, shape, data.size());
    return SafetensorsFile(write("one.safetensors", safetensors_bytes(header, data)));
  }
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST(OfficialFile, ReadsWhatTheFormatsOwnPackageWrites) {
  const SafetensorsFile file(std::filesystem::path(CPVT_TEST_DATA) / "weights" / "official.safetensors");
  EXPECT_EQ(file.metadata().at("format"), "pt");
  EXPECT_EQ(file.metadata().at("note"), "ünï");
  EXPECT_EQ(file.entries().size(), 12U);
  for (const char* name : {"f32", "f16", "bf16", "f64"}) {
    const Tensor ramp = file.load(name);
    EXPECT_EQ(ramp.shape, (std::vector<int64_t>{2, 3})) << name;
    for (int i = 0; i < 6; ++i) EXPECT_EQ(ramp.data[i], 0.5F * static_cast<float>(i) - 1) << name;
  }
  const Tensor scalar = file.load("scalar");
  EXPECT_EQ(scalar.shape.size(), 0U);
  EXPECT_EQ(scalar.size(), 1);
  EXPECT_EQ(scalar.data[0], 3.25F);
  EXPECT_EQ(file.load("empty").size(), 0);
  EXPECT_EQ(file.load("empty").shape, (std::vector<int64_t>{0, 3}));
  EXPECT_EQ(file.load("grün/ü\t\"quoted\"").data[0], 7.0F);
}

struct Refused {
  const char* tensor;
  const char* dtype;
};

class OfficialFileRefused : public testing::TestWithParam<Refused> {};
INSTANTIATE_TEST_SUITE_P(Types, OfficialFileRefused,
                         testing::Values(Refused{"bool", "BOOL"}, Refused{"u8", "U8"}, Refused{"i64", "I64"},
                                         Refused{"f8", "F8_E4M3"}, Refused{"c64", "C64"}),
                         [](const auto& info) { return info.param.tensor; });

TEST_P(OfficialFileRefused, ByName) {
  const SafetensorsFile file(std::filesystem::path(CPVT_TEST_DATA) / "weights" / "official.safetensors");
  EXPECT_EQ(
      error_of([&] { file.load(GetParam().tensor); }, file.path()),
      fmt::format("FILE: tensor '{}': expected F32, F16, BF16 or F64, found {}", GetParam().tensor, GetParam().dtype));
}

TEST_F(SafetensorsTest, KnowsEveryTypeOfTheFormat) {
  for (const char* name : {"BOOL",    "F4",          "F6_E2M3",     "F6_E3M2", "U8",  "I8",  "F8_E5M2", "F8_E4M3",
                           "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "I16",     "U16", "F16", "BF16",    "I32",
                           "U32",     "F32",         "C64",         "F64",     "I64", "U64"}) {
    const auto dtype = parse_dtype(name);
    ASSERT_TRUE(dtype) << name;
    EXPECT_EQ(dtype_name(*dtype), name);
    const SafetensorsFile file = one(name, "[8]", std::string(static_cast<size_t>(dtype_bits(*dtype)), '\0'));
    EXPECT_EQ(error_of([&] { file.load("x"); }).empty(), SafetensorsFile::is_loadable(*dtype)) << name;
  }
  EXPECT_FALSE(parse_dtype("f32"));
}

TEST_F(SafetensorsTest, SmallestFiles) {
  EXPECT_TRUE(SafetensorsFile(write("none.safetensors", safetensors_bytes("{}", ""))).entries().empty());
  EXPECT_TRUE(SafetensorsFile(write("pad.safetensors", safetensors_bytes("{}      ", ""))).entries().empty());
}

TEST_F(SafetensorsTest, HeaderLength) {
  const auto raw = [&](const std::string& bytes) {
    const auto path = write("raw.safetensors", bytes);
    return error_of([&] { SafetensorsFile file(path); }, path);
  };
  EXPECT_EQ(raw(""), "FILE: expected a safetensors file of at least 8 bytes, found 0");
  EXPECT_EQ(raw("1234567"), "FILE: expected a safetensors file of at least 8 bytes, found 7");
  EXPECT_EQ(raw(std::string("\3\0\0\0\0\0\0\0{}", 10)),
            "FILE: the header should have 3 bytes, but only 2 follow its length: the file is cut short");
  EXPECT_EQ(
      raw(std::string(8, '\xFF') + "{}"),
      "FILE: expected a safetensors header of at most 100000000 bytes, found a length of 18446744073709551615 (is "
      "it another format?)");
  EXPECT_EQ(raw(std::string("\0\xE1\xF5\5\0\0\0\0{}", 10)),
            "FILE: the header should have 100000000 bytes, but only 2 follow its length: the file is cut short");
  EXPECT_EQ(
      raw(std::string("\1\xE1\xF5\5\0\0\0\0{}", 10)),
      "FILE: expected a safetensors header of at most 100000000 bytes, found a length of 100000001 (is it another "
      "format?)");
  EXPECT_EQ(raw(std::string(8, '\0')), "FILE: expected a header that starts with '{', found an empty one");
  EXPECT_EQ(error_of([&] { SafetensorsFile file(folder_ / "absent"); }, folder_),
            "FILE/absent: cannot open: No such file or directory");
}

TEST_F(SafetensorsTest, HeaderIsOneStrictJsonObject) {
  EXPECT_EQ(error("[]"), "FILE: expected a header that starts with '{', found the byte 0x5b");
  EXPECT_EQ(error(" {}"), "FILE: expected a header that starts with '{', found the byte 0x20");
  EXPECT_EQ(error("\xEF\xBB\xBF{}"), "FILE: expected a header that starts with '{', found the byte 0xef");
  EXPECT_EQ(
      error("{} {}"),
      "FILE: header: not valid JSON: parse error at line 1, column 4: syntax error while parsing value - unexpected "
      "'{'; expected end of input");
  EXPECT_EQ(error(std::string_view("{}\0{}", 5)), "FILE: header: not valid JSON: NUL byte at offset 2");
  EXPECT_NE(error("{\"a\xC0\xAF\":1}").find("invalid string: ill-formed UTF-8 byte"), std::string::npos);
  EXPECT_NE(error("{\"a\xED\xA0\x80\":1}").find("invalid string: ill-formed UTF-8 byte"), std::string::npos);
  EXPECT_NE(error(R"({"\ud800":1})").find("surrogate"), std::string::npos);
  EXPECT_NE(error("{/**/}").find("not valid JSON"), std::string::npos);
  EXPECT_NE(error(R"({"x":{"shape":[1e999]}})").find("not valid JSON: number overflow"), std::string::npos);
  EXPECT_EQ(error(R"({"x":)" + std::string(50'000'00, '[')), "FILE: header: JSON nested deeper than 8 levels");
  std::string deep = R"({"x":)";
  for (int i = 0; i < 100'000; ++i) deep += R"({"a":)";
  EXPECT_EQ(error(deep), "FILE: header: JSON nested deeper than 8 levels");
}

TEST_F(SafetensorsTest, NamesAreUnique) {
  const std::string x = R"({"dtype":"F32","shape":[0],"data_offsets":[0,0]})";
  EXPECT_EQ(error(R"({"x":)" + x + R"(,"y":)" + x + R"(,"x":)" + x + "}"),
            "FILE: header: the name 'x' is used twice in one object");
  EXPECT_EQ(error(R"({"x":)" + x + R"(,"\u0078":)" + x + "}"),
            "FILE: header: the name 'x' is used twice in one object");
  EXPECT_EQ(tensor_error(R"({"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]})"),
            "FILE: header: the name 'dtype' is used twice in one object");
  EXPECT_EQ(error(R"({"__metadata__":{"a":"1","a":"2"}})"), "FILE: header: the name 'a' is used twice in one object");
  EXPECT_EQ(error(R"({"__metadata__":{},"__metadata__":{}})"),
            "FILE: header: the name '__metadata__' is used twice in one object");
}

TEST_F(SafetensorsTest, MetadataMapsStringsToStrings) {
  EXPECT_EQ(error(R"({"__metadata__":[]})"), "FILE: __metadata__: expected an object, found []");
  EXPECT_EQ(error(R"({"__metadata__":null})"), "FILE: __metadata__: expected an object, found null");
  EXPECT_EQ(error(R"({"__metadata__":{"n":1}})"), "FILE: __metadata__: 'n': expected a string, found 1");
}

TEST_F(SafetensorsTest, KeysOfATensor) {
  EXPECT_EQ(tensor_error("[]"), "FILE: tensor 'x': expected an object, found []");
  EXPECT_EQ(tensor_error(R"({"shape":[4],"data_offsets":[0,16]})"),
            "FILE: tensor 'x': expected the key 'dtype', found none");
  EXPECT_EQ(tensor_error(R"({"dtype":"F32","data_offsets":[0,16]})"),
            "FILE: tensor 'x': expected the key 'shape', found none");
  EXPECT_EQ(tensor_error(R"({"dtype":"F32","shape":[4]})"),
            "FILE: tensor 'x': expected the key 'data_offsets', found none");
  EXPECT_EQ(tensor_error(R"({"dtype":"F32","shape":[4],"data_offsets":[0,16],"strides":[1]})"),
            "FILE: tensor 'x': expected only dtype, shape and data_offsets, found the key 'strides'");
}

TEST_F(SafetensorsTest, TypeShapeAndOffsets) {
  const auto with = [&](const std::string& dtype, const std::string& shape, const std::string& offsets) {
    return tensor_error(fmt::format(R"({{"dtype":{},"shape":{},"data_offsets":{}}})", dtype, shape, offsets));
  };
  const std::string f32 = R"("F32")";
  EXPECT_EQ(with(f32, "[4]", "[0,16]"), "");
  EXPECT_EQ(with(R"("FP32")", "[4]", "[0,16]"),
            "FILE: tensor 'x': expected a dtype of the safetensors format, found \"FP32\"");
  EXPECT_EQ(with("32", "[4]", "[0,16]"), "FILE: tensor 'x': expected a dtype of the safetensors format, found 32");
  EXPECT_EQ(with(f32, "4", "[0,16]"), "FILE: tensor 'x': shape: expected an array, found 4");
  for (const char* extent : {"-4", "4.0", "\"4\"", "null", "9223372036854775808", "1e3", "-0", "true"}) {
    EXPECT_TRUE(with(f32, fmt::format("[{}]", extent), "[0,16]")
                    .starts_with("FILE: tensor 'x': shape: expected integers from 0 to 9223372036854775807, found "))
        << extent;
  }
  for (const char* offsets : {"[0]", "[0,16,16]", "[0,-16]", "[0.0,16]", "16", "[\"0\",16]", "[]"}) {
    EXPECT_TRUE(with(f32, "[4]", offsets)
                    .starts_with("FILE: tensor 'x': data_offsets: expected two non-negative integers, found "))
        << offsets;
  }
  EXPECT_EQ(with(f32, "[4]", "[16,0]"), "FILE: tensor 'x': data_offsets: expected begin <= end, found [16,0]");
  EXPECT_EQ(with(f32, "[3]", "[0,16]"), "FILE: tensor 'x': F32 [3] takes 12 bytes, but data_offsets [0, 16] hold 16");
  EXPECT_EQ(with(f32, "[4294967296,4294967296]", "[0,0]"),
            "FILE: tensor 'x': the size of F32 [4294967296, 4294967296] overflows");
  EXPECT_EQ(with(f32, "[4611686018427387904]", "[0,0]"),
            "FILE: tensor 'x': the size of F32 [4611686018427387904] overflows");
  EXPECT_EQ(with(R"("F4")", "[33]", "[0,16]"), "FILE: tensor 'x': F4 [33] takes 132 bits, no whole number of bytes");
  EXPECT_EQ(with(R"("F6_E2M3")", "[2]", "[0,1]"),
            "FILE: tensor 'x': F6_E2M3 [2] takes 12 bits, no whole number of bytes");
}

TEST_F(SafetensorsTest, RangesCoverTheDataExactly) {
  const auto two = [&](int begin, int end, int begin2, int end2, size_t data_bytes) {
    return error(fmt::format(R"({{"a":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}},)"
                             R"("b":{{"dtype":"U8","shape":[{}],"data_offsets":[{},{}]}}}})",
                             end - begin, begin, end, end2 - begin2, begin2, end2),
                 data_bytes);
  };
  EXPECT_EQ(two(0, 4, 4, 8, 8), "");
  EXPECT_EQ(two(4, 8, 0, 4, 8), "");
  EXPECT_EQ(two(0, 0, 0, 8, 8), "");
  EXPECT_EQ(two(8, 8, 0, 8, 8), "");
  EXPECT_EQ(two(1, 4, 4, 8, 8),
            "FILE: tensor 'a': expected its data to begin at 0, where the data begin, found 1: a hole");
  EXPECT_EQ(two(0, 4, 5, 8, 8),
            "FILE: tensor 'b': expected its data to begin at 4, where tensor 'a' ends, found 5: a hole");
  EXPECT_EQ(two(0, 4, 3, 8, 8),
            "FILE: tensor 'b': expected its data to begin at 4, where tensor 'a' ends, found 3: an overlap");
  EXPECT_EQ(two(0, 8, 0, 8, 8),
            "FILE: tensor 'b': expected its data to begin at 8, where tensor 'a' ends, found 0: an overlap");
  EXPECT_EQ(two(0, 8, 4, 4, 8),
            "FILE: tensor 'b': expected its data to begin at 8, where tensor 'a' ends, found 4: an overlap");
  EXPECT_EQ(two(0, 4, 4, 8, 7), "FILE: tensor 'b': its data end at 8, but the file holds only 7 bytes of data");
  EXPECT_EQ(two(0, 4, 4, 8, 9), "FILE: 1 bytes of data belong to no tensor: the last one ends at 8, the file at 9");
  EXPECT_EQ(error("{}", 1), "FILE: 1 bytes of data belong to no tensor: the last one ends at 0, the file at 1");
}

TEST_F(SafetensorsTest, UnvettedNamesAreShownHarmless) {
  EXPECT_EQ(error(R"({"\u001b[31m\n":1})"), "FILE: tensor '\\x1b[31m\\x0a': expected an object, found 1");
  EXPECT_EQ(error(R"({")" + std::string(10'000, 'y') + R"(":1})"),
            "FILE: tensor '" + std::string(120, 'y') + "…': expected an object, found 1");
}

/// Half to float by the definition of binary16, in double arithmetic.
double value_of_half(unsigned half) {
  const double sign = (half & 0x8000U) != 0 ? -1 : 1;
  const int exponent = static_cast<int>(half >> 10U & 31U);
  const double mantissa = half & 1023U;
  if (exponent == 31) return mantissa == 0 ? sign * HUGE_VAL : NAN;
  return sign * (exponent == 0 ? std::ldexp(mantissa, -24) : std::ldexp(mantissa + 1024, exponent - 25));
}

TEST_F(SafetensorsTest, EveryHalfIsConvertedExactly) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  const Tensor converted = one("F16", "[65536]", bytes_of(halves)).load("x");
  for (unsigned i = 0; i < 65536; ++i) {
    const double expected = value_of_half(i);
    if (std::isnan(expected)) {
      EXPECT_TRUE(std::isnan(converted.data[i])) << i;
      continue;
    }
    ASSERT_EQ(converted.data[i], expected) << i;
    ASSERT_EQ(std::signbit(converted.data[i]), i >= 32768) << i;
  }
}

TEST_F(SafetensorsTest, EveryBfloatIsConvertedExactly) {
  std::vector<uint16_t> bfloats(65536);
  for (size_t i = 0; i < bfloats.size(); ++i) bfloats[i] = static_cast<uint16_t>(i);
  const Tensor converted = one("BF16", "[256,256]", bytes_of(bfloats)).load("x");
  for (uint32_t i = 0; i < 65536; ++i) ASSERT_EQ(std::bit_cast<uint32_t>(converted.data[i]), i << 16U) << i;
}

TEST_F(SafetensorsTest, DoublesAreRoundedToNearestEven) {
  const double inf = HUGE_VAL;
  const std::vector<double> doubles{1.0,      1 + 0x1p-24, 1 + 0x3p-24, -1 - 0x1.8p-24, 0x1p-149,
                                    0x1p-150, 1e-300,      -inf,        0x1.fffffep127};
  const std::vector<float> expected{1.0F, 1.0F, 1 + 0x1p-22F, -1 - 0x1p-23F,  0x1p-149F,
                                    0,    0,    -HUGE_VALF,   0x1.fffffep127F};
  const Tensor converted = one("F64", "[9]", bytes_of(doubles)).load("x");
  for (size_t i = 0; i < doubles.size(); ++i) EXPECT_EQ(converted.data[i], expected[i]) << i;
  EXPECT_TRUE(std::isnan(one("F64", "[1]", bytes_of<double>({NAN})).load("x").data[0]));
  const SafetensorsFile large = one("F64", "[2]", bytes_of<double>({1, -1e39}));
  EXPECT_EQ(error_of([&] { large.load("x"); }, large.path()), "FILE: tensor 'x': -1e+39 is out of float32's range");
}

TEST_F(SafetensorsTest, AlignedFloatsAreViewsThatKeepTheFile) {
  const std::vector<float> values{1, 2, 3};
  const auto path = folder_ / "view.safetensors";
  write_safetensors(path, std::vector<NamedTensor>{{"x", {3}, values.data()}});
  Tensor first;
  {
    const SafetensorsFile file(path);
    first = file.load("x");
    EXPECT_EQ(file.load("x").data.get(), first.data.get());  // the same bytes: no copy
    file.drop_pages();
  }
  std::filesystem::remove(path);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(first.data[i], values[static_cast<size_t>(i)]);
}

class Unaligned : public SafetensorsTest, public testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(Shift, Unaligned, testing::Range(0, 8));

TEST_P(Unaligned, DataMayLieAnywhere) {
  const int shift = GetParam();
  const std::string shift_text = std::to_string(shift);
  std::string header = R"({"pad":{"dtype":"U8","shape":[)" + shift_text + R"(],"data_offsets":[0,)" + shift_text + "]}";
  auto at = static_cast<uint64_t>(shift);
  std::string data(static_cast<size_t>(shift), '\xFF');
  const auto add = [&](const char* name, const std::string& bytes) {
    header +=
        fmt::format(R"(,"{0}":{{"dtype":"{0}","shape":[3],"data_offsets":[{1},{2}]}})", name, at, at + bytes.size());
    at += bytes.size();
    data += bytes;
  };
  add("F32", bytes_of<float>({1.5F, -2, 3}));
  add("F16", bytes_of<uint16_t>({0x3E00, 0xC000, 0x4200}));
  add("BF16", bytes_of<uint16_t>({0x3FC0, 0xC000, 0x4040}));
  add("F64", bytes_of<double>({1.5, -2, 3}));
  header += "}";
  header.resize((header.size() + 7) / 8 * 8, ' ');
  const SafetensorsFile file(write("u.safetensors", safetensors_bytes(header, data)));
  for (const char* name : {"F32", "F16", "BF16", "F64"}) {
    const Tensor tensor = file.load(name);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(tensor.data.get()) % alignof(float), 0U);
    EXPECT_EQ(tensor.data[0], 1.5F) << name;
    EXPECT_EQ(tensor.data[1], -2.0F) << name;
    EXPECT_EQ(tensor.data[2], 3.0F) << name;
  }
}

TEST_F(SafetensorsTest, AbsentTensor) {
  const SafetensorsFile file = one("F32", "[0]", "");
  EXPECT_EQ(error_of([&] { file.load("y"); }, file.path()), "FILE: tensor 'y': the file has no such tensor");
}

TEST_F(SafetensorsTest, WritesWhatItReads) {
  std::mt19937 random(1);
  std::vector<float> values(60);
  for (float& value : values) value = std::bit_cast<float>(static_cast<uint32_t>(random()) & 0xBFFFFFFFU);
  const std::vector<NamedTensor> tensors{{"zebra", {3, 4, 5}, values.data()},
                                         {"a\"\n/ü", {}, values.data() + 7},
                                         {"none", {2, 0}, nullptr},
                                         {"b", {1}, values.data() + 9}};
  for (const char* pad : {"", "1", "12", "123", "1234", "12345", "123456", "1234567"}) {
    const auto path = folder_ / "out.safetensors";
    write_safetensors(path, tensors, {{"made by", pad}});
    const SafetensorsFile file(path);
    EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"made by", pad}}));
    EXPECT_EQ(file.entries().size(), tensors.size());
    for (const NamedTensor& written : tensors) {
      const Tensor read = file.load(written.name);
      EXPECT_EQ(read.shape, written.shape);
      if (read.size() > 0) {
        EXPECT_EQ(std::memcmp(read.data.get(), written.data, static_cast<size_t>(read.size()) * 4), 0);
      }
    }
    EXPECT_EQ((file.file_size() - 62 * sizeof(float)) % 8, 0U);  // prefix and header
  }
}

TEST_F(SafetensorsTest, RefusesToWriteWhatCouldNotBeRead) {
  const float value = 1;
  const auto path = folder_ / "out.safetensors";
  const auto write_error = [&](const std::vector<NamedTensor>& tensors) {
    return error_of([&] { write_safetensors(path, tensors); }, path);
  };
  EXPECT_EQ(write_error({{"x", {1}, &value}, {"x", {1}, &value}}), "FILE: tensor 'x': the name is used twice");
  EXPECT_EQ(write_error({{"__metadata__", {1}, &value}}),
            "FILE: tensor '__metadata__': the name is reserved by the format");
  EXPECT_EQ(write_error({{"\xFF", {1}, &value}}), "FILE: expected names and metadata in UTF-8, found other bytes");
  EXPECT_TRUE(std::filesystem::is_empty(folder_));
}

}  // namespace
}  // namespace cpvt
