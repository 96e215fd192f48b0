#include "tools/ptxsim/ptx/lexer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <charconv>
#include <system_error>

#include "tools/ptxsim/error.h"

namespace ptxsim::ptx {
namespace {

constexpr uint8_t kNameStart = 1, kName = 2, kDigit = 4;

constexpr std::array<uint8_t, 256> kClasses = [] {
  std::array<uint8_t, 256> classes{};
  for (int c = 'a'; c <= 'z'; c++) classes[c] = classes[c - 'a' + 'A'] = kNameStart | kName;
  for (int c = '0'; c <= '9'; c++) classes[c] = kName | kDigit;
  classes['_'] = classes['$'] = kNameStart | kName;
  return classes;
}();

bool is(char c, uint8_t what) { return (kClasses[static_cast<uint8_t>(c)] & what) != 0; }

}  // namespace

void Lexer::skip_blank() {
  while (!at_end()) {
    const char c = peek();
    if (c == '\n') {
      line_++;
      position_++;
    } else if (c == ' ' || c == '\t' || c == '\r' || c == '\f' || c == '\v') {
      position_++;
    } else if (c == '/' && peek(1) == '/') {
      position_ = std::min(text_.find('\n', position_), text_.size());
    } else if (c == '/' && peek(1) == '*') {
      const size_t end = text_.find("*/", position_ + 2);
      if (end == std::string_view::npos) throw Error("ptx line {}: a comment has no end", line_);
      line_ += static_cast<uint32_t>(std::count(text_.begin() + position_, text_.begin() + end, '\n'));
      position_ = end + 2;
    } else {
      return;
    }
  }
}

void Lexer::skip_name() {
  while (is(peek(), kName)) position_++;
}

Token Lexer::next() {
  skip_blank();
  Token token;
  token.line = line_;
  if (at_end()) return token;
  const size_t start = position_;
  const char c = peek();
  if (is(c, kDigit) || (c == '.' && is(peek(1), kDigit) && (start == 0 || !is(text_[start - 1], kName)))) {
    return number(token);
  }
  if (c == '"') return string(token);
  position_++;
  if (c == '.' && is(peek(), kName)) {
    skip_name();
    while (peek() == ':' && peek(1) == ':' && is(peek(2), kName)) {
      position_ += 2;
      skip_name();
    }
    token.kind = Token::Kind::kDot;
    token.text = text_.substr(start + 1, position_ - start - 1);
    return token;
  }
  if (is(c, kNameStart) || (c == '%' && is(peek(), kName))) {
    skip_name();
    token.kind = Token::Kind::kIdentifier;
    token.text = text_.substr(start, position_ - start);
    return token;
  }
  token.text = text_.substr(start, 1);
  token.kind = Token::Kind::kPunctuation;
  if (std::string_view("{}[]()<>,;:@!|&^~+-*/=").find(c) == std::string_view::npos) {
    throw Error("ptx line {}: no token starts with the character 0x{:02x}", line_, static_cast<uint8_t>(c));
  }
  return token;
}

Token Lexer::number(Token token) {
  const size_t start = position_;
  skip_name();
  const auto marked = [&](char low) { return text_[start] == '0' && (text_[start + 1] | 0x20) == low; };
  const bool exact_float = position_ - start > 2 && (marked('f') || marked('d'));
  const bool hexadecimal = position_ - start > 2 && marked('x');
  bool decimal_float = false;
  if (!exact_float && !hexadecimal) {
    if (peek() == '.') {
      decimal_float = true;
      position_++;
      skip_name();
    }
    // An exponent in the digits before or after the point; its sign ends what skip_name takes.
    const std::string_view so_far = text_.substr(start, position_ - start);
    if (so_far.find_first_of("eE") != std::string_view::npos) {
      decimal_float = true;
      if ((so_far.back() | 0x20) == 'e' && (peek() == '+' || peek() == '-')) {
        position_++;
        skip_name();
      }
    }
  }
  token.text = text_.substr(start, position_ - start);
  std::string_view digits = token.text;
  std::from_chars_result result{};
  const auto end = [&] { return digits.data() + digits.size(); };
  if (decimal_float) {
    double value = 0;
    result = std::from_chars(digits.data(), end(), value);
    token.kind = Token::Kind::kFloat;
    token.bits_wide = 64;
    token.bits = std::bit_cast<uint64_t>(value);
  } else {
    int base = 10;
    token.kind = Token::Kind::kInteger;
    if (exact_float) {
      base = 16;
      token.kind = Token::Kind::kFloat;
      token.bits_wide = marked('f') ? 32 : 64;
      digits.remove_prefix(2);
      if (digits.size() != token.bits_wide / 4U) {
        throw Error("ptx line {}: '{}' needs {} hexadecimal digits", line_, token.text, token.bits_wide / 4);
      }
    } else {
      if (digits.back() == 'U') digits.remove_suffix(1);
      if (hexadecimal) {
        base = 16;
        digits.remove_prefix(2);
      } else if (digits.size() > 2 && marked('b')) {
        base = 2;
        digits.remove_prefix(2);
      } else if (digits.size() > 1 && digits[0] == '0') {
        base = 8;
      }
    }
    result = std::from_chars(digits.data(), end(), token.bits, base);
  }
  if (result.ec == std::errc::result_out_of_range) throw Error("ptx line {}: '{}' is out of range", line_, token.text);
  if (result.ec != std::errc() || result.ptr != end()) throw Error("ptx line {}: '{}' is no number", line_, token.text);
  return token;
}

Token Lexer::string(Token token) {
  const size_t start = ++position_;
  while (peek() != '"') {
    if (at_end() || peek() == '\n') throw Error("ptx line {}: a string has no end", line_);
    position_ += peek() == '\\' && peek(1) != '\n' ? 2 : 1;
  }
  token.kind = Token::Kind::kString;
  token.text = text_.substr(start, position_ - start);
  position_++;
  return token;
}

void Lexer::skip_block() {
  skip_blank();
  if (peek() != '{') throw Error("ptx line {}: expected '{{'", line_);
  const size_t end = text_.find('}', position_);
  if (end == std::string_view::npos) throw Error("ptx line {}: a block has no end", line_);
  line_ += static_cast<uint32_t>(std::count(text_.begin() + position_, text_.begin() + end, '\n'));
  position_ = end + 1;
}

}  // namespace ptxsim::ptx
