#pragma once

#include <cstdint>
#include <string_view>

namespace ptxsim::ptx {

struct Token {
  enum class Kind : uint8_t {
    kEnd,
    kIdentifier,   // add, %r1, $L__BB0_1, _
    kDot,          // a directive, type or modifier: text without its dot; "shared::cta" is one token
    kInteger,      // bits
    kFloat,        // bits of an f32 (0f…) when bits_wide is 32, else of an f64
    kString,       // text without its quotes
    kPunctuation,  // one character
  };
  Kind kind = Kind::kEnd;
  uint8_t bits_wide = 0;
  uint32_t line = 1;
  uint64_t bits = 0;
  std::string_view text;

  bool is(char punctuation) const { return kind == Kind::kPunctuation && text[0] == punctuation; }
  bool dot(std::string_view name) const { return kind == Kind::kDot && text == name; }
};

/// Cuts a PTX text into tokens, which point into it. Throws Error for what is no token.
class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) {}

  Token next();
  /// Skips "{ … }" without reading it: debug sections have a grammar of their own.
  void skip_block();

 private:
  bool at_end() const { return position_ >= text_.size(); }
  char peek(size_t ahead = 0) const { return position_ + ahead < text_.size() ? text_[position_ + ahead] : '\0'; }
  void skip_blank();
  void skip_name();
  Token number(Token token);
  Token string(Token token);

  std::string_view text_;
  size_t position_ = 0;
  uint32_t line_ = 1;
};

}  // namespace ptxsim::ptx
