#include "models/decoder.h"
#include "text/byte_tokenizer.h"
int main() {
  regla::Decoder decoder({.layers = 1, .hidden = 32, .heads = 2, .vocab = 384}, /*seed=*/0);
  const auto ids = regla::byte_tokenizer()->encode("regla");
  return decoder.hidden(regla::Tensor::of({1, 5}, ids)).dim(2) == 32 ? 0 : 1;
}
