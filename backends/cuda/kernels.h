#pragma once

#include "backends/kernels.h"

// A GPU's kernels. Each declaration takes its signature from the table, where it is documented.
namespace regla::cuda {

extern const KernelTable kTable;

decltype(KernelTable::convert)::Function convert;
decltype(KernelTable::copy_rows)::Function copy_rows;
decltype(KernelTable::put_row)::Function put_row;
decltype(KernelTable::accumulate)::Function accumulate;
decltype(KernelTable::add)::Function add;
decltype(KernelTable::scale_by)::Function scale_by;
decltype(KernelTable::sum)::Function sum;
decltype(KernelTable::matmul)::Function matmul;
decltype(KernelTable::linear_backward)::Function linear_backward;
decltype(KernelTable::linear_step)::Function linear_step;
decltype(KernelTable::column_sums)::Function column_sums;
decltype(KernelTable::norm)::Function norm;
decltype(KernelTable::norm_backward)::Function norm_backward;
decltype(KernelTable::gelu)::Function gelu;
decltype(KernelTable::gelu_backward)::Function gelu_backward;
decltype(KernelTable::softmax)::Function softmax;
decltype(KernelTable::softmax_backward)::Function softmax_backward;
decltype(KernelTable::embedding)::Function embedding;
decltype(KernelTable::embedding_backward)::Function embedding_backward;
decltype(KernelTable::positions)::Function positions;
decltype(KernelTable::first_keys)::Function first_keys;
decltype(KernelTable::rope)::Function rope;
decltype(KernelTable::dropout)::Function dropout;
decltype(KernelTable::dropout_norm)::Function dropout_norm;
decltype(KernelTable::dropout_norm_backward)::Function dropout_norm_backward;
decltype(KernelTable::cross_entropy)::Function cross_entropy;
decltype(KernelTable::sigmoid)::Function sigmoid;
decltype(KernelTable::sigmoid_backward)::Function sigmoid_backward;
decltype(KernelTable::log_sigmoid)::Function log_sigmoid;
decltype(KernelTable::log_sigmoid_backward)::Function log_sigmoid_backward;
decltype(KernelTable::refined_gate)::Function refined_gate;
decltype(KernelTable::refined_gate_backward)::Function refined_gate_backward;
decltype(KernelTable::safe_exp)::Function safe_exp;
decltype(KernelTable::safe_exp_backward)::Function safe_exp_backward;
decltype(KernelTable::head_linear)::Function head_linear;
decltype(KernelTable::head_linear_backward)::Function head_linear_backward;
decltype(KernelTable::relu)::Function relu;
decltype(KernelTable::relu_backward)::Function relu_backward;
decltype(KernelTable::elu_plus_one)::Function elu_plus_one;
decltype(KernelTable::elu_plus_one_backward)::Function elu_plus_one_backward;
decltype(KernelTable::favor_exponent)::Function favor_exponent;
decltype(KernelTable::favor_exponent_backward)::Function favor_exponent_backward;
decltype(KernelTable::hedgehog)::Function hedgehog;
decltype(KernelTable::hedgehog_backward)::Function hedgehog_backward;
decltype(KernelTable::cos_sin)::Function cos_sin;
decltype(KernelTable::cos_sin_backward)::Function cos_sin_backward;
decltype(KernelTable::dpfp)::Function dpfp;
decltype(KernelTable::dpfp_backward)::Function dpfp_backward;
decltype(KernelTable::write_gate)::Function write_gate;
decltype(KernelTable::write_gate_backward)::Function write_gate_backward;
decltype(KernelTable::swish_gate)::Function swish_gate;
decltype(KernelTable::swish_gate_backward)::Function swish_gate_backward;
decltype(KernelTable::append_one)::Function append_one;
decltype(KernelTable::append_one_backward)::Function append_one_backward;
decltype(KernelTable::sum_norm)::Function sum_norm;
decltype(KernelTable::sum_norm_backward)::Function sum_norm_backward;
decltype(KernelTable::linear_attention)::Function linear_attention;
decltype(KernelTable::linear_attention_backward)::Function linear_attention_backward;
decltype(KernelTable::linear_attention_step)::Function linear_attention_step;
decltype(KernelTable::regla_step)::Function regla_step;
decltype(KernelTable::delta_rule)::Function delta_rule;
decltype(KernelTable::delta_rule_backward)::Function delta_rule_backward;
decltype(KernelTable::delta_rule_step)::Function delta_rule_step;
decltype(KernelTable::softmax_attention)::Function softmax_attention;
decltype(KernelTable::softmax_attention_backward)::Function softmax_attention_backward;
decltype(KernelTable::softmax_attention_step)::Function softmax_attention_step;
decltype(KernelTable::clip_factor)::Function clip_factor;
decltype(KernelTable::adamw)::Function adamw;
decltype(KernelTable::commit)::Function commit;
decltype(KernelTable::restart)::Function restart;
decltype(KernelTable::penalise)::Function penalise;
decltype(KernelTable::sample)::Function sample;
decltype(KernelTable::sums_of_squares)::Function sums_of_squares;
decltype(KernelTable::is_finite)::Function is_finite;
decltype(KernelTable::distillation)::Function distillation;
decltype(KernelTable::relative_error)::Function relative_error;
decltype(KernelTable::relative_error_backward)::Function relative_error_backward;

}  // namespace regla::cuda
