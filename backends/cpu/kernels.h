#pragma once

#include "backends/kernels.h"

// The CPU's kernels. Each declaration takes its signature from the table, where it is documented.
namespace regla::cpu {

decltype(KernelTable::accumulate)::Function accumulate;
decltype(KernelTable::add)::Function add;
decltype(KernelTable::matmul)::Function matmul;
decltype(KernelTable::column_sums)::Function column_sums;
decltype(KernelTable::norm)::Function norm;
decltype(KernelTable::norm_backward)::Function norm_backward;
decltype(KernelTable::gelu)::Function gelu;
decltype(KernelTable::gelu_backward)::Function gelu_backward;
decltype(KernelTable::softmax)::Function softmax;
decltype(KernelTable::softmax_backward)::Function softmax_backward;
decltype(KernelTable::embedding)::Function embedding;
decltype(KernelTable::embedding_backward)::Function embedding_backward;
decltype(KernelTable::rope)::Function rope;
decltype(KernelTable::dropout)::Function dropout;
decltype(KernelTable::cross_entropy)::Function cross_entropy;
decltype(KernelTable::log_sigmoid)::Function log_sigmoid;
decltype(KernelTable::log_sigmoid_backward)::Function log_sigmoid_backward;
decltype(KernelTable::refined_gate)::Function refined_gate;
decltype(KernelTable::refined_gate_backward)::Function refined_gate_backward;
decltype(KernelTable::safe_exp)::Function safe_exp;
decltype(KernelTable::safe_exp_backward)::Function safe_exp_backward;
decltype(KernelTable::linear_attention)::Function linear_attention;
decltype(KernelTable::linear_attention_backward)::Function linear_attention_backward;
decltype(KernelTable::linear_attention_step)::Function linear_attention_step;
decltype(KernelTable::softmax_attention)::Function softmax_attention;
decltype(KernelTable::softmax_attention_backward)::Function softmax_attention_backward;
decltype(KernelTable::adamw)::Function adamw;
decltype(KernelTable::sum_of_squares)::Function sum_of_squares;
decltype(KernelTable::is_finite)::Function is_finite;

}  // namespace regla::cpu
