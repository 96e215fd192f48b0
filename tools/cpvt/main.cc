#include <cstdio>

int main() {
  std::fputs("cpvt: no command yet\n", stderr);
  return 2;
}
