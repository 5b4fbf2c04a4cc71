#include "backends/cpu/kernels.h"

namespace regla::cpu {

constinit const KernelTable kTable = {
    .backend = "cpu",
    .accumulate = accumulate,
    .add = add,
    .matmul = matmul,
    .column_sums = column_sums,
    .norm = norm,
    .norm_backward = norm_backward,
    .gelu = gelu,
    .gelu_backward = gelu_backward,
    .softmax = softmax,
    .softmax_backward = softmax_backward,
    .embedding = embedding,
    .embedding_backward = embedding_backward,
    .rope = rope,
    .dropout = dropout,
    .cross_entropy = cross_entropy,
    .log_sigmoid = log_sigmoid,
    .log_sigmoid_backward = log_sigmoid_backward,
    .refined_gate = refined_gate,
    .refined_gate_backward = refined_gate_backward,
    .safe_exp = safe_exp,
    .safe_exp_backward = safe_exp_backward,
    .linear_attention = linear_attention,
    .linear_attention_backward = linear_attention_backward,
    .linear_attention_step = linear_attention_step,
    .softmax_attention = softmax_attention,
    .softmax_attention_backward = softmax_attention_backward,
    .adamw = adamw,
    .sum_of_squares = sum_of_squares,
    .is_finite = is_finite,
};

}  // namespace regla::cpu
