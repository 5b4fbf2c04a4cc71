#pragma once

#include "models/decoder.h"

namespace regla::test {

inline Tensor column(const Tensor& ids, int64_t t) {
  Tensor token = Tensor::empty({ids.dim(0)}, DType::I32);
  for (int64_t b = 0; b < ids.dim(0); ++b) {
    token.data<int32_t>()[b] = ids.data<int32_t>()[b * ids.dim(1) + t];
  }
  return token;
}

/// Logits [T, B, vocab] of one token at a time.
template <class F>
Tensor token_by_token(const Decoder& decoder, const Tensor& ids, F&& logits_of) {
  const int64_t B = ids.dim(0), T = ids.dim(1), vocab = decoder.config().vocab;
  Tensor all = Tensor::empty({B, T, vocab}, decoder.dtype());
  for (int64_t t = 0; t < T; ++t) {
    const Tensor logits = logits_of(column(ids, t));
    for (int64_t b = 0; b < B; ++b) {
      all.slice(b, b + 1)
          .reshape({T, vocab})
          .slice(t, t + 1)
          .copy_from(logits.reshape({B, vocab}).slice(b, b + 1));
    }
  }
  return all;
}

}  // namespace regla::test
